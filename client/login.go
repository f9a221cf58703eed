package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// errTokenRefused: LOGIN was refused and a fresh token may help.
var errTokenRefused = errors.New("token refused")

// goAwayError: the server asked to come back at a later time.
type goAwayError struct {
	reason string
	until  time.Time
}

func (e *goAwayError) Error() string { return "client: server goes away: " + e.reason }

// connect opens a connection and logs in; then the state is that of the new session. It runs in run's goroutine.
func (c *Client) connect() (*link, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.opt.ConnectTimeout)
	defer cancel()
	token, err := c.newToken(ctx)
	if err != nil {
		return nil, err
	}
	if c.refused != "" && token == c.refused {
		return nil, &EndError{Reason: ErrUnauthorized, Code: codec.CodeUnauthorized, Text: c.refusal + "; the token source has no other"}
	}
	conn, err := DialConn(ctx, c.opt.Addrs[c.addr%len(c.opt.Addrs)], c.opt.Conn)
	if err != nil {
		return nil, err
	}
	session, resumed, err := c.login(ctx, conn, token)
	if err != nil {
		_ = conn.Close()
		if errors.Is(err, errTokenRefused) {
			if c.refused != "" {
				err = &EndError{Reason: ErrUnauthorized, Code: codec.CodeUnauthorized, Text: err.Error()}
			}
			c.refused, c.refusal = token, err.Error()
		}
		return nil, err
	}
	c.refused, c.refusal = "", ""
	l := newLink(c.ctx, conn, c.opt.HeartBeat, session)
	c.attach(l, session, token, resumed)
	return l, nil
}

// login sends LOGIN and waits for its answer. resumed tells that a resume was asked for.
func (c *Client) login(ctx context.Context, conn *Conn, token string) (s *Session, resumed bool, err error) {
	c.mu.Lock()
	id := c.newID()
	data, resumed := c.loginData(token)
	c.mu.Unlock()
	if err := conn.Send(ctx, codec.AppendPacket(nil, codec.Login, []byte(id), data)); err != nil {
		return nil, false, err
	}
	for {
		p, err := conn.ReceivePacket(ctx)
		c.observe(p.Raw)
		if err != nil {
			return nil, false, err
		}
		switch p.Cmd {
		case codec.Login:
			s, err := parseSession(p.Data)
			return s, resumed, err
		case codec.Error:
			return nil, false, loginRefusal(parseServerError(p.ID, p.Data))
		case codec.ForceLogout, codec.GoAway:
			return nil, false, endOf(p)
		}
	}
}

// loginData is the data of LOGIN. The caller holds mu.
func (c *Client) loginData(token string) (data []byte, resume bool) {
	data = codec.AppendString(append(data, `{"accessToken":`...), token)
	if c.opt.Terminal != "" {
		data = codec.AppendString(append(data, `,"terminal":`...), c.opt.Terminal)
	}
	data = append(append(append(data, `,"ack":"`...), c.opt.Ack...), '"')
	if c.opt.Window > 0 {
		data = strconv.AppendInt(append(data, `,"window":`...), int64(c.opt.Window), 10)
	}
	if resume = c.inbox.epoch != ""; resume {
		// Up to what was handled, not what is queued: an honoured resume acknowledges.
		data = codec.AppendString(append(data, `,"resume":{"epoch":`...), c.inbox.epoch)
		data = strconv.AppendUint(append(data, `,"inbox":`...), c.inbox.handled, 10)
		data = append(data, '}')
	}
	return append(data, '}'), resume
}

// loginRefusal is what an ERROR instead of the LOGIN answer means.
func loginRefusal(e *ServerError) error {
	switch {
	case e.Code == codec.CodeUnauthorized || e.Name == "TOKEN_EXPIRED" || e.Name == "REVOKED":
		return fmt.Errorf("%w: %s", errTokenRefused, e.Message)
	case e.Code == codec.CodeKicked || e.Code == codec.CodeReplaced:
		return endOfCode(e.Code, e.Name, e.Message)
	case e.Retryable || e.Code == codec.CodeTimeout:
		return e
	}
	return &EndError{Reason: ErrRefused, Code: e.Code, Text: e.Message}
}

// attach makes l the client's connection: state from the LOGIN answer first, then everything that waited for it.
func (c *Client) attach(l *link, s *Session, token string, resumed bool) {
	c.mu.Lock()
	c.link, c.session, c.token = l, s, token
	c.beginInbox(s, resumed)
	c.outbox.requeue()
	c.flushOutbox()
	c.rewatch()
	c.refillGroups()
	close(c.up)
	c.mu.Unlock()
	l.start(c)
	c.push(event{run: func(h *Handler) {
		if h.OnState != nil {
			h.OnState(State{Connected: true, Session: s})
		}
	}})
	if !c.wasReady {
		c.wasReady = true
		close(c.ready)
	}
}

// detach ends l's part of the state. Calls that wait for an answer on it end with ErrDisconnected.
func (c *Client) detach(l *link) {
	c.mu.Lock()
	c.link = nil
	c.up = make(chan struct{})
	c.outbox.requeue()
	calls := c.calls
	c.calls = map[string]func(Packet, error){}
	c.mu.Unlock()
	for _, reply := range calls { // before stop: the keeper may wait for one
		reply(Packet{}, ErrDisconnected)
	}
	l.stop()
}

// Refresh gets a token from the source and gives it to the server. The client does so by itself before the expiry.
func (c *Client) Refresh(ctx context.Context) error { return c.renew(ctx, true) }

// renew is Refresh; without force it spares the server a token that it knows.
func (c *Client) renew(ctx context.Context, force bool) error {
	token, err := c.newToken(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	same := token == c.token
	c.mu.Unlock()
	if same && !force {
		return nil
	}
	p, err := c.call(ctx, codec.Refresh, append(codec.AppendString([]byte(`{"accessToken":`), token), '}'), false)
	if err != nil {
		return fmt.Errorf("client: refresh: %w", err)
	}
	var d struct {
		ExpiresAt int64 `json:"expiresAt"`
	}
	if err := json.Unmarshal(p.Data, &d); err != nil {
		return fmt.Errorf("client: REFRESH answer: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	session := *c.session
	session.ExpiresAt = time.UnixMilli(d.ExpiresAt)
	c.token, c.session = token, &session
	return nil
}

// newToken asks the source.
func (c *Client) newToken(ctx context.Context) (string, error) {
	c.tokens.Lock()
	defer c.tokens.Unlock()
	token, err := c.opt.Token(ctx)
	if err != nil {
		return "", fmt.Errorf("client: token: %w", err)
	}
	return token, nil
}
