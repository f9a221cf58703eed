package session

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
)

// loopStats are one loop's counters: written on the loop, read from anywhere.
type loopStats struct {
	sessions atomic.Int64
	lagging  atomic.Int64
	pushed   atomic.Int64
	logins   struct{ ok, failed atomic.Int64 }
	packets  cmdCounter
	errors   codeCounter
	delivery delayHistogram
}

// cmdCounter counts packets by command, then all extensions as one and all unknown ones as one.
type cmdCounter [commandCount + 2]atomic.Int64

func (c *cmdCounter) add(cmd codec.Cmd) {
	switch {
	case cmd >= codec.FirstExtension:
		c[commandCount].Add(1)
	case cmd < 0 || int(cmd) >= commandCount:
		c[commandCount+1].Add(1)
	default:
		c[cmd].Add(1)
	}
}

// name is the label of a counter.
func (c *cmdCounter) name(i int) string {
	switch i {
	case commandCount:
		return codec.FirstExtension.String()
	case commandCount + 1:
		return codec.Cmd(-1).String()
	}
	return codec.Cmd(i).String()
}

// codeCounter counts ERROR packets by code: 4000 … 4031 and 5000 … 5007, REVOKED in a place of its own.
type codeCounter [41]atomic.Int64

func (c *codeCounter) add(code codec.Code) {
	switch {
	case code == codec.CodeRevoked:
		c[40].Add(1)
	case code >= 4000 && code < 4032:
		c[code-4000].Add(1)
	case code >= 5000 && code < 5008:
		c[32+code-5000].Add(1)
	}
}

func (c *codeCounter) code(i int) codec.Code {
	switch {
	case i == 40:
		return codec.CodeRevoked
	case i < 32:
		return codec.Code(4000 + i)
	}
	return codec.Code(5000 + i - 32)
}

// delayHistogram has buckets of powers of two from 2^16 ns (0.07 ms) to 2^34 ns (17 s).
type delayHistogram struct {
	counts [20]atomic.Uint64
	sum    atomic.Int64 // ns
}

const firstDelayBit = 16

// observe counts d, n times.
func (h *delayHistogram) observe(d time.Duration, n int64) {
	i := bits.Len64(uint64(max(d, 0))) - firstDelayBit
	h.counts[min(max(i, 0), len(h.counts)-1)].Add(uint64(n))
	h.sum.Add(int64(d) * n)
}

// Stats is a snapshot of what sessions count.
type Stats struct {
	Sessions, Lagging int64
	Pushed            int64
	Logins            map[string]int64 // by result: ok, failed
	Packets           map[string]int64 // by command name
	Errors            map[string]int64 // by name
	Delivery          hub.HistogramSnapshot
}

// Stats takes a snapshot. Safe for concurrent use.
func (m *Manager) Stats() Stats {
	s := Stats{
		Logins: map[string]int64{"ok": 0, "failed": 0}, Packets: map[string]int64{}, Errors: map[string]int64{},
	}
	buckets := len(loopStats{}.delivery.counts)
	s.Delivery.Counts = make([]uint64, buckets)
	for i := range buckets - 1 {
		s.Delivery.Bounds = append(s.Delivery.Bounds, float64(uint64(1)<<(firstDelayBit+i))/1e9)
	}
	for _, l := range m.loops {
		s.add(&l.stats)
	}
	return s
}

func (s *Stats) add(l *loopStats) {
	s.Sessions += l.sessions.Load()
	s.Lagging += l.lagging.Load()
	s.Pushed += l.pushed.Load()
	s.Logins["ok"] += l.logins.ok.Load()
	s.Logins["failed"] += l.logins.failed.Load()
	for i := range l.packets {
		if n := l.packets[i].Load(); n > 0 {
			s.Packets[l.packets.name(i)] += n
		}
	}
	for i := range l.errors {
		if n := l.errors[i].Load(); n > 0 {
			s.Errors[l.errors.code(i).Name()] += n
		}
	}
	for i := range l.delivery.counts {
		s.Delivery.Counts[i] += l.delivery.counts[i].Load()
	}
	s.Delivery.Sum += float64(l.delivery.sum.Load()) / 1e9
}
