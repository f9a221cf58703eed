package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/server"
	"github.com/meshtalk/meshtalk/session"
)

// An authenticator of the embedding program: what it says is checked, and what goes wrong in it costs one LOGIN.
func TestAuthenticatorHook(t *testing.T) {
	n := start(t, func(o *server.Options) {
		o.Hooks.Authenticator = authenticator(func(_ context.Context, token string) (auth.Identity, error) {
			i := auth.Identity{User: token, ExpiresAt: time.Now().Add(time.Hour).UnixMilli(), IssuedAt: time.Now().UnixMilli()}
			switch token {
			case "panic":
				panic("on purpose")
			case "plain":
				return i, errors.New("some database is down")
			case "long terminal":
				i.Terminal = strings.Repeat("t", 33)
			}
			return i, nil
		})
	})
	for token, code := range map[string]int{"panic": 5000, "plain": 5000, "a:b": 4001, "long terminal": 4001, "": 4001} {
		p := n.dial("websocket")
		p.talk(fmt.Sprintf(`{"cmd":0,"id":"x","data":{"accessToken":%q}}`, token), fmt.Sprintf(`{"cmd":15,"id":"x","data":{"code":%d}}`, code))
	}
	n.dial("tcp").login("alice")
}

// BeforeSend may refuse a message or change it, and keeps the order of a connection's sends.
func TestBeforeSend(t *testing.T) {
	n := start(t, func(o *server.Options) {
		o.Hooks.BeforeSend = func(_ context.Context, m *session.Outgoing) error {
			switch {
			case bytes.Contains(m.Content, []byte("forbidden")):
				return errors.New("not in this house")
			case bytes.Contains(m.Content, []byte("limit")):
				return &session.Refusal{Code: codec.CodeRateLimited, Message: "slowly"}
			case bytes.Contains(m.Content, []byte("broken")):
				m.Content = []byte(`{"half":`)
			case bytes.Contains(m.Content, []byte("panic")):
				panic("on purpose")
			case m.Type == 7:
				m.Type, m.Content = 8, fmt.Appendf(nil, `{"from":%q,"to":%q,"group":%q,"id":%q,"was":%s}`, m.From, m.To, m.Group, m.ID, m.Content)
			}
			return nil
		}
	})
	n.call("PUT", "/v1/groups/team", `{"members":["alice","bob"]}`, 200, `{}`)
	alice, bob := n.login("websocket", "alice"), n.login("tcp", "bob")
	alice.skip[3], alice.skip[4] = true, true
	alice.talk(`{"cmd":3,"id":"1","data":{"to":"bob","content":"forbidden"}}`, `{"cmd":15,"id":"1","data":{"code":4003,"name":"FORBIDDEN","message":"not in this house"}}`)
	alice.talk(`{"cmd":3,"id":"1","data":{"to":"bob","content":"limit"}}`, `{"cmd":15,"id":"1","data":{"code":4029,"message":"slowly","retryable":true}}`)
	alice.talk(`{"cmd":3,"id":"1","data":{"to":"bob","content":"broken"}}`, `{"cmd":15,"id":"1","data":{"code":5000}}`)
	alice.talk(`{"cmd":3,"id":"1","data":{"to":"bob","type":7,"content":[ 1 ]}}`, `{"cmd":6,"id":"1","data":{"seq":1,"duplicate":null}}`)
	if got := bob.raw(); !bytes.Contains(got, []byte(`"type":8,"content":{"from":"alice","to":"bob","group":"","id":"1","was":[ 1 ]}`)) {
		t.Errorf("got %s", got)
	}
	alice.talk(`{"cmd":3,"id":"1","data":{"to":"bob","type":7,"content":[ 1 ]}}`, `{"cmd":6,"id":"1","data":{"seq":1,"duplicate":true}}`)
	alice.talk(`{"cmd":4,"id":"2","data":{"group":"team","type":7,"content":2}}`, `{"cmd":6,"id":"2"}`)
	bob.expect(`{"cmd":4,"data":{"type":8,"content":{"group":"team","to":"","was":2}}}`)
	alice.talk(`{"cmd":3,"id":"3","data":{"to":"bob","type":7,"content":3,"ephemeral":true}}`, `{"cmd":6,"id":"3","data":{"seq":null}}`)
	bob.expect(`{"cmd":3,"data":{"seq":null,"type":8,"content":{"was":3}}}`)
	alice.talk(`{"cmd":3,"id":"4","data":{"to":"bob","content":"forbidden","ephemeral":true}}`, `{"cmd":15,"id":"4","data":{"code":4003}}`)
	alice.talk(`{"cmd":4,"id":"5","data":{"group":"nobody","content":1}}`, `{"cmd":15,"id":"5","data":{"code":4004}}`)

	for i := range 100 {
		alice.send(fmt.Sprintf(`{"cmd":3,"id":"o%d","data":{"to":"bob","content":%d}}`, i, i))
	}
	for i := range 100 {
		alice.expect(fmt.Sprintf(`{"cmd":6,"id":"o%d"}`, i))
		bob.expect(fmt.Sprintf(`{"cmd":3,"data":{"content":%d}}`, i))
	}
	// A panic costs the one connection.
	alice.send(`{"cmd":3,"id":"p","data":{"to":"bob","content":"panic"}}`)
	alice.expect(`{"cmd":15,"data":{"code":5000,"name":"INTERNAL"}}`)
	if code := alice.closed(); code != 1011 {
		t.Errorf("closed with %d", code)
	}
	bob.quiet()
	if _, b := n.request("GET", "/metrics", "", nil); !strings.Contains(string(b), "\nmeshtalk_panics_total 1\n") {
		t.Error("the panic was not counted")
	}
}

// The context of a hook and of a command ends with the call, long before its deadline.
func TestHookContextEnds(t *testing.T) {
	contexts := make(chan context.Context, 2)
	n := start(t, func(o *server.Options) {
		o.Hooks.BeforeSend = func(ctx context.Context, _ *session.Outgoing) error {
			contexts <- ctx
			return nil
		}
		o.Hooks.Commands = map[codec.Cmd]session.Command{1000: func(ctx context.Context, _ session.Info, _ []byte) ([]byte, error) {
			contexts <- ctx
			return []byte(`1`), nil
		}}
	})
	alice := n.login("tcp", "alice")
	alice.skip[3] = true
	alice.talk(`{"cmd":3,"id":"1","data":{"to":"bob","content":1}}`, `{"cmd":6,"id":"1"}`)
	alice.talk(`{"cmd":1000,"id":"2","data":1}`, `{"cmd":1000,"id":"2","data":1}`)
	for range 2 {
		ctx := <-contexts
		<-ctx.Done()
		if err := ctx.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("it ended by %v", err)
		}
	}
}

// AfterCommit is told of every stored message, in the order of its conversation, and of nothing else.
func TestAfterCommit(t *testing.T) {
	var mu sync.Mutex
	seqs, kinds := map[string][]uint64{}, map[string]int{}
	n := start(t, func(o *server.Options) {
		o.Hooks.AfterCommit = func(m *codec.ConvMessage) {
			mu.Lock()
			defer mu.Unlock()
			seqs[m.Conv] = append(seqs[m.Conv], m.Seq)
			kinds[fmt.Sprint(m.Cmd, " ", m.From, " ", m.To, " ", m.Group, " ", string(m.Content), " ", m.Target)]++
			if string(m.Content) == `"panic"` {
				panic("on purpose")
			}
		}
	})
	n.call("PUT", "/v1/groups/team", `{"members":["alice","bob"]}`, 200, `{}`)
	alice, bob := n.login("tcp", "alice"), n.login("websocket", "bob")
	alice.skip, bob.skip = map[int]bool{3: true, 4: true, 5: true, 11: true, 14: true}, map[int]bool{3: true, 4: true, 5: true, 11: true, 14: true}
	const each = 100
	for i := range each {
		alice.send(fmt.Sprintf(`{"cmd":3,"id":"%d","data":{"to":"bob","content":0}}`, i))
		bob.send(fmt.Sprintf(`{"cmd":3,"id":"%d","data":{"to":"alice","content":0}}`, i))
	}
	for range each {
		alice.expect(`{"cmd":6}`)
		bob.expect(`{"cmd":6}`)
	}
	alice.talk(`{"cmd":4,"id":"g","data":{"group":"team","content":{"a": 1}}}`, `{"cmd":6}`)
	alice.talk(`{"cmd":4,"id":"g","data":{"group":"team","content":{"a": 1}}}`, `{"cmd":6,"data":{"duplicate":true}}`)
	alice.talk(`{"cmd":14,"id":"r","data":{"conv":"g:team","seq":1}}`, `{"cmd":6}`)
	alice.talk(`{"cmd":3,"id":"e","data":{"to":"bob","content":1,"ephemeral":true}}`, `{"cmd":6}`)
	n.call("POST", "/v1/messages", `{"id":"s","to":"bob","content":"x"}`, 200, `{}`)
	alice.talk(`{"cmd":3,"id":"p","data":{"to":"carol","content":"panic"}}`, `{"cmd":6,"data":{"seq":1}}`) // costs nobody anything
	alice.talk(`{"cmd":3,"id":"q","data":{"to":"carol","content":1}}`, `{"cmd":6,"data":{"seq":2}}`)
	mu.Lock()
	defer mu.Unlock()
	for conv, count := range map[string]int{"p:alice:bob": 2 * each, "g:team": 2, "n:bob": 1, "p:alice:carol": 2} {
		got := seqs[conv]
		if len(got) != count || !slices.IsSorted(got) || got[0] != 1 || got[count-1] != uint64(count) {
			t.Errorf("%s: %v", conv, got)
		}
	}
	for _, want := range []string{`GROUP_MESSAGE alice  team {"a": 1} 0`, `RECALL alice  team  1`, `SYSTEM_MESSAGE  bob  "x" 0`} {
		if kinds[want] != 1 {
			t.Errorf("%q was told %d times: %v", want, kinds[want], kinds)
		}
	}
}

// SessionOnline and SessionOffline are told of every session once, with the reason of its end.
func TestSessionHooks(t *testing.T) {
	type event struct {
		session.Info
		reason string
	}
	events := make(chan event, 100)
	n := start(t, func(o *server.Options) {
		o.Hooks.SessionOnline = func(s session.Info) { events <- event{s, ""} }
		o.Hooks.SessionOffline = func(s session.Info, reason string) { events <- event{s, reason} }
	})
	next := func() event {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(patience):
			t.Fatal("no event")
			return event{}
		}
	}
	for _, c := range []struct {
		reason string
		end    func(p *peer)
	}{
		{"logout", func(p *peer) { p.talk(`{"cmd":18}`, `{"cmd":18}`) }},
		{"peer", func(p *peer) { _ = p.c.Close() }},
		{"kicked", func(p *peer) { n.call("POST", "/v1/users/alice/kick", `{}`, 200, `{"closed":1}`) }},
		{"bad_packet", func(p *peer) {
			for range 5 {
				p.send(`{`)
			}
		}},
		{"binary", func(p *peer) { p.bytes(frame(0x82, "x")...) }},
		{"protocol", func(p *peer) { p.bytes(0xff, 0xff) }},
	} {
		p := n.dial("websocket")
		id := p.login(n.token("alice", "ios", time.Hour)).data("sessionId")
		on := next()
		want := session.Info{User: "alice", Terminal: "ios", SessionID: id.(string), Transport: "websocket", IP: "127.0.0.1"}
		if on.Info != want || on.reason != "" {
			t.Errorf("online: %+v, want %+v", on, want)
		}
		c.end(p)
		if off := next(); off.Info != want || off.reason != c.reason {
			t.Errorf("offline: %+v, want %s", off, c.reason)
		}
	}
	n.login("tcp", "alice")
	first := next()
	n.login("tcp", "alice")
	seen := map[string]bool{}
	for range 2 { // the one's end and the other's begin meet
		e := next()
		seen[e.reason] = true
		if (e.SessionID == first.SessionID) != (e.reason == "replaced") {
			t.Errorf("got %+v after %+v", e, first)
		}
	}
	if !seen["replaced"] || !seen[""] {
		t.Errorf("reasons %v", seen)
	}
	// Who never logged in is no session.
	n.dial("tcp").talk(`{"cmd":0,"data":{"accessToken":"x"}}`, `{"cmd":15}`)
	n.restart() // waits for all hooks
	if e := next(); e.reason != "peer" {
		t.Errorf("got %+v", e)
	}
	if len(events) != 0 {
		t.Errorf("one more event: %+v", <-events)
	}
}

// Commands from 1000 on are the embedding program's.
func TestExtensionCommands(t *testing.T) {
	n := start(t, func(o *server.Options) {
		o.Limits.MessagesPerSecond, o.Limits.MessagesBurst = 1000, 1000
		o.Hooks.Commands = map[codec.Cmd]session.Command{
			1000: func(_ context.Context, s session.Info, data []byte) ([]byte, error) {
				if data == nil {
					data = []byte(`"absent"`)
				}
				return fmt.Appendf(nil, `{"user":%q,"terminal":%q,"data":%s}`, s.User, s.Terminal, data), nil
			},
			1001: func(context.Context, session.Info, []byte) ([]byte, error) { return nil, nil },
			1002: func(context.Context, session.Info, []byte) ([]byte, error) { return nil, errors.New("no") },
			1003: func(context.Context, session.Info, []byte) ([]byte, error) {
				return nil, &session.Refusal{Code: codec.CodeNotFound, Message: "gone"}
			},
			1004: func(context.Context, session.Info, []byte) ([]byte, error) { return []byte(`{"half`), nil },
			1005: func(context.Context, session.Info, []byte) ([]byte, error) { panic("on purpose") },
			1006: func(ctx context.Context, _ session.Info, _ []byte) ([]byte, error) {
				if _, ok := ctx.Deadline(); !ok {
					return nil, errors.New("a handler may run for ever")
				}
				return []byte(`null`), nil
			},
			70000: func(context.Context, session.Info, []byte) ([]byte, error) { return []byte(`[]`), nil },
		}
	})
	eachTransport(t, func(t *testing.T, transport string) {
		p := n.on(t).login(transport, "alice")
		p.talk(`{"cmd":1000,"id":"x","data":{ "a":[1] }}`, `{"cmd":1000,"id":"x","data":{"user":"alice","terminal":"web","data":{"a":[1]}}}`)
		p.talk(`{"cmd":1000}`, `{"cmd":1000,"id":null,"data":{"data":"absent"}}`)
		p.send(`{"cmd":1001,"id":"x"}`)
		p.quiet()
		p.talk(`{"cmd":1002,"id":"x"}`, `{"cmd":15,"id":"x","data":{"code":4003,"message":"no"}}`)
		p.talk(`{"cmd":1003,"id":"x"}`, `{"cmd":15,"id":"x","data":{"code":4004,"message":"gone"}}`)
		p.talk(`{"cmd":1004,"id":"x"}`, `{"cmd":15,"id":"x","data":{"code":5000}}`)
		p.talk(`{"cmd":1006,"id":"x"}`, `{"cmd":1006,"id":"x"}`)
		p.talk(`{"cmd":70000,"id":"x"}`, `{"cmd":70000,"id":"x","data":[]}`)
		p.talk(`{"cmd":1007,"id":"x"}`, `{"cmd":15,"id":"x","data":{"code":4005,"name":"UNKNOWN_COMMAND"}}`)
		p.talk(`{"cmd":1005,"id":"x"}`, `{"cmd":15,"data":{"code":5000}}`)
		if code := p.closed(); code != closeCode(transport, 1011) {
			t.Errorf("closed with %d", code)
		}
	})
}
