package engine

import (
	"sync/atomic"
	"time"
)

// Stats is a snapshot of the engine's counters, safe to take from anywhere.
type Stats struct {
	Connections       [2]int64         // by codec.Transport: open sockets, those that are closing included
	Accepts           map[string]int64 // by result: accepted, limit, per_ip, rate, emfile, error
	Closes            map[Reason]int64 // counted when the handler's part ends; the socket may live on for CloseTimeout
	BytesIn, BytesOut int64
	OutboundBytes     int64 // sent by the handler and not taken by the kernel
	Panics            int64
	LoopQueue         []int     // operations waiting, per loop
	LoopLag           []float64 // seconds from Post to Run, of the oldest operation of the last drain or of what waits, per loop
	LoopQueuePeak     []int     // most operations that one drain found, in this second and the last
	LoopLagPeak       []float64 // likewise the longest lag, seconds
	LoopBusy          []float64 // seconds that the loop was at work, since the start
}

// loopStats are one loop's counters. Only the loop writes them, so the additions never contend.
type loopStats struct {
	connections       [2]atomic.Int64
	closes            [256]atomic.Int64 // by Reason
	bytesIn, bytesOut atomic.Int64
	outbound          atomic.Int64
	lag               atomic.Int64 // ns
	busy              atomic.Int64 // ns
	lagPeak           peak         // ns
	queuePeak         peak         // operations
}

// peak keeps the largest value of each of the last seconds. One goroutine notes, any may ask.
type peak struct {
	cells [4]struct{ second, value atomic.Int64 } // a reader looks at two of them while the writer is at most in one
}

// note is v in a second of the engine's life.
func (p *peak) note(second, v int64) {
	c := &p.cells[second&3]
	switch {
	case c.second.Load() != second:
		c.value.Store(v)
		c.second.Store(second)
	case v > c.value.Load():
		c.value.Store(v)
	}
}

// of is the largest value of a second and the one before it: who asks once a second sees every peak.
func (p *peak) of(second int64) (most int64) {
	for _, s := range [...]int64{second - 1, second} {
		if c := &p.cells[s&3]; c.second.Load() == s {
			most = max(most, c.value.Load())
		}
	}
	return most
}

// Connections is how many sockets are open, those that are closing included. Safe from anywhere.
func (e *Engine) Connections() (n int64) {
	for _, l := range e.loops {
		for t := range l.stats.connections {
			n += l.stats.connections[t].Load()
		}
	}
	return n
}

// Stats sums the counters of all loops.
func (e *Engine) Stats() Stats {
	s := Stats{
		Accepts: make(map[string]int64, acceptResults),
		Closes:  make(map[Reason]int64),
		Panics:  e.panics.Load(),
	}
	second := int64(time.Since(e.started) / time.Second)
	for r := accepted; r < acceptResults; r++ {
		s.Accepts[r.String()] = e.accepts[r].Load()
	}
	for _, l := range e.loops {
		for t := range s.Connections {
			s.Connections[t] += l.stats.connections[t].Load()
		}
		for r := range l.stats.closes {
			if n := l.stats.closes[r].Load(); n > 0 {
				s.Closes[Reason(r)] += n
			}
		}
		s.BytesIn += l.stats.bytesIn.Load()
		s.BytesOut += l.stats.bytesOut.Load()
		s.OutboundBytes += l.stats.outbound.Load()
		waits := l.waits()
		s.LoopQueue = append(s.LoopQueue, l.Backlog())
		s.LoopLag = append(s.LoopLag, max(time.Duration(l.stats.lag.Load()), waits).Seconds())
		s.LoopQueuePeak = append(s.LoopQueuePeak, max(int(l.stats.queuePeak.of(second)), l.Backlog()))
		s.LoopLagPeak = append(s.LoopLagPeak, max(time.Duration(l.stats.lagPeak.of(second)), waits).Seconds())
		s.LoopBusy = append(s.LoopBusy, time.Duration(l.stats.busy.Load()).Seconds())
	}
	return s
}
