// Package scripts_test tests the scripts of this folder and what stands in deploy/. Nothing here changes the host: the
// tests work on folders that look like one, or in namespaces of their own.
package scripts_test

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	script     = "./tune-host.sh"
	sysctlFile = "etc/sysctl.d/99-meshtalk.conf"
	limitsFile = "etc/security/limits.d/99-meshtalk.conf"
	savedFile  = "var/lib/meshtalk-host/tune-host.saved"
)

// distribution are the settings of a host with 4 GiB as it is installed, conntrack loaded.
func distribution() map[string]string {
	return map[string]string{
		"fs.nr_open": "1048576", "fs.file-max": "9223372036854775807",
		"net.core.somaxconn": "4096", "net.ipv4.tcp_max_syn_backlog": "512", "net.core.netdev_max_backlog": "1000",
		"net.ipv4.ip_local_port_range": "32768\t60999", "net.ipv4.tcp_mem": "46338\t61785\t92676",
		"net.ipv4.tcp_rmem": "4096\t131072\t6291456", "net.ipv4.tcp_wmem": "4096\t16384\t4194304",
		"net.ipv4.tcp_notsent_lowat": "4294967295", "net.ipv4.tcp_keepalive_time": "7200",
		"net.ipv4.tcp_keepalive_intvl": "75", "net.ipv4.tcp_keepalive_probes": "9",
		"net.netfilter.nf_conntrack_max": "65536",
	}
}

// host is a folder that looks like a host.
type host struct {
	t    *testing.T
	root string
}

func newHost(t *testing.T, settings map[string]string) *host {
	t.Helper()
	h := &host{t, t.TempDir()}
	for key, value := range settings {
		h.write(h.path(key), value+"\n")
	}
	return h
}

func (h *host) path(key string) string { return "proc/sys/" + strings.ReplaceAll(key, ".", "/") }

func (h *host) write(name, text string) {
	h.t.Helper()
	name = filepath.Join(h.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) read(name string) string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.root, name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

// set and get are a setting, with single blanks.
func (h *host) set(key, value string) { h.t.Helper(); h.write(h.path(key), value+"\n") }
func (h *host) get(key string) string {
	h.t.Helper()
	return strings.Join(strings.Fields(h.read(h.path(key))), " ")
}

// files is everything below root, blanks in settings made alike.
func (h *host) files() map[string]string {
	h.t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(os.DirFS(h.root), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir():
			return err
		case strings.HasPrefix(name, "proc/"):
			all[name] = strings.Join(strings.Fields(h.read(name)), " ")
		default:
			all[name] = h.read(name)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

// tune runs the script on the folder and wants its exit code. It returns both outputs.
func (h *host) tune(code int, arguments ...string) (out, problems string) {
	h.t.Helper()
	return run(h.t, code, append(arguments, "--root", h.root)...)
}

func run(t *testing.T, code int, arguments ...string) (out, problems string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(script, arguments...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("%v: exit code %d, want %d\n%s%s", arguments, got, code, stdout.String(), stderr.String())
	}
	return stdout.String(), stderr.String()
}

// row is a line of the table of `check`.
type row struct{ is, wants, why string }

// rows reads that table. Columns are two blanks apart or more.
func rows(t *testing.T, out string) map[string]row {
	t.Helper()
	found := map[string]row{}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, line := range lines {
		columns := regexp.MustCompile(` {2,}`).Split(line, 4)
		if len(columns) == 4 && i > 0 {
			found[columns[0]] = row{columns[1], columns[2], columns[3]}
		}
	}
	if _, titled := found["setting"]; titled != (len(found) > 0) {
		t.Fatalf("no table:\n%s", out)
	}
	delete(found, "setting")
	return found
}

// changes are the settings in force that differ between two looks at a host.
func changes(before, after map[string]string) map[string]string {
	differ := map[string]string{}
	for name, value := range after {
		if strings.HasPrefix(name, "proc/") && before[name] != value {
			differ[strings.ReplaceAll(strings.TrimPrefix(name, "proc/sys/"), "/", ".")] = value
		}
	}
	return differ
}

// wantSame fails where two looks at a host differ.
func wantSame(t *testing.T, what string, before, after map[string]string) {
	t.Helper()
	if maps.Equal(before, after) {
		return
	}
	for name := range before {
		if _, there := after[name]; !there {
			t.Errorf("%s: %s is gone", what, name)
		}
	}
	for name, text := range after {
		if was, there := before[name]; !there || was != text {
			t.Errorf("%s: %s was %q, is %q", what, name, was, text)
		}
	}
}
