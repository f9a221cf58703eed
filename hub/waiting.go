package hub

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
)

// With a log outside the process, the node that took a submission and the one that commits it are two. A message is answered by the
// log's word alone; but what the commit finds out afterwards (another content under the same id) and what only the commit
// can answer (a recall) comes back to the node that took it, as a cluster.Answer. It is a hint: who gets none within
// answerTimeout is told UNAVAILABLE, tries again with the same id, and the commit recognises the repeat.

// origin is where a submission was made: node and session, and a number that only that start of that node uses.
type origin struct {
	node  string
	ref   uint64
	token uint64
}

// newOrigin is this start of this node. Its number is odd; those of awaited submissions are even.
func newOrigin(node string) origin {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return origin{node: node, token: binary.LittleEndian.Uint64(b[:]) | 1}
}

// answerTimeout is shorter than a session's request may take, and longer than a log and a commit need when both are well.
const answerTimeout = 8 * time.Second

// waiting are the submissions of this node that wait for their commit's answer.
type waiting struct {
	mu   sync.Mutex
	next uint64
	subs map[uint64]*awaited // by token
}

// awaited is finished by the later of the log's word and the answer: until the log has given its word it holds the submission.
type awaited struct {
	s      *Submission
	kept   bool
	answer *cluster.Answer
}

func (w *waiting) init() { w.subs = make(map[uint64]*awaited) }

// await makes s one that is answered after its commit.
func (h *Hub) await(s *Submission) {
	w := &h.waiting
	w.mu.Lock()
	w.next += 2
	token := h.origin.token + w.next - 1 // even; a start's tokens begin at a random place
	s.token = token
	w.subs[token] = &awaited{s: s}
	w.mu.Unlock()
	time.AfterFunc(answerTimeout, func() {
		e := unavailable("no answer in time")
		h.answered(token, &cluster.Answer{Code: e.Code, Message: e.Message})
	})
}

// forget undoes await: the log did not take s.
func (h *Hub) forget(s *Submission) {
	if s.token == 0 {
		return
	}
	h.waiting.mu.Lock()
	delete(h.waiting.subs, s.token)
	h.waiting.mu.Unlock()
	s.token = 0
}

// recordKept is the log's word on an awaited submission.
func (h *Hub) recordKept(s *Submission, err error) {
	h.waiting.mu.Lock()
	a := h.waiting.subs[s.token]
	a.kept = true
	if err != nil {
		a.answer = &cluster.Answer{Code: codec.CodeUnavailable, Message: "messages cannot be kept now"}
	}
	done := h.waiting.take(s.token, a)
	h.waiting.mu.Unlock()
	if done {
		h.finishAwaited(a)
	}
}

// answered is the commit's answer, or its absence.
func (h *Hub) answered(token uint64, answer *cluster.Answer) {
	h.waiting.mu.Lock()
	a := h.waiting.subs[token]
	if a == nil || a.answer != nil {
		h.waiting.mu.Unlock()
		return
	}
	a.answer = answer
	done := h.waiting.take(token, a)
	h.waiting.mu.Unlock()
	if done {
		h.finishAwaited(a)
	}
}

// take removes what has both. The caller holds mu.
func (w *waiting) take(token uint64, a *awaited) bool {
	if !a.kept || a.answer == nil {
		return false
	}
	delete(w.subs, token)
	return true
}

func (h *Hub) finishAwaited(a *awaited) {
	s, r := a.s, a.answer
	if r.Code != 0 {
		s.Err = refuse(r.Code, r.Message)
		if r.Code == codec.CodeUnavailable {
			s.Err.RetryAfterMs = retryUnavailable
		}
	}
	s.Seq, s.TS, s.Duplicate = r.Seq, r.TS, r.Duplicate
	if r.MsgID != ([16]byte{}) {
		s.Draft.MsgID = r.MsgID
	}
	h.answer(s)
}

// answerOrigin is the Done of a submission that a log brought: it tells the node that took it what that does not know.
func (h *Hub) answerOrigin(s *Submission) {
	defer h.Free(s)
	if s.Draft.Promised && s.Err == nil {
		return
	}
	a := cluster.Answer{
		Ref: s.from.ref, Token: s.from.token, ID: append([]byte(nil), s.Draft.ID...),
		MsgID: s.Draft.MsgID, Seq: s.Seq, TS: s.TS, Duplicate: s.Duplicate,
	}
	if s.Err != nil {
		a.Code, a.Message = s.Err.Code, s.Err.Message
	}
	if s.from.node == h.origin.node {
		h.Answered([]cluster.Answer{a})
		return
	}
	h.cluster.Reply(s.from.node, a)
}

// Answered implements cluster.Receiver. An ERROR for a message that was promised goes to the session that sent it, if it is still
// there.
func (h *Hub) Answered(answers []cluster.Answer) {
	for i := range answers {
		a := &answers[i]
		if a.Token != h.origin.token {
			h.answered(a.Token, a)
			continue
		}
		if a.Code != 0 && a.Ref != 0 {
			h.tell([]Ref{Ref(a.Ref)}, codec.Error, codec.AppendError(nil, a.ID, a.Code, a.Message, 0))
		}
	}
}
