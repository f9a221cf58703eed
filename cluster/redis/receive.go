package redis

import (
	"context"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/meshtalk/meshtalk/cluster"
)

const (
	// inBytes is what may wait for the receiver; beyond it is dropped, and it is told to look at its users.
	inBytes = 64 << 20
	// resyncEvery is the shortest time between two calls of Resync.
	resyncEvery = 500 * time.Millisecond
)

// event is one thing for the receiver: exactly one field is set.
type event struct {
	payload    string // of another node
	everyone   bool   // payload came by the channel of all
	superseded *superseded
	nodes      []cluster.Node
}

// in is the queue before the receiver.
type in struct {
	work    chan struct{}
	dropped func(n int)

	mu     sync.Mutex // guards the rest
	events []event
	bytes  int
	again  bool // Resync is wanted
}

func newIn(dropped func(int)) *in { return &in{work: make(chan struct{}, 1), dropped: dropped} }

func (q *in) wake() {
	select {
	case q.work <- struct{}{}:
	default:
	}
}

func (q *in) put(e event) {
	q.mu.Lock()
	if q.bytes+len(e.payload) > inBytes && e.payload != "" {
		q.again = true
		q.dropped(1)
	} else {
		q.events = append(q.events, e)
		q.bytes += len(e.payload)
	}
	q.mu.Unlock()
	q.wake()
}

// resync asks for Resync after what is queued.
func (q *in) resync() {
	q.mu.Lock()
	q.again = true
	q.mu.Unlock()
	q.wake()
}

// take swaps the queue for an empty one.
func (q *in) take(empty []event, resync bool) (events []event, again bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	events, q.events, q.bytes = q.events, empty, 0
	if resync {
		again, q.again = q.again, false
	}
	return events, again
}

// listen keeps a channel subscribed until ctx ends. Every subscription is a gap.
func (c *Cluster) listen(ctx context.Context, to string) {
	channel := c.channel(to)
	hooked := rueidis.WithOnSubscriptionHook(ctx, func(s rueidis.PubSubSubscription) {
		if s.Kind == "subscribe" || s.Kind == "ssubscribe" {
			c.listening.set(channel, true)
			c.expect.forget(to == everyone)
			c.doubt()
			c.look()
		}
	})
	for ctx.Err() == nil {
		command := c.client.B().Subscribe().Channel(channel).Build()
		if c.mode == clustered {
			command = c.client.B().Ssubscribe().Channel(channel).Build()
		}
		c.stats.commands.Add(1)
		_ = c.client.Receive(hooked, command, func(m rueidis.PubSubMessage) { // why it ended shows at the lease
			c.in.put(event{payload: m.Message, everyone: to == everyone})
		})
		c.listening.set(channel, false)
		c.look()
		select {
		case <-ctx.Done():
		case <-time.After(leaseRetry):
		}
	}
}

// subscriptions are the channels that are being listened to.
type subscriptions struct {
	mu   sync.Mutex // guards live
	live map[string]bool
}

func (s *subscriptions) set(channel string, live bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		s.live = map[string]bool{}
	}
	s.live[channel] = live
}

func (s *subscriptions) all(channels ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, channel := range channels {
		if !s.live[channel] {
			return false
		}
	}
	return true
}

// expected are the numbers of the next payloads.
type expected struct {
	mu   sync.Mutex // guards next
	next map[source]uint64
}

// source is one sender on one of the two channels.
type source struct {
	sender   string
	everyone bool
}

// forget is called at a subscription: what was sent meanwhile is a known gap.
func (x *expected) forget(everyone bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for s := range x.next {
		if s.everyone == everyone {
			delete(x.next, s)
		}
	}
}

// check takes a number. old: it came late, after its successors. gap: there are some missing before it.
func (x *expected) check(s source, number uint64) (old, gap bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	want, known := x.next[s]
	if known && number < want {
		return true, true
	}
	if x.next == nil || len(x.next) > 10_000 { // of senders that are long gone
		x.next = map[source]uint64{}
	}
	x.next[s] = number + 1
	return false, known && number != want
}

// deliver hands everything to the receiver, in order, until ctx ends.
func (c *Cluster) deliver(ctx context.Context, r cluster.Receiver) {
	var events []event
	var synced time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var again bool
		events, again = c.in.take(events[:0], time.Since(synced) >= resyncEvery)
		for i := range events {
			c.hand(r, &events[i])
		}
		if again {
			c.stats.resyncs.Add(1)
			r.Resync()
			synced = time.Now()
			timer.Reset(resyncEvery)
		}
		idle := len(events) == 0 && !again
		clear(events)
		if cap(events) > 4096 {
			events = nil
		}
		if !idle {
			if ctx.Err() != nil {
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-c.in.work:
		case <-timer.C:
		}
	}
}

// hand hands one event over.
func (c *Cluster) hand(r cluster.Receiver, e *event) {
	switch {
	case e.nodes != nil:
		r.NodesChanged(e.nodes)
	case e.superseded != nil:
		r.Superseded(e.superseded.user, e.superseded.terminal, e.superseded.ref)
	default:
		c.handPayload(r, e)
	}
}

func (c *Cluster) handPayload(r cluster.Receiver, e *event) {
	head, _, err := readHead(e.payload)
	if err == nil && head.sender == c.self.Incarnation {
		return // what is for everyone comes back
	}
	var p payload
	if err == nil {
		p, err = readPayload(e.payload)
	}
	if err != nil {
		c.stats.malformed.Add(1)
		c.in.resync()
		return
	}
	if p.bye {
		select {
		case c.byes <- p.sender:
		default:
			c.look()
		}
		return
	}
	c.questions.told(p.told) // late is better than never
	old, gap := c.expect.check(source{p.sender, e.everyone}, p.number)
	if gap || p.lost {
		c.stats.gaps.Add(1)
		c.routes.compareAll(compareAfterGap) // it may have been a Superseded
		c.in.resync()
	}
	if old {
		return
	}
	if len(p.wakes) > 0 {
		c.stats.wakesIn.Add(uint64(len(p.wakes)))
		r.Woken(p.wakes)
	}
	if len(p.signals) > 0 {
		r.Signalled(p.signals)
	}
	for _, m := range p.members {
		r.MembersChanged(m)
	}
	if len(p.answers) > 0 {
		r.Answered(p.answers)
	}
	for _, s := range p.superseded {
		if c.routes.loseTold(routeKey{s.user, s.terminal}, s.ref) {
			r.Superseded(s.user, s.terminal, s.ref)
		}
	}
	for _, o := range p.orders {
		r.Ordered(o.user, o.terminal, o.code, o.reason, o.before)
	}
	for _, q := range p.asked {
		c.answer(r, p.sender, q)
	}
	if p.hello {
		c.look()
	}
}
