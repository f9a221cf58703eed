package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// ask sends a packet on l and has its answer taken by reply, in the reader's goroutine and without mu. The caller holds
// mu. reply is called once: with ErrDisconnected when the connection breaks first.
func (c *Client) ask(l *link, cmd codec.Cmd, data []byte, reply func(Packet, error)) (id string) {
	id = c.newID()
	c.calls[id] = reply
	l.put(codec.AppendPacket(nil, cmd, []byte(id), data))
	return id
}

// takeCall is what waits for the answer with id; nil if nothing does.
func (c *Client) takeCall(id string) func(Packet, error) {
	if id == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	reply := c.calls[id]
	delete(c.calls, id)
	return reply
}

// connected waits for a connection.
func (c *Client) connected(ctx context.Context) (*link, error) {
	for {
		c.mu.Lock()
		l, up, err := c.link, c.up, c.err
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if l != nil {
			return l, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, fmt.Errorf("client: not connected: %w", ctx.Err())
		case <-c.done:
		}
	}
}

// call sends a packet and waits for its answer. A repeatable one is sent again when the connection breaks or the server
// asks for it.
func (c *Client) call(ctx context.Context, cmd codec.Cmd, data []byte, repeatable bool) (Packet, error) {
	for {
		p, err := c.callOnce(ctx, cmd, data)
		var refusal *ServerError
		switch {
		case err == nil || !repeatable:
			return p, err
		case errors.Is(err, ErrDisconnected):
			continue
		case !errors.As(err, &refusal) || !refusal.Retryable:
			return p, err
		}
		timer := time.NewTimer(max(refusal.RetryAfter, pauseMin))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return p, err
		case <-c.done:
			timer.Stop()
			return p, c.Err()
		}
	}
}

func (c *Client) callOnce(ctx context.Context, cmd codec.Cmd, data []byte) (Packet, error) {
	if _, err := c.connected(ctx); err != nil {
		return Packet{}, err
	}
	type answer struct {
		p   Packet
		err error
	}
	answers := make(chan answer, 1)
	c.mu.Lock()
	if c.link == nil || c.err != nil {
		c.mu.Unlock()
		return Packet{}, ErrDisconnected
	}
	id := c.ask(c.link, cmd, data, func(p Packet, err error) { answers <- answer{p, err} })
	c.mu.Unlock()
	select {
	case a := <-answers:
		return a.p, a.err
	case <-ctx.Done():
		c.takeCall(id)
		return Packet{}, fmt.Errorf("client: command %d: no answer: %w", cmd, ctx.Err())
	}
}

// post sends a packet that has no answer on the present connection, or on the next one.
func (c *Client) post(ctx context.Context, cmd codec.Cmd, data []byte) error {
	l, err := c.connected(ctx)
	if err != nil {
		return err
	}
	l.put(codec.AppendPacket(nil, cmd, nil, data))
	return nil
}

// Do sends an extension command (≥ 1000) and returns the data of its answer. It is not repeated: ErrDisconnected says
// that the connection broke before the answer.
func (c *Client) Do(ctx context.Context, cmd codec.Cmd, data json.RawMessage) (json.RawMessage, error) {
	p, err := c.call(ctx, cmd, data, false)
	return p.Data, err
}

// PullPage is the answer of Pull.
type PullPage struct {
	Entries []Message
	Head    uint64 // newest number of the inbox
	First   uint64 // oldest number that is still kept
	More    bool
}

// Pull reads the inbox after a number, oldest first, at most limit entries (500; 0 = 100). It does not move positions;
// the Handler gets its messages all the same.
func (c *Client) Pull(ctx context.Context, after uint64, limit int) (PullPage, error) {
	data := strconv.AppendUint([]byte(`{"after":`), after, 10)
	p, err := c.call(ctx, codec.Pull, appendLimit(data, limit), true)
	if err != nil {
		return PullPage{}, err
	}
	var d struct {
		Entries     []json.RawMessage
		Head, First uint64
		More        bool
	}
	if err := json.Unmarshal(p.Data, &d); err != nil {
		return PullPage{}, fmt.Errorf("client: PULL answer: %w", err)
	}
	page := PullPage{Head: d.Head, First: d.First, More: d.More}
	for _, raw := range d.Entries {
		e, err := parsePacket(raw)
		if err != nil {
			return PullPage{}, err
		}
		m, err := parseMessage(e.Cmd, e.Data)
		if err != nil {
			return PullPage{}, err
		}
		page.Entries = append(page.Entries, m)
	}
	return page, nil
}

// HistoryPage is the answer of History.
type HistoryPage struct {
	Messages []Message
	More     bool
}

// HistoryQuery says what to read of a conversation. Before and After are exclusive; with After the oldest come first,
// otherwise the newest. At most one of them may be set, and the zero value of both means the newest messages.
type HistoryQuery struct {
	Conv          string
	Before, After *uint64
	Limit         int // ≤ 200, 0 = 50
}

// History reads a conversation. Recalled messages have no content, and RECALL events stand in their place.
func (c *Client) History(ctx context.Context, q HistoryQuery) (HistoryPage, error) {
	data := codec.AppendString([]byte(`{"conv":`), q.Conv)
	if q.Before != nil {
		data = strconv.AppendUint(append(data, `,"before":`...), *q.Before, 10)
	}
	if q.After != nil {
		data = strconv.AppendUint(append(data, `,"after":`...), *q.After, 10)
	}
	p, err := c.call(ctx, codec.History, appendLimit(data, q.Limit), true)
	if err != nil {
		return HistoryPage{}, err
	}
	return parseHistory(p.Data)
}

// Conversation is one line of Conversations.
type Conversation struct {
	Conv, Kind, Peer, Group string // Kind is private, group or system
	Head, Read, Unread      uint64
	PeerDelivered, PeerRead uint64
	Last                    *Message
}

// Conversations lists the conversations that have messages, newest activity first, at most limit (200; 0 = 50). The
// cursor of a page asks for the next one; the last page has none.
func (c *Client) Conversations(ctx context.Context, after string, limit int) (page []Conversation, cursor string, err error) {
	data := []byte(`{`)
	if after != "" {
		data = append(codec.AppendString(append(data, `"after":`...), after), ',')
	}
	if limit == 0 {
		limit = 50
	}
	data = strconv.AppendInt(append(data, `"limit":`...), int64(limit), 10)
	p, err := c.call(ctx, codec.Conversations, append(data, '}'), true)
	if err != nil {
		return nil, "", err
	}
	var d struct {
		Conversations []struct {
			Conversation
			Last json.RawMessage `json:"last"`
		} `json:"conversations"`
		Cursor string `json:"cursor"`
	}
	if err := json.Unmarshal(p.Data, &d); err != nil {
		return nil, "", fmt.Errorf("client: CONVERSATIONS answer: %w", err)
	}
	for _, line := range d.Conversations {
		if line.Last != nil {
			m, err := parseMessage(0, line.Last)
			if err != nil {
				return nil, "", err
			}
			m.Cmd = kindOf(m)
			line.Conversation.Last = &m
		}
		page = append(page, line.Conversation)
	}
	return page, d.Cursor, nil
}

// Read tells that the user has read conv up to seq. There is no answer; a refusal goes to Handler.OnError.
func (c *Client) Read(ctx context.Context, conv string, seq uint64) error {
	return c.post(ctx, codec.Read, seqData(conv, seq))
}

// Typing tells a user or a group that one is writing. It may be lost.
func (c *Client) Typing(ctx context.Context, to, group string) error {
	key, name := `{"to":`, to
	if group != "" {
		key, name = `{"group":`, group
	}
	return c.post(ctx, codec.Typing, append(codec.AppendString([]byte(key), name), '}'))
}

// Presence begins and ends watching users and returns the present state of those that it begins to watch. Changes go to
// Handler.OnPresence, and so do the states after a reconnect. At most 1,000 users are watched.
func (c *Client) Presence(ctx context.Context, watch, unwatch []string) ([]PresenceState, error) {
	p, err := c.call(ctx, codec.Presence, presenceData(watch, unwatch), true)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	for _, user := range watch {
		c.watched[user] = struct{}{}
	}
	for _, user := range unwatch {
		delete(c.watched, user)
	}
	c.mu.Unlock()
	return parseStates(p.Data)
}

// rewatch watches on a new connection what the last one watched. The caller holds mu.
func (c *Client) rewatch() {
	if len(c.watched) == 0 {
		return
	}
	users := make([]string, 0, len(c.watched))
	for user := range c.watched {
		users = append(users, user)
	}
	slices.Sort(users)
	c.ask(c.link, codec.Presence, presenceData(users, nil), func(p Packet, err error) {
		if err == nil {
			var states []PresenceState
			if states, err = parseStates(p.Data); err == nil {
				c.tellPresence(states)
			}
		}
		if err != nil && !errors.Is(err, ErrDisconnected) {
			c.report(fmt.Errorf("client: watch again: %w", err))
		}
	})
}

func presenceData(watch, unwatch []string) []byte {
	data := []byte(`{"watch":`)
	data = appendNames(data, watch)
	data = appendNames(append(data, `,"unwatch":`...), unwatch)
	return append(data, '}')
}

func appendNames(data []byte, names []string) []byte {
	data = append(data, '[')
	for i, name := range names {
		if i > 0 {
			data = append(data, ',')
		}
		data = codec.AppendString(data, name)
	}
	return append(data, ']')
}

func appendLimit(data []byte, limit int) []byte {
	if limit != 0 {
		data = strconv.AppendInt(append(data, `,"limit":`...), int64(limit), 10)
	}
	return append(data, '}')
}

func seqData(conv string, seq uint64) []byte {
	data := codec.AppendString([]byte(`{"conv":`), conv)
	return append(strconv.AppendUint(append(data, `,"seq":`...), seq, 10), '}')
}
