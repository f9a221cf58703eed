package bench

import (
	"context"
	"errors"
	"math"
	"math/bits"
	"sync/atomic"

	"github.com/meshtalk/meshtalk/codec"
)

// Fanout drives one group, whose first member sends to all. Unlike those of Group, its members are spread over all event
// loops, and Groups is ignored. A message must arrive once and in order at every member; in the closed loop InFlight of
// them are on their way, and one is done when it has reached all.
func Fanout(ctx context.Context, o Options, g GroupOptions) (*Result, error) {
	g.Groups = 1
	if err := g.check(o); err != nil {
		return nil, err
	}
	g.Size = max(g.Size, minContent)
	r, err := newRunner(ctx, o, "fanout", g, g.Members, 1)
	if err != nil {
		return nil, err
	}
	r.result.Parameters = loopParameters(map[string]any{"members": g.Members, "size": g.Size}, g.InFlight, g.Rate)
	if err := r.makeGroup(ctx, 0, g.Members); err != nil {
		return nil, errors.Join(err, r.close())
	}
	f := newFan(r, g)
	r.team.hear(f.hear)
	for i, l := range r.loops {
		l.scene = newFanScene(l, f, &f.parts[i])
		l.repeats = newRepeats(f.window())
	}
	return r.traffic(ctx)
}

// fan is one large group, shared by all loops of a process.
type fan struct {
	o      GroupOptions
	name   string
	team   team
	sender *loop  // of the first member; nil in the processes that do not have it
	parts  []part // of this process's loops
	others []part // of the other processes, at the sender's
	told   atomic.Uint32

	sent  atomic.Uint32 // newest number sent, by the sender's loop; of another process's, once final is set
	final atomic.Bool   // no more will be sent
}

func newFan(r *runner, g GroupOptions) *fan {
	f := &fan{o: g, name: r.o.groupName(0), team: r.team, parts: make([]part, len(r.loops))}
	if index, of := r.team.share(); index == 0 && of > 0 {
		f.sender = r.loops[0]
		f.others = make([]part, of)
		f.others[0].reached.Store(math.MaxUint32) // that is this one
	}
	return f
}

// Keys of notes.
const (
	noteReached = "reached" // all members in a process have got so far
	noteSent    = "sent"    // the newest number, which is the last one
)

// hear takes what another process tells.
func (f *fan) hear(n note) {
	switch {
	case n.Key == noteSent:
		f.sent.Store(n.Value)
		f.final.Store(true)
	case n.Key == noteReached && f.sender != nil && n.From < len(f.others):
		reached := &f.others[n.From].reached
		reached.Store(max(reached.Load(), n.Value))
		f.sender.poll.wake()
	}
}

// advanced is called by a loop whose members have all got one more.
func (f *fan) advanced(l *loop) {
	if f.sender != nil {
		if l != f.sender {
			f.sender.poll.wake()
		}
		return
	}
	reached := f.reached()
	for told := f.told.Load(); reached > told; told = f.told.Load() {
		if f.told.CompareAndSwap(told, reached) {
			f.team.tell(note{Key: noteReached, Value: reached})
			return
		}
	}
}

// part is what one loop tells of its members: that all of them have a message and those before it. Of the length of a
// cache line, because every loop writes its own.
type part struct {
	reached atomic.Uint32
	_       [60]byte
}

// window is how many messages a loop counts at once: more than are on their way in the closed loop.
func (f *fan) window() int { return 1 << bits.Len(uint(max(f.o.InFlight, 15))) }

// reached is the newest message that all members have.
func (f *fan) reached() uint32 {
	least := uint32(math.MaxUint32)
	for i := range f.parts {
		least = min(least, f.parts[i].reached.Load())
	}
	for i := range f.others {
		least = min(least, f.others[i].reached.Load())
	}
	return least
}

// fanScene is Fanout on one loop.
type fanScene struct {
	quiet
	f       *fan
	part    *part
	members int
	left    []int32 // closed loop: members that a message has not reached, by number modulo the length, a power of two
	got     uint64  // deliveries to this loop's members

	// of the sender's loop
	send    *conn
	t       *template
	pace    pace
	accepts flow
}

func newFanScene(l *loop, f *fan, p *part) *fanScene {
	s := &fanScene{f: f, part: p, members: len(l.conns)}
	if f.o.Rate <= 0 {
		s.left = make([]int32, f.window())
		for i := range s.left {
			s.left[i] = int32(s.members)
		}
	}
	if l == f.sender {
		s.send = &l.conns[0]
		s.t = newTemplate(codec.GroupMessage, f.name, f.o.Size, l.o.run, 0)
		s.pace = pace{units: 1}
		s.pace.setRate(f.o.Rate / float64(f.o.Members))
	}
	return s
}

func (s *fanScene) due(l *loop, now int64) int64 {
	if s.send == nil || l.o.from == 0 {
		return math.MaxInt64
	}
	if !s.pace.closed() {
		return s.pace.due(l, now, func(_ int, intended int64) { s.sendNext(l, intended) })
	}
	if now >= l.o.until {
		return math.MaxInt64
	}
	for s.send.phase == live && s.t.counter-s.f.reached() < uint32(s.f.o.InFlight) {
		s.sendNext(l, now)
	}
	return l.o.until
}

func (s *fanScene) sendNext(l *loop, intended int64) {
	if s.send.phase != live {
		return
	}
	l.send(s.send, s.t.next(intended))
	l.stats.sent++
	s.f.sent.Store(s.t.counter)
}

func (s *fanScene) message(l *loop, c *conn, p push) {
	if !p.marked || p.mark.run != l.o.run {
		return // what an earlier run left
	}
	if last := uint32(c.flow); p.mark.flow != 0 || p.mark.number != last+1 {
		l.fail("order", "user %s got message %d after %d, seq %d", l.o.user(c.number), p.mark.number, last, p.seq)
		if p.mark.flow != 0 || p.mark.number <= last {
			return
		}
	}
	c.flow = int32(p.mark.number)
	s.got++
	l.arrived(p.mark.time)
	if s.left == nil {
		return
	}
	left := &s.left[int(p.mark.number)&(len(s.left)-1)]
	if *left--; *left > 0 {
		return
	}
	*left = int32(s.members)
	s.part.reached.Store(p.mark.number)
	s.f.advanced(l)
}

func (s *fanScene) accepted(l *loop, c *conn, m mark) {
	if c != s.send || m.flow != 0 || m.number == 0 || m.number > s.t.counter || !s.accepts.add(m.number) {
		l.fail("SEND_ACK", "user %s got a second one for message %d", l.o.user(c.number), m.number)
		return
	}
	l.acked(m.time)
}

func (s *fanScene) largeConv(*conn) string { return "g:" + s.f.name }

func (s *fanScene) sentAll(*loop) {
	if s.send != nil {
		s.f.final.Store(true)
		s.f.team.tell(note{Key: noteSent, Value: s.t.counter})
	}
}

func (s *fanScene) open() int {
	if !s.f.final.Load() {
		return 1
	}
	n := int(uint64(s.f.sent.Load())*uint64(s.members) - s.got)
	if s.send != nil {
		n += int(s.t.counter - s.accepts.done)
	}
	return n
}

func (s *fanScene) finish(l *loop) {
	sent := s.f.sent.Load()
	if s.send != nil && s.accepts.done != sent {
		l.fail("missing", "%d messages sent, SEND_ACK came to %d", sent, s.accepts.done)
	}
	for i := range l.conns {
		if c := &l.conns[i]; uint32(c.flow) != sent {
			l.fail("missing", "%d messages sent, user %s got %d", sent, l.o.user(c.number), c.flow)
		}
	}
}
