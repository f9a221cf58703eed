package session

import (
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/engine"
	"github.com/meshtalk/meshtalk/hub"
)

// A loop is the hub's outlet: every method below may be called from anywhere and queues an operation.

var _ hub.Outlet = (*loop)(nil)

// deliverOp is Deliver's operation.
type deliverOp struct {
	l *loop
	b *hub.Batch
}

// Run implements engine.Op.
func (o *deliverOp) Run(*engine.Loop) { o.l.deliver(o.b) }

// Deliver implements hub.Outlet.
func (l *loop) Deliver(b *hub.Batch) { l.el.Post(&deliverOp{l, b}) }

// deliver answers senders and offers what was committed to this loop's sessions.
func (l *loop) deliver(b *hub.Batch) {
	for _, sub := range b.Answers {
		if s := l.session(sub.Ref); s != nil && s.state == online {
			s.answered(sub)
		}
		l.m.hub.Free(sub)
	}
	for i := range b.Pushes {
		p := &b.Pushes[i]
		if s := l.session(p.To); s != nil {
			s.push(p.Inbox, p.Frame)
		}
	}
	l.observe(b)
	for i := range b.Groups {
		g := &b.Groups[i]
		n := l.follow(g.Group).push(l, g.Frame)
		l.stats.delivery.observe(time.Since(g.Frame.Accepted), n)
	}
	b.Release()
}

// observe counts how long the batch's pushes took from their acceptance to here, where only the one write of the drain
// is left.
func (l *loop) observe(b *hub.Batch) {
	if len(b.Pushes) == 0 {
		return
	}
	now := time.Now()
	for i := range b.Pushes {
		l.stats.delivery.observe(now.Sub(b.Pushes[i].Frame.Accepted), 1)
	}
}

// Tell implements hub.Outlet.
func (l *loop) Tell(refs []hub.Ref, cmd codec.Cmd, packet []byte) {
	l.post(func() {
		for _, r := range refs {
			l.tell(r, cmd, packet)
		}
	})
}

// tell sends a packet that may be dropped, if there is room.
func (l *loop) tell(r hub.Ref, cmd codec.Cmd, packet []byte) {
	s := l.session(r)
	if s == nil || s.state != online {
		return
	}
	room := s.conn.Room() > 0
	if cmd == codec.Presence {
		x := s.extra()
		x.told++
		x.stale = x.stale || !room
	}
	if room {
		s.send(packet)
	}
}

// TellGroup implements hub.Outlet.
func (l *loop) TellGroup(group, except string, packet []byte) {
	l.post(func() {
		f := l.follows[group]
		if f == nil {
			return
		}
		for _, w := range f.followers {
			if w.s.user != except && w.s.conn.Room() > 0 {
				w.s.send(packet)
			}
		}
	})
}

// Broadcast implements hub.Outlet.
func (l *loop) Broadcast(packet func(dst []byte, user string) []byte) {
	l.post(func() {
		l.el.Each(func(c *engine.Conn) bool {
			if s, ok := c.State.(*Session); ok && s.state == online && c.Room() > 0 {
				l.scratch = packet(l.scratch[:0], s.user)
				s.send(l.scratch)
			}
			return true
		})
	})
}

// Close implements hub.Outlet.
func (l *loop) Close(ref hub.Ref, code codec.Code, reason string, before int64) {
	l.post(func() {
		s := l.session(ref)
		if s == nil || s.state == gone || s.state == fresh {
			return
		}
		switch {
		case before > 0 && s.state == loggingIn: // welcome knows how old the token is
			x := s.extra()
			x.revoked = max(x.revoked, before)
		case before == 0 || s.issued < before:
			s.end(code, reason)
		}
	})
}

// Join implements hub.Outlet.
func (l *loop) Join(ref hub.Ref, group string) {
	l.post(func() {
		if s := l.session(ref); s != nil {
			s.join(group)
		}
	})
}

// Leave implements hub.Outlet.
func (l *loop) Leave(ref hub.Ref, group string) {
	l.post(func() {
		if s := l.session(ref); s != nil {
			s.leave(group)
		}
	})
}

// Heads implements hub.Outlet.
func (l *loop) Heads(heads []hub.Head) {
	l.post(func() {
		for _, h := range heads {
			if s := l.session(h.Ref); s != nil && s.state != fresh {
				s.head = max(s.head, h.Inbox)
				s.catchUp()
			}
		}
	})
}

// Recheck implements hub.Outlet.
func (l *loop) Recheck() {
	l.post(func() {
		for _, f := range l.follows {
			if len(f.followers) > 0 {
				f.recheck(l)
			}
		}
	})
}

// Inspect implements hub.Outlet.
func (l *loop) Inspect(ref hub.Ref, answer func(hub.TerminalInfo, bool)) {
	ok := l.el.Post(opFunc(func() {
		s := l.session(ref)
		if s == nil || s.state != online {
			answer(hub.TerminalInfo{}, false)
			return
		}
		i := s.info()
		answer(hub.TerminalInfo{
			Terminal: i.Terminal, SessionID: i.SessionID, Transport: i.Transport, IP: i.IP,
			Since: int64(s.since) * 1000, Acked: s.acked, Lagging: s.lagging,
		}, true)
	}))
	if !ok {
		answer(hub.TerminalInfo{}, false)
	}
}
