package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/server"
)

const good = "S0me-Random-Value_of-43-characters-0123456789"

// file writes a configuration file.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "m.yml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// load reads sources that must be right: a file's text ("" = none), variables and flags as key=value.
func load(t *testing.T, text string, env []string, flags ...string) *Config {
	t.Helper()
	c, err := try(t, text, env, flags...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func try(t *testing.T, text string, env []string, flags ...string) (*Config, error) {
	t.Helper()
	src := Sources{Environ: env}
	if text != "" {
		src.File = file(t, text)
	}
	for _, f := range flags {
		name, value, _ := strings.Cut(f, "=")
		src.Flags = append(src.Flags, Flag{Name: name, Value: value})
	}
	return Load(src)
}

// Without any source the options are the server's defaults.
func TestDefaults(t *testing.T) {
	c := load(t, "", nil)
	want := server.DefaultOptions()
	want.Redis.Port = 6379
	want.Cluster.NodeID, _ = os.Hostname()
	if !reflect.DeepEqual(c.Options, want) {
		t.Errorf("got %+v\nwant %+v", c.Options, want)
	}
	if c.LogLevel != "info" || c.LogFormat != "text" {
		t.Errorf("log: %q, %q", c.LogLevel, c.LogFormat)
	}
}

func TestPrecedence(t *testing.T) {
	text := "websocket:\n  port: 1001\ntcpsocket.port: 1002\nadmin: {port: 1003}\nlimits:\n  connections: 1004\n"
	env := []string{"PATH=/bin", "MESHTALK_TCPSOCKET_PORT=2002", "MESHTALK_ADMIN_PORT=2003", "MESHTALK_LOG_LEVEL="}
	c := load(t, text, env, "admin.port=3003", "login.timeout=1s", "login.timeout=2s")
	for _, k := range []struct {
		key    string
		got    any
		want   any
		origin string
	}{
		{"websocket.port", c.Options.WebSocket.Port, 1001, "line 2"},
		{"tcpsocket.port", c.Options.TCP.Port, 2002, "env MESHTALK_TCPSOCKET_PORT"},
		{"admin.port", c.Options.Admin.Port, 3003, "flag --admin.port"},
		{"limits.connections", c.Options.Limits.Connections, 1004, "line 6"},
		{"login.timeout", c.Options.LoginTimeout, 2 * time.Second, "flag --login.timeout"},
		{"log.level", c.LogLevel, "info", "default"},
		{"data-dir", c.Options.DataDir, "./data", "default"},
	} {
		if k.got != k.want || !strings.HasSuffix(c.Origin(k.key), k.origin) {
			t.Errorf("%s: got %v from %q, want %v from %q", k.key, k.got, c.Origin(k.key), k.want, k.origin)
		}
	}
}

func TestConfigVariable(t *testing.T) {
	f := file(t, "log.level: debug")
	c := load(t, "", []string{"MESHTALK_CONFIG=" + f})
	if c.LogLevel != "debug" {
		t.Errorf("log.level is %q", c.LogLevel)
	}
	c = load(t, "log.level: warn", []string{"MESHTALK_CONFIG=" + f})
	if c.LogLevel != "warn" {
		t.Errorf("log.level is %q, --config goes before", c.LogLevel)
	}
}

// Every key can be set in every way, and says the same in all of them.
func TestEveryKeyEveryWay(t *testing.T) {
	dir := t.TempDir()
	secretFile := filepath.Join(dir, "secret")
	if err := os.WriteFile(secretFile, []byte(good+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"data-dir": dir, "websocket.host": "::1", "websocket.path": "/chat", "tcpsocket.host": "127.0.0.1",
		"websocket.allowed-origins": "https://a.example,https://b.example:8443",
		"admin.host":                "localhost", "admin.token": "t0ken", "admin.token-file": secretFile,
		"auth.jwt.secret": good, "auth.jwt.secret-file": secretFile, "auth.jwt.jwks-url": "https://a.example/keys",
		"auth.jwt.algorithms": "HS256,HS512", "auth.jwt.issuer": "i", "auth.jwt.audience": "a", "auth.jwt.leeway": "7s",
		"auth.jwt.public-key-files": "",
		"heartbeat.interval":        "20s", "heartbeat.timeout": "50s",
		"store.postgres.url": "postgres://u:p@h/d?password=x", "redis.host": "r.example", "redis.password": "p",
		"redis.address": "a:1,b:2", "redis.sentinel.master": "mymaster", "rocketmq.name-server": "a:1;b:2", "rocketmq.producer.group": "g",
		"rocketmq.access-key": "k", "rocketmq.secret-key": "s", "rocketmq.log.topic": "l", "rocketmq.push.topic": "p",
		"rocketmq.event.topic": "e", "cluster.node-id": "n1", "cluster.advertise": "10.0.0.1:7000",
		"log.level": "debug", "log.format": "json",
	}
	for i, k := range Keys() {
		v, ok := values[k.Name]
		if !ok {
			switch k.Kind {
			case Bool:
				v = map[string]string{"true": "false", "false": "true"}[k.Default]
			case Int:
				v = []string{"21", "22", "23", "24", "25", "26"}[i%6] + string(rune('0'+i%10))
			case Duration:
				v = "33s"
			default:
				t.Fatalf("%s: no value in this test", k.Name)
			}
		}
		if k.Name == "websocket.enable" || k.Name == "cluster.enable" || k.Name == "redis.sentinel.master" {
			continue // they have conditions
		}
		switch k.Name {
		case "performance.boss-threads":
			v = "3"
		case "performance.max-frame-size":
			v = "4096"
		}
		if k.Env != EnvName(k.Name) || k.Help == "" {
			t.Errorf("%s: variable %q, help %q", k.Name, k.Env, k.Help)
		}
		asFlag := load(t, "", nil, k.Name+"="+v)
		asEnv := load(t, "", []string{k.Env + "=" + v})
		asFile := load(t, k.Name+": '"+v+"'", nil)
		if !reflect.DeepEqual(asFlag.Options, asEnv.Options) || !reflect.DeepEqual(asFlag.Options, asFile.Options) {
			t.Errorf("%s=%s: flag, environment and file do not say the same", k.Name, v)
		}
		f, _ := lookup(k.Name)
		if got := f.text(asFlag); got != v {
			t.Errorf("%s: got %q, want %q", k.Name, got, v)
		}
	}
}

// A server has no option that no key sets.
func TestNoOptionWithoutKey(t *testing.T) {
	c := new(Config)
	known := map[any]bool{}
	for _, f := range fields() {
		known[f.at(c)] = true
	}
	free := []string{"Logger", "LogLevel", "Hooks", "Ready", "AckBeforeSync", "StoreCacheBytes", "Settings"} // for programs that embed a server
	var visit func(path string, v reflect.Value)
	visit = func(path string, v reflect.Value) {
		for i := range v.NumField() {
			f, name := v.Field(i), v.Type().Field(i).Name
			switch {
			case path == "" && slices.Contains(free, name):
			case f.Kind() == reflect.Struct:
				visit(path+name+".", f)
			case !known[f.Addr().Interface()]:
				t.Errorf("no key sets Options.%s%s", path, name)
			}
		}
	}
	visit("", reflect.ValueOf(&c.Options).Elem())
}

func TestNamesAreUnique(t *testing.T) {
	names, variables := map[string]bool{}, map[string]bool{fileVariable: true}
	for _, k := range Keys() {
		if names[k.Name] || variables[k.Env] {
			t.Errorf("%s (%s) stands twice", k.Name, k.Env)
		}
		names[k.Name], variables[k.Env] = true, true
	}
}

func TestLists(t *testing.T) {
	want := []string{"https://a.example", "https://b.example"}
	for _, text := range []string{
		"websocket.allowed-origins: [https://a.example, https://b.example]",
		"websocket:\n  allowed-origins:\n    - https://a.example\n    - https://b.example",
		"websocket.allowed-origins: https://a.example, https://b.example,",
		"websocket:\n  <<: &o {allowed-origins: ['https://a.example', 'https://b.example']}\n  port: 1",
	} {
		if got := load(t, text, nil).Options.WebSocket.AllowedOrigins; !slices.Equal(got, want) {
			t.Errorf("%s: got %q", text, got)
		}
	}
	if got := load(t, "", nil, "websocket.allowed-origins=").Options.WebSocket.AllowedOrigins; len(got) != 0 {
		t.Errorf("empty: got %q", got)
	}
}

// A bare number as a duration means seconds below 1,000, milliseconds from there.
func TestHeartbeats(t *testing.T) {
	for _, h := range []struct {
		settings          []string
		interval, timeout time.Duration
	}{
		{nil, 30 * time.Second, 120 * time.Second},
		{[]string{"heartbeat.timeout=60"}, 30 * time.Second, 60 * time.Second},
		{[]string{"heartbeat.timeout=90000", "heartbeat.interval=10"}, 10 * time.Second, 90 * time.Second},
		{[]string{"heartbeat.timeout=8s"}, 2 * time.Second, 8 * time.Second}, // interval follows as long as nobody sets it
		{[]string{"heartbeat.interval=1m", "heartbeat.timeout=61s"}, time.Minute, 61 * time.Second},
	} {
		o := load(t, "", nil, h.settings...).Options
		if o.HeartbeatInterval != h.interval || o.HeartbeatTimeout != h.timeout {
			t.Errorf("%v: got %v, %v", h.settings, o.HeartbeatInterval, o.HeartbeatTimeout)
		}
	}
}

// Every refusal is one line that names the key, and says what was expected or what to do.
func TestRefusals(t *testing.T) {
	for _, r := range []struct {
		file, env string
		flags     []string
		want      []string // parts of the error
	}{
		{file: "websockt:\n  port: 1", want: []string{"websockt.port", "line 2", "nearest one is websocket.port"}},
		{file: "websocket:\n  prot: 1", want: []string{"websocket.prot", "websocket.port"}},
		{file: "datadir: x", want: []string{"datadir", "data-dir"}},
		{file: "websocket: 5", want: []string{"websocket:", "websocket.enable"}},
		{file: "data-dir: {a: b}", want: []string{"data-dir.a", "data-dir"}},
		{file: "data-dir: {}", want: []string{"data-dir", "expected a value"}},
		{file: "nothing: {}", want: []string{"nothing", "unknown key"}},
		{file: "log.level: [info]", want: []string{"log.level", "not a list"}},
		{file: "redis.address: [[a]]", want: []string{"redis.address", "plain values"}},
		{file: "log.level: info\nlog.level: warn", want: []string{"log.level", "twice", "line 2"}},
		{file: "a: [", want: []string{"config: file", "line 1"}},
		{file: "a: 1\n---\nb: 2", want: []string{"config", "more than one document"}},
		{file: "- a", want: []string{"config", "expected keys"}},
		{file: "a: &a\n  b: *a", want: []string{"config", "a.b", "too deep"}},
		{env: "MESHTALK_WEBSOCKET_PROT=1", want: []string{"MESHTALK_WEBSOCKET_PROT", "MESHTALK_WEBSOCKET_PORT", "websocket.port"}},
		{env: "MESHTALK_LOGLEVEL=1", want: []string{"MESHTALK_LOGLEVEL", "log.level"}},
		{env: "MESHTALK_PORT=tcp://10.0.0.1:80", want: []string{"MESHTALK_PORT", "unknown environment variable"}},
		{env: "MESHTALK_ADMIN_PORT=http", want: []string{"admin.port", `"http"`, "env MESHTALK_ADMIN_PORT", "0 to 65535"}},
		{flags: []string{"heartbeat.count=3"}, want: []string{"heartbeat.count", "unknown key"}},
		{flags: []string{"websocket.port=65536"}, want: []string{"websocket.port", "65536", "flag --websocket.port", "0 to 65535"}},
		{flags: []string{"tcpsocket.port=-1"}, want: []string{"tcpsocket.port", "0 to 65535"}},
		{flags: []string{"websocket.port=1.5"}, want: []string{"websocket.port", "0 to 65535"}},
		{flags: []string{"websocket.enable=maybe"}, want: []string{"websocket.enable", "true or false"}},
		{flags: []string{"websocket.path=im"}, want: []string{"websocket.path", "/im"}},
		{flags: []string{"websocket.path=/im?x=1"}, want: []string{"websocket.path", "/im"}},
		{flags: []string{"websocket.host=1.2.3.4:80"}, want: []string{"websocket.host", "without a port"}},
		{flags: []string{"websocket.allowed-origins=*"}, want: []string{"websocket.allowed-origins", "https://"}},
		{flags: []string{"websocket.allowed-origins=https://a.example/"}, want: []string{"websocket.allowed-origins", "https://"}},
		{flags: []string{"websocket.port=7000", "tcpsocket.port=7000"}, want: []string{"tcpsocket.port", "websocket.port"}},
		{flags: []string{"admin.port=8080"}, want: []string{"admin.port", "websocket.port"}},
		{flags: []string{"websocket.enable=false", "tcpsocket.enable=false"}, want: []string{"websocket.enable", "tcpsocket.enable"}},
		{flags: []string{"admin.host=0.0.0.0"}, want: []string{"admin.host", "loopback", "admin.token"}},
		{flags: []string{"admin.token-file=/nowhere"}, want: []string{"admin.token-file", "/nowhere"}},
		{flags: []string{"admin.token=a b"}, want: []string{"admin.token", "ASCII"}},
		{flags: []string{"auth.jwt.secret=short"}, want: []string{"auth.jwt.secret", "32"}},
		{flags: []string{"auth.jwt.secret=your-256-bit-secret-your-256-bit-secret"}, want: []string{"auth.jwt.secret", "sample"}},
		{flags: []string{"auth.jwt.secret-file=/nowhere"}, want: []string{"auth.jwt.secret-file", "/nowhere"}},
		{flags: []string{"auth.jwt.public-key-files=/nowhere"}, want: []string{"auth.jwt.public-key-files", "/nowhere"}},
		{flags: []string{"auth.jwt.jwks-url=file:///etc/passwd"}, want: []string{"auth.jwt.jwks-url", "http"}},
		{flags: []string{"auth.jwt.algorithms=none"}, want: []string{"auth.jwt.algorithms", "HS256", "EdDSA"}},
		{flags: []string{"auth.jwt.algorithms=hs256"}, want: []string{"auth.jwt.algorithms", "HS256"}},
		{flags: []string{"auth.jwt.leeway=-1s"}, want: []string{"auth.jwt.leeway", "0s to 10m"}},
		{flags: []string{"heartbeat.interval=3m"}, want: []string{"heartbeat.timeout", "heartbeat.interval"}},
		{flags: []string{"heartbeat.timeout=0"}, want: []string{"heartbeat.timeout", "expected a duration"}},
		{flags: []string{"login.timeout=soon"}, want: []string{"login.timeout", "such as 30s"}},
		{flags: []string{"login.timeout=-5s"}, want: []string{"login.timeout", "1ms to 1h"}},
		{flags: []string{"shutdown.timeout=soon"}, want: []string{"shutdown.timeout", "30s"}},
		{flags: []string{"limits.connections=-1"}, want: []string{"limits.connections", "0 to"}},
		{flags: []string{"performance.max-frame-size=16777217"}, want: []string{"performance.max-frame-size", "16777216"}},
		{flags: []string{"performance.max-frame-size=0"}, want: []string{"performance.max-frame-size", "1024"}},
		{flags: []string{"performance.boss-threads=0"}, want: []string{"performance.boss-threads", "1 to 64"}},
		{flags: []string{"group.inbox-limit=0"}, want: []string{"group.inbox-limit", "1 to"}},
		{flags: []string{"message.history.retention-days=0"}, want: []string{"message.history.retention-days", "1 to"}},
		{flags: []string{"message.dedupe-window=0s"}, want: []string{"message.dedupe-window", "1s to"}},
		{flags: []string{"store.postgres.url=mysql://h/d"}, want: []string{"store.postgres.url", "postgres://"}},
		{flags: []string{"redis.port=0"}, want: []string{"redis.port", "1 to 65535"}},
		{flags: []string{"redis.address=a"}, want: []string{"redis.address", "host:port"}},
		{flags: []string{"redis.sentinel.master=m"}, want: []string{"redis.sentinel.master", "redis.address too"}},
		{flags: []string{"redis.address=a:1", "redis.sentinel.master=my master"}, want: []string{"redis.sentinel.master", "letters"}},
		{flags: []string{"rocketmq.name-server=a"}, want: []string{"rocketmq.name-server", "host:port"}},
		{flags: []string{"rocketmq.log.topic="}, want: []string{"rocketmq.log.topic", "letters"}},
		{flags: []string{"cluster.node-id=a/b"}, want: []string{"cluster.node-id", "64 bytes"}},
		{flags: []string{"cluster.advertise=a"}, want: []string{"cluster.advertise", "host:port"}},
		{flags: []string{"cluster.enable=true"}, want: []string{"cluster.enable", "store.postgres.url", "redis.host", "rocketmq.name-server"}},
		{flags: []string{"cluster.enable=true", "redis.address=a:1", "store.postgres.url=postgres://h/d"}, want: []string{"cluster.enable", "missing: rocketmq.name-server"}},
		{flags: []string{"log.level=verbose"}, want: []string{"log.level", "debug, info, warn, error"}},
		{flags: []string{"log.format=xml"}, want: []string{"log.format", "text, json"}},
		{flags: []string{"data-dir="}, want: []string{"data-dir", "directory"}},
	} {
		flags := append([]string{"data-dir=" + t.TempDir()}, r.flags...)
		if r.file != "" {
			flags = flags[1:]
		}
		_, err := try(t, r.file, []string{r.env}, flags...)
		name := r.file + r.env + strings.Join(r.flags, " ")
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range r.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", name, err, want)
			}
		}
		if strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("%s: %q is more than one line", name, err)
		}
	}
}

func TestNoSuchFile(t *testing.T) {
	_, err := Load(Sources{File: filepath.Join(t.TempDir(), "none.yml")})
	if err == nil || !strings.HasPrefix(err.Error(), "config: ") {
		t.Errorf("got %v", err)
	}
}

// A refused secret does not stand in the error.
func TestSecretsStaySecret(t *testing.T) {
	for _, f := range []string{"auth.jwt.secret=topsecret", "admin.token=top secret", "store.postgres.url=topsecret"} {
		_, err := try(t, "", nil, f)
		if err == nil || strings.Contains(err.Error(), "top") {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestKubernetesVariables(t *testing.T) {
	env := []string{
		"KUBERNETES_SERVICE_HOST=10.0.0.1", "MESHTALK_SERVICE_HOST=10.0.0.9", "MESHTALK_SERVICE_PORT=8080", "MESHTALK_PORT=tcp://10.0.0.9:8080",
		"MESHTALK_SERVICE_PORT_WS=8080", "MESHTALK_PORT_8080_TCP=tcp://10.0.0.9:8080", "MESHTALK_PORT_8080_TCP_PROTO=tcp",
	}
	load(t, "", env)
	if _, err := try(t, "", append(env, "MESHTALK_PROT=1")); err == nil {
		t.Error("another unknown variable was taken")
	}
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{
		"websocket.prot": "websocket.port", "port": "admin.port", "datadir": "data-dir", "data_dir": "data-dir",
		"message.retention-days": "message.history.retention-days", "Log.Level": "log.level", "tcp.port": "tcpsocket.port",
		"auth.jwt.public.key.files": "auth.jwt.public-key-files",
	} {
		if got := Nearest(name); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestNeedRestart(t *testing.T) {
	a := load(t, "", nil)
	b := load(t, "", nil, "log.level=debug", "limits.messages-burst=7", "auth.jwt.leeway=1s", "websocket.port=1", "log.format=json")
	if got := strings.Join(NeedRestart(a, b), " "); got != "websocket.port log.format" {
		t.Errorf("got %q", got)
	}
}

func TestLogger(t *testing.T) {
	for format, want := range map[string]string{"text": "level=WARN msg=b", "json": `"level":"WARN","msg":"b"`} {
		c := load(t, "", nil, "log.format="+format, "log.level=warn")
		var out strings.Builder
		var level slog.LevelVar
		l := c.Logger(&out, &level)
		l.Info("a")
		l.Warn("b")
		level.Set(slog.LevelInfo)
		l.Info("c")
		if text := out.String(); !strings.Contains(text, want) || strings.Count(text, "\n") != 2 {
			t.Errorf("%s: %q", format, text)
		}
	}
}
