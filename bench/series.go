package bench

import (
	"math"
	"math/bits"
	"sync"
	"time"
)

// Sample is one second of a run, by the run's clock. Warm-up and drain are in it too: Stage tells them apart. What a loop
// did while it handled one batch of events counts for the second in which the batch began.
type Sample struct {
	At    float64 `json:"at_seconds"` // the end of the second
	Stage string  `json:"stage"`      // see Progress

	Delivered float64 `json:"delivered_per_second"`
	Accepted  float64 `json:"accepted_per_second"`
	// Delivery and Accept are of what arrived in this second, intended send → arrival, within 1.6 %.
	Delivery *Latency `json:"delivery,omitempty"`
	Accept   *Latency `json:"accept,omitempty"`

	Connections int     `json:"connections"` // logged in
	LoadCPU     float64 `json:"load_cpu_share"`
	// Of the server's process, when it is known; CPU of one core.
	ServerRSSAnon int64   `json:"server_rss_anon_bytes,omitempty"`
	ServerCPU     float64 `json:"server_cpu_share,omitempty"` // without the process: from /metrics
	// What the server's /metrics say: all memory that it has, and Go's heap. With Admin only.
	ServerResident int64 `json:"server_resident_bytes,omitempty"`
	ServerHeap     int64 `json:"server_heap_bytes,omitempty"`
}

const (
	coarseSub = 64 // buckets to a power of two: 1.6 %
	// coarseLen holds every latency up to histogramMax: its power of two is the 27th, of which the first 6 need no buckets of their own.
	coarseLen = (27 - 6 + 1) * coarseSub
)

// coarse is a histogram of 6 KB for one second of one loop: recording touches one counter, merging is a short sum. The
// result's own latencies come from the finer histogram.
type coarse struct {
	counts     [coarseLen]uint32
	count, sum int64 // µs
	max        int64
}

func (c *coarse) record(ns int64) {
	us := min(max(ns/1000, 1), histogramMax)
	c.counts[coarseIndex(us)]++
	c.count++
	c.sum += us
	c.max = max(c.max, us)
}

// coarseIndex is the bucket of v: itself below 64, then 64 buckets of equal width between powers of two.
func coarseIndex(v int64) int {
	shift := max(bits.Len64(uint64(v))-7, 0)
	return shift*coarseSub + int(v>>shift)
}

// coarseValue is the middle of a bucket.
func coarseValue(i int) float64 {
	if i < 2*coarseSub {
		return float64(i)
	}
	shift := i/coarseSub - 1
	low := int64(i-shift*coarseSub) << shift
	return float64(low) + float64(int64(1)<<shift-1)/2
}

func (c *coarse) merge(o *coarse) {
	if o.count == 0 {
		return
	}
	for i, n := range o.counts {
		c.counts[i] += n
	}
	c.count += o.count
	c.sum += o.sum
	c.max = max(c.max, o.max)
}

// summary is nil when nothing was recorded.
func (c *coarse) summary() *Latency {
	if c.count == 0 {
		return nil
	}
	l := &Latency{Count: c.count, Mean: float64(c.sum) / float64(c.count) / 1000, Max: float64(c.max) / 1000}
	wanted := []struct {
		share float64
		to    *float64
	}{{0.5, &l.P50}, {0.9, &l.P90}, {0.99, &l.P99}, {0.999, &l.P999}}
	seen := int64(0)
	for i, n := range c.counts {
		seen += int64(n)
		for len(wanted) > 0 && seen >= int64(math.Ceil(wanted[0].share*float64(c.count))) {
			*wanted[0].to = min(coarseValue(i)/1000, l.Max)
			wanted = wanted[1:]
		}
		if len(wanted) == 0 {
			break
		}
	}
	return l
}

// slice is what one loop counts in one second. It is the loop's until it is given to the series.
type slice struct {
	delivery, accept coarse
	lives            int
}

// series gathers the seconds of all loops. A nil series gathers nothing.
type series struct {
	epoch time.Time

	mu      sync.Mutex
	loops   int                        // or, at the coordinator of several processes, workers
	forward func(second int, s *slice) // in a worker: gets the seconds instead of the result
	seconds []*second
	free    []*slice
	last    usageLook
	newest  *Latency // deliveries of the last complete second
}

// second is a sample in the making.
type second struct {
	Sample
	sum   *slice // nil once all loops have given theirs
	given int
}

// usageLook is the last look at the two processes.
type usageLook struct {
	at          time.Time
	own, server int64 // CPU, ns
}

func newSeries(epoch time.Time, loops int) *series {
	return &series{epoch: epoch, loops: loops}
}

// at is the sample of second i, made if there is none; mu is held.
func (s *series) at(i int) *second {
	for len(s.seconds) <= i {
		s.seconds = append(s.seconds, &second{Sample: Sample{At: float64(len(s.seconds) + 1)}, sum: s.takeFree()})
	}
	return s.seconds[i]
}

func (s *series) takeFree() *slice {
	if n := len(s.free); n > 0 {
		f := s.free[n-1]
		s.free = s.free[:n-1]
		*f = slice{}
		return f
	}
	return new(slice)
}

// give takes what a loop counted in second i and returns an empty slice for the next.
func (s *series) give(i int, from *slice) *slice {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.at(i)
	if at.sum != nil {
		at.sum.delivery.merge(&from.delivery)
		at.sum.accept.merge(&from.accept)
		at.sum.lives += from.lives
		if at.given++; at.given == s.loops {
			s.complete(at, 1)
		}
	}
	s.free = append(s.free, from)
	return s.takeFree()
}

// complete makes the sample of a second of that width; mu is held.
func (s *series) complete(at *second, width float64) {
	if s.forward != nil {
		s.forward(int(at.At)-1, at.sum)
	}
	at.Delivered = float64(at.sum.delivery.count) / width
	at.Accepted = float64(at.sum.accept.count) / width
	at.Delivery, at.Accept = at.sum.delivery.summary(), at.sum.accept.summary()
	at.Connections = at.sum.lives
	s.newest = at.Delivery
	s.free = append(s.free, at.sum)
	at.sum = nil
}

// look notes the stage and what the processes use, own of them the load, in ns of CPU; called about once a second. It returns
// the number of the second.
func (s *series) look(stage string, server *process, own int64) (second int) {
	if s == nil {
		return 0
	}
	now := time.Now()
	var of procSample
	known := false
	if server != nil {
		var err error
		of, err = server.sample()
		known = err == nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A tick comes at the end of the second it tells of.
	i := max(int(math.Round(now.Sub(s.epoch).Seconds()))-1, 0)
	at := s.at(i)
	at.Stage = stage
	if wall := float64(now.Sub(s.last.at)); !s.last.at.IsZero() && wall > 0 {
		at.LoadCPU = float64(own-s.last.own) / wall
		if known {
			at.ServerCPU = max(0, float64(of.cpu-s.last.server)/wall)
		}
	}
	at.ServerRSSAnon = of.rssAnon
	s.last = usageLook{at: now, own: own, server: of.cpu}
	return i
}

// note lets f write into the sample of a second that was looked at.
func (s *series) note(second int, f func(*Sample)) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.at(second).Sample)
}

// p99 is that of the last complete second's deliveries in ms, 0 = none.
func (s *series) p99() float64 {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == nil {
		return 0
	}
	return s.newest.P99
}

// samples ends the series, when no loop runs any more. A last second of which less than a fifth has passed is left out: its
// rate would be chance. What nobody looked at is of the stage before it or, behind until (ns, 0 = unknown), of the drain.
func (s *series) samples(until int64) []Sample {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	passed := time.Since(s.epoch).Seconds()
	var all []Sample
	stage := ""
	for i, at := range s.seconds {
		width := min(passed-float64(i), 1)
		if width < 0.2 {
			break
		}
		if at.sum != nil {
			s.complete(at, width)
			at.At = float64(i) + width
		}
		if at.Stage == "" {
			at.Stage = stage
			if until > 0 && i > 0 && int64(i)*int64(time.Second) >= until-int64(time.Second)/2 {
				at.Stage = "drain"
			}
		}
		stage = at.Stage
		all = append(all, at.Sample)
	}
	return all
}

// tally is a loop's side of the series, owned by the loop.
type tally struct {
	to     *series
	now    *slice
	second int
}

// arrived and accepted count a latency in ns.
func (t *tally) arrived(ns int64) {
	if t.now != nil {
		t.now.delivery.record(ns)
	}
}

func (t *tally) accepted(ns int64) {
	if t.now != nil {
		t.now.accept.record(ns)
	}
}

// tick hands over what was counted in the seconds before now, in ns of the run's clock.
func (t *tally) tick(now int64, lives int) {
	if t.to == nil {
		return
	}
	if t.now == nil {
		t.now = new(slice)
	}
	for end := int(now / int64(time.Second)); t.second < end; t.second++ {
		t.now.lives = lives
		t.now = t.to.give(t.second, t.now)
	}
}

// finish hands over the rest.
func (t *tally) finish(now int64, lives int) {
	if t.tick(now, lives); t.now != nil {
		t.now.lives = lives
		t.to.give(t.second, t.now)
		t.now = nil
	}
}

// Quantile is a point of a distribution: that percentage of all is not above MS.
type Quantile struct {
	Percent float64 `json:"percent"`
	MS      float64 `json:"ms"`
}

// distribution is the histogram at ten points for each nine of the percentage, up to the last that the count allows.
func (h histogram) distribution() []Quantile {
	var all []Quantile
	total := float64(h.h.TotalCount())
	for i := 0; total > 0 && math.Pow(10, -float64(i)/10)*total >= 1; i++ {
		percent := 100 * (1 - math.Pow(10, -float64(i)/10))
		all = append(all, Quantile{Percent: percent, MS: float64(h.h.ValueAtQuantile(percent)) / 1000})
	}
	return all
}
