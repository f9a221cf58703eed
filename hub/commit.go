package hub

import (
	"context"
	"errors"
	"time"

	"github.com/meshtalk/meshtalk/mq"
	"github.com/meshtalk/meshtalk/store"
)

// flight is one commit that has its place in the order and may not be durable yet.
type flight struct {
	subs    []*Submission
	drafts  []*store.Draft
	pending store.Pending
	err     error // of Commit: there is no pending
	begun   time.Time
}

// Apply implements mq.Consumer: it gives the batch its place in the order and leaves the rest to finish. At most
// Options.Overlap commits are under way, so what arrives meanwhile gathers into the next batch.
func (h *Hub) Apply(ctx context.Context, b mq.Batch) error {
	h.slots <- struct{}{}
	subs, err := h.submissionsOf(b)
	f := &flight{subs: subs, drafts: make([]*store.Draft, len(subs)), err: err, begun: time.Now()}
	for i, s := range subs {
		f.drafts[i] = &s.Draft
	}
	if err == nil {
		f.pending, f.err = h.store.Commit(ctx, b.Partition, b.Next, f.drafts)
	}
	if !h.durable && errors.Is(f.err, store.ErrFenced) { // another process had the store; nothing of it waits in a log
		if _, f.err = h.store.Offset(ctx, b.Partition); f.err == nil {
			f.pending, f.err = h.store.Commit(ctx, b.Partition, b.Next, f.drafts)
		}
	}
	h.flights <- f
	return f.err
}

// finish waits for commits in their order, answers who submitted and delivers. It is one goroutine.
func (h *Hub) finish() {
	var log refusalLog
	for f := range h.flights {
		var results []store.Result
		err := f.err
		if err == nil {
			results, err = f.pending.Wait()
		}
		<-h.slots
		h.stats.commit.observe(time.Since(f.begun).Seconds())
		h.stats.batch.observe(float64(len(f.subs)))
		if err != nil {
			if !errors.Is(err, store.ErrFenced) { // another node was first, and delivers
				log.add(h.o.Logf, len(f.subs), err)
			}
			h.refuseAll(f.subs, err)
		} else {
			h.deliver(f.subs, results)
			if h.o.Events != nil {
				h.outbox.wake()
			}
		}
		if f.pending != nil {
			f.pending.Release()
		}
	}
}

// refuseAll answers a batch that was not kept. The same ids may be sent again: if a part of it appears after all it is recognised.
func (h *Hub) refuseAll(subs []*Submission, err error) {
	answer := unavailable("messages cannot be kept now")
	if e, ok := storeError(err).(*Error); ok {
		answer = e
	}
	d := h.newDelivery(0)
	for _, s := range subs {
		if s.from.node != "" { // of a log that keeps it, and brings it again
			h.Free(s)
			continue
		}
		s.Err = answer
		d.answer(s)
	}
	d.post()
}

// refusalLog keeps a store that refuses everything from filling the log, which may stand on the same full disk: senders try
// again every second.
type refusalLog struct {
	messages int
	last     time.Time
}

// refusalInterval is the least time between two lines.
const refusalInterval = 5 * time.Second

func (l *refusalLog) add(logf func(string, ...any), messages int, err error) {
	l.messages += messages
	if now := time.Now(); now.Sub(l.last) >= refusalInterval {
		logf("%d messages could not be kept: %v", l.messages, err)
		l.messages, l.last = 0, now
	}
}
