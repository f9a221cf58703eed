package hub

import (
	"sync"
	"sync/atomic"

	"github.com/meshtalk/meshtalk/store"
)

// HistogramSnapshot is a histogram: Counts[i] are the values ≤ Bounds[i] and above the bound before; the last count is
// of those above all bounds.
type HistogramSnapshot struct {
	Bounds []float64
	Counts []uint64
	Sum    float64
}

// Histogram counts values under one mutex: for what happens per batch, or at most some ten thousand times a second.
type Histogram struct {
	bounds []float64

	mu     sync.Mutex
	counts []uint64
	sum    float64
}

func newHistogram(bounds []float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]uint64, len(bounds)+1)}
}

func (h *Histogram) observe(v float64) {
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.mu.Lock()
	h.counts[i]++
	h.sum += v
	h.mu.Unlock()
}

func (h *Histogram) snapshot() HistogramSnapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	return HistogramSnapshot{Bounds: h.bounds, Counts: append([]uint64(nil), h.counts...), Sum: h.sum}
}

// counters are the hub's. Those per message are the finisher's alone and read atomically.
type counters struct {
	kinds    [5]atomic.Int64 // by store.Kind; 0 = ephemeral
	handover *Histogram      // seconds
	commit   *Histogram      // seconds
	batch    *Histogram      // messages
	pulled   atomic.Int64
}

func (c *counters) init() {
	seconds := []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}
	c.commit, c.handover = newHistogram(seconds), newHistogram(seconds)
	c.batch = newHistogram([]float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512})
}

func (c *counters) accepted(k store.Kind) { c.kinds[k].Add(1) }

// Stats is a snapshot of the hub's counters. What sessions count on their loops is package session's.
type Stats struct {
	UsersOnline       int
	Accepted          map[string]int64 // by kind: private, group, system, recall, ephemeral
	PullDeliveries    int64
	QueuedSubmissions int
	Lag               map[int]int64 // bodies behind the offset, by partition that this node consumes; nil without a log of its own
	PoolWaiting       int
	HandoverSeconds   HistogramSnapshot // empty without a log of its own
	CommitSeconds     HistogramSnapshot
	CommitBatch       HistogramSnapshot
	Store             store.Stats
	ReadOnly          bool
}

// LogState is nil when the log takes and brings messages.
func (h *Hub) LogState() error { return h.log.State() }

// EventsState is nil when events are taken by whom they are for, else why they wait here.
func (h *Hub) EventsState() error { return h.outbox.state() }

// ClusterState is nil when the other nodes can be reached.
func (h *Hub) ClusterState() error { return h.cluster.State() }

// Stats takes a snapshot. Safe for concurrent use.
func (h *Hub) Stats() Stats {
	kinds := [...]string{"ephemeral", "private", "group", "system", "recall"}
	s := Stats{
		UsersOnline: h.registry.users(), Accepted: make(map[string]int64, len(kinds)),
		PullDeliveries:    h.stats.pulled.Load(),
		QueuedSubmissions: h.log.Backlog(), Lag: h.log.Lag(), PoolWaiting: h.pool.Waiting(),
		HandoverSeconds: h.stats.handover.snapshot(), CommitSeconds: h.stats.commit.snapshot(), CommitBatch: h.stats.batch.snapshot(),
		Store: h.store.Stats(), ReadOnly: h.store.State() != nil,
	}
	for i, name := range kinds {
		s.Accepted[name] = h.stats.kinds[i].Load()
	}
	return s
}
