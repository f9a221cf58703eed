package hub

import (
	"time"

	"github.com/meshtalk/meshtalk/codec"
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
// stays the caller's; otherwise the answer comes through the outlet or Done.
func (h *Hub) Submit(s *Submission) *Error {
	d := &s.Draft
	if d.MsgID == ([16]byte{}) {
		d.MsgID = codec.MakeMsgID(d.From, d.ID)
	}
	s.submitted = time.Now()
	d.TS = s.submitted.UnixMilli()
	if err := h.log.Append(d.Conv, s); err != nil {
		return unavailable("too much is waiting")
	}
	return nil
}
