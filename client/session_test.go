package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// mustServe is a running server with a client on it.
func mustServe(t *testing.T, script func(*serverConn, codec.Packet) bool, change ...func(*Options)) (*server, *Client, *seen) {
	t.Helper()
	srv, addr := newServer(t, codec.TCP)
	srv.script = script
	srv.start()
	s := newSeen(t)
	o := options(addr, s)
	for _, f := range change {
		f(&o)
	}
	c := mustDial(t, o)
	t.Cleanup(func() { _ = c.Close(); srv.stop() })
	return srv, c, s
}

// isSend reports whether p is a send with that content.
func isSend(p codec.Packet, content string) bool {
	return p.Cmd == codec.PrivateMessage && strings.Contains(string(p.Data), `"content":`+content+`}`)
}

func TestSendIsRepeatedAfterRetryableErrors(t *testing.T) {
	refusals := 0
	_, c, s := mustServe(t, func(s *serverConn, p codec.Packet) bool {
		if refusals == 3 || !isSend(p, "0") {
			return false
		}
		refusals++
		code, retryAfter := codec.CodeUnavailable, 0
		if refusals == 2 {
			code, retryAfter = codec.CodeRateLimited, 1
		}
		s.write(codec.AppendError(nil, p.ID, code, "not now", retryAfter))
		return true
	})
	for i := range 3 { // one at a time keeps the order also across refusals
		if _, err := c.Send(t.Context(), Outgoing{To: "bob", Content: fmt.Appendf(nil, "%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	s.wait(func() bool { return s.inbox == 3 })
	if got := s.sent["p:bob:u"]; refusals != 3 || strings.Join(got, "") != "012" {
		t.Errorf("%d refusals, sent %q", refusals, got)
	}
}

func TestSendEnds(t *testing.T) {
	_, c, _ := mustServe(t, func(s *serverConn, p codec.Packet) bool {
		switch {
		case isSend(p, `"forbidden"`):
			s.write(codec.AppendError(nil, p.ID, codec.CodeForbidden, "no", 0))
		case isSend(p, `"silent"`):
		default:
			return false
		}
		return true
	})
	var refusal *ServerError
	if _, err := c.Send(t.Context(), Outgoing{To: "bob", Content: Text("forbidden")}); !errors.As(err, &refusal) || refusal.Code != codec.CodeForbidden {
		t.Errorf("a refused send: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Send(ctx, Outgoing{To: "bob", Content: Text("silent")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a send without an answer: %v", err)
	}
	for name, m := range map[string]Outgoing{
		"no target":    {Content: Text("x")},
		"two targets":  {To: "a", Group: "b", Content: Text("x")},
		"no content":   {To: "a"},
		"bad content":  {To: "a", Content: json.RawMessage("{")},
		"not UTF-8":    {To: "a", Content: json.RawMessage("\"\xff\"")},
		"too long id":  {To: "a", Content: Text("x"), ID: strings.Repeat("x", 65)},
		"over a frame": {To: "a", Content: Text(strings.Repeat("x", 65_535))},
	} {
		if _, err := c.Send(t.Context(), m); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	s, err := c.SendAsync(t.Context(), Outgoing{To: "bob", Content: Text("silent")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.SendAsync(t.Context(), Outgoing{To: "bob", Content: Text("silent"), ID: s.ID}); err == nil {
		t.Error("the same id twice at once was accepted")
	}
	_ = c.Close()
	if _, err := c.Wait(t.Context(), s); !errors.Is(err, ErrClosed) {
		t.Errorf("a send at the close: %v", err)
	}
}

// A frame over the server's limit closes the connection without naming the send: it must not close the next one too.
func TestTooLargeSendIsGivenUp(t *testing.T) {
	_, c, _ := mustServe(t, func(s *serverConn, p codec.Packet) bool {
		if len(p.Data) < 1000 {
			return false
		}
		s.write(codec.AppendError(nil, nil, codec.CodeTooLarge, "frame over the limit", 0))
		s.drop()
		return true
	})
	small, err := c.SendAsync(t.Context(), Outgoing{To: "bob", Content: Text("small")})
	if err != nil {
		t.Fatal(err)
	}
	var refusal *ServerError
	if _, err := c.Send(t.Context(), Outgoing{To: "bob", Content: Text(strings.Repeat("x", 2000))}); !errors.As(err, &refusal) || refusal.Code != codec.CodeTooLarge {
		t.Errorf("the large one: %v", err)
	}
	if _, err := c.Wait(t.Context(), small); err != nil {
		t.Errorf("the small one: %v", err)
	}
}

func TestGoAwayIsHonoured(t *testing.T) {
	srv, c, s := mustServe(t, nil)
	const after = 60 * time.Millisecond
	begin := time.Now()
	srv.mu.Lock()
	srv.live.write(codec.AppendGoAway(nil, "stopping", int(after.Milliseconds())))
	srv.mu.Unlock()
	s.wait(func() bool { return len(s.states) == 3 }) // connected, away, connected
	if took := time.Since(begin); took < after {
		t.Errorf("came back after %v", took)
	}
	if s.states[1].Connected || !s.states[2].Connected {
		t.Errorf("states %+v", s.states)
	}
	if _, err := c.Send(t.Context(), Outgoing{To: "bob", Content: Text("x")}); err != nil {
		t.Error(err)
	}
}

func TestLoginIsRepeatedAfterRetryAfter(t *testing.T) {
	refused := false
	srv, _, s := mustServe(t, func(s *serverConn, p codec.Packet) bool {
		if p.Cmd != codec.Login || refused {
			return false
		}
		refused = true
		s.write(codec.AppendError(nil, p.ID, codec.CodeUnavailable, "starting", 30))
		s.drop()
		return true
	}, func(o *Options) { o.RetryDial = true })
	s.wait(func() bool { return len(s.states) == 2 })
	var refusal *ServerError
	if st := s.states[0]; st.Connected || st.Retry < 30*time.Millisecond || !errors.As(st.Err, &refusal) {
		t.Errorf("first state %+v", st)
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if len(srv.logins) != 1 {
		t.Errorf("%d logins", len(srv.logins))
	}
}

func TestTokenIsRenewedBeforeItExpires(t *testing.T) {
	renewed := make(chan string, 10)
	var calls int
	source := func(context.Context) (string, error) { calls++; return fmt.Sprintf("token%d", calls), nil }
	_, c, _ := mustServe(t, func(s *serverConn, p codec.Packet) bool {
		switch p.Cmd {
		case codec.Login:
			now := time.Now().UnixMilli()
			s.live = s
			s.write(codec.AppendLogin(nil, p.ID, &codec.LoginReply{UserID: "u", ServerTime: now, ExpiresAt: now + 1000, Heartbeat: 30, Epoch: "e1"}))
		case codec.Refresh:
			renewed <- string(p.Data)
			s.write(codec.AppendRefresh(nil, p.ID, 1<<50))
		default:
			return false
		}
		return true
	}, func(o *Options) { o.Token = source })
	if got := <-renewed; got != `{"accessToken":"token2"}` {
		t.Errorf("REFRESH %s", got)
	}
	if err := c.Refresh(t.Context()); err != nil {
		t.Error(err)
	}
	if got := <-renewed; got != `{"accessToken":"token3"}` || c.Session().ExpiresAt.UnixMilli() != 1<<50 {
		t.Errorf("REFRESH %s, expires %v", got, c.Session().ExpiresAt)
	}
}

func TestCalls(t *testing.T) {
	srv, c, s := mustServe(t, func(s *serverConn, p codec.Packet) bool {
		switch p.Cmd {
		case codec.Conversations:
			s.write(codec.AppendConversations(nil, p.ID, []codec.ConversationState{{Conv: "p:bob:u", Kind: "private", Peer: "bob", Head: 3, Read: 1,
				Unread: 2, PeerRead: 3, Last: &codec.ConvMessage{Cmd: codec.PrivateMessage, Conv: "p:bob:u", Seq: 3, From: "bob", To: "u", Content: []byte(`{"a":1}`)}}}, "next"))
		case 1001:
			s.write(codec.AppendError(nil, p.ID, codec.CodeUnknownCommand, "no", 0))
		default:
			return false
		}
		return true
	})
	srv.say(10)
	page, err := c.Pull(t.Context(), 3, 4)
	if err != nil || len(page.Entries) != 4 || page.Entries[0].Inbox != 4 || page.Head != 10 || page.First != 1 || !page.More {
		t.Errorf("PULL %+v, %v", page, err)
	}
	srv.sayLarge(7)
	after := uint64(3)
	history, err := c.History(t.Context(), HistoryQuery{Conv: largeGroup, After: &after})
	if err != nil || len(history.Messages) != 4 || history.Messages[0].Seq != 4 || history.Messages[0].Cmd != codec.GroupMessage {
		t.Errorf("HISTORY %+v, %v", history, err)
	}
	list, cursor, err := c.Conversations(t.Context(), "", 0)
	if err != nil || cursor != "next" || len(list) != 1 || list[0].Peer != "bob" || list[0].Unread != 2 || list[0].Last == nil || string(list[0].Last.Content) != `{"a":1}` {
		t.Errorf("CONVERSATIONS %+v, %q, %v", list, cursor, err)
	}
	if data, err := c.Do(t.Context(), 1000, []byte(`{"x":1}`)); err != nil || string(data) != `{"echo":true}` {
		t.Errorf("extension: %s, %v", data, err)
	}
	var refusal *ServerError
	if _, err := c.Do(t.Context(), 1001, nil); !errors.As(err, &refusal) || refusal.Name != "UNKNOWN_COMMAND" {
		t.Errorf("unknown extension: %v", err)
	}
	s.wait(func() bool { return s.inbox == 10 && s.large == 7 })
}

func TestNewsAndWatchesSurviveAReconnect(t *testing.T) {
	news := make(chan string, 10)
	watches := make(chan string, 10)
	srv, c, s := mustServe(t, func(s *serverConn, p codec.Packet) bool {
		if p.Cmd == codec.Presence {
			watches <- string(p.Data)
		}
		return false
	}, func(o *Options) {
		o.Handler.OnReceipt = func(r Receipt) { news <- fmt.Sprint("receipt ", r.Read) }
		o.Handler.OnTyping = func(ty Typing) { news <- "typing " + ty.From }
		o.Handler.OnPresence = func(p []PresenceState) { news <- "presence " + p[0].User }
		o.Handler.OnRecall = func(m Message) { news <- fmt.Sprint("recall ", m.Target) }
	})
	if states, err := c.Presence(t.Context(), []string{"bob", "ann"}, nil); err != nil || len(states) != 1 || !states[0].Online {
		t.Fatalf("PRESENCE %+v, %v", states, err)
	}
	srv.mu.Lock()
	srv.live.write(codec.AppendReceipt(nil, "p:bob:u", "bob", 0, 4))
	srv.live.write(codec.AppendTyping(nil, "p:bob:u", "bob"))
	srv.live.write(codec.AppendPresence(nil, nil, []codec.PresenceState{{User: "bob"}}))
	srv.store(codec.ConvMessage{Cmd: codec.Recall, Conv: "p:bob:u", From: "bob", Target: 9, TS: 1})
	srv.mu.Unlock()
	for _, want := range []string{"receipt 4", "typing bob", "presence bob", "recall 9"} {
		if got := <-news; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	srv.mu.Lock()
	srv.live.drop()
	srv.mu.Unlock()
	s.wait(func() bool { return len(s.states) == 3 })
	<-watches
	if got := <-watches; got != `{"watch":["ann","bob"],"unwatch":[]}` {
		t.Errorf("after the reconnect: %s", got)
	}
	if got := <-news; got != "presence bob" {
		t.Errorf("got %q", got)
	}
}

func TestLogout(t *testing.T) {
	srv, c, s := mustServe(t, nil)
	srv.say(3)
	s.wait(func() bool { return s.inbox == 3 })
	if err := c.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if !errors.Is(c.Err(), ErrClosed) {
		t.Errorf("ended with %v", c.Err())
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.acked != 3 || len(srv.logins) != 1 {
		t.Errorf("acknowledged %d of 3, %d logins", srv.acked, len(srv.logins))
	}
}

// A callback may take its time and may call the client: what finds no room in the queue is fetched later.
func TestSlowHandlerLosesNothing(t *testing.T) {
	release := make(chan struct{})
	var c *Client
	ready := make(chan struct{})
	srv, cl, s := mustServe(t, nil, func(o *Options) {
		inner := o.Handler.OnMessage
		o.MaxQueue = 4
		o.Handler.OnMessage = func(m Message) {
			<-ready
			if m.Inbox == 1 {
				<-release
				if _, err := c.Send(context.Background(), Outgoing{To: "bob", Content: Text("from the callback")}); err != nil {
					t.Error(err)
				}
			}
			inner(m)
		}
	})
	c = cl
	close(ready)
	srv.say(100)
	srv.sayLarge(100)
	close(release)
	s.wait(func() bool { return s.inbox == 101 && s.large == 100 })
}

// A group that grows over the limit: some of its messages come by the inbox, later ones by the group alone, and HISTORY
// shows both.
func TestGroupCrossesTheLimit(t *testing.T) {
	var got []uint64
	done := make(chan struct{})
	srv, c, _ := mustServe(t, nil, func(o *Options) {
		o.Handler.OnMessage = func(m Message) {
			got = append(got, m.Seq)
			if len(got) == 6 {
				close(done)
			}
		}
	})
	message := func(inbox, seq uint64) Message {
		return Message{Cmd: codec.GroupMessage, Conv: "g:grown", Group: "grown", From: "bob", Inbox: inbox, Seq: seq, Content: []byte("1")}
	}
	srv.mu.Lock()
	srv.inbox = make([]codec.ConvMessage, 4) // as far as it looks at acknowledgements
	srv.mu.Unlock()
	c.mu.Lock()
	c.take(message(1, 1)) // still small
	c.take(message(0, 3)) // large: counting begins
	c.take(message(2, 2)) // a late one from the inbox, before the count
	c.take(message(3, 5)) // small again, ahead of 4, which the group's stream brings
	c.take(message(0, 4))
	c.take(message(0, 5)) // as HISTORY would show it
	c.take(message(4, 4)) // and the inbox
	c.take(message(0, 6))
	c.mu.Unlock()
	<-done
	if fmt.Sprint(got) != "[1 3 2 5 4 6]" {
		t.Errorf("got %v", got)
	}
}
