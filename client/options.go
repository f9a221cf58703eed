package client

import (
	"context"
	"errors"
	"time"
)

// AckMode is who moves the terminal's position.
type AckMode string

// The modes of docs/PROTOCOL.md §4.4.
const (
	// AckClient: the position moves when Handler's callback has returned. Nothing is lost when the process dies.
	AckClient AckMode = "client"
	// AckAuto: the server moves it when it has handed a message to its kernel.
	AckAuto AckMode = "auto"
)

// TokenSource gives the token for a login. It is called for every connection and before the token expires, never by two
// goroutines at once, and may block until ctx ends.
type TokenSource func(ctx context.Context) (string, error)

// StaticToken is a source that has one token only. The session ends when it expires.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return token, nil }
}

// Options configure a Client. Addr and Token are required; every other field has the default that its comment names.
type Options struct {
	// Addr is ws://host:port/im, wss://host:port/im or tcp://host:port. More nodes may stand in Addrs: after a failure
	// the next one is tried.
	Addr  string
	Addrs []string

	Token    TokenSource
	Terminal string  // "" = the token's, else the server's default
	Ack      AckMode // AckClient
	Window   int     // entries in flight above the acknowledged position, 1–1,024; 0 = the server's 256

	Handler   Handler
	Positions PositionStore // in memory: a new process begins at what the server knows

	// Acknowledgements are cumulative and go out after AckEvery handled messages (64, but at most a quarter of Window) or
	// AckDelay (200 ms), whichever is sooner; positions are kept at the same moment.
	AckEvery int
	AckDelay time.Duration

	// BackoffMin (200 ms) doubles with every failed attempt up to BackoffMax (30 s); the wait is a random part of it,
	// at least half. What the server asks for by GOAWAY or retryAfterMs goes before.
	BackoffMin, BackoffMax time.Duration

	ConnectTimeout time.Duration // for one attempt, LOGIN included; 15 s
	HeartBeat      time.Duration // between heartbeats; 0 = what the server asks for
	RetryDial      bool          // let Dial repeat a failed first attempt until its context ends

	// MaxFrame is the server's performance.max-frame-size in bytes (65,535): a longer packet is refused here, because the
	// server would close the connection.
	MaxFrame int
	// MaxOutbox is how many sends may be without an answer (1,024); a further one waits.
	MaxOutbox int
	// MaxQueue is how many events may wait for Handler (4,096). Stored messages beyond it are fetched again when there
	// is room; typing, presence, receipts and ephemeral messages beyond it are dropped.
	MaxQueue int

	Conn ConnOptions // of each connection
}

// withDefaults checks o and fills in what it leaves out.
func (o Options) withDefaults() (Options, error) {
	if o.Addr != "" {
		o.Addrs = append([]string{o.Addr}, o.Addrs...)
	}
	if len(o.Addrs) == 0 {
		return o, errors.New("client: no address")
	}
	for _, addr := range o.Addrs {
		if _, err := parseAddr(addr); err != nil {
			return o, err
		}
	}
	if o.Token == nil {
		return o, errors.New("client: no token")
	}
	if o.Ack == "" {
		o.Ack = AckClient
	}
	if o.Ack != AckClient && o.Ack != AckAuto {
		return o, errors.New("client: ack mode is neither client nor auto")
	}
	if o.Window < 0 || o.Window > 1024 {
		return o, errors.New("client: window is not within 1 and 1024")
	}
	if o.Positions == nil {
		o.Positions = new(MemoryPositions)
	}
	window := o.Window
	if window == 0 {
		window = 256
	}
	orDefault(&o.AckEvery, 64)
	o.AckEvery = min(o.AckEvery, max(1, window/4))
	orDefault(&o.AckDelay, 200*time.Millisecond)
	orDefault(&o.BackoffMin, 200*time.Millisecond)
	orDefault(&o.BackoffMax, 30*time.Second)
	orDefault(&o.ConnectTimeout, 15*time.Second)
	orDefault(&o.MaxFrame, 65_535)
	orDefault(&o.MaxOutbox, 1024)
	orDefault(&o.MaxQueue, 4096)
	return o, nil
}

// orDefault sets *v to d when it is not positive.
func orDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}
