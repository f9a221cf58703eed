package bench

import (
	"context"
	"errors"

	"github.com/meshtalk/meshtalk/codec"
)

// PrivateOptions are those of Private.
type PrivateOptions struct {
	Pairs int
	// InFlight is how many messages of a pair are on their way in the closed loop: the next one is sent when one has
	// arrived. Ignored with Rate.
	InFlight int
	// Rate makes an open loop: so many messages per second over all pairs, sent at their time whatever became of the
	// ones before, with latencies counted from that time.
	Rate float64
	Size int // of a content, in bytes; at least 44
}

// Private drives pairs of users, one of which sends to the other. A message must arrive once and in order at the
// receiver and in the sender's own inbox, and be answered by SEND_ACK.
func Private(ctx context.Context, o Options, po PrivateOptions) (*Result, error) {
	if po.Pairs < 1 || po.Pairs > maxFlow {
		return nil, errors.New("bench: pairs: want at least one")
	}
	if po.Rate <= 0 && po.InFlight < 1 {
		return nil, errors.New("bench: want --in-flight or --rate")
	}
	po.Size = max(po.Size, minContent)
	r, err := newRunner(ctx, o, "private", po, po.Pairs, 2)
	if err != nil {
		return nil, err
	}
	r.result.Parameters = loopParameters(map[string]any{"pairs": po.Pairs, "size": po.Size}, po.InFlight, po.Rate)
	for _, l := range r.loops {
		l.scene = newPrivateScene(l, po)
	}
	return r.traffic(ctx)
}

// loopParameters adds those of a closed or an open loop to p.
func loopParameters(p map[string]any, inFlight int, rate float64) map[string]any {
	if rate > 0 {
		p["rate"] = rate
	} else {
		p["in_flight"] = inFlight
	}
	return p
}

// pair is one sender and one receiver, on the same loop.
type pair struct {
	sender, receiver *conn
	t                *template
	received         uint32 // newest number at the receiver
	copied           uint32 // newest number in the sender's own inbox
	accepts          flow
}

// privateScene is Private on one loop.
type privateScene struct {
	quiet
	pairs []pair
	pace  pace
}

func newPrivateScene(l *loop, po PrivateOptions) *privateScene {
	s := &privateScene{pairs: make([]pair, len(l.conns)/2)}
	for i := range s.pairs {
		s.pairs[i] = newPair(l, i, po.Size)
	}
	s.pace = pace{units: len(s.pairs), inFlight: po.InFlight}
	s.pace.setRate(po.Rate * float64(len(s.pairs)) / float64(po.Pairs))
	return s
}

// newPair is pair number i of l, of connections 2i and 2i+1.
func newPair(l *loop, i, size int) pair {
	a, b := &l.conns[2*i], &l.conns[2*i+1]
	a.flow, b.flow = int32(i), int32(i)
	return pair{sender: a, receiver: b, t: newTemplate(codec.PrivateMessage, l.o.user(b.number), size, l.o.run, uint32(a.number/2))}
}

func (s *privateScene) due(l *loop, now int64) int64 {
	return s.pace.due(l, now, func(unit int, intended int64) { s.send(l, &s.pairs[unit], intended) })
}

func (s *privateScene) send(l *loop, p *pair, intended int64) {
	if p.sender.phase != live {
		return
	}
	l.send(p.sender, p.t.next(intended))
	l.stats.sent++
}

func (s *privateScene) message(l *loop, c *conn, p push) {
	pr := s.took(l, c, p)
	if pr == nil {
		return
	}
	l.arrived(p.mark.time)
	if s.pace.closed() && l.now < l.o.until {
		s.send(l, pr, l.now)
	}
}

// took checks a message and returns its pair if it is one for the receiver.
func (s *privateScene) took(l *loop, c *conn, p push) *pair {
	if !p.marked || p.mark.run != l.o.run {
		return nil // what an earlier run left in the inbox
	}
	pr := &s.pairs[c.flow]
	newest := &pr.received
	if c == pr.sender {
		newest = &pr.copied
	}
	if p.mark.flow != pr.t.flow || p.mark.number != *newest+1 {
		l.fail("order", "user %s got message %d of pair %d after %d of pair %d, inbox %d", l.o.user(c.number), p.mark.number, p.mark.flow,
			*newest, pr.t.flow, p.inbox)
	}
	*newest = max(*newest, p.mark.number)
	if c == pr.sender {
		return nil
	}
	return pr
}

func (s *privateScene) accepted(l *loop, c *conn, m mark) {
	pr := &s.pairs[c.flow]
	if m.flow != pr.t.flow || m.number == 0 || m.number > pr.t.counter || !pr.accepts.add(m.number) {
		l.fail("SEND_ACK", "user %s got a second one for message %d of pair %d", l.o.user(c.number), m.number, m.flow)
		return
	}
	l.acked(m.time)
}

func (s *privateScene) open() (n int) {
	for i := range s.pairs {
		p := &s.pairs[i]
		n += int(p.t.counter-p.received) + int(p.t.counter-p.copied) + int(p.t.counter-p.accepts.done)
	}
	return n
}

func (s *privateScene) finish(l *loop) {
	for i := range s.pairs {
		p := &s.pairs[i]
		for what, last := range map[string]uint32{"the receiver": p.received, "the sender's own inbox": p.copied, "SEND_ACK": p.accepts.done} {
			if last != p.t.counter {
				l.fail("missing", "pair %d: %d messages sent, %s came to %d", p.t.flow, p.t.counter, what, last)
			}
		}
	}
}
