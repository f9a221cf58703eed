package hub

import (
	"context"
	"errors"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/mq"
	"github.com/meshtalk/meshtalk/store"
)

// Submission is one accepted message on its way through the commit, and then its answer. It comes from NewSubmission and
// goes back with Free; whoever holds it owns it: the submitter, from Submit on the hub, then the outlet or Done.
type Submission struct {
	Draft store.Draft
	// Ref is the session to answer through its outlet (Batch.Answers); 0 = call Done instead, which must not block.
	Ref  Ref
	Done func(*Submission)

	// The answer: Err, or what SEND_ACK says.
	Err       *Error
	Seq       uint64
	TS        int64
	Duplicate bool

	hub       *Hub
	from      origin // where it was made, when a log brought it
	token     uint64 // by which the commit's answer finds it in Hub.waiting, 0 = it is not awaited
	submitted time.Time
	buf       []byte // backs Draft.ID and Draft.Content
}

// NewSubmission takes an empty submission and copies id and content into it.
func (h *Hub) NewSubmission(id, content []byte) *Submission {
	s := h.submissions.Get().(*Submission)
	s.hub = h
	s.buf = append(append(s.buf[:0], id...), content...)
	s.Draft.ID = s.buf[:len(id):len(id)]
	s.Draft.Content = s.buf[len(id):]
	return s
}

// maxKeptBuffer is how large a submission's buffer may be to be kept for the next one, in bytes.
const maxKeptBuffer = 4 << 10

// Free gives s back.
func (h *Hub) Free(s *Submission) {
	buf := s.buf
	if cap(buf) > maxKeptBuffer {
		buf = nil
	}
	*s = Submission{buf: buf[:0]}
	h.submissions.Put(s)
}

// Submit hands s over to be committed. The sequence of a session's submissions to one conversation is kept. A refusal is returned at once and s
// stays the caller's; otherwise the answer comes through the outlet or Done. What goes to a group has been through Admit.
func (h *Hub) Submit(s *Submission) *Error {
	d := &s.Draft
	if d.MsgID == ([16]byte{}) {
		d.MsgID = codec.MakeMsgID(d.From, d.ID)
	}
	s.submitted = time.Now()
	d.TS = s.submitted.UnixMilli()
	if h.durable {
		if d.Promised = d.Kind != store.Recall; !d.Promised {
			h.await(s)
		}
	}
	if err := h.log.Append(d.Conv, s); err != nil {
		h.forget(s)
		if errors.Is(err, mq.ErrFull) {
			return unavailable("too much is waiting")
		}
		return unavailable("messages cannot be kept now")
	}
	return nil
}

// Admit judges whether a draft may be promised: with a log that is durable the SEND_ACK comes before the commit, which therefore
// judges membership no more. Otherwise the commit judges, and Admit is nil. It may block.
func (h *Hub) Admit(ctx context.Context, d *store.Draft) error {
	if !h.durable || d.Conv[0] != 'g' {
		return nil
	}
	switch d.Kind {
	case store.Group:
		return h.Member(ctx, d.Conv[2:], d.From)
	case store.System:
		_, err := h.store.Group(ctx, d.Conv[2:])
		return fail(err)
	}
	return nil
}

// TryAdmit is Admit for an event loop: known is false when the answer takes a read.
func (h *Hub) TryAdmit(d *store.Draft) (known bool, refusal *Error) {
	if !h.durable || d.Kind != store.Group {
		return true, nil
	}
	exists, member, known := h.store.TryMember(d.Conv[2:], d.From)
	switch {
	case !known:
		return false, nil
	case !exists:
		return true, outcomeError(store.Group, store.NotFound)
	case !member:
		return true, outcomeError(store.Group, store.Forbidden)
	}
	return true, nil
}
