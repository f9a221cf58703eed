package client

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

const (
	// pullLimit is how many entries one PULL asks for: the protocol's maximum.
	pullLimit = 500
	// maxHeld bounds the messages kept while a gap before them is filled; what is beyond is asked for again.
	maxHeld = 1024
	// headGrace is how long a message that a heartbeat announced may still be on its way before it is pulled.
	headGrace = time.Second
	// fillRetry is the wait after a PULL or HISTORY that was refused for the moment without saying for how long.
	fillRetry = 500 * time.Millisecond
)

// inbox follows the client's rule of docs/PROTOCOL.md §4.7. Guarded by Client.mu.
type inbox struct {
	epoch   string // "" before the first login ever
	gen     int    // counts dropped positions
	last    uint64 // newest number that was queued for the Handler
	handled uint64 // newest number that the Handler is done with
	acked   uint64 // newest number that this connection acknowledged

	// of the present connection
	pulling bool
	starved bool      // a message found no room in the queue
	held    []Message // behind the gap that is being pulled, by number
}

// restore begins at a kept position.
func (c *Client) restore(p Position) {
	c.inbox.epoch, c.inbox.last, c.inbox.handled = p.Epoch, p.Inbox, p.Inbox
	for conv, g := range p.Groups {
		c.groups[conv] = &group{base: g.Base, last: g.Seq, handled: g.Seq}
	}
}

// position is what is to be kept. The caller holds mu.
func (c *Client) position() Position {
	p := Position{Epoch: c.inbox.epoch, Inbox: c.inbox.handled}
	if len(c.groups) > 0 {
		p.Groups = make(map[string]GroupPosition, len(c.groups))
		for conv, g := range c.groups {
			p.Groups[conv] = GroupPosition{g.base, g.handled}
		}
	}
	return p
}

// beginInbox adapts the position to a LOGIN answer. The caller holds mu.
func (c *Client) beginInbox(s *Session, asked bool) {
	in := &c.inbox
	in.pulling, in.starved, in.held = false, false, nil
	before := uint64(0) // behind it the inbox begins
	if s.First > 0 {
		before = s.First - 1
	}
	switch {
	case in.epoch == "": // a new terminal: the server knows where it starts
		in.last, in.handled = max(s.Acked, before), max(s.Acked, before)
		c.touch()
	case asked && !s.Resumed && (in.epoch != s.Epoch || in.last > s.Head): // another store: numbers mean nothing here
		in.gen++
		in.last, in.handled = before, before
		clear(c.groups)
		c.events.groups = nil
		c.touch()
	case in.last < before: // retention went past it
		in.last, in.handled = before, before
		c.touch()
	default:
		in.handled = max(in.handled, before)
	}
	in.epoch, in.acked = s.Epoch, in.handled
}

// take applies the rule to a pushed message. The caller holds mu.
func (c *Client) take(m Message) {
	switch {
	case m.Inbox > 0:
		c.takeInbox(m)
	case m.Seq > 0:
		c.takeGroup(m)
	case c.hasRoom(): // ephemeral
		c.enqueue(event{run: tell(m)})
	}
}

// tell is the call of the Handler for m.
func tell(m Message) func(h *Handler) {
	return func(h *Handler) {
		switch {
		case m.Cmd == codec.Recall:
			if h.OnRecall != nil {
				h.OnRecall(m)
			}
		case h.OnMessage != nil:
			h.OnMessage(m)
		}
	}
}

func (c *Client) takeInbox(m Message) {
	in := &c.inbox
	switch {
	case m.Inbox <= in.last:
	case m.Inbox > in.last+1:
		if len(in.held) < maxHeld && (len(in.held) == 0 || in.held[len(in.held)-1].Inbox < m.Inbox) {
			in.held = append(in.held, m)
		}
		c.pull()
	case !c.hasRoom():
		in.starved = true
	default:
		in.last = m.Inbox
		ev := event{run: tell(m), inbox: m.Inbox, gen: in.gen}
		if g := c.groups[m.Conv]; g != nil {
			c.countInGroup(g, m, &ev)
		}
		c.enqueue(ev)
	}
}

// skipTo moves the position over numbers that retention removed. The caller holds mu.
func (c *Client) skipTo(n uint64) {
	if n > c.inbox.last {
		c.inbox.last = n
		c.enqueue(event{inbox: n, gen: c.inbox.gen})
	}
}

// pull asks for what follows the position, unless that is under way already. The caller holds mu.
func (c *Client) pull() {
	in := &c.inbox
	if c.link == nil || in.pulling || in.starved {
		return
	}
	in.pulling = true
	l, after := c.link, in.last
	data := strconv.AppendUint([]byte(`{"after":`), after, 10)
	data = strconv.AppendInt(append(data, `,"limit":`...), pullLimit, 10)
	c.ask(l, codec.Pull, append(data, '}'), func(p Packet, err error) {
		if err == nil {
			err = c.pulled(l, after, p.Data)
		}
		if err != nil {
			c.fillLater(l, err, func() { c.inbox.pulling = false; c.pull() })
		}
	})
}

// pulled takes the answer of a PULL.
func (c *Client) pulled(l *link, after uint64, data []byte) error {
	var d struct {
		Entries []json.RawMessage `json:"entries"`
		First   uint64            `json:"first"`
		More    bool              `json:"more"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != l {
		return nil
	}
	in := &c.inbox
	if d.First > 0 {
		c.skipTo(d.First - 1)
	}
	for _, raw := range d.Entries {
		p, err := parsePacket(raw)
		if err != nil {
			return err
		}
		m, err := parseMessage(p.Cmd, p.Data)
		if err != nil {
			return err
		}
		c.takeInbox(m) // pulling is still set: a hole in the answer asks for nothing
	}
	in.pulling = false
	held := in.held
	in.held = nil
	for i, m := range held {
		if m.Inbox > in.last+1 {
			in.held = held[i:]
			break
		}
		c.takeInbox(m)
	}
	switch progress := in.last > after; {
	case progress && (d.More || len(in.held) > 0):
		c.pull()
	case !progress: // the server has nothing for the gap: wait for the next push or heartbeat
		in.held = nil
	}
	return nil
}

// checkHead compares the head of a heartbeat's answer with the position: what is missing for headGrace is pulled.
func (c *Client) checkHead(head uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, seen := c.link, c.inbox.last
	// A queue that is not empty means that the Handler is slow and the server waits for acknowledgements.
	if head <= seen || c.inbox.pulling || c.events.len() > 0 {
		return
	}
	time.AfterFunc(headGrace, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if l != nil && c.link == l && c.inbox.last == seen {
			c.pull()
		}
	})
}

// refill asks again for what found no room. The caller holds mu.
func (c *Client) refill() {
	if c.inbox.starved {
		c.inbox.starved = false
		c.pull()
	}
	for conv := range c.starvedGroups {
		delete(c.starvedGroups, conv)
		if g := c.groups[conv]; g != nil {
			c.fillGroup(conv, g)
		}
	}
}

// fillLater repeats a PULL or HISTORY that failed on l, after the time that the server asked for.
func (c *Client) fillLater(l *link, err error, again func()) {
	if errors.Is(err, ErrDisconnected) || c.Err() != nil {
		return
	}
	wait := fillRetry
	var refusal *ServerError
	if errors.As(err, &refusal) && refusal.RetryAfter > 0 {
		wait = refusal.RetryAfter
	}
	time.AfterFunc(wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.link == l {
			again()
		}
	})
}
