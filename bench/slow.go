package bench

import (
	"context"
	"errors"
	"time"
)

// SlowOptions are those of Slow.
type SlowOptions struct {
	Receivers int           // that stop reading
	Stall     time.Duration // how long
	Bytes     int64         // of contents that are sent to each of them meanwhile, evenly
	BulkSize  int           // of such a content, in bytes; at least 44

	Pairs int     // of other users, one of which sends to the other
	Rate  float64 // messages per second over all of them, an open loop
	Size  int     // of a content, in bytes; at least 44

	// Collect asks the server for a garbage collection at the end of each part, to know what it really holds. Needs Admin.
	Collect bool
}

// SlowResult is what Slow found.
type SlowResult struct {
	// Before, During and After are the other users' deliveries in the time of the stall's length before the stall, in the
	// stall, and in the same time after it, in which the slow ones catch up.
	Before Latency `json:"others_before"`
	During Latency `json:"others_during"`
	After  Latency `json:"others_after"`
	// CatchUp is the time from the end of the stall until a receiver had everything.
	CatchUp Latency `json:"catch_up"`
	// BulkMessages is how many messages were sent to the receivers in the stall, BulkBytes the bytes of their contents.
	BulkMessages int64 `json:"bulk_messages"`
	BulkBytes    int64 `json:"bulk_bytes"`
	// Memory is the server's in the same three times, which can only be judged together: the same messages per second go to
	// the same receivers before the stall, when they read, so that what the first part grows by is what storing them costs.
	Memory []SlowMemory `json:"memory,omitempty"`
}

// SlowMemory is one part of Slow. Bytes.
type SlowMemory struct {
	Part    string `json:"part"` // "before", "during" or "after"
	First   int64  `json:"first_rss_anon_bytes"`
	Highest int64  `json:"highest_rss_anon_bytes"`
	// Live is the heap after a garbage collection near the end of the part, 0 = unknown.
	Live int64 `json:"live_heap_bytes,omitempty"`
}

// Names of histograms.
const (
	histBefore      = "others before"
	histDuring      = "others during"
	histAfter       = "others after"
	histSlowCatchUp = "slow catch up"
)

// Slow lets receivers stop reading while they are sent to, and others go on meanwhile. Nobody may be disconnected, and
// everything must have arrived in the end. The measured time is three times the stall: before, during and after it.
func Slow(ctx context.Context, o Options, so SlowOptions) (*Result, error) {
	switch {
	case so.Receivers < 1 || so.Pairs < 1 || so.Receivers+so.Pairs > maxFlow:
		return nil, errors.New("bench: slow: want at least one receiver and one other pair")
	case so.Rate <= 0 || so.Stall <= 0 || so.Bytes < 1:
		return nil, errors.New("bench: slow: want a rate, a time and bytes")
	}
	so.Size, so.BulkSize = max(so.Size, minContent), max(so.BulkSize, minContent)
	o.Duration = 3 * so.Stall
	r, err := newRunner(ctx, o, "slow", so, so.Receivers+so.Pairs, 2)
	if err != nil {
		return nil, err
	}
	r.result.Parameters = map[string]any{"receivers": so.Receivers, "stall_seconds": so.Stall.Seconds(), "bytes": so.Bytes,
		"bulk_size": so.BulkSize, "pairs": so.Pairs, "rate": so.Rate, "size": so.Size}
	r.result.Slow = &SlowResult{}
	r.sum = r.result.Slow.sum
	for _, l := range r.loops {
		l.scene = newSlowScene(l, so)
	}
	r.during = func(ctx context.Context) { r.watchMemory(ctx, so) }
	return r.traffic(ctx)
}

// watchMemory looks at the server's memory in each part of the measured time.
func (r *runner) watchMemory(ctx context.Context, so SlowOptions) {
	if r.server == nil {
		return
	}
	for i, part := range []string{"before", "during", "after"} {
		begin := r.o.epoch.Add(time.Duration(r.o.from) + time.Duration(i)*so.Stall)
		if m := (SlowMemory{Part: part}); r.watchPart(ctx, &m, begin, so) {
			r.result.Slow.Memory = append(r.result.Slow.Memory, m)
		}
	}
}

// watchPart is watchMemory for one part, false if ctx ended meanwhile.
func (r *runner) watchPart(ctx context.Context, m *SlowMemory, begin time.Time, so SlowOptions) bool {
	const interval = 50 * time.Millisecond // reading /proc costs some 50 µs
	end := begin.Add(so.Stall)
	collect := end.Add(-max(so.Stall/10, interval)) // it must be over when the part is
	for at := begin; at.Before(end); at = at.Add(interval) {
		if !sleepUntil(ctx, at) {
			return false
		}
		if sample, err := r.server.sample(); err == nil {
			m.Highest = max(m.Highest, sample.rssAnon)
			if m.First == 0 {
				m.First = sample.rssAnon
			}
		}
		if so.Collect && r.o.Admin != "" && m.Live == 0 && !at.Before(collect) {
			m.Live = r.liveHeap(ctx)
		}
	}
	return true
}

// liveHeap is the server's heap after a garbage collection, 0 = unknown.
func (r *runner) liveHeap(ctx context.Context) int64 {
	a := admin{r.o.Admin, r.o.AdminAuth}
	if _, err := a.call(ctx, "GET", "/debug/pprof/heap?gc=1", nil); err != nil {
		return 0
	}
	m, err := a.metrics(ctx)
	if err != nil {
		return 0
	}
	return int64(m["go_memstats_heap_alloc_bytes"])
}

func (s *SlowResult) sum(from *stats) {
	s.Before, s.During, s.After = from.hist(histBefore).summary(), from.hist(histDuring).summary(), from.hist(histAfter).summary()
	s.CatchUp = from.hist(histSlowCatchUp).summary()
	s.BulkMessages, s.BulkBytes = from.bulkMessages, from.bulkBytes
}

// slowScene is Slow on one loop. The receivers of its first pairs are the slow ones.
type slowScene struct {
	privateScene
	slow           int
	bulk           pace // of the slow pairs
	lastAt         []int64
	bulkSize       int
	stall          int64
	stalls, resume int64 // when, ns of the run's clock; 0 = not known yet
	stalled        bool
	resumed        bool
}

func newSlowScene(l *loop, so SlowOptions) *slowScene {
	s := &slowScene{privateScene: privateScene{pairs: make([]pair, len(l.conns)/2)}, bulkSize: so.BulkSize, stall: int64(so.Stall)}
	for i := range s.pairs {
		if l.conns[2*i].number/2 < so.Receivers {
			s.slow++
			s.pairs[i] = newPair(l, i, so.BulkSize)
			continue
		}
		s.pairs[i] = newPair(l, i, so.Size)
	}
	s.lastAt = make([]int64, s.slow)
	others := len(s.pairs) - s.slow
	s.pace = pace{units: others}
	s.pace.setRate(so.Rate * float64(others) / float64(so.Pairs))
	s.bulk = pace{units: s.slow}
	s.bulk.setRate(float64(so.Bytes) / float64(so.BulkSize) / so.Stall.Seconds() * float64(s.slow))
	return s
}

func (s *slowScene) due(l *loop, now int64) int64 {
	if l.o.from == 0 {
		return l.now + idleTick
	}
	if s.stalls == 0 {
		s.stalls = l.o.from + s.stall
		s.resume = s.stalls + s.stall
		s.bulk.end = s.resume
	}
	next := s.resume
	switch {
	case now < s.stalls:
		next = s.stalls
	case !s.stalled:
		s.setStalled(l, true)
		s.stalled = true
	case now >= s.resume && !s.resumed:
		s.setStalled(l, false)
		s.resumed = true
	}
	if s.resumed {
		next = l.o.until
	}
	next = min(next, s.pace.due(l, now, func(unit int, intended int64) { s.send(l, &s.pairs[s.slow+unit], intended) }))
	return min(next, s.bulk.due(l, now, func(unit int, intended int64) {
		s.send(l, &s.pairs[unit], intended)
		if intended >= s.stalls {
			l.stats.bulkMessages++
			l.stats.bulkBytes += int64(s.bulkSize)
		}
	}))
}

func (s *slowScene) setStalled(l *loop, on bool) {
	for i := range s.slow {
		l.stall(s.pairs[i].receiver, on)
	}
}

func (s *slowScene) message(l *loop, c *conn, p push) {
	pr := s.took(l, c, p)
	if pr == nil {
		return
	}
	if int(c.flow) < s.slow {
		s.lastAt[c.flow] = l.now
		l.stats.delivered++
		return
	}
	l.arrived(p.mark.time)
	latency := l.now - p.mark.time
	switch {
	case !l.o.measures(p.mark.time):
	case p.mark.time < s.stalls:
		l.stats.hist(histBefore).record(latency)
	case p.mark.time < s.resume:
		l.stats.hist(histDuring).record(latency)
	default:
		l.stats.hist(histAfter).record(latency)
	}
}

func (s *slowScene) finish(l *loop) {
	s.privateScene.finish(l)
	for i := range s.slow {
		if pr := &s.pairs[i]; pr.received == pr.t.counter && s.resumed {
			l.stats.hist(histSlowCatchUp).record(s.lastAt[i] - s.resume)
		}
	}
}
