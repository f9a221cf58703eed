package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"net/http"
	"net/url"

	"github.com/meshtalk/meshtalk/codec"
)

// GroupOptions are those of Group.
type GroupOptions struct {
	Groups  int
	Members int // of each group; every connection is in one group
	// InFlight is how many messages of a group are on their way in the closed loop; one is done when it has reached all
	// members. Ignored with Rate.
	InFlight int
	// Rate makes an open loop: so many deliveries per second over all groups and members.
	Rate float64
	Size int // of a content, in bytes; at least 44
}

func (g *GroupOptions) check(o Options) error {
	switch {
	case g.Groups < 1 || g.Groups > maxFlow || g.Members < 2:
		return errors.New("bench: want at least one group of two members")
	case g.Rate <= 0 && g.InFlight < 1:
		return errors.New("bench: want --in-flight or --rate")
	case o.Admin == "":
		return errors.New("bench: groups need the admin port, to make them")
	}
	return nil
}

// groupChunk is how many members one request adds: far below the API's limit of 1 MiB a body.
const groupChunk = 5_000

// Group drives groups of users, of which the first sends. A message must arrive once and in order at all members. The
// groups are made through the admin port.
func Group(ctx context.Context, o Options, g GroupOptions) (*Result, error) {
	if err := g.check(o); err != nil {
		return nil, err
	}
	g.Size = max(g.Size, minContent)
	r, err := newRunner(ctx, o, "group", g, g.Groups, g.Members)
	if err != nil {
		return nil, err
	}
	r.result.Parameters = loopParameters(map[string]any{"groups": g.Groups, "members": g.Members, "size": g.Size}, g.InFlight, g.Rate)
	for i := range g.Groups {
		if err := r.makeGroup(ctx, i, g.Members); err != nil {
			return nil, errors.Join(err, r.close())
		}
	}
	for _, l := range r.loops {
		l.scene = newGroupScene(l, g)
	}
	return r.traffic(ctx)
}

// groupName is that of group number g.
func (p *plan) groupName(g int) string { return fmt.Sprintf("%s-g%d", p.UserPrefix, g) }

// makeGroup makes group number g of the connections that belong to it.
func (r *runner) makeGroup(ctx context.Context, g, members int) error {
	if !r.team.leads() {
		return nil
	}
	path := "/v1/groups/" + url.PathEscape(r.o.groupName(g))
	for from := 0; from < members; from += groupChunk {
		var names []string
		for m := from; m < min(from+groupChunk, members); m++ {
			names = append(names, r.o.user(g*members+m))
		}
		method, to, key := http.MethodPut, path, "members"
		if from > 0 {
			method, to, key = http.MethodPost, path+"/members", "add"
		}
		body, err := json.Marshal(map[string][]string{key: names})
		if err != nil {
			return fmt.Errorf("bench: group: %w", err)
		}
		if _, err := (admin{r.o.Admin, r.o.AdminAuth}).call(ctx, method, to, body); err != nil {
			return err
		}
	}
	return nil
}

// crowd is one group: its members are connections first … first+members−1 of the loop, the first one sends.
type crowd struct {
	name    string
	sender  *conn
	t       *template
	accepts flow
	left    []int32 // closed loop: members that a message has not reached, by number modulo the length, a power of two
}

// groupScene is Group on one loop.
type groupScene struct {
	quiet
	o       GroupOptions
	crowds  []crowd
	last    []uint32 // by connection: newest number taken
	pace    pace
	missing int // deliveries that have not come yet
}

func newGroupScene(l *loop, o GroupOptions) *groupScene {
	s := &groupScene{o: o, crowds: make([]crowd, len(l.conns)/o.Members), last: make([]uint32, len(l.conns))}
	for i := range s.crowds {
		first := i * o.Members
		sender := &l.conns[first]
		number := sender.number / o.Members
		for j := range o.Members {
			l.conns[first+j].flow = int32(i)
		}
		s.crowds[i] = crowd{name: l.o.groupName(number), sender: sender,
			t: newTemplate(codec.GroupMessage, l.o.groupName(number), o.Size, l.o.run, uint32(number))}
		if o.Rate <= 0 {
			s.crowds[i].left = make([]int32, 1<<bits.Len(uint(o.InFlight)))
		}
	}
	s.pace = pace{units: len(s.crowds), inFlight: o.InFlight}
	s.pace.setRate(o.Rate / float64(o.Members) * float64(len(s.crowds)) / float64(o.Groups))
	return s
}

func (s *groupScene) due(l *loop, now int64) int64 {
	return s.pace.due(l, now, func(unit int, intended int64) { s.send(l, &s.crowds[unit], intended) })
}

func (s *groupScene) send(l *loop, g *crowd, intended int64) {
	if g.sender.phase != live {
		return
	}
	l.send(g.sender, g.t.next(intended))
	l.stats.sent++
	s.missing += s.o.Members
	if g.left != nil {
		g.left[int(g.t.counter)&(len(g.left)-1)] = int32(s.o.Members)
	}
}

func (s *groupScene) message(l *loop, c *conn, p push) {
	if !p.marked || p.mark.run != l.o.run {
		return // what an earlier run left in the inbox
	}
	g, last := &s.crowds[c.flow], &s.last[c.index]
	if p.mark.flow != g.t.flow || p.mark.number != *last+1 {
		l.fail("order", "user %s got message %d of group %d after %d of group %d, inbox %d, seq %d", l.o.user(c.number), p.mark.number,
			p.mark.flow, *last, g.t.flow, p.inbox, p.seq)
		if p.mark.flow != g.t.flow || p.mark.number <= *last {
			return
		}
	}
	s.missing -= int(p.mark.number - *last)
	*last = p.mark.number
	l.arrived(p.mark.time)
	if g.left == nil {
		return
	}
	if left := &g.left[int(p.mark.number)&(len(g.left)-1)]; *left > 0 {
		if *left--; *left == 0 && l.now < l.o.until {
			s.send(l, g, l.now)
		}
	}
}

func (s *groupScene) accepted(l *loop, c *conn, m mark) {
	g := &s.crowds[c.flow]
	if m.flow != g.t.flow || m.number == 0 || m.number > g.t.counter || !g.accepts.add(m.number) {
		l.fail("SEND_ACK", "user %s got a second one for message %d of group %d", l.o.user(c.number), m.number, m.flow)
		return
	}
	l.acked(m.time)
}

func (s *groupScene) largeConv(c *conn) string { return "g:" + s.crowds[c.flow].name }

func (s *groupScene) open() int {
	n := s.missing
	for i := range s.crowds {
		n += int(s.crowds[i].t.counter - s.crowds[i].accepts.done)
	}
	return n
}

func (s *groupScene) finish(l *loop) {
	for i := range s.crowds {
		g := &s.crowds[i]
		if g.accepts.done != g.t.counter {
			l.fail("missing", "group %s: %d messages sent, SEND_ACK came to %d", g.name, g.t.counter, g.accepts.done)
		}
	}
	for i, last := range s.last {
		g := &s.crowds[l.conns[i].flow]
		if last != g.t.counter {
			l.fail("missing", "group %s: %d messages sent, user %s got %d", g.name, g.t.counter, l.o.user(l.conns[i].number), last)
		}
	}
}
