package client

import (
	"strconv"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// event is one call of the Handler, and the positions that it completes.
type event struct {
	run   func(h *Handler) // nil = nothing to tell, a position only
	inbox uint64           // 0 = none
	conv  string           // of a large group; "" = none
	seq   uint64
	gen   int // of the inbox that the numbers belong to
}

// events are what waits for the Handler, and what it handled but is not acknowledged yet. Guarded by Client.mu.
type events struct {
	list  []event
	first int           // of list; those before were taken
	wake  chan struct{} // capacity 1

	due      int // handled since the last flush
	flushing *time.Timer
	changed  bool                // the position differs from the kept one
	groups   map[string]struct{} // with a position to acknowledge
}

func (e *events) len() int { return len(e.list) - e.first }

func (e *events) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *events) pop() event {
	ev := e.list[e.first]
	e.list[e.first] = event{}
	e.first++
	if e.first == len(e.list) {
		e.list, e.first = e.list[:0], 0
	}
	return ev
}

// enqueue adds an event whatever the length of the queue. The caller holds mu.
func (c *Client) enqueue(ev event) {
	e := &c.events
	if e.first > 0 && len(e.list) == cap(e.list) { // reuse the front instead of growing
		n := copy(e.list, e.list[e.first:])
		clear(e.list[n:])
		e.list, e.first = e.list[:n], 0
	}
	e.list = append(e.list, ev)
	e.signal()
}

// hasRoom reports whether a message may be queued. The caller holds mu.
func (c *Client) hasRoom() bool { return c.events.len() < c.opt.MaxQueue }

// push adds an event that may be dropped: typing, presence, receipts, errors. Changes of state come a few at a time and
// have room behind a full queue.
func (c *Client) push(ev event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.events.len() < 2*c.opt.MaxQueue {
		c.enqueue(ev)
	}
}

// deliver calls the Handler until the client has ended and nothing is left, or until Close.
func (c *Client) deliver() {
	defer close(c.delivered)
	for {
		c.mu.Lock()
		if c.closing || (c.err != nil && c.events.len() == 0) {
			c.mu.Unlock()
			return
		}
		if c.events.len() == 0 {
			c.mu.Unlock()
			<-c.events.wake
			continue
		}
		ev := c.events.pop()
		c.mu.Unlock()
		if ev.run != nil {
			ev.run(&c.opt.Handler)
		}
		if c.handled(ev) {
			c.flush()
		}
	}
}

// handled moves the positions behind ev and reports whether acknowledgements are due now.
func (c *Client) handled(ev event) (flush bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.events.len() <= c.opt.MaxQueue/2 {
		c.refill()
	}
	if ev.gen != c.inbox.gen || (ev.inbox == 0 && ev.conv == "") {
		return false
	}
	c.inbox.handled = max(c.inbox.handled, ev.inbox)
	if g := c.groups[ev.conv]; g != nil && ev.seq > g.handled {
		g.handled = ev.seq
		c.owe(ev.conv)
	}
	c.touch()
	c.events.due++
	return c.events.due >= c.opt.AckEvery
}

// touch sees to it that the position is kept and acknowledged soon. The caller holds mu.
func (c *Client) touch() {
	e := &c.events
	e.changed = true
	if e.flushing == nil {
		e.flushing = time.AfterFunc(c.opt.AckDelay, c.flush)
	}
}

// owe notes that the position in a large group is to be acknowledged. The caller holds mu.
func (c *Client) owe(conv string) {
	if c.events.groups == nil {
		c.events.groups = map[string]struct{}{}
	}
	c.events.groups[conv] = struct{}{}
	c.touch()
}

// flush keeps the position and acknowledges what was handled.
func (c *Client) flush() {
	c.flushing.Lock()
	defer c.flushing.Unlock()
	c.mu.Lock()
	e := &c.events
	if e.flushing != nil {
		e.flushing.Stop()
		e.flushing = nil
	}
	if !e.changed {
		c.mu.Unlock()
		return
	}
	e.changed, e.due = false, 0
	position := c.position()
	groups := e.groups
	e.groups = nil
	c.mu.Unlock()

	if err := c.opt.Positions.Save(position); err != nil {
		c.report(err) // acknowledged all the same: a repeat after a restart is better than a stop now
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil || c.opt.Ack != AckClient || c.inbox.epoch != position.Epoch {
		return
	}
	if position.Inbox > c.inbox.acked {
		c.inbox.acked = position.Inbox
		data := strconv.AppendUint([]byte(`{"inbox":`), position.Inbox, 10)
		c.link.put(codec.AppendPacket(nil, codec.Ack, nil, append(data, '}')))
	}
	for conv := range groups {
		data := codec.AppendString([]byte(`{"conv":`), conv)
		data = strconv.AppendUint(append(data, `,"seq":`...), position.Groups[conv].Seq, 10)
		c.link.put(codec.AppendPacket(nil, codec.Ack, []byte(c.groupAckID()), append(data, '}')))
	}
}

// groupAckID marks acknowledgements of large groups, so that the FORBIDDEN of a group just left is known as such.
func (c *Client) groupAckID() string { return c.prefix + "-ack" }
