package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

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
	r, err := newRunner(o, 2*po.Pairs)
	if err != nil {
		return nil, err
	}
	r.result.Scenario = "private"
	r.result.Parameters = map[string]any{"pairs": po.Pairs, "in_flight": po.InFlight, "rate": po.Rate, "size": po.Size}
	for i, l := range r.loops {
		l.scene = newPrivateScene(l, po, i, len(r.loops))
	}
	return r.traffic(ctx)
}

// pair is one sender and one receiver, on the same loop.
type pair struct {
	sender, receiver *conn
	t                *template
	received         uint32 // newest number at the receiver
	copied           uint32 // newest number in the sender's own inbox
	accepts          flow
}

// flow checks numbers that should come as 1, 2, 3 …, in any order.
type flow struct {
	done  uint32 // all up to here have come
	ahead map[uint32]struct{}
}

// add reports whether n came for the first time.
func (f *flow) add(n uint32) bool {
	if n == f.done+1 {
		f.done++
		for len(f.ahead) > 0 {
			if _, ok := f.ahead[f.done+1]; !ok {
				break
			}
			delete(f.ahead, f.done+1)
			f.done++
		}
		return true
	}
	if _, ok := f.ahead[n]; ok || n <= f.done {
		return false
	}
	if f.ahead == nil {
		f.ahead = map[uint32]struct{}{}
	}
	f.ahead[n] = struct{}{}
	return true
}

// privateScene is Private on one loop. Pair p of all is pair p / loops of loop p % loops.
type privateScene struct {
	po      PrivateOptions
	loops   int
	pairs   []pair
	started bool
	next    float64 // intended time of the next message of the open loop, ns
	step    float64
	turn    int
}

func newPrivateScene(l *loop, po PrivateOptions, index, loops int) *privateScene {
	s := &privateScene{po: po, loops: loops, pairs: make([]pair, len(l.conns)/2)}
	for i := range s.pairs {
		flow := i*loops + index
		a, b := &l.conns[2*i], &l.conns[2*i+1]
		a.number, b.number = 2*flow, 2*flow+1
		a.flow, b.flow = int32(i), int32(i)
		s.pairs[i] = pair{sender: a, receiver: b,
			t: newTemplate(codec.PrivateMessage, l.o.user(b.number), po.Size, l.o.run, uint32(flow))}
	}
	if po.Rate > 0 && len(s.pairs) > 0 {
		share := float64(len(s.pairs)) / float64(po.Pairs)
		s.step = 1e9 / (po.Rate * share)
	}
	return s
}

func (s *privateScene) due(l *loop, now int64) int64 {
	if l.o.from == 0 || now >= l.o.until || len(s.pairs) == 0 { // not begun, or over
		return math.MaxInt64
	}
	if s.step == 0 {
		if !s.started {
			s.started = true
			for i := range s.pairs {
				for range s.po.InFlight {
					s.send(l, &s.pairs[i], now)
				}
			}
		}
		return l.o.until
	}
	if !s.started {
		s.started = true
		s.next = float64(now)
	}
	for s.next <= float64(now) && int64(s.next) < l.o.until {
		s.send(l, &s.pairs[s.turn], int64(s.next))
		s.turn = (s.turn + 1) % len(s.pairs)
		s.next += s.step
	}
	return int64(s.next)
}

func (s *privateScene) send(l *loop, p *pair, intended int64) {
	if p.sender.phase != live {
		return
	}
	l.send(p.sender, p.t.next(intended))
	l.stats.sent++
}

func (s *privateScene) message(l *loop, c *conn, p push) {
	if !p.marked || p.mark.run != l.o.run {
		return // what an earlier run left in the inbox
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
		return
	}
	l.stats.delivered++
	if l.o.measures(l.now) {
		l.stats.measured++
	}
	if l.o.measures(p.mark.time) {
		l.stats.delivery.record(l.now - p.mark.time)
	}
	if s.step == 0 && l.now < l.o.until {
		s.send(l, pr, l.now)
	}
}

func (s *privateScene) accepted(l *loop, c *conn, m mark) {
	pr := &s.pairs[c.flow]
	if m.flow != pr.t.flow || m.number == 0 || m.number > pr.t.counter || !pr.accepts.add(m.number) {
		l.fail("SEND_ACK", "user %s got a second one for message %d of pair %d", l.o.user(c.number), m.number, m.flow)
		return
	}
	l.stats.acked++
	if l.o.measures(l.now) {
		l.stats.measuredAcks++
	}
	if l.o.measures(m.time) {
		l.stats.accept.record(l.now - m.time)
	}
}

func (s *privateScene) largeConv(*conn) string { return "" }

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

// String names the load for people.
func (po PrivateOptions) String() string {
	if po.Rate > 0 {
		return fmt.Sprintf("%d pairs, open loop at %.0f/s, %d bytes", po.Pairs, po.Rate, po.Size)
	}
	return fmt.Sprintf("%d pairs × %d in flight, %d bytes", po.Pairs, po.InFlight, po.Size)
}

// seconds of ns.
func seconds(ns int64) float64 { return float64(ns) / float64(time.Second) }
