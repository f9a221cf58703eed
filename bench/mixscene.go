package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// mixGroupFlow is the first flow of groups; those below it are the users' own, by their number.
const mixGroupFlow = 1 << 23

// What is measured in each step.
const (
	mixDelivery = "delivery"
	mixLate     = "late"
	mixAccept   = "accept"
	mixHistory  = "history"
	mixLogin    = "login"
)

func mixHist(what string, step int) string { return fmt.Sprintf("%s of step %d", what, step) }

// mixScene is Mix on one loop.
type mixScene struct {
	o      *MixOptions
	share  float64   // of all users that are here
	users  []mixUser // by connection
	groups []mixFlow // by connection / members; a group's first member sends
	order  []int32   // connections in the order in which they come online, at first
	online int       // so many of order are to be online
	all    int       // users of all loops

	dials   fifo[int32] // who wants to connect
	turn    int         // in order, for whatever goes round
	missing int         // deliveries that have not come yet
	reads   int         // HISTORY requests without an answer
	began   bool        // those who are there when the day begins have been called
	closing bool        // the day is over, everybody is to come

	private, group, typing, history, reconnect stream
	hists                                      map[string][]histogram // by what, then step
}

// mixUser is one user, whose partner is the other one of the two connections 2i and 2i+1.
type mixUser struct {
	out      mixFlow // to the partner
	got      uint32  // newest number from the partner
	copied   uint32  // newest number of its own in its inbox
	groupGot uint32  // newest number of its group
	since    int64   // logged in since, ns of the run's clock
	reads    int     // HISTORY requests of this connection without an answer
	waits    bool    // in dials
}

// mixFlow is a stream of messages of one sender. What is not accepted when the connection goes is sent again.
type mixFlow struct {
	t       *template
	accepts flow
	pending fifo[sentMark]
	// The oldest and the newest number that were sent again at the last reconnect.
	resentFrom, resentTo uint32
}

// again reports whether message number was sent again.
func (f *mixFlow) again(number uint32) bool {
	return number <= f.resentTo && number >= f.resentFrom
}

type sentMark struct {
	number uint32
	time   int64
}

func newMixScene(l *loop, o *MixOptions) *mixScene {
	s := &mixScene{o: o, users: make([]mixUser, len(l.conns)), groups: make([]mixFlow, len(l.conns)/o.Members), all: o.Users,
		share: float64(len(l.conns)) / float64(o.Users), hists: map[string][]histogram{}}
	for i := range l.conns {
		number, partner := l.conns[i].number, l.conns[i^1].number
		s.users[i].out.t = newTemplate(codec.PrivateMessage, l.o.user(partner), o.Size, l.o.run, uint32(number))
		s.order = append(s.order, int32(i))
	}
	for i := range s.groups {
		number := l.conns[i*o.Members].number / o.Members
		s.groups[i].t = newTemplate(codec.GroupMessage, l.o.groupName(number), o.Size, l.o.run, uint32(mixGroupFlow+number))
	}
	slices.SortFunc(s.order, func(a, b int32) int { return cmp.Compare(s.rank(l, a), s.rank(l, b)) })
	for _, what := range []string{mixDelivery, mixLate, mixAccept, mixHistory, mixLogin} {
		for step := range o.Steps {
			s.hists[what] = append(s.hists[what], l.stats.hist(mixHist(what, step)))
		}
	}
	for _, stream := range []struct {
		of   *stream
		rate func(*Levels) float64
	}{{&s.private, func(l *Levels) float64 { return l.Private }}, {&s.group, func(l *Levels) float64 { return l.Group }},
		{&s.typing, func(l *Levels) float64 { return l.Typing }}, {&s.history, func(l *Levels) float64 { return l.History }},
		{&s.reconnect, func(l *Levels) float64 { return l.Reconnects }}} {
		stream.of.rate = func(t int64) float64 {
			_, levels := o.at(time.Duration(t - l.o.from))
			return stream.rate(&levels) * s.share
		}
	}
	return s
}

// rank is the place of connection i among all users when they come: first those who send to the groups, then the second
// members, so that partners are there together.
func (s *mixScene) rank(l *loop, i int32) int {
	number := l.conns[i].number
	return number%s.o.Members*(s.all/s.o.Members) + number/s.o.Members
}

// step is the one of time t.
func (s *mixScene) step(l *loop, t int64) int {
	i, _ := s.o.at(time.Duration(t - l.o.from))
	return i
}

func (s *mixScene) due(l *loop, now int64) int64 {
	s.people(l, now)
	s.began = true
	next := s.connectMore(l)
	if l.o.from == 0 || now < l.o.from-int64(l.o.WarmUp) || now >= l.o.until {
		return min(next, now+idleTick)
	}
	next = min(next, now+10_000_000) // to let people come and go
	begin := l.o.from - int64(l.o.WarmUp)
	for _, what := range []struct {
		of *stream
		do func(intended int64)
	}{
		{&s.reconnect, func(int64) { s.loseOne(l) }},
		{&s.private, func(at int64) { s.sendPrivate(l, at) }},
		{&s.group, func(at int64) { s.sendGroup(l, at) }},
		{&s.typing, func(int64) { s.type1(l) }},
		{&s.history, func(at int64) { s.read(l, at) }},
	} {
		next = min(next, what.of.due(begin, min(now, l.o.until-1), what.do))
	}
	return next
}

// stream is an open loop of a rate that changes with time.
type stream struct {
	rate func(t int64) float64 // per second
	at   int64                 // up to here it is done
	debt float64               // of the next one, < 1
}

// due calls do for what was to happen since begin and returns when to call again.
func (s *stream) due(begin, now int64, do func(intended int64)) (next int64) {
	const slice = 1_000_000 // ns, for which the rate is taken as constant
	s.at = max(s.at, begin)
	for s.at < now {
		width := min(now-s.at, slice)
		fresh := s.rate(s.at+width/2) * float64(width) / 1e9
		from := s.debt
		s.debt += fresh
		for n := 1.0; n <= s.debt; n++ {
			do(s.at + int64((n-from)/fresh*float64(width)))
		}
		s.debt -= math.Floor(s.debt)
		s.at += width
	}
	if rate := s.rate(now); rate > 0 {
		return now + int64(math.Ceil((1-s.debt)/rate*1e9))
	}
	return math.MaxInt64
}

// people lets users come and go until as many are online as the time wants.
func (s *mixScene) people(l *loop, now int64) {
	_, levels := s.o.at(time.Duration(now - l.o.from))
	if l.o.from == 0 {
		levels = s.o.Steps[0].Levels
	}
	want := int(math.Round(levels.Online))
	if s.closing {
		want = s.all
	}
	for s.online < len(s.order) && s.rank(l, s.order[s.online]) < want {
		s.wait(l, s.order[s.online])
		s.online++
	}
	for s.online > 0 && s.rank(l, s.order[s.online-1]) >= want {
		s.online--
		s.lose(l, s.order[s.online])
	}
}

// wait makes user i one of those who want to connect.
func (s *mixScene) wait(l *loop, i int32) {
	if l.conns[i].phase == unborn && !s.users[i].waits {
		s.users[i].waits = true
		s.dials.push(i)
	}
}

// connectMore connects those who want to.
func (s *mixScene) connectMore(l *loop) int64 {
	for s.dials.len() > 0 && l.handshakes < l.o.Handshakes {
		i := *s.dials.front()
		s.dials.pop()
		s.users[i].waits = false
		if wanted := s.rank(l, i) <= s.lastRank(l); wanted && l.conns[i].phase == unborn {
			l.open(&l.conns[i])
		}
	}
	return math.MaxInt64 // a handshake that ends is an event
}

// lastRank is that of the last one who is to be online.
func (s *mixScene) lastRank(l *loop) int {
	if s.online == 0 {
		return -1
	}
	return s.rank(l, s.order[s.online-1])
}

// lose takes user i's connection away.
func (s *mixScene) lose(l *loop, i int32) {
	l.lose(&l.conns[i])
	s.reads -= s.users[i].reads
	s.users[i].reads = 0
}

// next is the next user in turn who is online and may do something, or -1.
func (s *mixScene) next(l *loop, may func(i int32) bool) int32 {
	for range s.online {
		s.turn = (s.turn + 1) % s.online
		if i := s.order[s.turn]; l.conns[i].phase == live && (may == nil || may(i)) {
			return i
		}
	}
	return -1
}

func (s *mixScene) loseOne(l *loop) {
	if i := s.next(l, nil); i >= 0 {
		s.lose(l, i)
		s.wait(l, i)
	}
}

func (s *mixScene) sendPrivate(l *loop, intended int64) {
	if i := s.next(l, nil); i >= 0 {
		s.missing += 2 // the partner's and the sender's own
		s.send(l, &l.conns[i], &s.users[i].out, intended)
	}
}

func (s *mixScene) sendGroup(l *loop, intended int64) {
	if i := s.next(l, func(i int32) bool { return int(i)%s.o.Members == 0 }); i >= 0 {
		s.missing += s.o.Members
		s.send(l, &l.conns[i], &s.groups[int(i)/s.o.Members], intended)
	}
}

func (s *mixScene) send(l *loop, c *conn, f *mixFlow, intended int64) {
	l.send(c, f.t.next(intended))
	f.pending.push(sentMark{f.t.counter, intended})
	l.sentOf(intended)
	l.stats.sent++
}

func (s *mixScene) type1(l *loop) {
	if i := s.next(l, nil); i >= 0 {
		b := codec.AppendString(append(l.scratch[:0], `{"cmd":12,"data":{"to":`...), l.o.user(l.conns[i^1].number))
		l.send(&l.conns[i], append(b, "}}"...))
		l.stats.typed++
	}
}

// read asks for the newest page of the user's private conversation, or of its group, in turn.
func (s *mixScene) read(l *loop, intended int64) {
	i := s.next(l, nil)
	if i < 0 {
		return
	}
	number := l.conns[i].number
	conv := "g:" + l.o.groupName(number/s.o.Members)
	if s.turn%2 == 0 {
		a, b := l.o.user(number), l.o.user(l.conns[i^1].number)
		conv = "p:" + min(a, b) + ":" + max(a, b)
	}
	b := append(strconv.AppendInt(append(l.scratch[:0], `{"cmd":9,"id":"`...), intended, 16), `","data":{"conv":`...)
	l.send(&l.conns[i], append(codec.AppendString(b, conv), `,"limit":20}}`...))
	s.users[i].reads++
	s.reads++
}

// answered takes the answer of HISTORY: the newest first, without a hole.
func (s *mixScene) answered(l *loop, c *conn, id, data []byte) {
	intended, err := strconv.ParseInt(string(id), 16, 64)
	var d struct {
		Conv     string
		Messages []struct{ Seq uint64 }
	}
	if err == nil {
		err = json.Unmarshal(data, &d)
	}
	u := &s.users[c.index]
	if err != nil || u.reads == 0 {
		l.fail("unreadable", "user %s got the answer %q of HISTORY: %.200q", l.o.user(c.number), id, data)
		return
	}
	u.reads--
	s.reads--
	for i := 1; i < len(d.Messages); i++ {
		if d.Messages[i].Seq != d.Messages[i-1].Seq-1 {
			l.fail("history", "user %s read seq %d behind %d of %s", l.o.user(c.number), d.Messages[i].Seq, d.Messages[i-1].Seq, d.Conv)
		}
	}
	s.measure(l, mixHistory, intended)
}

// measure notes a latency of something that was to happen at a time.
func (s *mixScene) measure(l *loop, what string, intended int64) {
	if l.o.measures(intended) {
		s.hists[what][s.step(l, intended)].record(l.now - intended)
	}
}

func (s *mixScene) loggedIn(l *loop, c *conn) {
	u := &s.users[c.index]
	u.since = l.now
	if l.o.from > 0 {
		s.measure(l, mixLogin, c.started)
	}
	s.sendAgain(l, c, &u.out)
	if int(c.index)%s.o.Members == 0 {
		s.sendAgain(l, c, &s.groups[int(c.index)/s.o.Members])
	}
}

// sendAgain sends what was not accepted on the connection before, in its order.
func (s *mixScene) sendAgain(l *loop, c *conn, f *mixFlow) {
	if f.pending.len() > 0 {
		f.resentFrom = f.pending.front().number
	}
	for i := f.pending.first; i < len(f.pending.items); i++ {
		m := f.pending.items[i]
		f.resentTo = m.number
		l.send(c, f.t.write(m.number, m.time))
		l.stats.resent++
	}
}

func (s *mixScene) message(l *loop, c *conn, p push) {
	if !p.marked || p.mark.run != l.o.run {
		return // what an earlier run left in the inbox
	}
	u := &s.users[c.index]
	partner := &s.users[c.index^1].out
	switch group := &s.groups[int(c.index)/s.o.Members]; p.mark.flow {
	case u.out.t.flow:
		s.took(l, c, p, &u.copied)
	case partner.t.flow:
		if s.took(l, c, p, &u.got) {
			s.arrived(l, u, partner, p)
		}
	case group.t.flow:
		if s.took(l, c, p, &u.groupGot) {
			s.arrived(l, u, group, p)
		}
	default:
		l.fail("order", "user %s got message %d of flow %d, which is not for it", l.o.user(c.number), p.mark.number, p.mark.flow)
	}
}

// took checks a number and reports whether it is new.
func (s *mixScene) took(l *loop, c *conn, p push, newest *uint32) bool {
	if p.mark.number != *newest+1 {
		l.fail("order", "user %s got message %d of flow %d after %d, inbox %d, seq %d", l.o.user(c.number), p.mark.number, p.mark.flow, *newest,
			p.inbox, p.seq)
		if p.mark.number <= *newest {
			return false
		}
	}
	s.missing -= int(p.mark.number - *newest)
	*newest = p.mark.number
	return true
}

// arrived counts a delivery: a late one if somebody had been away.
func (s *mixScene) arrived(l *loop, u *mixUser, f *mixFlow, p push) {
	if u.since <= p.mark.time && !f.again(p.mark.number) {
		l.arrived(p.mark.time)
		s.measure(l, mixDelivery, p.mark.time)
		return
	}
	l.stats.delivered++
	s.measure(l, mixLate, p.mark.time)
}

func (s *mixScene) accepted(l *loop, c *conn, m mark) {
	f := &s.users[c.index].out
	if m.flow >= mixGroupFlow {
		f = &s.groups[int(c.index)/s.o.Members]
	}
	if m.flow != f.t.flow || m.number == 0 || m.number > f.t.counter || !f.accepts.add(m.number) {
		l.fail("SEND_ACK", "user %s got a second one for message %d of flow %d", l.o.user(c.number), m.number, m.flow)
		return
	}
	for f.pending.len() > 0 && f.pending.front().number <= f.accepts.done {
		f.pending.pop()
	}
	l.acked(m.time)
	if !f.again(m.number) {
		s.measure(l, mixAccept, m.time)
	}
}

func (s *mixScene) largeConv(c *conn) string {
	return "g:" + s.groups[int(c.index)/s.o.Members].t.target
}

// settled reports whether all who are to be online are, or cannot be.
func (s *mixScene) settled(l *loop) bool {
	return s.began && s.dials.len() == 0 && l.handshakes == 0
}

func (s *mixScene) sentAll(l *loop) {
	s.closing = true
	s.people(l, l.now)
}

func (s *mixScene) open() int { return s.missing + s.reads + s.dials.len() + s.waitingAcks() }

func (s *mixScene) waitingAcks() (n int) {
	for i := range s.users {
		n += s.users[i].out.pending.len()
	}
	for i := range s.groups {
		n += s.groups[i].pending.len()
	}
	return n
}

func (s *mixScene) finish(l *loop) {
	if s.reads > 0 {
		l.fail("missing", "%d HISTORY requests have no answer", s.reads)
	}
	for i := range s.users {
		u, partner, group := &s.users[i], &s.users[i^1], &s.groups[i/s.o.Members]
		name := l.o.user(l.conns[i].number)
		for _, check := range []struct {
			what string
			got  uint32
			sent uint32
		}{
			{"the partner's", u.got, partner.out.t.counter},
			{"its own", u.copied, u.out.t.counter},
			{"the group's", u.groupGot, group.t.counter},
			{"SEND_ACK for its own", u.out.accepts.done, u.out.t.counter},
		} {
			if check.got != check.sent {
				l.fail("missing", "user %s got %s messages up to %d of %d", name, check.what, check.got, check.sent)
			}
		}
		if i%s.o.Members == 0 && group.accepts.done != group.t.counter {
			l.fail("missing", "user %s: %d messages sent to the group, SEND_ACK came to %d", name, group.t.counter, group.accepts.done)
		}
	}
}

func (s *mixScene) beat(*loop, *conn, []byte) {}
