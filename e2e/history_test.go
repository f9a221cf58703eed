package e2e_test

import (
	"fmt"
	"sort"
	"strings"
	"sync"
)

// history records what clients did and were told. Its check is the promise of the server (docs/guarantees.md), in code:
// it knows nothing of how the server works.
type history struct {
	mu   sync.Mutex
	sent map[string]*sending // by id, which is unique over all senders
	// order is the ids of each sender in each conversation, as they were first sent on its one connection.
	order    map[string][]string
	refusals int
}

// sending is one message and what became of it.
type sending struct {
	id, from, conv, content string
	recipients              []string
	acked                   bool
	refused                 bool   // at least once; its place in the order is then that of a later attempt
	seq                     uint64 // of the SEND_ACK, 0 if it told none: a log had taken the message
	msgID                   string
}

func newHistory() *history {
	return &history{sent: map[string]*sending{}, order: map[string][]string{}}
}

// send records that a message is about to be sent for the first time.
func (h *history) send(s *sending) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent[s.id] = s
	key := s.from + " " + s.conv
	h.order[key] = append(h.order[key], s.id)
}

// ack records a SEND_ACK. A second one must say the same.
func (h *history) ack(id, msgID string, seq uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sent[id]
	switch {
	case s == nil:
		return fmt.Errorf("SEND_ACK of %q, which nobody sent", id)
	case s.acked && (s.seq != 0 && seq != 0 && s.seq != seq || s.msgID != msgID):
		return fmt.Errorf("%q was acknowledged as %s seq %d, and then as %s seq %d", id, s.msgID, s.seq, msgID, seq)
	}
	s.acked, s.seq, s.msgID = true, max(s.seq, seq), msgID
	return nil
}

// refuse records an UNAVAILABLE: no promise was made. It returns to be sent again under the same id.
func (h *history) refuse(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sent[id]; s != nil {
		s.refused = true
		h.refusals++
	}
}

// counts are the messages that were sent and acknowledged, and how often one was refused.
func (h *history) counts() (sent, acked, refusals int) {
	sent, acked = h.count()
	h.mu.Lock()
	defer h.mu.Unlock()
	return sent, acked, h.refusals
}

func (h *history) count() (sent, acked int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sent {
		if s.acked {
			acked++
		}
	}
	return len(h.sent), acked
}

// entry is one message as it stands in somebody's inbox.
type entry struct {
	inbox, seq            uint64
	msgID, id, from, conv string
	content               string
}

// check compares the inboxes of all users with what was sent and acknowledged, and lists what is wrong.
func (h *history) check(inboxes map[string][]entry) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := checker{h: h, at: map[string]map[string]int{}, convs: map[string]map[uint64]entry{}}
	users := make([]string, 0, len(inboxes))
	for u := range inboxes {
		users = append(users, u)
	}
	sort.Strings(users)
	for _, u := range users {
		c.inbox(u, inboxes[u])
	}
	c.acknowledged()
	c.sequences()
	c.orders(users, inboxes)
	return c.wrong
}

// checker is one run of check.
type checker struct {
	h     *history
	at    map[string]map[string]int   // user → id → how often
	convs map[string]map[uint64]entry // conversation → seq → the message as first seen
	wrong []string
}

func (c *checker) fail(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// inbox: numbers without a hole, nothing that was not sent to this user, and the same message under the same number of
// its conversation as everybody else sees.
func (c *checker) inbox(user string, entries []entry) {
	c.at[user] = map[string]int{}
	for i, e := range entries {
		if e.inbox != uint64(i+1) {
			c.fail("inbox of %s: number %d in place %d", user, e.inbox, i+1)
		}
		c.at[user][e.id]++
		s := c.h.sent[e.id]
		if s == nil || s.from != e.from || s.conv != e.conv || s.content != e.content {
			c.fail("inbox of %s: %+v was never sent like this", user, e)
			continue
		}
		if !contains(s.recipients, user) {
			c.fail("inbox of %s: %q is not for this user", user, e.id)
		}
		if c.convs[e.conv] == nil {
			c.convs[e.conv] = map[uint64]entry{}
		}
		if other, seen := c.convs[e.conv][e.seq]; seen && (other.id != e.id || other.msgID != e.msgID) {
			c.fail("%s seq %d is %q to %s and %q to another", e.conv, e.seq, e.id, user, other.id)
		}
		c.convs[e.conv][e.seq] = e
	}
	for id, n := range c.at[user] {
		if n > 1 {
			c.fail("inbox of %s: %q stands %d times", user, id, n)
		}
	}
}

// acknowledged: every acknowledged message is in the inbox of every recipient, under the number that was told.
func (c *checker) acknowledged() {
	for id, s := range c.h.sent {
		here := 0
		for _, u := range s.recipients {
			if c.at[u][id] > 0 {
				here++
			}
		}
		switch {
		case s.acked && here < len(s.recipients):
			c.fail("%q (%s, seq %d) was acknowledged and is in %d of %d inboxes", id, s.conv, s.seq, here, len(s.recipients))
		case here != 0 && here < len(s.recipients):
			c.fail("%q is in %d of %d inboxes", id, here, len(s.recipients))
		case s.acked && s.seq != 0 && c.convs[s.conv][s.seq].id != id:
			c.fail("%q was acknowledged as %s seq %d, where %q stands", id, s.conv, s.seq, c.convs[s.conv][s.seq].id)
		}
	}
}

// sequences: 1, 2, 3 … without a hole in every conversation, each seen by somebody.
func (c *checker) sequences() {
	for conv, messages := range c.convs {
		for n := uint64(1); n <= uint64(len(messages)); n++ {
			if _, ok := messages[n]; !ok {
				c.fail("%s: %d messages and none has seq %d", conv, len(messages), n)
			}
		}
	}
}

// orders: in every inbox a conversation's messages stand by seq, and those of one sender as they were sent, but for those that
// were refused and sent again.
func (c *checker) orders(users []string, inboxes map[string][]entry) {
	place := map[string]int{} // of an id in its sender's order
	for _, ids := range c.h.order {
		for i, id := range ids {
			place[id] = i
		}
	}
	for _, u := range users {
		lastSeq, lastSent := map[string]uint64{}, map[string]int{}
		for _, e := range inboxes[u] {
			if e.seq <= lastSeq[e.conv] {
				c.fail("inbox of %s: %s seq %d after %d", u, e.conv, e.seq, lastSeq[e.conv])
			}
			lastSeq[e.conv] = e.seq
			if s := c.h.sent[e.id]; s == nil || s.refused {
				continue
			}
			key := e.from + " " + e.conv
			if last, seen := lastSent[key]; seen && place[e.id] <= last {
				c.fail("inbox of %s: %q came after a later message of %s", u, e.id, e.from)
			}
			lastSent[key] = place[e.id]
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// summary is the first few of many findings.
func summary(wrong []string) string {
	const most = 10
	if len(wrong) > most {
		return fmt.Sprintf("%s\n… and %d more", strings.Join(wrong[:most], "\n"), len(wrong)-most)
	}
	return strings.Join(wrong, "\n")
}
