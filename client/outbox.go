package client

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/meshtalk/meshtalk/codec"
)

const (
	// pauseMin doubles with every refusal in a row that names no retryAfterMs, up to pauseMax.
	pauseMin = 50 * time.Millisecond
	pauseMax = 5 * time.Second
)

// ErrTooLarge: the packet exceeds Options.MaxFrame.
var ErrTooLarge = errors.New("client: message over the limit of a frame")

// Outgoing is a message to send: To or Group, and Content.
type Outgoing struct {
	To, Group string
	Type      int64
	Content   json.RawMessage // any JSON value, relayed byte for byte
	// ID makes repeats recognisable: 1–64 bytes, the same for the same message. Empty = a new one.
	ID string
	// Ephemeral messages go to who is online now and are kept nowhere.
	Ephemeral bool
}

// Text is a message of type 0 whose content is text as a JSON string.
func Text(text string) json.RawMessage { return codec.AppendString(nil, text) }

// Pending is a send without an answer yet.
type Pending struct {
	ID     string
	packet []byte
	queued bool // not written to the present connection; guarded by Client.mu
	done   chan struct{}
	ack    SendAck // both set before done is closed
	err    error
}

// Done is closed when the answer is there.
func (s *Pending) Done() <-chan struct{} { return s.done }

// Result is the answer. It must not be called before Done is closed.
func (s *Pending) Result() (SendAck, error) { return s.ack, s.err }

func (s *Pending) finish(ack SendAck, err error) {
	s.ack, s.err = ack, err
	close(s.done)
}

// outbox holds the sends without an answer, in the order in which they were given. Guarded by Client.mu.
type outbox struct {
	list   *list.List // of *Pending
	byID   map[string]*list.Element
	queued int           // how many are not on the present connection
	room   chan struct{} // one token for each send

	pausedUntil time.Time // after a refusal for the moment
	pause       time.Duration
}

func (o *outbox) init(room int) {
	o.list, o.byID, o.room = list.New(), map[string]*list.Element{}, make(chan struct{}, room)
}

// requeue marks everything as not sent: the connection is gone, or new.
func (o *outbox) requeue() {
	for e := o.list.Front(); e != nil; e = e.Next() {
		e.Value.(*Pending).queued = true
	}
	o.queued = o.list.Len()
	o.pausedUntil, o.pause = time.Time{}, 0
}

// remove takes out the send with id, nil if there is none.
func (o *outbox) remove(id string) *Pending {
	e := o.byID[id]
	if e == nil {
		return nil
	}
	delete(o.byID, id)
	s := o.list.Remove(e).(*Pending)
	if s.queued {
		o.queued--
	}
	<-o.room
	return s
}

func (o *outbox) takeAll() (all []*Pending) {
	for e := o.list.Front(); e != nil; e = o.list.Front() {
		all = append(all, o.remove(e.Value.(*Pending).ID))
	}
	return all
}

// Send sends a message and returns when the server has made it durable. It repeats it under the same id over
// reconnects and after retryable errors until ctx ends; then the message may or may not have been kept, and a Send
// with the same ID finds out. A refusal is a *ServerError.
func (c *Client) Send(ctx context.Context, m Outgoing) (SendAck, error) {
	s, err := c.SendAsync(ctx, m)
	if err != nil {
		return SendAck{}, err
	}
	return c.Wait(ctx, s)
}

// Wait waits for the answer of s. When ctx ends first, s is not repeated any more.
func (c *Client) Wait(ctx context.Context, s *Pending) (SendAck, error) {
	select {
	case <-s.done:
	case <-ctx.Done():
		c.mu.Lock()
		abandoned := c.outbox.remove(s.ID)
		c.mu.Unlock()
		if abandoned != nil {
			s.finish(SendAck{}, fmt.Errorf("client: send %s: no answer: %w", s.ID, ctx.Err()))
		}
		<-s.done
	}
	return s.Result()
}

// SendAsync sends a message and does not wait for the answer. Messages that one goroutine sends to one conversation keep
// their order, across reconnects too, with one exception: when the server refuses a message for the moment (RATE_LIMITED,
// UNAVAILABLE), those sent behind it before the refusal arrived may overtake it. Sends without an answer are at most
// Options.MaxOutbox; beyond that SendAsync waits until ctx ends.
func (c *Client) SendAsync(ctx context.Context, m Outgoing) (*Pending, error) {
	cmd, data, err := m.data()
	if err != nil {
		return nil, err
	}
	return c.submit(ctx, cmd, m.ID, data)
}

// Recall takes a message of one's own back. It returns when the event is durable; the answer's Seq is the event's.
func (c *Client) Recall(ctx context.Context, conv string, seq uint64) (SendAck, error) {
	s, err := c.submit(ctx, codec.Recall, "", seqData(conv, seq))
	if err != nil {
		return SendAck{}, err
	}
	return c.Wait(ctx, s)
}

// data is the wire form of m.
func (m *Outgoing) data() (cmd codec.Cmd, data []byte, err error) {
	switch {
	case (m.To == "") == (m.Group == ""):
		return 0, nil, errors.New("client: send: want either To or Group")
	case !json.Valid(m.Content) || !utf8.Valid(m.Content):
		return 0, nil, errors.New("client: send: content is not JSON")
	case len(m.ID) > codec.MaxID:
		return 0, nil, fmt.Errorf("client: send: id over %d bytes", codec.MaxID)
	}
	if m.To != "" {
		cmd, data = codec.PrivateMessage, codec.AppendString([]byte(`{"to":`), m.To)
	} else {
		cmd, data = codec.GroupMessage, codec.AppendString([]byte(`{"group":`), m.Group)
	}
	if m.Type != 0 {
		data = strconv.AppendInt(append(data, `,"type":`...), m.Type, 10)
	}
	data = append(append(data, `,"content":`...), m.Content...)
	if m.Ephemeral {
		data = append(data, `,"ephemeral":true`...)
	}
	return cmd, append(data, '}'), nil
}

// submit puts a packet that SEND_ACK answers into the outbox.
func (c *Client) submit(ctx context.Context, cmd codec.Cmd, id string, data []byte) (*Pending, error) {
	if id == "" {
		id = c.NewID()
	}
	s := &Pending{ID: id, packet: codec.AppendPacket(nil, cmd, []byte(id), data), done: make(chan struct{})}
	if len(s.packet) > c.opt.MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, len(s.packet), c.opt.MaxFrame)
	}
	select {
	case c.outbox.room <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("client: send: outbox full: %w", ctx.Err())
	case <-c.done:
		return nil, c.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.outbox
	if c.err != nil || o.byID[id] != nil {
		<-o.room
		if c.err != nil {
			return nil, c.err
		}
		return nil, fmt.Errorf("client: send: id %q is being sent already", id)
	}
	o.byID[id] = o.list.PushBack(s)
	if o.queued == 0 && c.link != nil { // nothing waits before it
		c.link.put(s.packet)
		return s, nil
	}
	s.queued = true
	o.queued++
	return s, nil
}

// flushOutbox writes what is queued, in order, unless the server asked to wait. The caller holds mu.
func (c *Client) flushOutbox() {
	o := &c.outbox
	if c.link == nil || o.queued == 0 || time.Now().Before(o.pausedUntil) {
		return
	}
	for e := o.list.Front(); e != nil && o.queued > 0; e = e.Next() {
		if s := e.Value.(*Pending); s.queued {
			s.queued = false
			o.queued--
			c.link.put(s.packet)
		}
	}
}

// settle ends the send with id by its SEND_ACK.
func (c *Client) settle(id string, ack SendAck) {
	c.mu.Lock()
	s := c.outbox.remove(id)
	c.outbox.pause = 0
	c.mu.Unlock()
	if s != nil {
		s.finish(ack, nil)
	}
}

// refuse takes an ERROR that answers a send: a retryable one queues it again, any other ends it. It reports whether
// there was such a send.
func (c *Client) refuse(l *link, e *ServerError) bool {
	if e.ID == c.groupAckID() {
		return true
	}
	c.mu.Lock()
	o := &c.outbox
	element := o.byID[e.ID]
	if element == nil || !e.Retryable {
		s := o.remove(e.ID)
		c.mu.Unlock()
		if s != nil {
			s.finish(SendAck{}, e)
		}
		return s != nil
	}
	defer c.mu.Unlock()
	s := element.Value.(*Pending)
	if !s.queued {
		s.queued = true
		o.queued++
	}
	wait := e.RetryAfter
	if wait <= 0 {
		o.pause = min(max(2*o.pause, pauseMin), pauseMax)
		wait = o.pause
	}
	if until := time.Now().Add(wait); until.After(o.pausedUntil) {
		o.pausedUntil = until
		time.AfterFunc(wait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.link == l {
				c.flushOutbox()
			}
		})
	}
	return true
}

// dropLargest ends the largest send on the wire: the server closed because of a frame over its limit and cannot say
// which one it was; sending it again would close the next connection too.
func (c *Client) dropLargest(e *ServerError) {
	c.mu.Lock()
	var largest *Pending
	for el := c.outbox.list.Front(); el != nil; el = el.Next() {
		if s := el.Value.(*Pending); !s.queued && (largest == nil || len(s.packet) > len(largest.packet)) {
			largest = s
		}
	}
	if largest != nil {
		c.outbox.remove(largest.ID)
	}
	c.mu.Unlock()
	if largest != nil {
		largest.finish(SendAck{}, e)
	}
}
