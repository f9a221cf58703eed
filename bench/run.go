package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
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
	team   team
	loops  []*loop
	result *Result
	server *process

	stage  func() string             // for Progress
	during func(ctx context.Context) // runs beside the traffic until ctx ends, if set
	sum    func(total *stats)        // fills in the scenario's own part of the result, if set

	scraped scraped // owned by the reporter, of which there is one at a time

	// of all processes, at the last meeting
	lives, failed int

	// of the measured time
	used       used
	machineCPU int64 // ns, of all processes of this machine
}

// reservedFiles are descriptors that are no connections: epoll, standard streams, HTTP, /proc.
const reservedFiles = 64

// newRunner assembles the processes of a run of units × size connections, and makes the loops of this one. The connections
// of one unit (a pair, a group) share a loop, so that what they count needs no lock; unit u is in process u % processes,
// and there on loop u / processes % loops.
func newRunner(ctx context.Context, o Options, scenario string, params any, units, size int) (*runner, error) {
	p, err := newPlan(ctx, o)
	if err != nil {
		return nil, err
	}
	limit, err := RaiseFileLimit()
	if err != nil {
		return nil, err
	}
	r := &runner{o: p, result: newResult(p, units*size), stage: func() string { return "start" }}
	r.result.Scenario = scenario
	if o.ServerPID != 0 {
		r.server = &process{pid: o.ServerPID}
		if _, err := r.server.sample(); err != nil {
			return nil, err
		}
	}
	if err := r.assemble(ctx, scenario, params, units); err != nil {
		return nil, err
	}
	index, of := r.team.share()
	mine := 0
	if of > 0 {
		mine = (units - index + of - 1) / of
	}
	if mine*size > limit-reservedFiles {
		return nil, errors.Join(fmt.Errorf("bench: %d connections do not fit into the limit of %d open files of one process", mine*size, limit),
			r.close())
	}
	p.Loops = min(p.Loops, mine)
	for i := range p.Loops {
		l, err := newLoop(p, rand.Uint64(), (mine-i+p.Loops-1)/p.Loops*size)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		for j := range l.conns {
			unit := index + (i+j/size*p.Loops)*of
			l.conns[j].number = unit*size + j%size
		}
		r.loops = append(r.loops, l)
	}
	if p.series.loops == 0 {
		p.series.loops = len(r.loops)
	}
	return r, nil
}

// assemble makes the team, and the series that goes with it.
func (r *runner) assemble(ctx context.Context, scenario string, params any, units int) error {
	p := r.o
	p.series = newSeries(p.epoch, 0)
	switch {
	case p.seat != nil:
		r.team = p.seat
		p.series.forward = func(second int, s *slice) { _ = p.seat.link.send(message{Second: s.part(second)}) }
		p.Progress = func(n Progress) {
			_ = p.seat.link.send(message{Counts: &counts{n.Connections, n.Sent, n.Delivered, n.Failures, ownCPU()}})
		}
	case p.Procs > 1 || len(p.Workers) > 0:
		c, err := hireCrew(ctx, p, scenario, params, units)
		if err != nil {
			return err
		}
		r.team = c
		p.series.loops = len(c.workers)
		c.listen(p.series)
		r.result.Processes = len(c.workers)
	default:
		r.team = solo{p.epoch}
	}
	return nil
}

func (r *runner) close() error {
	r.team.hear(nil)
	for _, l := range r.loops {
		l.close()
	}
	r.team.close()
	return nil
}

// each runs f for all loops at once, ends them when ctx ends, and tells the progress meanwhile.
func (r *runner) each(ctx context.Context, stage func() string, f func(l *loop) error) error {
	r.stage = stage
	stop := context.AfterFunc(ctx, func() { r.o.stopped.Store(true) })
	defer stop()
	defer r.reporting()()
	errs := make([]error, len(r.loops))
	var tasks sync.WaitGroup
	for i, l := range r.loops {
		tasks.Go(func() { errs[i] = f(l) })
	}
	tasks.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// meet waits until all processes have come to the point, and says how many connections live and how much has failed.
func (r *runner) meet(ctx context.Context, m meeting) (all meeting, err error) {
	m.add(meeting{Sum: map[string]int64{"lives": 0, "failed": 0}})
	for _, l := range r.loops {
		m.Sum["lives"] += int64(l.lives)
		for _, n := range l.failures {
			m.Sum["failed"] += int64(n)
		}
	}
	defer r.reporting()()
	all, err = r.team.meet(ctx, m)
	r.lives, r.failed = int(all.Sum["lives"]), int(all.Sum["failed"])
	return all, err
}

// reporting tells the progress until stop is called.
func (r *runner) reporting() (stop func()) {
	done := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() { r.report(r.stage, done) })
	return func() {
		close(done)
		reporter.Wait()
	}
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
			second := r.o.series.look(stage(), r.server, r.loadCPU())
			r.tell(stage())
			r.scrape(context.Background(), second)
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
	for _, c := range r.team.counts() {
		p.Connections += c.Connections
		p.Sent += c.Sent
		p.Delivered += c.Delivered
		p.Failures += c.Failures
	}
	p.Done = r.done(stage, p)
	r.o.Progress(p)
}

// loadCPU is what all processes of the load have used, in ns; what workers say of it is up to a second old.
func (r *runner) loadCPU() int64 {
	ns := ownCPU()
	for _, c := range r.team.counts() {
		ns += c.CPU
	}
	return ns
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
	if _, err := r.meet(ctx, meeting{Point: "connect"}); err != nil {
		return err
	}
	begin, before := time.Now(), r.lives
	err := r.each(ctx, func() string { return "connect" }, func(l *loop) error {
		return l.spin(n(l), func() bool { return l.nextDial >= n(l) && l.handshakes == 0 })
	})
	if err != nil {
		return err
	}
	if _, err := r.meet(ctx, meeting{Point: "connected"}); err != nil {
		return err
	}
	r.result.Logins.Seconds += time.Since(begin).Seconds()
	r.result.Logins.Count += r.lives - before
	if r.result.Logins.Seconds > 0 {
		r.result.Logins.Rate = float64(r.result.Logins.Count) / r.result.Logins.Seconds
	}
	return nil
}

// traffic is a run of a scenario that sends: connect, warm up, measure, drain, check.
func (r *runner) traffic(ctx context.Context) (*Result, error) {
	defer func() { _ = r.close() }()
	if err := r.connect(ctx, func(l *loop) int { return len(l.conns) }); err != nil {
		return nil, err
	}
	if r.failed == 0 {
		if err := r.drive(ctx); err != nil {
			return nil, err
		}
	}
	return r.conclude(ctx)
}

// drive runs the traffic and samples the processes at both ends of the measured time.
func (r *runner) drive(ctx context.Context) error {
	begin, err := r.meet(ctx, meeting{Point: "traffic"})
	if err != nil {
		return err
	}
	r.o.from = begin.Now + int64(r.o.WarmUp)
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
	var profileErr error
	if r.o.ServerProfile != "" && r.team.leads() {
		sampler.Go(func() { profileErr = r.profile(measured) })
	}
	if r.during != nil {
		sampler.Go(func() { r.during(measured) })
	}
	err = r.each(ctx, stage, func(l *loop) error {
		if err := l.spin(0, func() bool { return l.now >= r.o.until }); err != nil {
			return err
		}
		return r.drain(l)
	})
	if err == nil {
		_, err = r.meet(ctx, meeting{Point: "drained"})
	}
	if err != nil {
		cancel() // else the samplers end by themselves with the measured time, which has passed
	}
	sampler.Wait()
	return errors.Join(err, profileErr)
}

// profile takes a CPU profile of the server in the measured time.
func (r *runner) profile(ctx context.Context) error {
	if !sleepUntil(ctx, r.o.epoch.Add(time.Duration(r.o.from))) {
		return nil // the run ends with its own error
	}
	path := fmt.Sprintf("/debug/pprof/profile?seconds=%d", max(int(r.o.Duration.Seconds()), 1))
	b, err := admin{r.o.Admin, r.o.AdminAuth}.call(context.WithoutCancel(ctx), "GET", path, nil)
	if err != nil {
		return err
	}
	return os.WriteFile(r.o.ServerProfile, b, 0o644)
}

// drain runs l until nothing is open or nothing has come for the time that the options give.
func (r *runner) drain(l *loop) error {
	l.scene.due(l, l.now) // what an open loop should have sent before the end, had it woken in time
	l.scene.sentAll(l)
	packets, since := l.stats.packetsIn, l.now
	quiet := l.stats.heartBeats
	return l.spin(0, func() bool {
		if fresh := l.stats.packetsIn - l.stats.heartBeats; fresh != packets-quiet {
			packets, quiet, since = l.stats.packetsIn, l.stats.heartBeats, l.now
		}
		return l.scene.open() == 0 || l.now-since > int64(r.o.Drain)
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
	r.usage(before, r.sample(context.WithoutCancel(ctx)))
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

// conclude checks that nothing is missing and sums up. In a worker the result is only handed over.
func (r *runner) conclude(ctx context.Context) (*Result, error) {
	own := r.part()
	others, err := r.team.finish(ctx, own)
	if err != nil {
		return nil, err
	}
	r.result.ClockError = float64(r.team.clockError()) / 1e6
	total := newStats()
	parts := append([]*partial{own}, others...)
	for _, p := range parts {
		total.merge(p.Stats)
		r.result.check(p)
	}
	r.result.load(parts, r.machineCPU)
	r.result.Series = r.o.series.samples(r.o.until)
	if r.sum != nil {
		r.sum(&total)
	}
	r.result.sum(&total, r.o)
	return r.result, nil
}

// part is this process's.
func (r *runner) part() *partial {
	s := newStats()
	p := &partial{Stats: &s, Failures: map[string]int{}, Used: r.used}
	for _, l := range r.loops {
		l.scene.finish(l)
		for i := range l.conns {
			if c := &l.conns[i]; c.phase == live && len(c.out) > 0 {
				l.fail("unsent", "%d bytes to the server, which did not read them, are left of user %s", len(c.out), r.o.user(c.number))
			}
		}
		s.merge(&l.stats)
		for kind, n := range l.failures {
			p.Failures[kind] += n
		}
		p.Evidence = append(p.Evidence, l.evidence...)
		l.tally.finish(l.clock(), l.lives)
	}
	if r.o.seat != nil {
		r.o.series.samples(r.o.until) // the last second goes to the coordinator before the result
	}
	return p
}
