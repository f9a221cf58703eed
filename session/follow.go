package session

import (
	"errors"
	"slices"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
	"github.com/meshtalk/meshtalk/store"
)

// Messages of large groups have no inbox number. Each loop knows which of its sessions follow which large group, so
// that one operation per loop and batch reaches all of them; the delivery rule is that of push.go with the conversation's
// sequence in the place of the inbox number, and what the socket takes as the only limit.

// follow is one large group on one loop. head is kept without followers too: a login that is under way starts from it.
type follow struct {
	group     string
	head      uint64
	followers []*follower
}

// follower is one session in one large group.
type follower struct {
	s             *Session
	f             *follow
	index         int // in f.followers
	acked, pushed uint64
	reading       bool
	noted         bool // in pending.acks
}

func (l *loop) follow(group string) *follow {
	f := l.follows[group]
	if f == nil {
		f = &follow{group: group}
		l.follows[group] = f
	}
	return f
}

// follow begins to push a large group from the terminal's position.
func (s *Session) follow(p *store.LargePosition) {
	x := s.extra()
	for _, w := range x.follows {
		if w.f.group == p.Group {
			return
		}
	}
	f := s.loop().follow(p.Group)
	f.head = max(f.head, p.Head)
	w := &follower{s: s, f: f, index: len(f.followers), acked: p.Acked, pushed: max(p.Acked, p.First-1)}
	f.followers = append(f.followers, w)
	x.follows = append(x.follows, w)
	w.catchUp()
}

// unfollow ends it; the position is kept.
func (w *follower) unfollow() {
	last := len(w.f.followers) - 1
	moved := w.f.followers[last]
	w.f.followers[w.index], moved.index = moved, w.index
	w.f.followers[last] = nil
	w.f.followers = w.f.followers[:last]
	w.keep()
	w.s = nil
}

func (s *Session) unfollowAll() {
	for _, w := range s.x.follows {
		w.unfollow()
	}
	s.x.follows = nil
}

// join makes the session follow a group that its user has come to, or that has become large.
func (s *Session) join(group string) {
	if s.state == loggingIn { // the positions that LOGIN reads may be older than this
		s.extra().joined = append(s.extra().joined, group)
		return
	}
	if s.state != online {
		return
	}
	l, ref, user, terminal := s.loop(), s.ref(), s.user, s.terminal()
	l.follow(group) // heads count from now on
	s.hub().Pool().Go(func() {
		ctx := l.m.deadlines.context()
		p, err := l.m.hub.Store().AttachGroup(ctx, user, terminal, group)
		if err != nil {
			return // no member any more, or not to be kept now: the next login reads it
		}
		l.post(func() {
			if s := l.session(ref); s != nil && s.state == online {
				s.follow(&p)
			}
		})
	})
}

// leave ends the pushes of a group.
func (s *Session) leave(group string) {
	if s.x == nil {
		return
	}
	s.x.joined = slices.DeleteFunc(s.x.joined, func(g string) bool { return g == group })
	for i, w := range s.x.follows {
		if w.f.group == group {
			s.x.follows = slices.Delete(s.x.follows, i, i+1)
			w.unfollow()
			return
		}
	}
}

// push offers one committed message to all followers, and returns to how many it was written.
func (f *follow) push(l *loop, frame *hub.Frame) int64 {
	f.head = max(f.head, frame.Seq)
	if len(f.followers) == 0 {
		return 0
	}
	l.head = codec.AppendPushHead(l.head[:0], frame.Cmd, 0)
	n := int64(0)
	for _, w := range f.followers {
		if frame.Seq != w.pushed+1 || w.s.conn.Room() == 0 {
			if frame.Seq > w.pushed {
				w.catchUp()
			}
			continue
		}
		w.s.conn.Send(l.head, frame.Tail)
		w.pushed = frame.Seq
		n++
	}
	l.stats.pushed.Add(n)
	return n
}

// recheck reads the head of the group, of which word may have been lost.
func (f *follow) recheck(l *loop) {
	l.m.hub.Pool().Go(func() {
		ctx := l.m.deadlines.context()
		box, err := l.m.hub.Store().ConvHead(ctx, store.GroupConv(f.group))
		if err != nil {
			return // at the next turn
		}
		l.post(func() {
			if box.Head <= f.head {
				return
			}
			f.head = box.Head
			for _, w := range f.followers {
				w.catchUp()
			}
		})
	})
}

// passed notes a message of a followed group that went into the inbox, because the group is small now: it is not to be
// pushed a second time.
func (s *Session) passed(f *hub.Frame) {
	for _, w := range s.x.follows {
		if w.f.group == f.Conv[2:] {
			w.f.head = max(w.f.head, f.Seq)
			if w.pushed+1 == f.Seq {
				w.pushed = f.Seq
			}
			return
		}
	}
}

// catchUp is Session.catchUp for a large group.
func (w *follower) catchUp() {
	s := w.s
	switch {
	case s == nil || w.reading || s.state != online:
		return
	case w.pushed >= w.f.head:
		s.caughtUp()
		return
	case s.conn.Room() == 0:
		s.lag()
		return
	}
	w.reading = true
	l, conv, after := s.loop(), store.GroupConv(w.f.group), w.pushed
	s.hub().Pool().Go(func() {
		ctx := l.m.deadlines.context()
		box, err := l.m.hub.Store().ConvHead(ctx, conv)
		var messages []store.Message
		if err == nil {
			messages, _, err = l.m.hub.Store().History(ctx, conv, nil, &after, readLimit)
		}
		l.post(func() {
			w.reading = false
			switch {
			case w.s == nil || w.s.state != online:
			case err != nil:
				l.m.o.Logf("read a large group: %v", err)
				l.retry(w.s.ref(), func(*Session) { w.catchUp() })
			default:
				w.pushRead(messages, box)
			}
		})
	})
}

// pushRead is Session.pushRead for a large group.
func (w *follower) pushRead(messages []store.Message, box store.Inbox) {
	s, l := w.s, w.s.loop()
	w.f.head = max(w.f.head, box.Head)
	if w.pushed+1 < box.First {
		w.pushed = box.First - 1
	}
	for i := range messages {
		if messages[i].Seq != w.pushed+1 {
			continue
		}
		if !messages[i].Large { // of the time when the group was small: it is in the inbox
			w.pushed++
			continue
		}
		if s.conn.Room() == 0 {
			break
		}
		m := hub.StoredMessage(&messages[i])
		l.scratch = codec.AppendPushHead(l.scratch[:0], m.Cmd, 0)
		l.scratch = codec.AppendPushTail(l.scratch, &m)
		s.send(l.scratch)
		w.pushed = m.Seq
		l.stats.pushed.Add(1)
	}
	w.catchUp()
}

// drained: what was pushed is with the kernel; for ack: auto that acknowledges it, a moment later.
func (w *follower) drained() {
	if !w.s.clientAck && w.acked < w.pushed && !w.noted {
		w.noted = true
		l := w.s.loop()
		l.pending.acks = append(l.pending.acks, w)
		l.arm()
	}
	w.catchUp()
}

// keep moves the stored position of an ack: auto terminal to what was handed to the kernel.
func (w *follower) keep() {
	w.noted = false
	s := w.s
	if s == nil || s.clientAck || w.acked >= w.pushed || s.conn.Outbound() > 0 {
		return
	}
	before := w.acked
	w.acked = w.pushed
	err := s.hub().Store().AckGroup(s.user, s.terminal(), w.f.group, w.acked)
	switch {
	case err == nil, errors.Is(err, store.ErrForbidden): // who has left has no position
	case errors.Is(err, store.ErrReadOnly): // the next push tries again
		w.acked = before
	default:
		s.loop().m.o.Logf("keep a position: %v", err)
	}
}

// ackGroup moves the position in a large group; for what is none it does nothing (PROTOCOL §3).
func (s *Session) ackGroup(id []byte, conv string, seq uint64) {
	kind, group, _ := store.ConvKind(conv)
	switch kind {
	case 0:
		s.refuse(id, codec.CodeNotFound, "no such conversation")
		return
	case 'g':
	default:
		s.ackOther(id, conv)
		return
	}
	id = clone(id)
	m, user, terminal := s.loop().m, s.user, s.terminal()
	var err error
	s.ask(func() {
		ctx := m.deadlines.context()
		err = m.hub.AckGroup(ctx, user, terminal, group, seq)
	}, func() {
		if err != nil {
			s.refuseError(id, err)
			return
		}
		for _, w := range s.followed() {
			if w.f.group == group && seq > w.acked {
				w.acked = seq
				if seq > w.pushed { // taken from HISTORY
					w.pushed = seq
				}
			}
		}
	})
}

// ackOther: {conv, seq} of a conversation that is no group.
func (s *Session) ackOther(id []byte, conv string) {
	mine := conv == store.SystemConv(s.user)
	if _, ok := store.Peer(conv, s.user); ok {
		mine = true
	}
	if !mine {
		s.refuse(id, codec.CodeForbidden, "not a member of this conversation")
	}
}

func (s *Session) followed() []*follower {
	if s.x == nil {
		return nil
	}
	return s.x.follows
}
