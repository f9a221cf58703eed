package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// serve reads l to its end and says why it ended. It runs in run's goroutine.
func (c *Client) serve(l *link) error {
	defer c.detach(l)
	for {
		_ = l.conn.nc.SetReadDeadline(time.Now().Add(silenceFactor * l.heartBeat))
		raw, err := l.conn.Receive(context.Background())
		if err != nil {
			if time.Since(l.since) > stable {
				c.attempt = 0
			}
			return endOfLink(l, err)
		}
		c.observe(raw)
		p, err := parsePacket(raw)
		if err != nil {
			c.report(err)
			continue
		}
		if err := c.handle(l, p); err != nil {
			c.report(err)
		}
	}
}

// stable is the life of a connection after which its failure is not counted to the ones before.
const stable = 5 * time.Second

// endOfLink is why a connection ended: what the server said before, else its close code, else the error itself.
func endOfLink(l *link, err error) error {
	if l.end != nil {
		return l.end
	}
	var ended *CloseError
	if errors.As(err, &ended) && ended.Code >= 4000 {
		if end := endOfCode(codec.Code(ended.Code), "", ended.Reason); end != nil {
			return end
		}
	}
	return err
}

// endOf is the meaning of FORCE_LOGOUT and GOAWAY.
func endOf(p Packet) error {
	var d struct {
		Code         int    `json:"code"`
		Reason       string `json:"reason"`
		RetryAfterMs int64  `json:"retryAfterMs"`
	}
	if err := json.Unmarshal(p.Data, &d); err != nil {
		return fmt.Errorf("client: packet %d: %w", p.Cmd, err)
	}
	if p.Cmd == codec.GoAway {
		return &goAwayError{d.Reason, time.Now().Add(time.Duration(d.RetryAfterMs) * time.Millisecond)}
	}
	if end := endOfCode(codec.Code(d.Code), "", d.Reason); end != nil {
		return end
	}
	return &ServerError{Code: codec.Code(d.Code), Name: "FORCE_LOGOUT", Message: d.Reason}
}

// endOfCode is the end for good that a closing code means, nil when reconnecting may help.
func endOfCode(code codec.Code, name, text string) error {
	switch {
	case code == codec.CodeReplaced:
		return &EndError{ErrReplaced, code, text}
	case code == codec.CodeKicked:
		return &EndError{ErrKicked, code, text}
	case code == codec.CodeTokenExpired && name == "REVOKED":
		return &EndError{ErrRevoked, code, text}
	}
	return nil
}

// observe gives a packet to OnPacket.
func (c *Client) observe(raw []byte) {
	if c.opt.Handler.OnPacket != nil && raw != nil {
		c.opt.Handler.OnPacket(raw)
	}
}

// handle is what the client does with one packet.
func (c *Client) handle(l *link, p Packet) error {
	switch p.Cmd {
	case codec.PrivateMessage, codec.GroupMessage, codec.SystemMessage, codec.Recall:
		m, err := parseMessage(p.Cmd, p.Data)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.take(m)
		c.mu.Unlock()
		return nil
	case codec.SendAck:
		var ack SendAck
		if err := json.Unmarshal(p.Data, &ack); err != nil {
			return fmt.Errorf("client: SEND_ACK: %w", err)
		}
		ack.ID = p.ID
		c.settle(p.ID, ack)
		return nil
	case codec.Error:
		return c.handleError(l, parseServerError(p.ID, p.Data))
	case codec.ForceLogout:
		l.end = endOf(p)
		return nil
	case codec.GoAway:
		l.end = endOf(p)
		if away, ok := l.end.(*goAwayError); ok {
			select {
			case l.away <- away.until:
			default:
			}
		}
		return nil
	}
	if reply := c.takeCall(p.ID); reply != nil {
		reply(p, nil)
		return nil
	}
	return c.handleNews(p)
}

// handleNews handles what the server sends by itself beside messages.
func (c *Client) handleNews(p Packet) error {
	var err error
	switch p.Cmd {
	case codec.HeartBeat:
		var d struct {
			Head uint64 `json:"head"`
		}
		if err = json.Unmarshal(p.Data, &d); err == nil {
			c.checkHead(d.Head)
		}
	case codec.Receipt:
		var r Receipt
		if err = json.Unmarshal(p.Data, &r); err == nil && c.opt.Handler.OnReceipt != nil {
			c.push(event{run: func(h *Handler) { h.OnReceipt(r) }})
		}
	case codec.Typing:
		var t Typing
		if err = json.Unmarshal(p.Data, &t); err == nil && c.opt.Handler.OnTyping != nil {
			c.push(event{run: func(h *Handler) { h.OnTyping(t) }})
		}
	case codec.Presence:
		var states []PresenceState
		if states, err = parseStates(p.Data); err == nil {
			c.tellPresence(states)
		}
	}
	if err != nil {
		return fmt.Errorf("client: packet %d: %w", p.Cmd, err)
	}
	return nil
}

// handleError gives an ERROR to the send or call that it answers, or takes it as the connection's end.
func (c *Client) handleError(l *link, e *ServerError) error {
	if c.refuse(l, e) {
		return nil
	}
	if reply := c.takeCall(e.ID); reply != nil {
		reply(Packet{}, e)
		return nil
	}
	switch e.Code {
	case codec.CodeUnauthorized, codec.CodeTimeout, codec.CodeTooSlow, codec.CodeTokenExpired:
		l.end = e
	case codec.CodeTooLarge:
		l.end = e
		c.dropLargest(e)
	case codec.CodeReplaced, codec.CodeKicked:
	default:
		return e
	}
	if end := endOfCode(e.Code, e.Name, e.Message); end != nil {
		l.end = end
	}
	return nil
}

func parseStates(data []byte) ([]PresenceState, error) {
	var d struct {
		States []PresenceState `json:"states"`
	}
	err := json.Unmarshal(data, &d)
	return d.States, err
}

func (c *Client) tellPresence(states []PresenceState) {
	if c.opt.Handler.OnPresence != nil && len(states) > 0 {
		c.push(event{run: func(h *Handler) { h.OnPresence(states) }})
	}
}
