package engine

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/codec"
)

// Options of an Engine. DefaultOptions has the defaults.
type Options struct {
	Handler                  Handler
	Loops                    int // event loops, at most 256; 0 = GOMAXPROCS
	Acceptors                int // goroutines in accept per listener; default 1
	MaxFrame                 int // bytes of one inbound message; default 65,535
	Upgrade                  codec.UpgradeRules
	SoftLimit                int           // bytes of outbound above which Conn.Room is 0; default 64 KiB
	HardLimit                int           // bytes of outbound above which the connection closes with ReasonTooSlow; default 1 MiB
	HandshakeTimeout         time.Duration // accept → upgraded; default 5 s
	CloseTimeout             time.Duration // our close frame → the peer's; default 2 s
	FramesPerEvent           int           // then the loop goes on to others; default 64
	MaxConnections           int           // 0 = RLIMIT_NOFILE − reserve
	MaxPerIP                 int           // 0 = no limit
	HandshakesPerSecondPerIP int           // 0 = no limit
	// OnTooSlow is called on the loop just before a connection over HardLimit is closed (to write the ERROR packet).
	OnTooSlow func(c *Conn)
	// OnClosed is told of every connection that ends, on its loop and when it leaves the handler or never came to it:
	// why, and in words what is known beyond the reason ("" = nothing). It must not touch c but read it.
	OnClosed func(c *Conn, why Reason, detail string)
	Logf     func(format string, args ...any) // engine events and panics with their stack; default: none
}

// maxLoops is what fits the loop index of a Handle.
const maxLoops = 256

// DefaultOptions are the defaults, without a Handler.
func DefaultOptions() Options {
	return Options{
		Loops:            min(runtime.GOMAXPROCS(0), maxLoops),
		Acceptors:        1,
		MaxFrame:         codec.DefaultMaxFrame,
		SoftLimit:        64 << 10,
		HardLimit:        1 << 20,
		HandshakeTimeout: 5 * time.Second,
		CloseTimeout:     2 * time.Second,
		FramesPerEvent:   64,
	}
}

// complete checks o and fills in what is zero.
func (o Options) complete() (Options, error) {
	if o.Handler == nil {
		return o, errors.New("no handler")
	}
	d := DefaultOptions()
	for _, f := range []struct {
		name  string
		value *int
		most  int // 0 = any
		zero  int // the default
	}{
		{"Loops", &o.Loops, maxLoops, d.Loops},
		{"Acceptors", &o.Acceptors, 1024, d.Acceptors},
		{"MaxFrame", &o.MaxFrame, 1 << 30, d.MaxFrame},
		{"SoftLimit", &o.SoftLimit, 1 << 30, d.SoftLimit},
		{"HardLimit", &o.HardLimit, 1 << 30, d.HardLimit},
		{"FramesPerEvent", &o.FramesPerEvent, 0, d.FramesPerEvent},
		{"MaxConnections", &o.MaxConnections, maxSlots, 0},
		{"MaxPerIP", &o.MaxPerIP, 0, 0},
		{"HandshakesPerSecondPerIP", &o.HandshakesPerSecondPerIP, 0, 0},
	} {
		if *f.value < 0 || f.most > 0 && *f.value > f.most {
			return o, fmt.Errorf("%s is %d", f.name, *f.value)
		}
		if *f.value == 0 {
			*f.value = f.zero
		}
	}
	if o.HandshakeTimeout < 0 || o.CloseTimeout < 0 {
		return o, errors.New("negative time-out")
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = d.HandshakeTimeout
	}
	if o.CloseTimeout == 0 {
		o.CloseTimeout = d.CloseTimeout
	}
	if o.MaxConnections == 0 {
		limit, err := raiseFiles()
		if err != nil {
			return o, err
		}
		o.MaxConnections = max(1, limit-reserve(limit))
	}
	return o, nil
}

// raiseFiles raises the soft limit of descriptors to the hard one, and returns it.
func raiseFiles() (int, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("read RLIMIT_NOFILE: %w", err)
	}
	if r.Cur < r.Max {
		raised := unix.Rlimit{Cur: r.Max, Max: r.Max}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
			r = raised
		}
	}
	return int(min(r.Cur, maxSlots)), nil
}

// reserve is how many of limit descriptors are kept from connections, for what else the process opens: the store's
// files, log, HTTP, and two per accept in flight. A quarter of a small limit, at most 512.
func reserve(limit int) int { return min(limit/4, 512) }
