// Package server wires the parts into one server and is its public face for Go programs that embed it:
// server.New(options).Run(ctx).
package server

import (
	"log/slog"
	"time"
)

// Options configure a Server. DefaultOptions gives every default with its reason; the dotted names in the comments are
// the configuration keys (docs/configuration.md).
type Options struct {
	DataDir string // data-dir

	WebSocket WebSocketOptions
	TCP       ListenOptions // tcpsocket.*
	Admin     AdminOptions
	JWT       JWTOptions // auth.jwt.*

	HeartbeatInterval time.Duration // heartbeat.interval: what LOGIN tells clients to keep
	HeartbeatTimeout  time.Duration // heartbeat.timeout: silence that closes
	LoginTimeout      time.Duration // login.timeout: connection → LOGIN

	Limits      LimitOptions
	Performance PerformanceOptions
	Group       GroupOptions
	Message     MessageOptions

	Postgres PostgresOptions // store.postgres.*
	Redis    RedisOptions
	RocketMQ RocketMQOptions
	Cluster  ClusterOptions

	Demo DemoOptions

	ShutdownTimeout time.Duration // shutdown.timeout

	// Logger gets the server's log; nil = slog.Default(). LogLevel, when set, is what SIGHUP and log.level change.
	Logger   *slog.Logger
	LogLevel *slog.LevelVar

	Hooks Hooks

	// Settings are the configuration as its source tells it, for the console; nil = the console says that there is none.
	Settings []Setting

	// Ready, when set, is called by Run when the listeners are open.
	Ready func([]Address)

	// AckBeforeSync breaks the durability promise on purpose, for the test that must catch it. There is no key for it.
	AckBeforeSync bool

	// StoreCacheBytes is the memory of the embedded store for what it has read from disk; 0 = its own default of 64 MiB. For
	// programs that embed a server in little memory; there is no key for it.
	StoreCacheBytes int64
}

// Setting is one key of the configuration, for people.
type Setting struct {
	Key, Value string // the value of a secret is masked
	Origin     string // default, file F line 3, env NAME, flag --name
	Help       string
	Secret     bool
}

// ListenOptions are a listener.
type ListenOptions struct {
	Enable bool
	Host   string // "" = all addresses
	Port   int    // 0 = any free one
}

// WebSocketOptions are the WebSocket listener.
type WebSocketOptions struct {
	ListenOptions
	Path           string
	AllowedOrigins []string // exact; empty = same host
}

// AdminOptions are the HTTP port for back-ends and operators.
type AdminOptions struct {
	ListenOptions
	Token     string // bearer token; required beyond loopback
	TokenFile string
}

// JWTOptions are the checks of LOGIN's token. With none of Secret, SecretFile, PublicKeyFiles and JWKSURL the key is
// DataDir/jwt.key, made at the first start.
type JWTOptions struct {
	Secret         string
	SecretFile     string
	PublicKeyFiles []string
	JWKSURL        string
	Algorithms     []string
	Issuer         string
	Audience       string
	Leeway         time.Duration
	SeedClaims     bool
}

// LimitOptions bound what one client or all of them may take. 0 = off, except Connections.
type LimitOptions struct {
	Connections              int // 0 = RLIMIT_NOFILE − reserve
	ConnectionsPerIP         int
	HandshakesPerSecondPerIP int
	MessagesPerSecond        int // per connection; HEART_BEAT, ACK and READ do not count
	MessagesBurst            int
}

// PerformanceOptions size the reactor.
type PerformanceOptions struct {
	BossThreads   int // acceptors per listener
	WorkerThreads int // event loops, 0 = cores, one less with a cluster, RocketMQ or PostgreSQL
	MaxFrameSize  int // bytes of one inbound packet
}

// GroupOptions bound groups.
type GroupOptions struct {
	InboxLimit int // members above which messages are not copied into inboxes
	MaxMembers int
}

// MessageOptions are about what is kept.
type MessageOptions struct {
	HistoryEnable bool
	RetentionDays int
	RecallWindow  time.Duration
	DedupeWindow  time.Duration
}

// PostgresOptions choose PostgreSQL as the store; URL "" = the embedded store.
type PostgresOptions struct{ URL string }

// RedisOptions are the shared routes of a cluster.
type RedisOptions struct {
	Host     string
	Port     int
	Password string
	DB       int
	Address  []string // of servers of a Redis Cluster, or of Sentinels; goes before Host
	// SentinelMaster is what the Sentinels call the Redis; "" = the only one that they watch.
	SentinelMaster string
}

// RocketMQOptions are the hand-over and the event topics; NameServer "" = commit straight into the store.
type RocketMQOptions struct {
	NameServer    string
	ProducerGroup string
	AccessKey     string
	SecretKey     string
	LogTopic      string
	LogQueues     int
	PushTopic     string
	EventTopic    string
}

// ClusterOptions make this process one node of several.
type ClusterOptions struct {
	Enable    bool
	NodeID    string // "" = host name
	Advertise string
}

// DemoOptions are the chat in the browser, on the WebSocket port at /demo. It gives anybody a token for any user.
type DemoOptions struct {
	Enable   bool
	TokenTTL time.Duration
}

// DefaultOptions are the defaults of docs/configuration.md.
func DefaultOptions() Options {
	return Options{
		DataDir:   "./data",
		WebSocket: WebSocketOptions{ListenOptions: ListenOptions{Enable: true, Port: 8080}, Path: "/im"},
		TCP:       ListenOptions{Enable: true, Port: 8081},
		Admin:     AdminOptions{ListenOptions: ListenOptions{Enable: true, Host: "127.0.0.1", Port: 8090}},
		JWT:       JWTOptions{Leeway: 5 * time.Second},

		HeartbeatInterval: 30 * time.Second,
		HeartbeatTimeout:  120 * time.Second, // four missed heartbeats: mobile networks pause longer than one
		LoginTimeout:      5 * time.Second,

		Limits:      LimitOptions{MessagesPerSecond: 100, MessagesBurst: 200},
		Performance: PerformanceOptions{BossThreads: 1, MaxFrameSize: 65535}, // the original server's limit
		Group:       GroupOptions{InboxLimit: 500, MaxMembers: 100000},
		Message: MessageOptions{
			HistoryEnable: true, RetentionDays: 30,
			RecallWindow: 2 * time.Minute, DedupeWindow: 168 * time.Hour,
		},

		RocketMQ: RocketMQOptions{
			ProducerGroup: "im-producer-group", LogTopic: "meshtalk_log", LogQueues: 16,
			PushTopic: "meshtalk_push", EventTopic: "meshtalk_event",
		},
		Demo:            DemoOptions{TokenTTL: time.Hour},
		ShutdownTimeout: 30 * time.Second,
	}
}
