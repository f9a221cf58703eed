package e2e_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/codec"
)

// churnOptions make the server end what is silent within two or three seconds.
const churnOptions = `{"LoginTimeout":1000000000,"HeartbeatTimeout":2000000000}`

// ending is one way in which a connection comes to its end.
type ending struct {
	name  string
	times int
	// run begins and ends one connection, whose user has no other meanwhile, and returns when the server has let go of it, or soon will.
	run func(v *visit, ctx context.Context) error
}

// visit is one connection of the churn.
type visit struct {
	p               *process
	transport, user string
}

// endings are all of them: 10,000 connections.
var endings = []ending{
	{"reset before LOGIN", 1000, (*visit).reset},
	{"reset after LOGIN", 1000, (*visit).resetOnline},
	{"half-close", 1000, (*visit).halfClose},
	{"plain close", 1000, (*visit).plainClose},
	{"half a handshake", 700, (*visit).halfHandshake},
	{"refused handshake", 800, (*visit).refusedHandshake},
	{"bad frame", 800, (*visit).badFrame},
	{"oversized frame", 800, (*visit).oversized},
	{"bad token", 800, (*visit).badToken},
	{"LOGOUT", 800, (*visit).logout},
	{"kick", 500, (*visit).kick},
	{"replaced", 500, (*visit).replaced},
	{"too slow", 40, (*visit).tooSlow},
	{"no LOGIN", 130, (*visit).noLogin},
	{"silent", 130, (*visit).silent},
}

// After 10,000 connections that ended in every way, nothing is left of them: no descriptor, no goroutine, no session.
func TestChurn(t *testing.T) {
	ctx := patient(t)
	p := spawn(t, t.TempDir(), envOptions+"="+churnOptions)
	bystanders := newPair(ctx, t, p)
	talk := startChat(ctx, bystanders, 100*time.Millisecond)
	churn(ctx, t, p, 1) // what is made once and kept
	settled := func() (goroutines, descriptors int, kinds map[string]int) {
		until(t, "every connection is gone but the bystanders'", func() (any, bool) {
			m := p.metrics()
			return fmt.Sprint(p.connections(), " connections, ", m["meshtalk_sessions"], " sessions"), p.connections() == 2 && m["meshtalk_sessions"] == 2
		})
		descriptors, kinds = p.descriptors()
		return p.goroutines(), descriptors, kinds
	}
	goroutines, descriptors, kinds := settled()
	total := churn(ctx, t, p, 100)
	if total < 10_000 {
		t.Errorf("only %d connections", total)
	}
	until(t, fmt.Sprintf("there are %d goroutines and %d descriptors again (%v)", goroutines, descriptors, kinds), func() (any, bool) {
		g, d, k := settled()
		return fmt.Sprint(g, " goroutines, ", d, " descriptors: ", k), g <= goroutines && d <= descriptors
	})
	trips, worst := talk.end(t)
	t.Logf("%d connections; %d round trips of bystanders meanwhile, the worst took %v", total, trips, worst)
	m := p.metrics()
	if n := m["meshtalk_users_online"]; n != 2 {
		t.Errorf("%v users are online", n)
	}
	for _, name := range []string{"meshtalk_outbound_bytes", "meshtalk_lagging_sessions", "meshtalk_submissions_waiting", "meshtalk_pool_waiting"} {
		if m[name] != 0 {
			t.Errorf("%s is %v", name, m[name])
		}
	}
	for _, reason := range []string{"peer", "handshake", "protocol", "bad_packet", "unauthorized", "logout", "kicked", "replaced", "too_slow", "timeout"} {
		if m[fmt.Sprintf("meshtalk_closes_total{reason=%q}", reason)] == 0 {
			t.Errorf("no connection ended by %s", reason)
		}
	}
	p.unharmed()
}

// churn runs every ending, percent of its times, many at the same time, and returns how many there were.
func churn(ctx context.Context, t *testing.T, p *process, percent int) int {
	t.Helper()
	type task struct {
		e *ending
		n int
	}
	tasks := make(chan task)
	var total atomic.Int64
	var workers sync.WaitGroup
	for w := range 128 {
		workers.Go(func() {
			for k := range tasks {
				total.Add(1)
				v := &visit{p: p, transport: []string{"tcp", "websocket"}[k.n%2], user: fmt.Sprint(k.e.name, " ", w)}
				if err := k.e.run(v, ctx); err != nil {
					t.Errorf("%s, %s: %v", k.e.name, v.transport, err)
				}
			}
		})
	}
	most := 0
	for _, e := range endings {
		most = max(most, e.times)
	}
	for n := range most { // all kinds mixed
		for i := range endings {
			if e := &endings[i]; n*100 < e.times*percent && !t.Failed() {
				tasks <- task{e, n}
			}
		}
	}
	close(tasks)
	workers.Wait()
	return int(total.Load())
}

func (v *visit) dial(ctx context.Context) (*client.Conn, error) {
	return client.DialConn(ctx, v.p.urls[v.transport], client.ConnOptions{})
}

func (v *visit) login(ctx context.Context) (*client.Conn, error) {
	return connect(ctx, v.p, v.transport, v.user)
}

// raw opens a socket without any handshake.
func (v *visit) raw(ctx context.Context, transport string) (net.Conn, error) {
	u, err := url.Parse(v.p.urls[transport])
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, "tcp", u.Host)
}

// abort resets a connection.
func abort(c net.Conn) error {
	return errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close())
}

// ended passes over what comes until the server has ended the connection.
func ended(ctx context.Context, c *client.Conn) error {
	for {
		if _, err := c.Receive(ctx); err != nil {
			_ = c.Close()
			return ctx.Err()
		}
	}
}

func (v *visit) reset(ctx context.Context) error {
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	return abort(c.NetConn())
}

func (v *visit) resetOnline(ctx context.Context) error {
	c, err := v.login(ctx)
	if err != nil {
		return err
	}
	return abort(c.NetConn())
}

func (v *visit) plainClose(ctx context.Context) error {
	c, err := v.login(ctx)
	if err != nil {
		return err
	}
	return c.Close()
}

func (v *visit) halfClose(ctx context.Context) error {
	c, err := v.login(ctx)
	if err != nil {
		return err
	}
	if err := c.NetConn().(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	return ended(ctx, c)
}

// halfHandshake leaves the server waiting for the rest of a request, or of a frame's header, and goes without it or stays.
func (v *visit) halfHandshake(ctx context.Context) error {
	c, err := v.raw(ctx, v.transport)
	if err != nil {
		return err
	}
	part := "GET /im HTTP/1.1\r\nHost: x\r\nUpgr"
	if v.transport == "tcp" {
		part = "\x00\x00"
	}
	if _, err := c.Write([]byte(part)); err != nil {
		return err
	}
	return c.Close()
}

func (v *visit) refusedHandshake(ctx context.Context) error {
	c, err := v.raw(ctx, "websocket")
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintf(c, "GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	answer := make([]byte, 12)
	if _, err := c.Read(answer); err != nil || string(answer) != "HTTP/1.1 404" {
		return fmt.Errorf("the answer was %q, %w", answer, err)
	}
	return nil
}

// badFrame breaks the framing: on WebSocket by a frame without a mask, on TCP by one without a body, five times.
func (v *visit) badFrame(ctx context.Context) error {
	c, err := v.login(ctx)
	if err != nil {
		return err
	}
	bad := []byte{0x81, 0x02, '{', '}'}
	if v.transport == "tcp" {
		bad = make([]byte, 5*4)
	}
	if err := c.SendBytes(ctx, bad); err != nil {
		return err
	}
	return ended(ctx, c)
}

func (v *visit) oversized(ctx context.Context) error {
	c, err := v.login(ctx)
	if err != nil {
		return err
	}
	huge := binary.BigEndian.AppendUint32(nil, 1<<31)
	if v.transport == "websocket" {
		huge = append([]byte{0x81, 0xff, 0, 0, 0, 0, 0x7f, 0, 0, 0}, 1, 2, 3, 4)
	}
	if err := c.SendBytes(ctx, huge); err != nil {
		return err
	}
	return ended(ctx, c)
}

func (v *visit) badToken(ctx context.Context) error {
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	var r *refusal
	if err := login(ctx, c, v.p.token(v.user)+"x"); !errors.As(err, &r) || r.Code != int(codec.CodeUnauthorized) {
		return fmt.Errorf("a forged token: %w", err)
	}
	return ended(ctx, c)
}

func (v *visit) logout(ctx context.Context) error {
	c, err := v.login(ctx)
	if err != nil {
		return err
	}
	if _, err := exchange(ctx, c, `{"cmd":18,"id":"bye","data":{}}`); err != nil {
		return err
	}
	return ended(ctx, c)
}

func (v *visit) kick(ctx context.Context) error {
	c, err := v.login(ctx)
	if err != nil {
		return err
	}
	status, answer, err := v.p.request(http.MethodPost, "/v1/users/"+url.PathEscape(v.user)+"/kick", "{}")
	if err != nil || status != http.StatusOK || !strings.Contains(string(answer), `"closed":1`) {
		return fmt.Errorf("kick: %d %s %w", status, answer, err)
	}
	return ended(ctx, c)
}

func (v *visit) replaced(ctx context.Context) error {
	old, err := v.login(ctx)
	if err != nil {
		return err
	}
	c, err := v.login(ctx)
	if err != nil {
		return err
	}
	return errors.Join(ended(ctx, old), c.Close())
}

// tooSlow asks for more than a connection may leave unread.
func (v *visit) tooSlow(ctx context.Context) error {
	c, err := v.login(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	content := strings.Repeat("x", 50_000)
	for i := range 5 {
		if _, err := exchange(ctx, c, fmt.Sprintf(`{"cmd":3,"id":"%d","data":{"to":%q,"content":%q}}`, i, v.user, content)); err != nil {
			return err
		}
	}
	ask := fmt.Appendf(nil, `{"cmd":9,"data":{"conv":"p:%s:%s"}}`, v.user, v.user)
	for { // 250 KB each: until the server has closed
		if err := c.Send(ctx, ask); err != nil {
			return ctx.Err()
		}
	}
}

func (v *visit) noLogin(ctx context.Context) error {
	if v.transport == "websocket" { // nor the upgrade
		c, err := v.raw(ctx, v.transport)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("read %d bytes, %w", n, err)
		}
		return nil
	}
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	return ended(ctx, c)
}

func (v *visit) silent(ctx context.Context) error {
	c, err := v.login(ctx)
	if err != nil {
		return err
	}
	return ended(ctx, c)
}
