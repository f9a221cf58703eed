package scripts_test

import (
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/meshtalk/meshtalk/config"
	"github.com/meshtalk/meshtalk/server"
)

// compose is what these tests look at of a compose file.
type compose struct {
	Name     string
	Services map[string]service
	Volumes  map[string]any
	Configs  map[string]any
}

type service struct {
	Image           string
	Build           struct{ Context, Dockerfile string }
	Environment     map[string]string
	Volumes         []string
	Ports           []string
	StopGracePeriod string                                `yaml:"stop_grace_period"`
	ReadOnly        bool                                  `yaml:"read_only"`
	CapDrop         []string                              `yaml:"cap_drop"`
	DependsOn       map[string]struct{ Condition string } `yaml:"depends_on"`
	Healthcheck     map[string]any
	Configs         []struct{ Source string }
}

// given are the variables that the compose files ask for.
var given = map[string]string{
	"MESHTALK_AUTH_JWT_SECRET": strings.Repeat("0123456789abcdef", 2), "MESHTALK_ADMIN_TOKEN": "token", "POSTGRES_PASSWORD": "password",
}

// readCompose reads a compose file with the variables given. One that has no default and is not given fails the test.
func readCompose(t *testing.T, name string) compose {
	t.Helper()
	var c compose
	if err := yaml.Unmarshal([]byte(content(t, name)), &c); err != nil {
		t.Fatal(err)
	}
	variable := regexp.MustCompile(`\$\{([A-Z_]+)(:[-?])?([^}]*)\}`)
	fill := func(text string) string {
		return variable.ReplaceAllStringFunc(text, func(found string) string {
			m := variable.FindStringSubmatch(found)
			value, is := given[m[1]]
			switch {
			case is:
			case m[2] == ":-":
				value = m[3]
			default:
				t.Errorf("%s: %s has no default and these tests do not know it", name, m[1])
			}
			return value
		})
	}
	for n, s := range c.Services {
		s.Image = fill(s.Image)
		for key, value := range s.Environment {
			s.Environment[key] = fill(value)
		}
		c.Services[n] = s
	}
	return c
}

// nodes are the services that are built here, with their configuration.
func (c compose) nodes(t *testing.T) map[string]*config.Config {
	t.Helper()
	_, variables := dockerfile(t)
	nodes := map[string]*config.Config{}
	for name, s := range c.Services {
		if s.Build.Dockerfile == "" {
			continue
		}
		environ := slices.Clone(variables)
		for key, value := range s.Environment {
			environ = append(environ, key+"="+value)
		}
		loaded, err := config.Load(config.Sources{Environ: environ})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		nodes[name] = loaded
	}
	return nodes
}

// check is what holds for every compose file here.
func (c compose) check(t *testing.T) {
	t.Helper()
	pinned := regexp.MustCompile(`^[a-z/]+:\d+\.\d+(\.\d+)?$`)
	for name, s := range c.Services {
		if s.Build.Dockerfile == "" && !pinned.MatchString(s.Image) {
			t.Errorf("%s: the image %q has no version", name, s.Image)
		}
		for _, v := range s.Volumes {
			source, target, ok := strings.Cut(v, ":")
			if _, declared := c.Volumes[source]; !ok || !declared || !path.IsAbs(target) {
				t.Errorf("%s: volume %q", name, v)
			}
		}
		for other, d := range s.DependsOn {
			needed, is := c.Services[other]
			if !is || d.Condition == "service_healthy" && needed.Healthcheck == nil {
				t.Errorf("%s depends on %s, %s", name, other, d.Condition)
			}
		}
		for _, source := range s.Configs {
			if _, is := c.Configs[source.Source]; !is {
				t.Errorf("%s: no config %q", name, source.Source)
			}
		}
	}
	for name, loaded := range c.nodes(t) {
		c.checkNode(t, name, loaded.Options)
	}
}

func (c compose) checkNode(t *testing.T, name string, o server.Options) {
	t.Helper()
	s := c.Services[name]
	if grace, err := time.ParseDuration(s.StopGracePeriod); err != nil || grace < o.ShutdownTimeout+5*time.Second {
		t.Errorf("%s: %s for a stop of %s", name, s.StopGracePeriod, o.ShutdownTimeout)
	}
	if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) {
		t.Errorf("%s may do more than it needs", name)
	}
	if _, err := os.Stat(filepath.Join("../deploy", s.Build.Context, s.Build.Dockerfile)); err != nil {
		t.Error(err)
	}
	// The data directory stands below the volume, beside which a backup would be lost.
	if len(s.Volumes) != 1 || !strings.HasSuffix(s.Volumes[0], ":"+path.Dir(o.DataDir)) {
		t.Errorf("%s: volumes %v, data in %s", name, s.Volumes, o.DataDir)
	}
	inside := map[int]bool{}
	for _, p := range s.Ports {
		host, port, _ := strings.Cut(strings.TrimPrefix(p, "127.0.0.1:"), ":")
		n, err := strconv.Atoi(port)
		if _, e := strconv.Atoi(host); err != nil || e != nil {
			t.Errorf("%s: port %q", name, p)
		}
		inside[n] = true
		if (n == o.Admin.Port) != strings.HasPrefix(p, "127.0.0.1:") {
			t.Errorf("%s: port %q: the admin port, and no other, is for this machine alone", name, p)
		}
	}
	if !inside[o.WebSocket.Port] || !inside[o.TCP.Port] || inside[o.Admin.Port] && o.Admin.Host != "0.0.0.0" {
		t.Errorf("%s: ports %v", name, s.Ports)
	}
}

func TestComposeOfOneNode(t *testing.T) {
	c := readCompose(t, "../deploy/compose.yaml")
	c.check(t)
	nodes := c.nodes(t)
	if len(c.Services) != 1 || len(nodes) != 1 {
		t.Fatalf("%d services, %d nodes", len(c.Services), len(nodes))
	}
	for _, loaded := range nodes {
		o := loaded.Options
		if o.Cluster.Enable || o.Postgres.URL != "" || o.RocketMQ.NameServer != "" || o.Demo.Enable {
			t.Errorf("%+v", o)
		}
	}
}

func TestComposeOfACluster(t *testing.T) {
	c := readCompose(t, "../deploy/compose.cluster.yaml")
	c.check(t)
	nodes := c.nodes(t)
	if len(nodes) != 3 {
		t.Errorf("%d nodes", len(nodes))
	}
	ids := map[string]bool{}
	for name, loaded := range nodes {
		o := loaded.Options
		ids[o.Cluster.NodeID] = true
		if !o.Cluster.Enable || o.Cluster.Advertise != name+":"+strconv.Itoa(o.Admin.Port) {
			t.Errorf("%s: %+v", name, o.Cluster)
		}
		u, err := url.Parse(o.Postgres.URL)
		if err != nil {
			t.Fatal(err)
		}
		namesrv, _, _ := strings.Cut(o.RocketMQ.NameServer, ":")
		for _, other := range []string{u.Hostname(), o.Redis.Host, namesrv} {
			if _, is := c.Services[other]; !is {
				t.Errorf("%s: no service %q", name, other)
			}
		}
		e := c.Services[u.Hostname()].Environment
		if password, _ := u.User.Password(); e["POSTGRES_USER"] != u.User.Username() || e["POSTGRES_PASSWORD"] != password || "/"+e["POSTGRES_DB"] != u.Path {
			t.Errorf("%s: %s, and the database has %v", name, o.Postgres.URL, e)
		}
	}
	if len(ids) != len(nodes) {
		t.Errorf("%d names for %d nodes", len(ids), len(nodes))
	}
}

// dockerfile is deploy/Dockerfile: its instructions, long lines joined, and the variables that the image sets.
func dockerfile(t *testing.T) (instructions [][2]string, variables []string) {
	t.Helper()
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(content(t, "../deploy/Dockerfile"), "")
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\\\n", ""), "\n") {
		if name, rest, ok := strings.Cut(line, " "); ok {
			instructions = append(instructions, [2]string{name, strings.TrimSpace(rest)})
			if name == "ENV" {
				variables = append(variables, strings.Fields(rest)...)
			}
		}
	}
	return instructions, variables
}

// instruction is the only one of this name that fits, without what came before pattern's first group.
func instruction(t *testing.T, name, pattern string) string {
	t.Helper()
	all, _ := dockerfile(t)
	var found []string
	for _, i := range all {
		if m := regexp.MustCompile(pattern).FindStringSubmatch(i[1]); i[0] == name && m != nil {
			found = append(found, m[1])
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d instructions %s that fit %s: %q", len(found), name, pattern, found)
	}
	return found[0]
}

func TestDockerfile(t *testing.T) {
	_, variables := dockerfile(t)
	c, err := config.Load(config.Sources{Environ: variables})
	if err != nil {
		t.Fatal(err)
	}
	o := c.Options
	if volume := instruction(t, "VOLUME", "(.*)"); volume != path.Dir(o.DataDir) {
		t.Errorf("volume %s, data in %s", volume, o.DataDir)
	}
	instruction(t, "COPY", `^--from=build --chown=65532:65532 (/state `+path.Dir(o.DataDir)+`)$`)
	if user := instruction(t, "USER", `^([0-9:]+)$`); user != "65532:65532" {
		t.Error(user)
	}
	if ports := instruction(t, "EXPOSE", "(.*)"); ports != strings.Join([]string{
		strconv.Itoa(o.WebSocket.Port), strconv.Itoa(o.TCP.Port), strconv.Itoa(o.Admin.Port),
	}, " ") {
		t.Error(ports)
	}
	// The compiler is one that go.mod takes, named to the patch.
	version := instruction(t, "FROM", `^golang:(\d+\.\d+)\.\d+-bookworm AS build$`)
	if want := regexp.MustCompile(`(?m)^go (\d+\.\d+)\.`).FindStringSubmatch(content(t, "../go.mod")); version != want[1] {
		t.Errorf("golang:%s, go.mod has %v", version, want)
	}
}

// The step that builds, on the files that it gets to see, and what the image runs.
func TestDockerfileBuilds(t *testing.T) {
	step := instruction(t, "RUN", `^(.*go build.*)$`)
	tree, program := t.TempDir(), filepath.Join(t.TempDir(), "meshtalk")
	copyContext(t, tree)
	build := exec.Command("sh", "-ec", strings.Replace(step, "-o /meshtalk", "-o '"+program+"'", 1))
	build.Dir = tree
	build.Env = append(os.Environ(), "VERSION=v1.2.3", "COMMIT=0123456789ab")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v\n%s", step, err, out)
	}
	if out, err := exec.Command(program, "version").Output(); err != nil || !strings.HasPrefix(string(out), "meshtalk v1.2.3 (commit 0123456789ab, go1.") {
		t.Errorf("%s%v", out, err)
	}
	health := instruction(t, "HEALTHCHECK", `CMD \["/meshtalk", "([a-z]+)"\]$`)
	for _, command := range []string{health, instruction(t, "CMD", `^\["([a-z]+)"\]$`)} {
		if out, err := exec.Command(program, command, "--help").CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}

// copyContext copies the files of the repository that .dockerignore leaves.
func copyContext(t *testing.T, to string) {
	t.Helper()
	var ignored []string
	for line := range strings.SplitSeq(content(t, "../.dockerignore"), "\n") {
		if line != "" && line[0] != '#' {
			ignored = append(ignored, line+"/")
		}
	}
	list := exec.Command("git", "ls-files", "-co", "--exclude-standard")
	list.Dir = ".."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n") {
		if slices.ContainsFunc(ignored, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", name))
		if os.IsNotExist(err) { // removed, and not committed yet
			continue
		}
		if err == nil {
			err = os.MkdirAll(filepath.Join(to, filepath.Dir(name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
