package bench

import (
	"github.com/HdrHistogram/hdrhistogram-go"
)

// histogram holds latencies from 1 µs to 100 s with three significant digits. Not safe for concurrent use.
type histogram struct{ h *hdrhistogram.Histogram }

const (
	histogramMax = 100_000_000 // µs
	histogramSig = 3
)

func newHistogram() histogram {
	return histogram{hdrhistogram.New(1, histogramMax, histogramSig)}
}

// record takes a latency in ns.
func (h histogram) record(ns int64) {
	_ = h.h.RecordValue(min(max(ns/1000, 1), histogramMax)) // cannot fail within the bounds
}

func (h histogram) merge(other histogram) { h.h.Merge(other.h) }

// Latency is a summary of a histogram, in milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p99_9_ms"`
	Max   float64 `json:"max_ms"`
}

func (h histogram) summary() Latency {
	q := func(p float64) float64 { return float64(h.h.ValueAtQuantile(p)) / 1000 }
	if h.h.TotalCount() == 0 {
		return Latency{}
	}
	return Latency{Count: h.h.TotalCount(), Mean: h.h.Mean() / 1000, P50: q(50), P90: q(90), P99: q(99), P999: q(99.9),
		Max: float64(h.h.Max()) / 1000}
}

// stats is what one loop counts.
type stats struct {
	login    histogram // connect → LOGIN answer
	delivery histogram // intended send → arrival at the receiver
	accept   histogram // intended send → SEND_ACK
	late     histogram // intended send → the send, of open loops

	sent, acked, delivered int64 // of the whole run
	measured               int64 // deliveries that arrived within the measured time
	measuredAcks           int64

	packetsIn, packetsOut, reads, writes int64
	heartBeats, lags, gaps               int64

	bulkMessages, bulkBytes int64 // to slow receivers
	typed, typings          int64 // TYPING sent and received
	resent                  int64 // messages that were sent again after a reconnect

	named map[string]histogram // of a scenario of its own

	waited int64 // ns asleep in epoll
	stall  int64 // ns, the longest time between two looks at the sockets
}

func newStats() stats {
	return stats{login: newHistogram(), delivery: newHistogram(), accept: newHistogram(), late: newHistogram(), named: map[string]histogram{}}
}

// hist is the scenario's histogram of that name.
func (s *stats) hist(name string) histogram {
	h, ok := s.named[name]
	if !ok {
		h = newHistogram()
		s.named[name] = h
	}
	return h
}

// sums are the counters that add up over loops and processes.
func (s *stats) sums() []*int64 {
	return []*int64{&s.sent, &s.acked, &s.delivered, &s.measured, &s.measuredAcks, &s.packetsIn, &s.packetsOut, &s.reads, &s.writes,
		&s.heartBeats, &s.lags, &s.gaps, &s.bulkMessages, &s.bulkBytes, &s.typed, &s.typings, &s.resent, &s.waited}
}

func (s *stats) merge(o *stats) {
	s.login.merge(o.login)
	s.delivery.merge(o.delivery)
	s.accept.merge(o.accept)
	s.late.merge(o.late)
	for name, h := range o.named {
		s.hist(name).merge(h)
	}
	from := o.sums()
	for i, n := range s.sums() {
		*n += *from[i]
	}
	s.stall = max(s.stall, o.stall)
}

// arrived counts a delivery of a message with an intended time.
func (l *loop) arrived(intended int64) {
	l.stats.delivered++
	if l.o.measures(l.now) {
		l.stats.measured++
	}
	l.tally.arrived(l.now - intended)
	if l.o.measures(intended) {
		l.stats.delivery.record(l.now - intended)
	}
}

// sentOf counts how late a message of an open loop is sent.
func (l *loop) sentOf(intended int64) {
	if l.o.measures(intended) {
		l.stats.late.record(l.now - intended)
	}
}

// acked counts a SEND_ACK.
func (l *loop) acked(intended int64) {
	l.stats.acked++
	if l.o.measures(l.now) {
		l.stats.measuredAcks++
	}
	l.tally.accepted(l.now - intended)
	if l.o.measures(intended) {
		l.stats.accept.record(l.now - intended)
	}
}

// seconds of ns.
func seconds(ns int64) float64 { return float64(ns) / 1e9 }
