package redis

import "sync/atomic"

// Stats are counts since New, for metrics.
type Stats struct {
	WakesOut, WakesIn uint64 // wakes as sent to a node, and as received
	PayloadsOut       uint64 // Pub/Sub messages sent
	Dropped           uint64 // items that were not sent, and payloads that were not taken: each ends in a Resync
	Gaps              uint64 // losses that were noticed by what was received
	Malformed         uint64 // payloads that could not be read
	Resyncs           uint64 // calls of Receiver.Resync
	Cleaned           uint64 // users whose routes were cleaned of dead nodes'
	Commands          uint64 // Redis commands
	Routes            int    // of this node, now
}

type counters struct {
	wakesOut, wakesIn, payloadsOut, dropped, gaps, malformed, resyncs, cleaned, commands atomic.Uint64
}

// Stats gives the counts.
func (c *Cluster) Stats() Stats {
	s := &c.stats
	return Stats{
		WakesOut: s.wakesOut.Load(), WakesIn: s.wakesIn.Load(), PayloadsOut: s.payloadsOut.Load(),
		Dropped: s.dropped.Load(), Gaps: s.gaps.Load(), Malformed: s.malformed.Load(), Resyncs: s.resyncs.Load(),
		Cleaned: s.cleaned.Load(), Commands: s.commands.Load(), Routes: c.routes.len(),
	}
}
