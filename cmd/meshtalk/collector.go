package main

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// gcPercent is how far the heap grows between two collections, unless the environment's GOGC says otherwise. What logins leave as
// garbage stands between what connections keep, and the gaps remain: an idle connection costs some 70 bytes less than with Go's 100
// (slopes with 100, 50, 100, 50 beside other work: 917, 840, 904, 835 bytes). Messages leave little garbage: 50, 100 and 200 in turn gave the same
// rates within the noise.
const gcPercent = 50

// gcHeadsPercent is how far it grows for what the store holds as heads of users and conversations, beside that. Marking them costs more than the
// rest of the heap, one cache miss for each of millions of objects: with a million conversations and gcPercent alone 29 % of the CPU went to
// collections, at 97,000 messages/s.
const gcHeadsPercent = 150

// gcBallast is bytes that nobody touches, so that the system gives no memory for them, but the collector counts them. A node with services
// lives in some 4 MB and makes 10 to 20 MB of garbage a second, as each message is in packets of RocketMQ, PostgreSQL and Redis: with gcPercent
// alone it collects 10 to 20 times a second, which is 14 % of its CPU at 2,000 messages/s; with the ballast 32 MB later, 0.6 times a second.
const gcBallast = 64 << 20

const (
	// collectorInterval is how often the percentage is looked at.
	collectorInterval = 5 * time.Second
	// collectorStep is the least change that is worth stopping the world for some microseconds.
	collectorStep = 10
)

// collector decides how far the heap grows between two collections.
type collector struct {
	ours    bool // the environment says nothing
	percent int
}

func newCollector(ours bool) *collector {
	c := &collector{ours: ours, percent: gcPercent}
	if ours {
		debug.SetGCPercent(gcPercent)
	}
	return c
}

// ballast is to be kept alive by a node with services.
func (c *collector) ballast() []byte {
	if !c.ours {
		return nil
	}
	return make([]byte, gcBallast)
}

// adjust sets the percentage for the bytes of heads, which it asks for when it needs them.
func (c *collector) adjust(heads func() int64) {
	if !c.ours {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	to := heapPercent(int64(live[0].Value.Uint64()), heads())
	if to >= c.percent+collectorStep || to <= c.percent-collectorStep {
		debug.SetGCPercent(to)
		c.percent = to
	}
}

// heapPercent is gcPercent of all that lives and gcHeadsPercent of the heads, as a percentage of all.
func heapPercent(live, heads int64) int {
	return gcPercent + int(gcHeadsPercent*min(heads, live)/max(live, 1))
}
