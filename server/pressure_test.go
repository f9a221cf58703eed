package server_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/server"
)

// Under pressure changes of presence are dropped; the present state comes when there is room again.
func TestPresenceUnderPressure(t *testing.T) {
	t.Parallel()
	n := start(t)
	w := n.login("tcp", "watcher", `"ack":"client"`, `"window":1024`)
	w.talk(`{"cmd":13,"data":{"watch":["bob","carol"]}}`, `{"cmd":13}`)
	alice := n.login("tcp", "alice", `"ack":"client"`, `"window":1`)
	alice.skip[3], alice.skip[20] = true, true
	fill := func(id string) {
		content := strings.Repeat("x", 60_000)
		for i := range 200 { // 12 MB: more than sockets hold
			alice.talk(fmt.Sprintf(`{"cmd":3,"id":"%s%d","data":{"to":"watcher","content":"%s"}}`, id, i, content), `{"cmd":6}`)
		}
	}
	fill("a")
	bob := n.login("tcp", "bob")
	for range 50 {
		carol := n.login("websocket", "carol")
		carol.talk(`{"cmd":18}`, `{"cmd":18}`)
		carol.closed()
	}
	bob.quiet()
	changes, states := 0, map[string]bool{}
	last := uint64(0)
	for last < 200 || !states["bob"] {
		b := w.raw()
		switch s := string(b); {
		case strings.HasPrefix(s, `{"cmd":13`):
			changes++
			for _, s := range parse(t, b).data("states").([]any) {
				state := s.(map[string]any)
				states[state["user"].(string)] = state["online"].(bool)
			}
		case strings.HasPrefix(s, `{"cmd":20`):
		default:
			if last++; !strings.HasPrefix(s, fmt.Sprintf(`{"cmd":3,"data":{"inbox":%d,`, last)) {
				t.Fatalf("entry %d is %.100s", last, s)
			}
		}
	}
	if states["carol"] {
		t.Error("carol is said to be online")
	}
	if changes > 50 {
		t.Errorf("%d packets about presence to a client that did not read", changes)
	}
	w.send(`{"cmd":7,"data":{"inbox":200}}`)
	w.quiet()
}

// A pushed message may be longer than what a client may send.
func TestLongestMessage(t *testing.T) {
	n := start(t)
	alice := n.login("websocket", "alice")
	bob := map[string]*peer{}
	for _, transport := range transports {
		bob[transport] = n.login(transport, "bob", `"terminal":"`+transport+`"`)
	}
	const head, tail = `{"cmd":3,"id":"m","data":{"to":"bob","content":"`, `"}}`
	content := strings.Repeat("x", maxFrame-len(head)-len(tail))
	alice.skip[3] = true
	alice.talk(head+content+tail, `{"cmd":6,"id":"m"}`)
	for transport, p := range bob {
		b := p.raw()
		if len(b) <= maxFrame || !strings.Contains(string(b), content) {
			t.Errorf("%s: %d bytes came", transport, len(b))
		}
	}
	alice.bytes(frame(0x81, head+content+"x"+tail)...)
	alice.expect(`{"cmd":15,"data":{"code":4013}}`)
}

// CONVERSATIONS is cut by bytes like any answer with a cursor.
func TestConversationsByBytes(t *testing.T) {
	n := start(t)
	const count = 11
	content := strings.Repeat("x", 50_000)
	for i := range count {
		n.call("POST", "/v1/messages", fmt.Sprintf(`{"id":"1","from":"u%d","to":"alice","content":"%s"}`, i, content), 200, `{}`)
	}
	alice := n.login("tcp", "alice", `"resume":{"inbox":11}`)
	seen, pages, cursor := map[any]bool{}, 0, ""
	for {
		alice.send(`{"cmd":19,"data":{"limit":200` + cursor + `}}`)
		b := alice.raw()
		if len(b) > 350<<10 {
			t.Errorf("a page of %d bytes", len(b))
		}
		got := parse(t, b)
		for _, c := range got.data("conversations").([]any) {
			seen[c.(map[string]any)["conv"]] = true
		}
		pages++
		next, more := got.data("cursor").(string)
		if !more {
			break
		}
		cursor = fmt.Sprintf(`,"after":%q`, next)
	}
	if len(seen) != count || pages < 2 {
		t.Errorf("%d conversations in %d pages", len(seen), pages)
	}
}

// What SIGHUP may change holds for the connections that are there.
func TestReload(t *testing.T) {
	n := start(t)
	p := n.login("tcp", "alice")
	for range 20 {
		p.talk(`{"cmd":13}`, `{"cmd":13}`)
	}
	o := n.o
	o.Limits.MessagesPerSecond, o.Limits.MessagesBurst = 1, 1
	if err := n.srv.Reload(o); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new limit", func() bool {
		p.send(`{"cmd":13,"id":"x"}`)
		return p.next().cmd() == 15
	})
	o.JWT.Secret = "short"
	if err := n.srv.Reload(o); err == nil {
		t.Error("a bad key was taken")
	}
	n.login("tcp", "alice").quiet() // the old one stays
}

// Without history HISTORY is refused; inboxes are as ever.
func TestHistoryOff(t *testing.T) {
	n := start(t, func(o *server.Options) { o.Message.HistoryEnable = false })
	n.login("tcp", "bob").sendN("alice", 1)
	alice := n.login("tcp", "alice")
	alice.inboxes(1, 1)
	alice.talk(`{"cmd":9,"id":"h","data":{"conv":"p:alice:bob"}}`, `{"cmd":15,"id":"h","data":{"code":4003}}`)
	alice.talk(`{"cmd":8,"data":{"after":0}}`, `{"cmd":8,"data":{"head":1}}`)
}

// The original server's tokens are read when asked for.
func TestSeedTokens(t *testing.T) {
	n := start(t, func(o *server.Options) { o.JWT.SeedClaims = true })
	exp := time.Now().Unix() + 60
	for want, claims := range map[string]string{
		`{"data":{"userId":"1001","terminal":"pc"}}`:    fmt.Sprintf(`{"aud":"1001","info":"{\"userId\":1001,\"terminal\":\"pc\"}","exp":%d}`, exp),
		`{"data":{"userId":"alice","terminal":"web"}}`:  fmt.Sprintf(`{"aud":"alice","exp":%d}`, exp),
		`{"data":{"userId":"bob","terminal":"tablet"}}`: fmt.Sprintf(`{"sub":"bob","terminal":"tablet","exp":%d}`, exp),
	} {
		check(t, n.dial("tcp").login(n.forge(`{"alg":"HS256"}`, claims, sha256.New)), want)
	}
	p := n.dial("tcp")
	p.talk(`{"cmd":0,"data":{"accessToken":"`+n.forge(`{"alg":"HS256"}`, fmt.Sprintf(`{"aud":"alice","info":"{\"userId\":\"bob\"}","exp":%d}`, exp), sha256.New)+`"}}`,
		`{"cmd":15,"data":{"code":4001}}`)
}
