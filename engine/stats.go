package engine

import "sync/atomic"

// Stats is a snapshot of the engine's counters, safe to take from anywhere.
type Stats struct {
	Connections       [2]int64         // by codec.Transport: open sockets, those that are closing included
	Accepts           map[string]int64 // by result: accepted, limit, per_ip, rate, emfile, error
	Closes            map[Reason]int64 // counted when the handler's part ends; the socket may live on for CloseTimeout
	BytesIn, BytesOut int64
	OutboundBytes     int64 // sent by the handler and not taken by the kernel
	Panics            int64
	LoopQueue         []int     // operations waiting, per loop
	LoopLag           []float64 // seconds from Post to Run, of the oldest operation of the last drain, per loop
}

// loopStats are one loop's counters. Only the loop writes them, so the additions never contend.
type loopStats struct {
	connections       [2]atomic.Int64
	closes            [256]atomic.Int64 // by Reason
	bytesIn, bytesOut atomic.Int64
	outbound          atomic.Int64
	lag               atomic.Int64 // ns
}

// Stats sums the counters of all loops.
func (e *Engine) Stats() Stats {
	s := Stats{
		Accepts: make(map[string]int64, acceptResults),
		Closes:  make(map[Reason]int64),
		Panics:  e.panics.Load(),
	}
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
		s.LoopQueue = append(s.LoopQueue, l.Backlog())
		s.LoopLag = append(s.LoopLag, float64(l.stats.lag.Load())/1e9)
	}
	return s
}
