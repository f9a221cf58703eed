package scripts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/config"
	"github.com/meshtalk/meshtalk/server"
)

func content(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// unit reads deploy/meshtalk.service: section and key to its values.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	section := ""
	for i, line := range strings.Split(content(t, "../deploy/meshtalk.service"), "\n") {
		key, value, assigned := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		case !assigned || section == "" || !regexp.MustCompile(`^[A-Z][A-Za-z]+$`).MatchString(key) || strings.TrimSpace(value) != value:
			t.Fatalf("line %d is none of a unit: %q", i+1, line)
		default:
			found[section+"."+key] = append(found[section+"."+key], value)
		}
	}
	return found
}

func TestUnit(t *testing.T) {
	u := unit(t)
	for key, want := range map[string]string{
		"Service.Type": "exec", "Service.KillSignal": "SIGTERM", "Service.Restart": "on-failure", "Service.DynamicUser": "yes",
		"Service.StateDirectory": "meshtalk", "Service.ExecReload": "/bin/kill -HUP $MAINPID", "Service.NoNewPrivileges": "yes",
		"Service.ProtectSystem": "strict", "Service.ProtectHome": "yes", "Service.PrivateTmp": "yes", "Service.PrivateDevices": "yes",
		"Service.ProtectKernelTunables": "yes", "Service.ProtectKernelModules": "yes", "Service.ProtectKernelLogs": "yes",
		"Service.ProtectControlGroups": "yes", "Service.RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
		"Service.RestrictNamespaces": "yes", "Service.MemoryDenyWriteExecute": "yes", "Service.CapabilityBoundingSet": "",
		"Service.OOMScoreAdjust": "-500", "Install.WantedBy": "multi-user.target",
	} {
		if got := u[key]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if got := u["Service.SystemCallFilter"]; !slices.Equal(got, []string{"@system-service", "~@privileged"}) {
		t.Error(got)
	}
	// A crash of a Go program ends with 2 as a wrong configuration does, and must be restarted.
	if got := u["Service.RestartPreventExitStatus"]; got != nil {
		t.Error(got)
	}
}

// The stop must have the time that the server takes for it, and the limit of files be enough for what the comment says.
func TestUnitFitsTheServer(t *testing.T) {
	u := unit(t)
	seconds, err := strconv.Atoi(strings.Join(u["Service.TimeoutStopSec"], " "))
	if err != nil || time.Duration(seconds)*time.Second < server.DefaultOptions().ShutdownTimeout+5*time.Second {
		t.Error(u["Service.TimeoutStopSec"], err)
	}
	files, err := strconv.Atoi(strings.Join(u["Service.LimitNOFILE"], " "))
	if err != nil || files > 1<<20 { // fs.nr_open of a kernel as it comes: above it the unit does not start
		t.Error(u["Service.LimitNOFILE"], err)
	}
	h := newHost(t, nil)
	h.write("etc/systemd/system/meshtalk.service", content(t, "../deploy/meshtalk.service"))
	h.tune(0, "apply", "--connections", "1048064")
	h.tune(1, "check", "--connections", "1048065")

	words := strings.Fields(strings.Join(u["Service.ExecStart"], " "))
	if len(words) < 2 || words[0] != "/usr/bin/meshtalk" || words[1] != "serve" {
		t.Fatal(words)
	}
	at := slices.Index(words, "--data-dir")
	if at < 0 || filepath.Dir(words[at+1]) != "/var/lib/"+u["Service.StateDirectory"][0] {
		t.Error("the data directory is not right below the state directory, where backups go:", words)
	}
	if !slices.Contains(words, "/etc/meshtalk/meshtalk.yaml") {
		t.Error(words)
	}
}

// Where systemd is installed it reads the unit too, unknown keys included.
func TestUnitVerified(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("no systemd-analyze here; TestUnit has read it")
		return
	}
	there := strings.Replace(content(t, "../deploy/meshtalk.service"), "ExecStart=/usr/bin/meshtalk", "ExecStart=/bin/sh", 1)
	name := filepath.Join(t.TempDir(), "meshtalk.service")
	if err := os.WriteFile(name, []byte(there), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", name).CombinedOutput()
	if err != nil || strings.Contains(string(out), name) || strings.Contains(string(out), "meshtalk.service") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestExampleConfiguration(t *testing.T) {
	const name = "../deploy/meshtalk.yaml"
	c, err := config.Load(config.Sources{File: name})
	if err != nil {
		t.Fatal(err)
	}
	if w := c.Warning(); w != "" {
		t.Error(w)
	}
	// What it sets are the defaults, but for the place of the data.
	o, d := c.Options, server.DefaultOptions()
	if o.Limits != d.Limits || o.HeartbeatTimeout != d.HeartbeatTimeout || o.Admin != d.Admin || o.Message != d.Message || o.ShutdownTimeout != d.ShutdownTimeout {
		t.Errorf("%+v", o)
	}
	if o.DataDir != "/var/lib/meshtalk/data" {
		t.Error(o.DataDir)
	}
	// The examples that are commented out are accepted too.
	example := regexp.MustCompile(`(?m)^( *)#(allowed-origins|auth\.jwt|  [a-z-]+: )`).ReplaceAllString(content(t, name), "$1$2")
	all := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(all, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err = config.Load(config.Sources{File: all}); err != nil || c.Options.JWT.Audience != "chat" || len(c.Options.WebSocket.AllowedOrigins) != 1 {
		t.Errorf("%v\n%s", err, example)
	}
}

// docs/tuning.md has every setting of the script, with the same number of connections.
func TestDocument(t *testing.T) {
	table := regexp.MustCompile("(?m)^\\| `([a-z0-9_.-]+)` \\| ([0-9,]+) \\|").FindAllStringSubmatch(content(t, "../docs/tuning.md"), -1)
	told := map[string]string{}
	for _, m := range table {
		told[m[1]] = m[2]
	}
	set := regexp.MustCompile(`(?m)^  setting ([a-z0-9_.-]+) .*\\\n    'from ([0-9,]+) connections`).FindAllStringSubmatch(content(t, script), -1)
	if len(set) != len(distribution()) || len(told) != len(set) {
		t.Errorf("%d settings in the script, %d in the document, %d in these tests", len(set), len(told), len(distribution()))
	}
	for _, m := range set {
		if told[m[1]] != m[2] {
			t.Errorf("%s: from %s in the script, %q in the document", m[1], m[2], told[m[1]])
		}
	}
}

// Where shellcheck is installed it finds nothing; bash itself reads the scripts everywhere.
func TestShellcheck(t *testing.T) {
	for _, script := range []string{script, "./services.sh", "./million.sh"} {
		if out, err := exec.Command("bash", "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
		if name, err := exec.LookPath("shellcheck"); err == nil {
			if out, err := exec.Command(name, script).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", script, err, out)
			}
		}
	}
}
