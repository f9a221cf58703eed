package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// everything sets many keys, in awkward ways.
const everything = `
data-dir: "./da: ta # 1"
websocket: {host: "::1", port: 1, allowed-origins: [https://a.example, "null"]}
admin: {token: "tok:en#1"}
auth.jwt: {secret: "` + good + `", leeway: 0s, issuer: "true", audience: "12", algorithms: [HS256]}
heartbeat: {interval: 1m30s, timeout: 200s}
store.postgres.url: "postgres://us%20er:p%40ss@db.example:5432/chat?sslmode=disable&password=hidden"
redis: {host: r.example, password: "0123", db: 3, address: [a:1]}
rocketmq: {name-server: "a:1;b:2", access-key: acckey, secret-key: seckey}
cluster: {enable: yes, node-id: "on"}
log: {level: warn, format: json}
`

// What print writes without its masks loads again to the same options.
func TestRoundTrip(t *testing.T) {
	for _, text := range []string{everything, "log.level: info"} {
		c := load(t, text, nil)
		out, err := c.yaml(false)
		if err != nil {
			t.Fatal(err)
		}
		again := load(t, string(out), nil)
		if !reflect.DeepEqual(c.Options, again.Options) || c.LogLevel != again.LogLevel || c.LogFormat != again.LogFormat {
			t.Errorf("got %+v\nwant %+v\nfrom\n%s", again.Options, c.Options, out)
		}
		for _, k := range Keys() {
			if !strings.Contains(again.Origin(k.Name), "file ") {
				t.Errorf("%s was not printed", k.Name)
			}
		}
	}
}

func TestPrintMasks(t *testing.T) {
	c := load(t, everything, []string{"MESHTALK_TCPSOCKET_PORT=7"}, "limits.messages-burst=9")
	out, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	text := string(out)
	for _, hidden := range []string{good, "tok:en", "0123", "acckey", "seckey", "p%40ss", "hidden"} {
		if strings.Contains(text, hidden) {
			t.Errorf("%q is shown", hidden)
		}
	}
	for _, want := range []string{
		"  port: 7 # env MESHTALK_TCPSOCKET_PORT\n", "  messages-burst: 9 # flag --limits.messages-burst\n",
		"login:\n  timeout: 5s # default\n", "interval: 1m30s # file ", " line 6\n",
		"postgres://us%20er:********@db.example:5432/chat?sslmode=disable&password=********",
		"    secret: '********' # file ", "dedupe-window: 168h # default\n", "recall-window: 2m # default\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	c = load(t, "", nil)
	if out, _ = c.YAML(); strings.Contains(string(out), mask) {
		t.Error("a secret that is not set has a mask")
	}
	if !strings.Contains(string(out), "# default, the host name") {
		t.Error("no word about the host name")
	}
}

// seed is the file of the original server as it was published, with other addresses.
const seed = `
server:
  port: 8877
  id: 1
spring:
  redis:
    database: 2
    host: 192.0.2.7
    port: 16379
    password:
    timeout: 30000
    lettuce:
      pool:
        enabled: true
        max-active: 8
    address: redis://192.0.2.7:16379
websocket:
  enable: true
  port: 8878
tcpsocket:
  enable: false # for now
  port: 8879
heartbeat:
  count: 10
jwt:
  accessToken:
    secret: tiny-sample
rocketmq:
  name-server: 192.0.2.7:9876
  producer:
    group: im-server-group
local:
  cache:
    type: guava
distribute:
  cache:
    type: redis
  lock:
    type: redisson
redis:
  arrange:
    type: single # single or cluster
message:
  mq:
    event:
      type: rocketmq
    type: rocketmq
`

func TestOriginalServersFile(t *testing.T) {
	c := load(t, seed, nil)
	o := c.Options
	if o.WebSocket.Port != 8878 || !o.WebSocket.Enable || o.TCP.Enable || o.TCP.Port != 8879 {
		t.Errorf("listeners: %+v, %+v", o.WebSocket, o.TCP)
	}
	if r := o.Redis; r.Host != "192.0.2.7" || r.Port != 16379 || r.DB != 2 || r.Password != "" || !reflect.DeepEqual(r.Address, []string{"192.0.2.7:16379"}) {
		t.Errorf("redis: %+v", r)
	}
	if r := o.RocketMQ; r.NameServer != "192.0.2.7:9876" || r.ProducerGroup != "im-server-group" {
		t.Errorf("rocketmq: %+v", r)
	}
	if o.JWT.Secret != "" {
		t.Error("the sample secret was taken")
	}
	want := "ignored keys of the original server: distribute.cache.type, distribute.lock.type, heartbeat.count, " +
		"jwt.accessToken.secret, local.cache.type, message.mq.event.type, message.mq.type, redis.arrange.type, server.id, server.port, " +
		"spring.redis.lettuce.pool.enabled, spring.redis.lettuce.pool.max-active, spring.redis.timeout"
	if got := c.Warning(); got != want {
		t.Errorf("warning\n%s\nwant\n%s", got, want)
	}
	out, err := c.YAML()
	if err != nil || !strings.HasPrefix(string(out), "# ignored keys") || !strings.Contains(string(out), "db: 2 # file ") {
		t.Errorf("print: %v\n%s", err, out)
	}
	if strings.Contains(string(out), "tiny-sample") {
		t.Error("the sample secret is shown")
	}
}

// Our own key goes before the original server's, wherever it stands.
func TestOwnKeyBeforeSeedKey(t *testing.T) {
	for _, text := range []string{
		"redis.host: ours\nspring.redis.host: theirs", "spring.redis.host: theirs\nredis: {host: ours}",
	} {
		if got := load(t, text, nil).Options.Redis.Host; got != "ours" {
			t.Errorf("%q: got %q", text, got)
		}
	}
}

// Spring's names of Sentinels and of the servers of a Redis Cluster are known.
func TestSpringRedis(t *testing.T) {
	r := load(t, "spring.redis:\n  sentinel:\n    master: mymaster\n    nodes: a:26379, b:26379\n", nil).Options.Redis
	if r.SentinelMaster != "mymaster" || !slices.Equal(r.Address, []string{"a:26379", "b:26379"}) {
		t.Errorf("Sentinel: %+v", r)
	}
	r = load(t, "spring.redis.cluster:\n  nodes: [a:6379, b:6379]\n  max-redirects: 3\n", nil).Options.Redis
	if r.SentinelMaster != "" || !slices.Equal(r.Address, []string{"a:6379", "b:6379"}) {
		t.Errorf("Redis Cluster: %+v", r)
	}
}

// The keys of docs/INTERFACES.md §2 are all there, and no others.
func TestKeysAreThoseOfTheDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "INTERFACES.md"))
	if err != nil {
		t.Fatal(err)
	}
	document := documented(string(text))
	for _, k := range Keys() {
		if !document[k.Name] {
			t.Errorf("%s is not in docs/INTERFACES.md", k.Name)
		}
		delete(document, k.Name)
	}
	for name := range document {
		t.Errorf("docs/INTERFACES.md has %s", name)
	}
}

// docs/configuration.md has every key, with its default.
func TestConfigurationDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) == 5 && strings.HasPrefix(cells[1], " `") {
			name := strings.Split(cells[1], "`")[1]
			defaults[name] = strings.Trim(cells[2], " `")
		}
	}
	for _, k := range Keys() {
		want, ok := defaults[k.Name]
		if !ok || want != k.Default {
			t.Errorf("%s: docs/configuration.md says %q, the program %q", k.Name, want, k.Default)
		}
		delete(defaults, k.Name)
	}
	for name := range defaults {
		t.Errorf("docs/configuration.md has %s", name)
	}
}

// documented takes the keys out of the table of §2: `redis.host`, `.port` in a row is redis.host, redis.port, and so
// below `rocketmq.name-server`, `.producer.group`.
func documented(text string) map[string]bool {
	keys := map[string]bool{}
	_, text, _ = strings.Cut(text, "| key | default | |")
	text, _, _ = strings.Cut(text, "\n\n")
	for row := range strings.SplitSeq(text, "\n") {
		cells := strings.Split(row, "|")
		if len(cells) < 2 {
			continue
		}
		section := ""
		for i, part := range strings.Split(cells[1], "`") {
			switch {
			case i%2 == 0:
			case strings.HasPrefix(part, "."):
				keys[section+part] = true
			default:
				keys[part] = true
				section = part[:max(0, strings.LastIndexByte(part, '.'))]
			}
		}
	}
	return keys
}
