package bench

import (
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"time"
)

// IdleOptions are those of Idle.
type IdleOptions struct {
	// Steps are the numbers of connections at which the server's memory is looked at, rising; the last one is all.
	Steps []int
	// Settle is how long a step rests before the look.
	Settle time.Duration
	// Collect asks the server for a garbage collection before each look, through its /debug/pprof/heap?gc=1. The
	// profile that comes with it leaves 2 to 3 MB.
	Collect bool
}

// Idle logs in connections that do nothing but keep their heartbeat, and finds what one costs the server: the slope of
// its anonymous memory. Needs ServerPID for that.
func Idle(ctx context.Context, o Options, io IdleOptions) (*Result, error) {
	if len(io.Steps) == 0 || !slices.IsSorted(io.Steps) || io.Steps[0] < 1 {
		return nil, errors.New("bench: steps: want rising numbers of connections")
	}
	total := io.Steps[len(io.Steps)-1]
	r, err := newRunner(ctx, o, "idle", io, total, 1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.close() }()
	r.result.Parameters = map[string]any{"steps": io.Steps, "settle_seconds": io.Settle.Seconds()}
	for _, l := range r.loops {
		l.scene = quiet{}
	}
	for _, step := range io.Steps {
		if err := r.connect(ctx, func(l *loop) int { return l.below(step) }); err != nil {
			return nil, err
		}
		if err := r.rest(ctx, io.Settle); err != nil {
			return nil, err
		}
		if err := r.look(ctx, io); err != nil {
			return nil, err
		}
	}
	r.result.slopes()
	if o.Duration > 0 {
		before := r.sample(ctx)
		if err := r.rest(ctx, o.Duration); err != nil {
			return nil, err
		}
		r.usage(before, r.sample(ctx))
	}
	return r.conclude(ctx)
}

// slopes are what a connection costs.
func (r *Result) slopes() {
	if len(r.Memory) < 2 {
		return
	}
	first, last := r.Memory[0], r.Memory[len(r.Memory)-1]
	if more := float64(last.Connections - first.Connections); more > 0 {
		r.BytesPerConnection = float64(last.RSSAnon-first.RSSAnon) / more
		r.LoadBytesPerConnection = float64(last.LoadRSSAnon-first.LoadRSSAnon) / more
	}
}

// below is how many of l's connections are among the first n of all.
func (l *loop) below(n int) int {
	i, _ := slices.BinarySearchFunc(l.conns, n, func(c conn, n int) int { return c.number - n })
	return i
}

// rest keeps the connections alive for d.
func (r *runner) rest(ctx context.Context, d time.Duration) error {
	begin, err := r.meet(ctx, meeting{Point: "rest"})
	if err != nil {
		return err
	}
	until := begin.Now + int64(d)
	err = r.each(ctx, func() string { return "idle" }, func(l *loop) error {
		return l.spin(0, func() bool { return l.now >= until })
	})
	if err == nil {
		_, err = r.meet(ctx, meeting{Point: "rested"})
	}
	return err
}

// look notes the memory of the server and of the load.
func (r *runner) look(ctx context.Context, io IdleOptions) error {
	const key = "rss"
	mine := meeting{Point: "look", Sum: map[string]int64{}}
	if own, err := (&process{os.Getpid()}).sample(); err == nil && len(r.loops) > 0 {
		mine.Sum[key] = own.rssAnon
	}
	all, err := r.meet(ctx, mine)
	if err != nil || !r.team.leads() {
		return err
	}
	m := Memory{Connections: r.lives, LoadRSSAnon: all.Sum[key]}
	if r.server != nil {
		if m.RSSAnon, err = r.serverMemory(ctx, io.Collect); err != nil {
			return err
		}
	}
	r.result.Memory = append(r.result.Memory, m)
	return nil
}

// serverMemory is the server's anonymous memory.
func (r *runner) serverMemory(ctx context.Context, collect bool) (int64, error) {
	if collect && r.o.Admin != "" {
		// Twice: the second one lets go what finalizers and pools held through the first.
		for range 2 {
			if _, err := (admin{r.o.Admin, r.o.AdminAuth}).call(ctx, "GET", "/debug/pprof/heap?gc=1", nil); err != nil {
				return 0, err
			}
		}
	}
	s, err := r.server.sample()
	return s.rssAnon, err
}

// quiet is the scene of connections that do nothing, and the part of other scenes that does nothing.
type quiet struct{}

func (quiet) due(*loop, int64) int64                { return math.MaxInt64 }
func (quiet) message(*loop, *conn, push)            {}
func (quiet) accepted(*loop, *conn, mark)           {}
func (quiet) beat(*loop, *conn, []byte)             {}
func (quiet) loggedIn(*loop, *conn)                 {}
func (quiet) answered(*loop, *conn, []byte, []byte) {}
func (quiet) largeConv(*conn) string                { return "" }
func (quiet) sentAll(*loop)                         {}
func (quiet) open() int                             { return 0 }
func (quiet) finish(*loop)                          {}
