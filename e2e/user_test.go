package e2e_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/codec"
)

// user is one client that sends as fast as it is answered, over bare connections: what is not acknowledged when a
// connection ends is sent again on the next one, with the same id and in the same order.
type user struct {
	name    string
	h       *history
	peers   []string            // to write to
	groups  map[string][]string // to write to, with their members
	conn    *client.Conn        // logged in already, for the next run; nil = none
	padding int                 // bytes of content beside the id
	pace    time.Duration       // between bursts of a quarter of the window; 0 = as fast as it is answered
	sent    int
	waiting []*sending // sent and not acknowledged, in order
	refused int        // of waiting: answered by UNAVAILABLE since they were last sent
	pushed  uint64     // the last inbox number that this connection was pushed

	retryAfter time.Duration // what the last UNAVAILABLE asks for
}

// window is how many messages a user has in flight.
const window = 16

// run sends until the connection ends or stop is closed and everything has been acknowledged. A nil error means the latter.
func (u *user) run(ctx context.Context, p *process, transport string, stop <-chan struct{}) error {
	c, err := u.enter(ctx, p, transport)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	u.pushed = 0
	if err := u.sendAgain(ctx, c); err != nil {
		return err
	}
	for {
		select {
		case <-stop:
			if len(u.waiting) == 0 {
				return nil
			}
		default:
			for n := 0; len(u.waiting) < window && u.refused == 0; n++ {
				if u.pace > 0 && n == window/4 {
					break
				}
				s := u.next()
				u.h.send(s)
				u.waiting = append(u.waiting, s)
				if err := c.Send(ctx, s.packet()); err != nil {
					return err
				}
			}
		}
		if err := u.receive(ctx, c); err != nil {
			return err
		}
		if u.pace > 0 {
			time.Sleep(u.pace) // the load that is wanted, nothing waits for it
		}
		if err := u.retry(ctx, c); err != nil {
			return err
		}
	}
}

// enter logs in, as often as it takes while the server cannot keep a new terminal.
func (u *user) enter(ctx context.Context, p *process, transport string) (*client.Conn, error) {
	if c := u.conn; c != nil {
		u.conn = nil
		return c, nil
	}
	for {
		c, err := connect(ctx, p, transport, u.name)
		var r *refusal
		if !errors.As(err, &r) || !r.Retryable {
			return c, err
		}
		select {
		case <-time.After(time.Duration(r.RetryAfterMs) * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// sendAgain sends what is not acknowledged, with the same ids.
func (u *user) sendAgain(ctx context.Context, c *client.Conn) error {
	u.refused = 0
	for _, s := range u.waiting {
		if err := c.Send(ctx, s.packet()); err != nil {
			return err
		}
	}
	return nil
}

// unavailable is the answer to a message that could not be kept.
func (u *user) unavailable(id string, r *refusal) error {
	if !r.Retryable {
		return fmt.Errorf("%w: UNAVAILABLE and not retryable", errPromise)
	}
	u.h.refuse(id)
	u.refused++
	u.retryAfter = time.Duration(r.RetryAfterMs) * time.Millisecond
	return nil
}

// retry sends again what was refused, when all that was sent has been answered and after the time that the server asks for.
func (u *user) retry(ctx context.Context, c *client.Conn) error {
	if u.refused == 0 || u.refused < len(u.waiting) {
		return nil
	}
	select {
	case <-time.After(u.retryAfter):
	case <-ctx.Done():
	}
	return u.sendAgain(ctx, c)
}

// next makes a message to somebody.
func (u *user) next() *sending {
	u.sent++
	s := &sending{id: fmt.Sprintf("%s-%d", u.name, u.sent), from: u.name}
	s.content = fmt.Sprintf("%q", s.id+noise(u.padding))
	if len(u.groups) > 0 && rand.IntN(4) == 0 {
		for g, members := range u.groups {
			s.conv, s.recipients = "g:"+g, members
			return s
		}
	}
	peer := u.peers[rand.IntN(len(u.peers))]
	s.recipients = []string{u.name, peer}
	if peer == u.name {
		s.recipients = s.recipients[:1]
	}
	s.conv = "p:" + min(u.name, peer) + ":" + max(u.name, peer)
	return s
}

// noise is text that does not compress.
func noise(n int) string {
	b := make([]byte, n*3/4)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return base64.RawStdEncoding.EncodeToString(b)
}

// packet is the message as it is sent.
func (s *sending) packet() []byte {
	if s.conv[0] == 'g' {
		return fmt.Appendf(nil, `{"cmd":4,"id":%q,"data":{"group":%q,"content":%s}}`, s.id, s.conv[2:], s.content)
	}
	to := s.recipients[len(s.recipients)-1]
	return fmt.Appendf(nil, `{"cmd":3,"id":%q,"data":{"to":%q,"content":%s}}`, s.id, to, s.content)
}

// errPromise is a broken promise, which no reconnect mends.
var errPromise = errors.New("broken promise")

// receive handles one packet.
func (u *user) receive(ctx context.Context, c *client.Conn) error {
	b, err := c.Receive(ctx)
	if err != nil {
		return err
	}
	p, problem := codec.Parse(b)
	if !problem.OK() {
		return fmt.Errorf("%w: received %.200s: %s", errPromise, b, problem.Message)
	}
	switch p.Cmd {
	case codec.SendAck:
		var ack struct {
			MsgID string
			Seq   uint64
		}
		if err := json.Unmarshal(p.Data, &ack); err != nil {
			return fmt.Errorf("%w: %s: %w", errPromise, b, err)
		}
		if err := u.h.ack(string(p.ID), ack.MsgID, ack.Seq); err != nil {
			return fmt.Errorf("%w: %w", errPromise, err)
		}
		u.answered(string(p.ID))
	case codec.Error:
		err := refusalOf(p.Data)
		var r *refusal
		if errors.As(err, &r) && r.Code == int(codec.CodeUnavailable) && len(p.ID) > 0 {
			return u.unavailable(string(p.ID), r)
		}
		return err
	case codec.PrivateMessage, codec.GroupMessage:
		return u.taken(p.Data)
	case codec.GoAway:
		return errors.New("going away")
	}
	return nil
}

// taken checks a push: within one connection inbox numbers follow each other.
func (u *user) taken(data []byte) error {
	var m struct{ Inbox uint64 }
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("%w: %s: %w", errPromise, data, err)
	}
	if last := u.pushed; last != 0 && m.Inbox != last+1 {
		return fmt.Errorf("%w: %s was pushed inbox %d after %d", errPromise, u.name, m.Inbox, last)
	}
	u.pushed = m.Inbox
	return nil
}

func (u *user) answered(id string) {
	for i, s := range u.waiting {
		if s.id == id {
			u.waiting = append(u.waiting[:i], u.waiting[i+1:]...)
			return
		}
	}
}

// connect opens a connection and logs in; more are further fields of LOGIN's data, as JSON without braces.
func connect(ctx context.Context, p *process, transport, user string, more ...string) (*client.Conn, error) {
	c, err := client.DialConn(ctx, p.urls[transport], client.ConnOptions{})
	if err != nil {
		return nil, err
	}
	if err := login(ctx, c, p.token(user), more...); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// login logs in on an open connection.
func login(ctx context.Context, c *client.Conn, token string, more ...string) error {
	fields := append([]string{fmt.Sprintf(`"accessToken":%q`, token)}, more...)
	_, err := exchange(ctx, c, fmt.Sprintf(`{"cmd":0,"id":"login","data":{%s}}`, strings.Join(fields, ",")))
	return err
}

// refusal is an ERROR packet.
type refusal struct {
	Code         int
	Name         string
	Retryable    bool
	RetryAfterMs int
}

func (r *refusal) Error() string { return fmt.Sprintf("refused: %d %s", r.Code, r.Name) }

func refusalOf(data []byte) error {
	r := new(refusal)
	if err := json.Unmarshal(data, r); err != nil {
		return fmt.Errorf("%w: ERROR %s: %w", errPromise, data, err)
	}
	return r
}

// exchange sends a packet and returns the one that answers its id, passing over others. ERROR is a *refusal.
func exchange(ctx context.Context, c *client.Conn, packet string) (client.Packet, error) {
	sent, problem := codec.Parse([]byte(packet))
	if !problem.OK() {
		return client.Packet{}, fmt.Errorf("%s: %s", packet, problem.Message)
	}
	if err := c.Send(ctx, []byte(packet)); err != nil {
		return client.Packet{}, err
	}
	for {
		got, err := c.ReceivePacket(ctx)
		switch {
		case err != nil:
			return got, err
		case got.ID != string(sent.ID):
		case got.Cmd == codec.Error:
			return got, refusalOf(got.Data)
		case got.Cmd == sent.Cmd || got.Cmd == codec.SendAck:
			return got, nil
		}
	}
}

// crowd runs all users against one server until it is told to stop; it returns the first broken promise.
func crowd(ctx context.Context, p *process, users []*user, stop <-chan struct{}) error {
	var wg sync.WaitGroup
	errs := make(chan error, len(users))
	for i, u := range users {
		wg.Go(func() {
			if err := u.run(ctx, p, []string{"tcp", "websocket"}[i%2], stop); errors.Is(err, errPromise) {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// inboxes pulls what every user has.
func inboxes(t *testing.T, p *process, users []*user) map[string][]entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all := map[string][]entry{}
	for _, u := range users {
		c, err := connect(ctx, p, "tcp", u.name)
		if err != nil {
			t.Fatal(err)
		}
		all[u.name] = pullAll(ctx, t, c)
		_ = c.Close()
	}
	return all
}

// pullAll reads a whole inbox by PULL.
func pullAll(ctx context.Context, t *testing.T, c *client.Conn) (list []entry) {
	t.Helper()
	for after := uint64(0); ; {
		if err := c.Send(ctx, fmt.Appendf(nil, `{"cmd":8,"id":"pull","data":{"after":%d,"limit":500}}`, after)); err != nil {
			t.Fatal(err)
		}
		page, more := receivePage(ctx, t, c)
		list = append(list, page...)
		if !more {
			return list
		}
		after = page[len(page)-1].inbox
	}
}

// receivePage waits for the answer to a PULL, passing over pushes.
func receivePage(ctx context.Context, t *testing.T, c *client.Conn) (page []entry, more bool) {
	t.Helper()
	for {
		b, err := c.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Cmd  codec.Cmd
			Data struct {
				Entries []struct {
					Data struct {
						Inbox, Seq      uint64
						MsgID, ID, From string
						Conv            string
						Content         json.RawMessage
					}
				}
				More bool
			}
		}
		if err := json.Unmarshal(b, &answer); err != nil {
			t.Fatalf("%.200s: %v", b, err)
		}
		if answer.Cmd != codec.Pull {
			continue
		}
		for _, e := range answer.Data.Entries {
			d := e.Data
			page = append(page, entry{d.Inbox, d.Seq, d.MsgID, d.ID, d.From, d.Conv, string(d.Content)})
		}
		return page, answer.Data.More
	}
}

// awaitContent receives up to the message with this content.
func awaitContent(ctx context.Context, c *client.Conn, content string) error {
	for {
		got, err := c.ReceivePacket(ctx)
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", content, err)
		}
		var m struct{ Content json.RawMessage }
		if json.Unmarshal(got.Data, &m) == nil && string(m.Content) == content {
			return nil
		}
	}
}
