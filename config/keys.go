package config

import (
	"time"

	"github.com/meshtalk/meshtalk/server"
)

// Kind is the type of a key's value.
type Kind string

// The kinds. In the environment and in flags a list is separated by commas; in the file it may be a sequence too.
const (
	Bool     Kind = "bool"
	Int      Kind = "int"
	String   Kind = "string"
	Duration Kind = "duration" // as Go writes it: 300ms, 30s, 2m, 168h
	List     Kind = "list"
)

// Key is one configuration key, as documents and help texts show it.
type Key struct {
	Name    string // dotted: the path in the file and the flag
	Env     string // the environment variable
	Kind    Kind
	Default string // as text; "" = none
	Help    string // one line
	Secret  bool   // never shown
}

// Keys is the table of all keys, in the order of docs/INTERFACES.md §2.
func Keys() []Key {
	c := defaults()
	list := fields()
	keys := make([]Key, len(list))
	for i, f := range list {
		keys[i] = f.Key
		keys[i].Env = EnvName(f.Name)
		keys[i].Kind = f.kind()
		keys[i].Default = f.text(c)
	}
	return keys
}

// field is a row of the table.
type field struct {
	Key
	at    func(*Config) any      // *bool, *int, *string, *time.Duration or *[]string
	check func(value any) string // what was expected, "" when the value is right; nil = anything
}

// row makes a field of the options.
func row[T any](name, help string, at func(*server.Options) *T, check func(any) string) field {
	return field{
		Key: Key{Name: name, Help: help},
		at:  func(c *Config) any { return at(&c.Options) }, check: check,
	}
}

// secret is a row whose value is never shown.
func secret(f field) field {
	f.Secret = true
	return f
}

// fields is the table, section by section.
func fields() []field {
	var all []field
	for _, section := range [][]field{
		listenKeys(), authKeys(), limitKeys(), messageKeys(), serviceKeys(), processKeys(),
	} {
		all = append(all, section...)
	}
	return all
}

func listenKeys() []field {
	type o = server.Options
	return []field{
		row("data-dir", "directory of the embedded store and of the key that signs tokens",
			func(o *o) *string { return &o.DataDir }, filled("a directory")),

		row("websocket.enable", "listen for WebSocket clients", func(o *o) *bool { return &o.WebSocket.Enable }, nil),
		row("websocket.host", "address to listen on; empty = all", func(o *o) *string { return &o.WebSocket.Host }, host),
		row("websocket.port", "port, 0 = any free one", func(o *o) *int { return &o.WebSocket.Port }, port),
		row("websocket.path", "path of the upgrade", func(o *o) *string { return &o.WebSocket.Path }, urlPath),
		row("websocket.allowed-origins", "origins of browsers that may connect, such as https://chat.example.org; empty = the server's own host only",
			func(o *o) *[]string { return &o.WebSocket.AllowedOrigins }, origins),

		row("tcpsocket.enable", "listen for TCP clients", func(o *o) *bool { return &o.TCP.Enable }, nil),
		row("tcpsocket.host", "address to listen on; empty = all", func(o *o) *string { return &o.TCP.Host }, host),
		row("tcpsocket.port", "port, 0 = any free one", func(o *o) *int { return &o.TCP.Port }, port),

		row("admin.enable", "serve the HTTP API, metrics and console", func(o *o) *bool { return &o.Admin.Enable }, nil),
		row("admin.host", "address to listen on; beyond loopback there must be a token", func(o *o) *string { return &o.Admin.Host }, host),
		row("admin.port", "port, 0 = any free one", func(o *o) *int { return &o.Admin.Port }, port),
		secret(row("admin.token", "bearer token of the HTTP API", func(o *o) *string { return &o.Admin.Token }, printable)),
		row("admin.token-file", "file that holds the token", func(o *o) *string { return &o.Admin.TokenFile }, nil),
	}
}

func authKeys() []field {
	type o = server.Options
	return []field{
		secret(row("auth.jwt.secret", "key of HS256 tokens, at least 32 bytes, used as it is; none of these keys = jwt.key in data-dir, made at the first start",
			func(o *o) *string { return &o.JWT.Secret }, nil)),
		row("auth.jwt.secret-file", "file that holds the key", func(o *o) *string { return &o.JWT.SecretFile }, nil),
		row("auth.jwt.public-key-files", "PEM files: RSA, ECDSA P-256 and Ed25519 public keys or certificates",
			func(o *o) *[]string { return &o.JWT.PublicKeyFiles }, nil),
		row("auth.jwt.jwks-url", "key set to follow", func(o *o) *string { return &o.JWT.JWKSURL }, webURL),
		row("auth.jwt.algorithms", "algorithms that tokens may use; empty = what the keys are for: HS256, RS256, ES256, EdDSA",
			func(o *o) *[]string { return &o.JWT.Algorithms }, algorithms),
		row("auth.jwt.issuer", "iss that tokens must have", func(o *o) *string { return &o.JWT.Issuer }, nil),
		row("auth.jwt.audience", "aud that tokens must have", func(o *o) *string { return &o.JWT.Audience }, nil),
		row("auth.jwt.leeway", "how far clocks may differ", func(o *o) *time.Duration { return &o.JWT.Leeway }, spans(0, 10*time.Minute)),
		row("auth.jwt.seed-claims", "read the original server's tokens too: aud = user, info = {userId, terminal}",
			func(o *o) *bool { return &o.JWT.SeedClaims }, nil),
	}
}

func limitKeys() []field {
	type o = server.Options
	return []field{
		row("heartbeat.interval", "what clients are told to keep", func(o *o) *time.Duration { return &o.HeartbeatInterval }, spans(time.Millisecond, day)),
		row("heartbeat.timeout", "silence after which a connection is closed", func(o *o) *time.Duration { return &o.HeartbeatTimeout }, spans(2*time.Millisecond, day)),
		row("login.timeout", "from the connection to its LOGIN", func(o *o) *time.Duration { return &o.LoginTimeout }, spans(time.Millisecond, time.Hour)),

		row("limits.connections", "connections in all; 0 = what the limit of open files leaves", func(o *o) *int { return &o.Limits.Connections }, between(0, 100_000_000)),
		row("limits.connections-per-ip", "connections of one address; 0 = off", func(o *o) *int { return &o.Limits.ConnectionsPerIP }, between(0, 100_000_000)),
		row("limits.handshakes-per-second-per-ip", "new connections of one address in a second; 0 = off",
			func(o *o) *int { return &o.Limits.HandshakesPerSecondPerIP }, between(0, 1_000_000)),
		row("limits.messages-per-second", "packets of one connection in a second, HEART_BEAT, ACK and READ not counted; 0 = off",
			func(o *o) *int { return &o.Limits.MessagesPerSecond }, between(0, 1_000_000)),
		row("limits.messages-burst", "packets that may come at once", func(o *o) *int { return &o.Limits.MessagesBurst }, between(0, 1_000_000)),

		row("performance.boss-threads", "acceptors of each listener", func(o *o) *int { return &o.Performance.BossThreads }, between(1, 64)),
		row("performance.worker-threads", "event loops; 0 = as many as cores, one less with a cluster, RocketMQ or PostgreSQL", func(o *o) *int { return &o.Performance.WorkerThreads }, between(0, 1024)),
		row("performance.max-frame-size", "bytes of one packet from a client", func(o *o) *int { return &o.Performance.MaxFrameSize }, between(1024, 16<<20)),

		row("group.inbox-limit", "members above which a group's messages are not copied into inboxes",
			func(o *o) *int { return &o.Group.InboxLimit }, between(1, 1_000_000)),
		row("group.max-members", "members that a group may have", func(o *o) *int { return &o.Group.MaxMembers }, between(1, 10_000_000)),
	}
}

func messageKeys() []field {
	type o = server.Options
	return []field{
		row("message.history.enable", "answer HISTORY", func(o *o) *bool { return &o.Message.HistoryEnable }, nil),
		row("message.history.retention-days", "days that messages are kept", func(o *o) *int { return &o.Message.RetentionDays }, between(1, 36_500)),
		row("message.recall-window", "how long a sender may recall a message", func(o *o) *time.Duration { return &o.Message.RecallWindow }, spans(0, 365*day)),
		row("message.dedupe-window", "how long a repeated id is recognised", func(o *o) *time.Duration { return &o.Message.DedupeWindow }, spans(time.Second, 365*day)),
	}
}

func serviceKeys() []field {
	type o = server.Options
	return []field{
		secret(row("store.postgres.url", "postgres://user:password@host/database; none = the embedded store",
			func(o *o) *string { return &o.Postgres.URL }, postgresURL)),

		row("redis.host", "none = in memory", func(o *o) *string { return &o.Redis.Host }, host),
		row("redis.port", "port of redis.host", func(o *o) *int { return &o.Redis.Port }, between(1, 65535)),
		secret(row("redis.password", "password", func(o *o) *string { return &o.Redis.Password }, nil)),
		row("redis.db", "number of the database", func(o *o) *int { return &o.Redis.DB }, between(0, 1_000_000)),
		row("redis.address", "host:port of some servers of a Redis Cluster, or of the Sentinels", func(o *o) *[]string { return &o.Redis.Address }, addresses),
		row("redis.sentinel.master", "what the Sentinels of redis.address call the Redis; none = the only one that they watch",
			func(o *o) *string { return &o.Redis.SentinelMaster }, sentinelMaster),

		row("rocketmq.name-server", "host:port, several separated by semicolons; none = commit straight into the store",
			func(o *o) *string { return &o.RocketMQ.NameServer }, nameServers),
		row("rocketmq.producer.group", "producer group", func(o *o) *string { return &o.RocketMQ.ProducerGroup }, topic),
		secret(row("rocketmq.access-key", "access key", func(o *o) *string { return &o.RocketMQ.AccessKey }, nil)),
		secret(row("rocketmq.secret-key", "secret key", func(o *o) *string { return &o.RocketMQ.SecretKey }, nil)),
		row("rocketmq.log.topic", "topic of accepted messages", func(o *o) *string { return &o.RocketMQ.LogTopic }, topic),
		row("rocketmq.log.queues", "queues of that topic, fixed once it is used", func(o *o) *int { return &o.RocketMQ.LogQueues }, between(1, 1024)),
		row("rocketmq.push.topic", "topic on which business services push", func(o *o) *string { return &o.RocketMQ.PushTopic }, topic),
		row("rocketmq.event.topic", "topic of events", func(o *o) *string { return &o.RocketMQ.EventTopic }, topic),

		row("cluster.enable", "be one node of several; needs redis, rocketmq and store.postgres", func(o *o) *bool { return &o.Cluster.Enable }, nil),
		row("cluster.node-id", "name of this node; none = the host name", func(o *o) *string { return &o.Cluster.NodeID }, nodeID),
		row("cluster.advertise", "host:port at which other nodes reach this one", func(o *o) *string { return &o.Cluster.Advertise }, address),
	}
}

func processKeys() []field {
	return []field{
		{
			Key: Key{Name: "log.level", Help: "debug, info, warn or error"},
			at:  func(c *Config) any { return &c.LogLevel }, check: oneOf("debug", "info", "warn", "error"),
		},
		{
			Key: Key{Name: "log.format", Help: "text or json"},
			at:  func(c *Config) any { return &c.LogFormat }, check: oneOf("text", "json"),
		},
		row("demo.enable", "a chat in the browser at /demo of the WebSocket port, which gives anybody a token for any user",
			func(o *server.Options) *bool { return &o.Demo.Enable }, nil),
		row("demo.token-ttl", "how long the demo's tokens are valid; its page renews them", func(o *server.Options) *time.Duration { return &o.Demo.TokenTTL },
			spans(time.Second, 365*day)),
		row("shutdown.timeout", "how long a graceful stop may take", func(o *server.Options) *time.Duration { return &o.ShutdownTimeout },
			spans(time.Millisecond, time.Hour)),
	}
}

// lookup finds the row of a key.
func lookup(name string) (field, bool) {
	for _, f := range fields() {
		if f.Name == name {
			return f, true
		}
	}
	return field{}, false
}
