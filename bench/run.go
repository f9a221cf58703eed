package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Progress is how far a run is.
type Progress struct {
	Stage       string // "connect", "warm-up", "measure" or "drain"
	Elapsed     time.Duration
	Connections int64
	Sent        int64
	Delivered   int64
	Failures    int64
	P99         float64 // ms, of the deliveries of the last second; 0 = none
	Done        float64 // share of connecting, or of warm-up and measured time, that is done; < 0 = unknown
}

// runner drives the loops through the phases of a run and makes its result.
type runner struct {
	o      *plan
	loops  []*loop
	result *Result
	server *process

	sending atomic.Int32 // loops that may still send

	during func(ctx context.Context) // runs beside the traffic until ctx ends, if set
}

// reservedFiles are descriptors that are no connections: epoll, standard streams, HTTP, /proc.
const reservedFiles = 64

// newRunner makes loops for units × size connections. The connections of one unit (a pair, a group) share a loop, so that
// what they count needs no lock; unit u is on loop u % loops.
func newRunner(o Options, units, size int) (*runner, error) {
	p, err := newPlan(o)
	if err != nil {
		return nil, err
	}
	limit, err := RaiseFileLimit()
	if err != nil {
		return nil, err
	}
	if units*size > limit-reservedFiles {
		return nil, fmt.Errorf("bench: %d connections do not fit into the limit of %d open files", units*size, limit)
	}
	r := &runner{o: p, result: newResult(p, units*size)}
	if o.ServerPID != 0 {
		r.server = &process{pid: o.ServerPID}
		if _, err := r.server.sample(); err != nil {
			return nil, err
		}
	}
	p.Loops = min(p.Loops, units)
	p.series = newSeries(p.epoch, p.Loops)
	for i := range p.Loops {
		mine := (units - i + p.Loops - 1) / p.Loops
		l, err := newLoop(p, rand.Uint64(), mine*size)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		for j := range l.conns {
			l.conns[j].number = (i+j/size*p.Loops)*size + j%size
		}
		r.loops = append(r.loops, l)
	}
	return r, nil
}

func (r *runner) close() error {
	for _, l := range r.loops {
		l.close()
	}
	return nil
}

// each runs f for all loops at once, ends them when ctx ends, and tells the progress meanwhile.
func (r *runner) each(ctx context.Context, stage func() string, f func(l *loop) error) error {
	stop := context.AfterFunc(ctx, func() { r.o.stopped.Store(true) })
	defer stop()
	done := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() { r.report(stage, done) })
	errs := make([]error, len(r.loops))
	var tasks sync.WaitGroup
	for i, l := range r.loops {
		tasks.Go(func() { errs[i] = f(l) })
	}
	tasks.Wait()
	close(done)
	reporter.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// report looks at the run at every full second of its clock, for the series and for whom the options name.
func (r *runner) report(stage func() string, done <-chan struct{}) {
	untilNext := func() time.Duration { return time.Second - time.Since(r.o.epoch)%time.Second }
	timer := time.NewTimer(untilNext())
	defer timer.Stop()
	for {
		select {
		case <-done:
			return
		case <-timer.C:
			r.o.series.look(stage(), r.server)
			r.tell(stage())
			timer.Reset(untilNext())
		}
	}
}

func (r *runner) tell(stage string) {
	if r.o.Progress == nil {
		return
	}
	p := Progress{Stage: stage, Elapsed: time.Since(r.o.epoch), P99: r.o.series.p99()}
	for _, l := range r.loops {
		p.Connections += l.progress.lives.Load()
		p.Sent += l.progress.sent.Load()
		p.Delivered += l.progress.delivered.Load()
		p.Failures += l.progress.failures.Load()
	}
	p.Done = r.done(stage, p)
	r.o.Progress(p)
}

// done is Progress.Done.
func (r *runner) done(stage string, p Progress) float64 {
	begin := r.o.from - int64(r.o.WarmUp)
	switch {
	case stage == "connect":
		return float64(p.Connections) / float64(r.result.Connections)
	case r.o.until > 0 && r.o.until > begin:
		return float64(int64(p.Elapsed)-begin) / float64(r.o.until-begin)
	}
	return -1
}

// connect opens each loop's connections up to n(loop) and waits until they are logged in or have failed.
func (r *runner) connect(ctx context.Context, n func(l *loop) int) error {
	begin := time.Now()
	before := r.lives()
	err := r.each(ctx, func() string { return "connect" }, func(l *loop) error {
		return l.spin(n(l), func() bool { return l.nextDial >= n(l) && l.handshakes == 0 })
	})
	if err != nil {
		return err
	}
	logins := r.lives() - before
	r.result.Logins.Seconds += time.Since(begin).Seconds()
	r.result.Logins.Count += logins
	if r.result.Logins.Seconds > 0 {
		r.result.Logins.Rate = float64(r.result.Logins.Count) / r.result.Logins.Seconds
	}
	return nil
}

func (r *runner) lives() (n int) {
	for _, l := range r.loops {
		n += l.lives
	}
	return n
}

// failed is how many failures there were so far.
func (r *runner) failed() (n int) {
	for _, l := range r.loops {
		for _, k := range l.failures {
			n += k
		}
	}
	return n
}

// traffic is a run of a scenario that sends: connect, warm up, measure, drain, check.
func (r *runner) traffic(ctx context.Context) (*Result, error) {
	defer func() { _ = r.close() }()
	if err := r.connect(ctx, func(l *loop) int { return len(l.conns) }); err != nil {
		return nil, err
	}
	if r.failed() == 0 {
		if err := r.drive(ctx); err != nil {
			return nil, err
		}
	}
	return r.conclude(), nil
}

// drive runs the traffic and samples the two processes at both ends of the measured time.
func (r *runner) drive(ctx context.Context) error {
	begin := int64(time.Since(r.o.epoch))
	r.o.from = begin + int64(r.o.WarmUp)
	r.o.until = r.o.from + int64(r.o.Duration)
	stage := func() string {
		switch now := int64(time.Since(r.o.epoch)); {
		case now < r.o.from:
			return "warm-up"
		case now < r.o.until:
			return "measure"
		}
		return "drain"
	}
	measured, cancel := context.WithCancel(ctx)
	defer cancel()
	var sampler sync.WaitGroup
	sampler.Go(func() { r.measure(measured) })
	if r.during != nil {
		sampler.Go(func() { r.during(measured) })
	}
	r.sending.Store(int32(len(r.loops)))
	err := r.each(ctx, stage, func(l *loop) error {
		if err := l.spin(0, func() bool { return l.now >= r.o.until }); err != nil {
			return err
		}
		return r.drain(l)
	})
	if err != nil {
		cancel() // else the samplers end by themselves with the measured time, which has passed
	}
	sampler.Wait()
	return err
}

// drain runs l until nothing is open or nothing has come for the time that the options give.
func (r *runner) drain(l *loop) error {
	l.scene.due(l, l.now) // what an open loop should have sent before the end, had it woken in time
	r.sending.Add(-1)
	packets, since := l.stats.packetsIn, l.now
	quiet := l.stats.heartBeats
	return l.spin(0, func() bool {
		if fresh := l.stats.packetsIn - l.stats.heartBeats; fresh != packets-quiet {
			packets, quiet, since = l.stats.packetsIn, l.stats.heartBeats, l.now
		}
		return r.sending.Load() == 0 && l.scene.open() == 0 || l.now-since > int64(r.o.Drain)
	})
}

// measure samples at the begin and the end of the measured time.
func (r *runner) measure(ctx context.Context) {
	if !sleepUntil(ctx, r.o.epoch.Add(time.Duration(r.o.from))) {
		return
	}
	before := r.sample(ctx)
	if !sleepUntil(ctx, r.o.epoch.Add(time.Duration(r.o.until))) {
		return
	}
	r.result.usage(before, r.sample(context.WithoutCancel(ctx)))
}

func sleepUntil(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// conclude checks that nothing is missing and sums up.
func (r *runner) conclude() *Result {
	total := newStats()
	for _, l := range r.loops {
		l.scene.finish(l)
		for i := range l.conns {
			if c := &l.conns[i]; c.phase == live && len(c.out) > 0 {
				l.fail("unsent", "%d bytes to the server, which did not read them, are left of user %s", len(c.out), r.o.user(c.number))
			}
		}
		total.merge(&l.stats)
		r.result.check(l)
		l.tally.finish(l.clock(), l.lives)
	}
	r.result.Series = r.o.series.samples()
	r.result.sum(&total, r.o)
	return r.result
}
