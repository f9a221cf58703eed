package session

import (
	"slices"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
	"github.com/meshtalk/meshtalk/store"
)

// The delivery rule (DESIGN §3). A committed entry reaches the loop as (session, inbox number, frame). If the number is
// pushed+1 and there is room it is written; otherwise only head moves. Whenever pushed < head, there is room and no read is out,
// the store is asked for what follows pushed, and its answer comes back under the same rule.

// push offers one committed entry to the session.
func (s *Session) push(inbox uint64, f *hub.Frame) {
	if s.state == fresh {
		return // of a LOGIN that failed after all
	}
	if inbox > s.head {
		s.head = inbox
	}
	if s.state != online {
		return // the answer to LOGIN begins from head
	}
	if s.x != nil && f.Conv[0] == 'g' {
		s.passed(f)
	}
	switch {
	case !s.room():
		s.catchUp()
	case inbox == s.pushed+1:
		s.write(inbox, f)
		s.writeEarly()
	case inbox > s.pushed && s.loop().m.o.Reorder > 0 && !s.reading:
		s.early(inbox, f)
	default:
		s.catchUp()
	}
}

// write pushes the next entry.
func (s *Session) write(inbox uint64, f *hub.Frame) {
	l := s.loop()
	l.scratch = codec.AppendPushHead(l.scratch[:0], f.Cmd, inbox)
	s.conn.Send(l.scratch, f.Tail)
	s.pushedTo(inbox, f.Private && f.From != s.user, f.Conv, f.Seq)
	l.stats.pushed.Add(1)
}

// Wake-ups of two nodes may overtake each other: a user's inbox is written by the owners of many partitions. What comes before its
// predecessor waits for it a moment, before the store is read.

// maxEarly bounds what one session keeps so.
const maxEarly = 64

// early keeps an entry whose predecessor has not come.
func (s *Session) early(inbox uint64, f *hub.Frame) {
	x := s.extra()
	if len(x.early) >= maxEarly {
		s.endEarly()
		return
	}
	x.early = append(x.early, earlyPush{inbox, f})
	if len(x.early) > 1 {
		return
	}
	l, ref := s.loop(), s.ref()
	time.AfterFunc(l.m.o.Reorder, func() {
		l.post(func() {
			if l.session(ref) == s && s.state == online && len(x.early) > 0 {
				s.endEarly()
			}
		})
	})
}

// writeEarly goes on with what came early and is next now.
func (s *Session) writeEarly() {
	if s.x == nil {
		return
	}
	x := s.x
	for i := 0; i < len(x.early); {
		switch e := x.early[i]; {
		case e.inbox == s.pushed+1 && s.room():
			s.write(e.inbox, e.frame)
			x.early = slices.Delete(x.early, i, i+1)
			i = 0
		case e.inbox <= s.pushed:
			x.early = slices.Delete(x.early, i, i+1)
		default:
			i++
		}
	}
}

// endEarly waits no longer: the store is read.
func (s *Session) endEarly() {
	s.x.early = nil
	s.catchUp()
}

// pushedTo notes that an entry was written; receipt tells that its sender is owed a RECEIPT when it is acknowledged.
func (s *Session) pushedTo(inbox uint64, receipt bool, conv string, seq uint64) {
	s.pushed = inbox
	if receipt {
		if s.taken == nil {
			s.taken = s.loop().spareTaken()
		}
		*s.taken = append(*s.taken, taken{inbox, conv, seq})
	}
}

// room reports whether another push may be written: the window of ack: client, and what the socket takes.
func (s *Session) room() bool {
	if s.clientAck && s.pushed >= s.acked+uint64(s.window) {
		return false
	}
	return s.conn.Room() > 0
}

// readLimit is how many entries one read of the store asks for.
const readLimit = 100

// catchUp reads what follows pushed, if there is something, room for it and no read out already.
func (s *Session) catchUp() {
	switch {
	case s.state != online || s.reading || s.x != nil && len(s.x.early) > 0:
		return
	case s.pushed >= s.head:
		s.caughtUp()
		return
	case !s.room():
		s.lag()
		return
	}
	limit := readLimit
	if s.clientAck {
		limit = min(limit, int(s.acked+uint64(s.window)-s.pushed))
	}
	s.reading = true
	ref, l, user, after := s.ref(), s.loop(), s.user, s.pushed
	s.hub().Pool().Go(func() {
		ctx := l.m.deadlines.context()
		entries, box, _, err := l.m.hub.Store().ReadInbox(ctx, user, after, limit)
		l.post(func() {
			if l.session(ref) != s || s.state != online {
				return
			}
			s.reading = false
			if err != nil {
				l.m.o.Logf("read an inbox: %v", err)
				l.retry(ref, (*Session).catchUp)
				return
			}
			s.pushRead(entries, box)
		})
	})
}

// retryDelay is the wait before a failed read is tried again.
const retryDelay = time.Second

func (l *loop) retry(ref hub.Ref, f func(*Session)) {
	time.AfterFunc(retryDelay, func() {
		l.post(func() {
			if s := l.session(ref); s != nil {
				f(s)
			}
		})
	})
}

// pushRead offers what a read of the store brought.
func (s *Session) pushRead(entries []store.InboxEntry, box store.Inbox) {
	l := s.loop()
	s.head = max(s.head, box.Head)
	if s.pushed+1 < box.First { // retention removed what was next
		s.pushed = box.First - 1
		s.acked = max(s.acked, s.pushed)
	}
	for i := range entries {
		e := &entries[i]
		if e.Inbox != s.pushed+1 { // a live push was first
			continue
		}
		if !s.room() {
			break
		}
		m := hub.StoredMessage(&e.Message)
		l.scratch = codec.AppendPushHead(l.scratch[:0], m.Cmd, e.Inbox)
		l.scratch = codec.AppendPushTail(l.scratch, &m)
		s.send(l.scratch)
		s.pushedTo(e.Inbox, e.Kind == store.Private && e.From != s.user, e.Conv, e.Seq)
		l.stats.pushed.Add(1)
	}
	s.catchUp()
}

// lag tells the client once that its pushes are paused.
func (s *Session) lag() {
	if s.lagging {
		return
	}
	s.lagging = true
	l := s.loop()
	l.stats.lagging.Add(1)
	l.scratch = codec.AppendLag(l.scratch[:0], s.head)
	s.send(l.scratch)
}

// caughtUp ends the lag when nothing is left to push, of the inbox and of large groups.
func (s *Session) caughtUp() {
	if !s.lagging || s.pushed < s.head {
		return
	}
	for _, w := range s.followed() {
		if w.pushed < w.f.head {
			return
		}
	}
	s.lagging = false
	s.loop().stats.lagging.Add(-1)
}

// drained: everything written is with the kernel. That acknowledges it for ack: auto; and there is room again.
func (s *Session) drained() {
	if !s.clientAck && s.acked < s.pushed {
		s.ackTo(s.pushed)
	}
	s.catchUp()
	if s.x != nil {
		s.drainedExtras()
	}
}

// drainedExtras goes on with the large groups and tells the watched users' present state if a change was dropped.
func (s *Session) drainedExtras() {
	for _, f := range s.x.follows {
		f.drained()
	}
	if s.x.stale && s.conn.Room() > 0 {
		s.x.stale = false
		s.tellWatched()
	}
}
