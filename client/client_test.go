package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meshtalk/meshtalk/codec"
)

// options are those of a test: quick to come back.
func options(addr string, s *seen) Options {
	return Options{Addr: addr, Token: StaticToken("token"), Handler: s.handler(), BackoffMin: time.Microsecond,
		BackoffMax: time.Millisecond, AckDelay: time.Millisecond}
}

func mustDial(t testing.TB, o Options) *Client {
	t.Helper()
	c, err := Dial(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClientSendsAndReceives(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport.String(), func(t *testing.T) {
			srv, addr := newServer(t, transport)
			srv.start()
			defer srv.stop()
			s := newSeen(t)
			c := mustDial(t, options(addr, s))
			defer func() { _ = c.Close() }()
			ack, err := c.Send(t.Context(), Outgoing{To: "bob", Content: Text(`hi <&> "you"`)})
			if err != nil || ack.Seq != 1 || ack.Conv != "p:bob:u" || len(ack.MsgID) != 32 {
				t.Fatalf("got %+v, %v", ack, err)
			}
			srv.say(3)
			s.wait(func() bool { return s.inbox == 4 })
			if got := s.sent["p:bob:u"]; len(got) != 1 || got[0] != `"hi <&> \"you\""` {
				t.Fatalf("own copy: %q", got)
			}
			if c.Session().User != "u" {
				t.Fatalf("session %+v", c.Session())
			}
		})
	}
}

// Whatever breaks, every inbox message and every message of a large group is seen once and in order, and every send is
// answered once and stored once, in the order in which it was given.
func TestPropertyOnceInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		scenario{
			transport: transports[rapid.IntRange(0, 1).Draw(rt, "transport")],
			ack:       []AckMode{AckClient, AckAuto}[rapid.IntRange(0, 1).Draw(rt, "ack")],
			breakOne:  rapid.IntRange(3, 60).Draw(rt, "break one write in"),
			loseOne:   rapid.IntRange(2, 40).Draw(rt, "lose one push in"),
			queue:     rapid.IntRange(3, 50).Draw(rt, "queue"),
		}.run(t, seed)
		if t.Failed() {
			rt.FailNow()
		}
	})
}

type scenario struct {
	transport                codec.Transport
	ack                      AckMode
	breakOne, loseOne, queue int
}

func (sc scenario) run(t *testing.T, seed uint64) {
	rnd := &random{r: rand.New(rand.NewPCG(seed, 1))}
	srv, addr := newServer(t, sc.transport)
	var calm, loses atomic.Bool
	breaks := 40 // guarded by srv.mu; then the network holds, so that the test ends
	srv.breaks = func(n int) int {
		if calm.Load() || breaks == 0 || rnd.n(sc.breakOne) != 0 {
			return -1
		}
		breaks--
		return rnd.n(n + 1)
	}
	srv.loses = func() bool { return loses.Load() && rnd.n(sc.loseOne) == 0 }
	srv.start()
	defer srv.stop()
	s := newSeen(t)
	o := options(addr, s)
	o.Ack, o.MaxQueue, o.RetryDial, o.AckEvery, o.HeartBeat = sc.ack, sc.queue, true, 5, 50*time.Millisecond
	c := mustDial(t, o)
	defer func() { _ = c.Close() }()

	const sends, others, large = 40, 60, 40
	srv.sayLarge(1) // the group's position begins here
	s.wait(func() bool { return s.large == 1 })
	loses.Store(true)
	var tasks sync.WaitGroup
	for _, to := range []string{"ann", "bob"} {
		tasks.Go(func() {
			var pending []*Pending
			for i := range sends {
				p, err := c.SendAsync(t.Context(), Outgoing{To: to, Content: fmt.Appendf(nil, "%d", i)})
				if err != nil {
					t.Errorf("send: %v", err)
					return
				}
				pending = append(pending, p)
			}
			for i, p := range pending {
				if ack, err := c.Wait(t.Context(), p); err != nil || ack.Seq == 0 {
					t.Errorf("send %d: %+v, %v", i, ack, err)
				}
			}
		})
	}
	tasks.Go(func() {
		for range others {
			srv.say(1)
		}
	})
	tasks.Go(func() {
		for range large {
			srv.sayLarge(1)
		}
	})
	tasks.Wait()
	calm.Store(true)
	loses.Store(false)
	srv.mu.Lock()
	if srv.live != nil {
		srv.live.drop() // what was lost at the end of a group is pushed again
	}
	srv.mu.Unlock()
	s.wait(func() bool { return s.inbox == 2*sends+others && s.large == 1+large })
	s.mu.Lock()
	defer s.mu.Unlock()
	for conv, got := range s.sent {
		for from, content := range got {
			if content != fmt.Sprint(from) {
				t.Errorf("%s: %q at place %d", conv, content, from)
			}
		}
	}
}

func TestClientPositions(t *testing.T) {
	srv, addr := newServer(t, codec.TCP)
	srv.start()
	defer srv.stop()
	s := newSeen(t)
	o := options(addr, s)
	o.Positions = FilePositions(t.TempDir() + "/position")
	srv.say(5)
	c := mustDial(t, o)
	s.wait(func() bool { return s.inbox == 5 })
	_ = c.Close()
	srv.mu.Lock()
	if srv.acked != 5 {
		t.Errorf("acknowledged %d of 5 before the close", srv.acked)
	}
	srv.acked = 2 // as after a crash of the server: the client knows better
	srv.mu.Unlock()
	srv.say(3)
	c = mustDial(t, o) // a new process: nothing is repeated
	s.wait(func() bool { return s.inbox == 8 })
	_ = c.Close()
	if d := decode(t, srv.logins[1]); d.Resume == nil || d.Resume.Epoch != "e1" || d.Resume.Inbox != 5 {
		t.Errorf("second LOGIN: %s", srv.logins[1])
	}

	srv.mu.Lock() // another store: the position is dropped and the inbox begins at first
	srv.epoch, srv.first, srv.acked = "e2", 3, 0
	srv.mu.Unlock()
	s.inbox = 2
	c = mustDial(t, o)
	s.wait(func() bool { return s.inbox == 8 })
	_ = c.Close()
	p, err := o.Positions.Load()
	if err != nil || p.Epoch != "e2" || p.Inbox != 8 {
		t.Errorf("kept %+v, %v", p, err)
	}
}

func TestClientEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		packet []byte
		want   error
	}{
		"replaced": {codec.AppendForceLogout(nil, codec.CodeReplaced, "REPLACED"), ErrReplaced},
		"kicked":   {codec.AppendForceLogout(nil, codec.CodeKicked, "go"), ErrKicked},
		"revoked":  {codec.AppendError(nil, nil, codec.CodeRevoked, "revoked", 0), ErrRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			srv, addr := newServer(t, codec.TCP)
			srv.start()
			defer srv.stop()
			s := newSeen(t)
			c := mustDial(t, options(addr, s))
			srv.mu.Lock()
			srv.live.write(tc.packet)
			srv.live.drop()
			srv.mu.Unlock()
			<-c.Done()
			var end *EndError
			if !errors.Is(c.Err(), tc.want) || !errors.As(c.Err(), &end) {
				t.Fatalf("ended with %v", c.Err())
			}
			if _, err := c.Send(t.Context(), Outgoing{To: "bob", Content: Text("x")}); !errors.Is(err, tc.want) {
				t.Errorf("send after the end: %v", err)
			}
			if last := s.states[len(s.states)-1]; !last.Final || !errors.Is(last.Err, tc.want) {
				t.Errorf("last state %+v", last)
			}
		})
	}
}

func TestClientTokens(t *testing.T) {
	refuse := func(bad string) func(*serverConn, codec.Packet) bool {
		return func(s *serverConn, p codec.Packet) bool {
			if p.Cmd != codec.Login || !strings.Contains(string(p.Data), bad) {
				return false
			}
			s.write(codec.AppendError(nil, p.ID, codec.CodeUnauthorized, "no", 0))
			s.drop()
			return true
		}
	}
	var calls int
	source := func(context.Context) (string, error) { calls++; return fmt.Sprintf("token%d", calls), nil }
	for name, tc := range map[string]struct {
		bad   string
		token TokenSource
		want  error
	}{
		"a fresh token helps":            {"token1", source, nil},
		"a fresh token does not help":    {"token", source, ErrUnauthorized},
		"the source has the same again":  {"token", StaticToken("token"), ErrUnauthorized},
		"what the source says is passed": {"-", func(context.Context) (string, error) { return "", context.Canceled }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			calls = 0
			srv, addr := newServer(t, codec.TCP)
			srv.script = refuse(tc.bad)
			srv.start()
			defer srv.stop()
			o := options(addr, newSeen(t))
			o.Token = tc.token
			c, err := Dial(t.Context(), o)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v", err)
			}
			if tc.want == ErrUnauthorized && !strings.Contains(err.Error(), "token refused: no") {
				t.Errorf("without the server's reason: %v", err)
			}
			if c != nil {
				_ = c.Close()
			}
		})
	}
}
