package session

import (
	"errors"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
	"github.com/meshtalk/meshtalk/store"
)

// taken is a private message of another user that was pushed and is not acknowledged yet.
type taken struct {
	inbox uint64
	conv  string
	seq   uint64
}

// ack moves the terminal's position.
func (s *Session) ack(p *codec.Packet) {
	var r codec.AckRequest
	if problem := codec.DecodeAck(p.Data, &r); !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	switch {
	case !r.HasInbox:
		s.ackGroup(p.ID, string(r.Conv), r.Seq)
	case r.Inbox <= s.head:
		s.ackTo(r.Inbox)
		s.catchUp()
	default: // maybe a PULL saw what has not come to this loop yet
		s.ackAhead(clone(p.ID), r.Inbox)
	}
}

// ackAhead asks the store whether there is such an entry.
func (s *Session) ackAhead(id []byte, inbox uint64) {
	var box store.Inbox
	var err error
	s.ask(func() {
		ctx := s.loop().m.deadlines.context()
		box, err = s.hub().Store().Head(ctx, s.user)
	}, func() {
		switch {
		case err != nil:
			s.loop().m.o.Logf("read a head: %v", err)
		case inbox > box.Head:
			s.refuseBad(id, "position above the head")
		default:
			s.head = max(s.head, box.Head)
			s.ackTo(inbox)
			s.catchUp()
		}
	})
}

// ackTo moves the position to inbox, which is not above head. What was taken by PULL is not pushed again.
func (s *Session) ackTo(inbox uint64) {
	if inbox <= s.acked {
		return
	}
	from, furthest, err := s.hub().Acked(s.user, s.terminal(), inbox)
	if err != nil {
		s.ackLater(inbox, err)
		return
	}
	if furthest {
		s.receipts(from, inbox)
	}
	s.acked, s.pushed = inbox, max(s.pushed, inbox)
	s.forget(inbox)
}

// ackLater tries again what the store could not take just now: a client does not repeat an ACK, and without it its window
// would stay shut.
func (s *Session) ackLater(inbox uint64, err error) {
	var e *hub.Error
	if !errors.As(err, &e) || e.Code != codec.CodeUnavailable { // of that the store has said why
		s.loop().m.o.Logf("keep a position: %v", err)
	}
	x := s.extra()
	if x.unkept == 0 {
		s.loop().retry(s.ref(), (*Session).ackAgain)
	}
	x.unkept = max(x.unkept, inbox)
}

func (s *Session) ackAgain() {
	if s.state != online {
		return
	}
	inbox := s.x.unkept
	s.x.unkept = 0
	s.ackTo(inbox)
	s.catchUp()
}

// receipts tells the senders of the private messages in from+1 … to that they have been delivered. Those pushed on this
// connection are known; others are read.
func (s *Session) receipts(from, to uint64) {
	if from < s.acked || to > s.pushed {
		s.readReceipts(from, to)
		return
	}
	if s.taken == nil {
		return
	}
	for i := range *s.taken {
		t := &(*s.taken)[i]
		if t.inbox > to {
			break
		}
		if t.inbox > from {
			if peer, ok := store.Peer(t.conv, s.user); ok {
				s.loop().receipt(receiptKey{t.conv, s.user}, peer, t.seq)
			}
		}
	}
}

// forget drops what is acknowledged from taken.
func (s *Session) forget(inbox uint64) {
	if s.taken == nil {
		return
	}
	list, n := *s.taken, 0
	for n < len(list) && list[n].inbox <= inbox {
		n++
	}
	switch {
	case n == 0:
	case n == len(list):
		s.loop().giveTaken(s.taken)
		s.taken = nil
	default:
		*s.taken = append(list[:0], list[n:]...)
	}
}

// readReceipts finds the senders in the store.
func (s *Session) readReceipts(from, to uint64) {
	l, user := s.loop(), s.user
	s.hub().Pool().Go(func() {
		ctx := l.m.deadlines.context()
		for from < to {
			entries, box, _, err := l.m.hub.Store().ReadInbox(ctx, user, from, readLimit)
			if err != nil || len(entries) == 0 || box.First > to {
				return // receipts may be dropped; CONVERSATIONS has them
			}
			l.post(func() { l.receiptsOf(user, entries, to) })
			from = entries[len(entries)-1].Inbox
		}
	})
}

func (l *loop) receiptsOf(user string, entries []store.InboxEntry, to uint64) {
	for i := range entries {
		e := &entries[i]
		if e.Inbox > to || e.Kind != store.Private || e.From == user {
			continue
		}
		l.receipt(receiptKey{e.Conv, user}, e.From, e.Seq)
	}
}

// Receipts of deliveries gather for a moment, so that a busy conversation gets one for many messages.

// receiptDelay is long against the pace of a busy conversation and short for the eye.
const receiptDelay = 20 * time.Millisecond

type receiptKey struct{ conv, user string }

type receipt struct {
	to  string
	seq uint64
}

// pending is what a loop does a moment later, all at once.
type pending struct {
	armed    bool
	receipts map[receiptKey]receipt
	acks     []*follower // large groups whose position of ack: auto is to be kept
}

// receipt notes that user has been delivered conv up to seq, for to.
func (l *loop) receipt(k receiptKey, to string, seq uint64) {
	if l.pending.receipts == nil {
		l.pending.receipts = make(map[receiptKey]receipt)
	}
	if r := l.pending.receipts[k]; seq > r.seq {
		l.pending.receipts[k] = receipt{to, seq}
	}
	l.arm()
}

func (l *loop) arm() {
	if !l.pending.armed {
		l.pending.armed = true
		time.AfterFunc(receiptDelay, func() { l.post(l.flushPending) })
	}
}

func (l *loop) flushPending() {
	l.pending.armed = false
	for k, r := range l.pending.receipts {
		l.m.hub.Store().Delivered(k.user, k.conv, r.seq)
		l.m.hub.Tell(r.to, 0, codec.Receipt, codec.AppendReceipt(nil, k.conv, k.user, r.seq, 0))
	}
	clear(l.pending.receipts)
	for i, f := range l.pending.acks {
		f.keep()
		l.pending.acks[i] = nil
	}
	l.pending.acks = l.pending.acks[:0]
}

// spareTaken and giveTaken reuse the short lists of busy sessions, so that an idle one holds none.
func (l *loop) spareTaken() *[]taken {
	if n := len(l.taken); n > 0 {
		t := l.taken[n-1]
		l.taken = l.taken[:n-1]
		return t
	}
	list := make([]taken, 0, 16)
	return &list
}

// maxSpares bounds the spare lists of a loop.
const maxSpares = 256

func (l *loop) giveTaken(t *[]taken) {
	if len(l.taken) < maxSpares && cap(*t) <= 1024 {
		clear(*t)
		*t = (*t)[:0]
		l.taken = append(l.taken, t)
	}
}

// read moves the read position and tells the others of it.
func (s *Session) read(p *codec.Packet) {
	var r codec.SeqRequest
	if problem := codec.DecodeSeq(p.Data, &r); !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	id, m, user, ref := clone(p.ID), s.loop().m, s.user, s.ref()
	var err error
	s.ask(func() {
		ctx := m.deadlines.context()
		err = m.hub.MarkRead(ctx, user, r.Conv, r.Seq, ref)
	}, func() {
		var e *hub.Error
		switch {
		case err == nil:
		case errors.As(err, &e):
			s.refuseError(id, e)
		default:
			m.o.Logf("keep a read position: %v", err)
		}
	})
}
