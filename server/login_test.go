package server_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/server"
)

// The answer to LOGIN has every field, with the type that the protocol gives it.
func TestLoginReply(t *testing.T) {
	n := start(t)
	eachTransport(t, func(t *testing.T, transport string) {
		n := n.on(t)
		user := "reply-" + transport
		p := n.dial(transport)
		before := time.Now().UnixMilli()
		got := p.login(n.token(user, "", time.Hour))
		check(t, got, `{"cmd":0,"id":"login","data":{"userId":"`+user+`","terminal":"web","sessionId":"*","serverTime":"*",
			"expiresAt":"*","heartbeat":30,"epoch":"*","inbox":{"head":0,"first":1,"acked":0},"resumed":false,"node":"test"}}`)
		if at := int64(got.number("serverTime")); at < before || at > time.Now().UnixMilli() {
			t.Errorf("serverTime %d is not now", at)
		}
		if left := int64(got.number("expiresAt")) - before; left < 3_590_000 || left > 3_610_000 {
			t.Errorf("expiresAt is in %d ms, want an hour", left)
		}
		again := n.dial(transport).login(n.token(user, "", time.Hour))
		for _, field := range []string{"sessionId", "epoch", "node", "userId"} {
			if _, ok := got.data(field).(string); !ok {
				t.Errorf("%s is %v, want a string", field, got.data(field))
			}
		}
		if got.data("sessionId") == again.data("sessionId") {
			t.Error("two logins have one sessionId")
		}
		other := n.dial(transport).login(n.token("other-"+transport, "", time.Hour))
		if got.data("epoch") != other.data("epoch") {
			t.Error("the epoch differs between users")
		}
	})
}

// The terminal comes from the token when it has one, else from LOGIN, else it is "web".
func TestTerminalOfLogin(t *testing.T) {
	n := start(t)
	for _, c := range []struct{ token, field, want string }{
		{"", "", "web"},
		{"", `"terminal":"ios"`, "ios"},
		{"", `"terminal":7`, "7"},
		{"tablet", "", "tablet"},
		{"tablet", `"terminal":"ios"`, "tablet"},
		{"", `"terminal":"` + strings.Repeat("x", 32) + `"`, strings.Repeat("x", 32)},
	} {
		p := n.dial("tcp")
		token := n.token("alice", c.token, time.Hour)
		more := []string{}
		if c.field != "" {
			more = append(more, c.field)
		}
		check(t, p.login(token, more...), `{"data":{"terminal":"`+c.want+`"}}`)
	}
}

// A terminal never seen before starts where the furthest terminal of its user stands; one that was there goes on from its
// own position.
func TestFirstPosition(t *testing.T) {
	n := start(t)
	n.login("tcp", "alice").sendN("bob", 3)

	login := func(terminal string, acked int) *peer {
		p := n.dial("websocket")
		check(t, p.login(n.token("bob", "", time.Hour), `"ack":"client"`, `"terminal":"`+terminal+`"`),
			fmt.Sprintf(`{"data":{"inbox":{"head":3,"first":1,"acked":%d}}}`, acked))
		return p
	}
	web := login("web", 0)
	web.inboxes(1, 3)
	web.send(`{"cmd":7,"data":{"inbox":2}}`)
	web.quiet()
	ios := login("ios", 2)
	ios.inboxes(3, 1)
	ios.send(`{"cmd":7,"data":{"inbox":3}}`)
	ios.quiet()
	login("android", 3).quiet()
	web = login("web", 2)
	web.inboxes(3, 1)
	web.quiet()
	// First positions are kept at once: a terminal that logged in once has one, though the others have moved on.
	n.login("tcp", "alice").sendN("bob", 1)
	web.inboxes(4, 1)
	late := n.dial("tcp")
	check(t, late.login(n.token("bob", "", time.Hour), `"ack":"client"`, `"terminal":"android"`), `{"data":{"inbox":{"head":4,"acked":3}}}`)
	late.inboxes(4, 1)
}

func TestResume(t *testing.T) {
	n := start(t)
	n.login("tcp", "alice").sendN("bob", 5)
	epoch := n.dial("tcp").login(n.token("carol", "", time.Hour)).data("epoch").(string)

	for i, c := range []struct {
		resume  string
		resumed bool
		acked   int
		from    uint64
	}{
		{`{"epoch":"` + epoch + `","inbox":3}`, true, 3, 4},
		{`{"inbox":3}`, true, 3, 4},
		{`{"epoch":"` + epoch + `","inbox":5}`, true, 5, 6},
		{`{"epoch":"` + epoch + `","inbox":0}`, true, 0, 1},
		{`{"epoch":"other","inbox":3}`, false, 0, 1},
		{`{"epoch":"` + epoch + `","inbox":6}`, false, 0, 1},
		{`{"epoch":"` + epoch + `","inbox":9007199254740991}`, false, 0, 1},
	} {
		for _, ack := range []string{"client", "auto"} {
			t.Run(fmt.Sprintf("%d %s", i, ack), func(t *testing.T) {
				n := n.on(t)
				// A user of their own each, so that every first position is 0.
				user := fmt.Sprintf("u%d%s", i, ack)
				n.login("tcp", "alice", `"terminal":"x"`).sendN(user, 5)
				p := n.dial("tcp")
				check(t, p.login(n.token(user, "", time.Hour), `"ack":"`+ack+`"`, `"resume":`+c.resume),
					fmt.Sprintf(`{"data":{"resumed":%v,"inbox":{"head":5,"first":1,"acked":%d}}}`, c.resumed, c.acked))
				p.inboxes(c.from, 6-c.from)
				p.quiet()
				if ack == "auto" {
					return
				}
				// Without resume the terminal's position counts, which an honoured resume has moved.
				p = n.dial("tcp")
				check(t, p.login(n.token(user, "", time.Hour), `"ack":"client"`),
					fmt.Sprintf(`{"data":{"resumed":false,"inbox":{"acked":%d}}}`, c.acked))
				p.inboxes(uint64(c.acked)+1, uint64(5-c.acked))
				p.quiet()
			})
		}
	}
}

// A resume below the stored position counts for its connection only; one that cannot be honoured makes the server push
// from the first entry, wherever the terminal stood.
func TestResumeBelow(t *testing.T) {
	n := start(t)
	n.login("tcp", "alice").sendN("bob", 5)
	login := func(more ...string) (*peer, packet) {
		p := n.dial("websocket")
		return p, p.login(n.token("bob", "", time.Hour), append(more, `"ack":"client"`, `"window":2`)...)
	}
	p, _ := login()
	p.inboxes(1, 2)
	p.expect(`{"cmd":20,"data":{"head":5}}`)
	p.send(`{"cmd":7,"data":{"inbox":4}}`) // above what was pushed: taken by PULL
	p.inboxes(5, 1)
	p.quiet()

	p, got := login(`"resume":{"inbox":1}`)
	check(t, got, `{"data":{"resumed":true,"inbox":{"head":5,"acked":4}}}`)
	p.inboxes(2, 2) // the window counts from the resume
	p.expect(`{"cmd":20,"data":{"head":5}}`)
	p.send(`{"cmd":7,"data":{"inbox":2}}`)
	p.inboxes(4, 1)
	p.quiet()

	p, got = login()
	check(t, got, `{"data":{"resumed":false,"inbox":{"acked":4}}}`)
	p.inboxes(5, 1)
	p.quiet()

	p, got = login(`"resume":{"epoch":"nobody's","inbox":5}`)
	check(t, got, `{"data":{"resumed":false,"inbox":{"head":5,"first":1,"acked":4}}}`)
	p.inboxes(1, 2)
	p.expect(`{"cmd":20}`)
	p, got = login()
	check(t, got, `{"data":{"inbox":{"acked":4}}}`)
	p.inboxes(5, 1)
}

// What retention removed is no gap: pushes and PULL begin at first, and a resume below first − 1 is not honoured.
func TestResumeAfterRetention(t *testing.T) {
	n := start(t)
	n.login("tcp", "alice").sendN("bob", 5)
	if _, err := n.srv.Hub().Store().Expire(context.Background(), time.Now().Add(60*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	n.login("tcp", "alice").sendN("bob", 2)
	for i, c := range []struct {
		resume  string
		resumed bool
		from    uint64
	}{
		{``, false, 6},
		{`"resume":{"inbox":3}`, false, 6},
		{`"resume":{"inbox":5}`, true, 6},
		{`"resume":{"inbox":6}`, true, 7},
	} {
		p := n.dial("tcp")
		more := []string{fmt.Sprintf(`"terminal":"t%d"`, i), `"ack":"client"`}
		if c.resume != "" {
			more = append(more, c.resume)
		}
		check(t, p.login(n.token("bob", "", time.Hour), more...),
			fmt.Sprintf(`{"data":{"resumed":%v,"inbox":{"head":7,"first":6}}}`, c.resumed))
		p.inboxes(c.from, 8-c.from)
		p.talk(`{"cmd":8,"data":{"after":0}}`, `{"cmd":8,"data":{"head":7,"first":6,"more":false,"entries":[{"data":{"inbox":6}},{"data":{"inbox":7}}]}}`)
	}
}

// The window is at most 1,024, by default 256.
func TestWindowLimits(t *testing.T) {
	t.Parallel()
	n := start(t)
	n.login("tcp", "alice").sendN("bob", 1030)
	for _, c := range []struct {
		field string
		want  uint64
	}{{`"window":5000`, 1024}, {`"window":1024`, 1024}, {`"x":0`, 256}, {`"window":1`, 1}} {
		p := n.dial("tcp")
		p.login(n.token("bob", "", time.Hour), `"ack":"client"`, c.field)
		p.inboxes(1, c.want)
		p.expect(`{"cmd":20,"data":{"head":1030}}`)
		p.quiet()
	}
	for _, bad := range []string{`0`, `-1`, `"5"`, `1.5`, `null`, `true`} {
		p := n.dial("websocket")
		p.talk(`{"cmd":0,"id":"w","data":{"accessToken":"`+n.token("bob", "", time.Hour)+`","window":`+bad+`}}`,
			`{"cmd":15,"id":"w","data":{"code":4000,"name":"BAD_PACKET"}}`)
		if code := p.closed(); code != 4000 {
			t.Errorf("window %s: closed with %d", bad, code)
		}
	}
}

// A newer login of the same user and terminal replaces the older one, and nothing but that.
func TestReplaced(t *testing.T) {
	n := start(t)
	for _, first := range transports {
		for _, second := range transports {
			t.Run(first+" "+second, func(t *testing.T) {
				n := n.on(t)
				user := "bob-" + first + "-" + second
				watcher := n.login("tcp", "watcher-of-"+user)
				watcher.talk(`{"cmd":13,"id":"p","data":{"watch":["`+user+`"]}}`, `{"cmd":13,"id":"p","data":{"states":[{"online":false}]}}`)
				other := n.login(first, user, `"terminal":"ios"`)
				watcher.expect(`{"cmd":13,"data":{"states":[{"user":"` + user + `","online":true,"terminals":["ios"]}]}}`)
				old := n.login(first, user)
				watcher.expect(`{"cmd":13,"data":{"states":[{"online":true}]}}`)
				fresh := n.login(second, user)
				old.expect(`{"cmd":2,"data":{"code":4009,"reason":"*"}}`)
				if code, want := old.closed(), closeCode(first, 4009); code != want {
					t.Errorf("closed with %d, want %d", code, want)
				}
				n.login("tcp", "alice").sendN(user, 1)
				fresh.inboxes(1, 1)
				other.inboxes(1, 1)
				other.quiet()
				fresh.quiet()
				watcher.quiet()
			})
		}
	}
}

// closeCode is what peer.closed gives for a code: TCP has none.
func closeCode(transport string, code uint16) uint16 {
	if transport == "tcp" {
		return 0
	}
	return code
}

func TestLogout(t *testing.T) {
	n := start(t)
	eachTransport(t, func(t *testing.T, transport string) {
		n := n.on(t)
		user := "leaver-" + transport
		watcher := n.login("tcp", "watcher-"+transport)
		p := n.login(transport, user)
		watcher.talk(`{"cmd":13,"data":{"watch":["`+user+`"]}}`, `{"cmd":13,"data":{"states":[{"online":true,"terminals":["web"]}]}}`)
		p.talk(`{"cmd":18,"id":"bye","data":{}}`, `{"cmd":18,"id":"bye"}`)
		if code := p.closed(); code != closeCode(transport, 1000) {
			t.Errorf("closed with %d", code)
		}
		got := watcher.expect(`{"cmd":13,"data":{"states":[{"user":"` + user + `","online":false,"terminals":[]}]}}`)
		seen := got["data"].(map[string]any)["states"].([]any)[0].(map[string]any)["lastSeen"].(float64)
		if ago := time.Now().UnixMilli() - int64(seen); ago < 0 || ago > 60_000 {
			t.Errorf("last seen %d ms ago", ago)
		}
	})
}

// Before LOGIN a HEART_BEAT is answered; anything else is refused and closes.
func TestBeforeLogin(t *testing.T) {
	n := start(t)
	for _, c := range []struct {
		send, want string
		code       uint16
	}{
		{`{"cmd":3,"id":"x","data":{"to":"bob","content":1}}`, `{"cmd":15,"id":"x","data":{"code":4006,"name":"BAD_STATE","retryable":false}}`, 4006},
		{`{"cmd":18,"id":"x"}`, `{"cmd":15,"id":"x","data":{"code":4006}}`, 4006},
		{`{"cmd":7,"data":{"inbox":0}}`, `{"cmd":15,"data":{"code":4006}}`, 4006},
		{`{"cmd":99,"id":"x"}`, `{"cmd":15,"id":"x","data":{"code":4006}}`, 4006},
		{`{"cmd":1000,"id":"x"}`, `{"cmd":15,"id":"x","data":{"code":4006}}`, 4006},
		{`{"id":"x"}`, `{"cmd":15,"id":"x","data":{"code":4000,"name":"BAD_PACKET"}}`, 4000},
		{`{]`, `{"cmd":15,"data":{"code":4000}}`, 4000},
		{`{"cmd":0,"id":"x","data":{"accessToken":5}}`, `{"cmd":15,"id":"x","data":{"code":4000}}`, 4000},
		{`{"cmd":0,"id":"x","data":{"accessToken":"a","ack":"maybe"}}`, `{"cmd":15,"id":"x","data":{"code":4000}}`, 4000},
		{`{"cmd":0,"id":"x","data":{"accessToken":"a","resume":{"epoch":"e"}}}`, `{"cmd":15,"id":"x","data":{"code":4000}}`, 4000},
		{`{"cmd":0,"id":"x","data":{"accessToken":"a","resume":7}}`, `{"cmd":15,"id":"x","data":{"code":4000}}`, 4000},
		{`{"cmd":0,"id":"x","data":{"accessToken":"a","terminal":"a/b"}}`, `{"cmd":15,"id":"x","data":{"code":4000}}`, 4000},
		{`{"cmd":0,"id":"x","data":{"accessToken":"a","terminal":"` + strings.Repeat("x", 33) + `"}}`, `{"cmd":15,"id":"x","data":{"code":4000}}`, 4000},
		{`{"cmd":0,"id":"x","data":{}}`, `{"cmd":15,"id":"x","data":{"code":4001,"name":"UNAUTHORIZED"}}`, 4001},
		{`{"cmd":0,"id":"x"}`, `{"cmd":15,"id":"x","data":{"code":4001}}`, 4001},
		{`{"cmd":1,"id":"x","data":[]}`, `{"cmd":15,"id":"x","data":{"code":4000}}`, 4000},
	} {
		for _, transport := range transports {
			p := n.dial(transport)
			p.talk(`{"cmd":1,"id":"early","data":{}}`, `{"cmd":1,"id":"early","data":{"head":0}}`)
			p.talk(`{"cmd":1,"data":null}`, `{"cmd":1,"id":null,"data":{"head":0}}`)
			p.talk(c.send, c.want)
			if code := p.closed(); code != closeCode(transport, c.code) {
				t.Errorf("%s %s: closed with %d", transport, c.send, code)
			}
		}
	}
	p := n.login("websocket", "alice")
	p.talk(`{"cmd":0,"id":"again","data":{"accessToken":"`+n.token("alice", "", time.Hour)+`"}}`,
		`{"cmd":15,"id":"again","data":{"code":4006,"name":"BAD_STATE"}}`)
	p.quiet()
}

func TestLoginTimeout(t *testing.T) {
	t.Parallel()
	n := start(t, func(o *server.Options) { o.LoginTimeout = time.Second })
	begin := time.Now()
	late := map[string]*peer{}
	for _, transport := range transports {
		late[transport] = n.dial(transport)
		late[transport].talk(`{"cmd":1}`, `{"cmd":1}`) // does not extend it
	}
	for transport, p := range late {
		p.expect(`{"cmd":15,"id":null,"data":{"code":4008,"name":"TIMEOUT"}}`)
		if code := p.closed(); code != closeCode(transport, 4008) {
			t.Errorf("%s: closed with %d", transport, code)
		}
		if took := time.Since(begin); took < time.Second {
			t.Errorf("%s: closed after %v", transport, took)
		}
	}
}

func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	n := start(t, func(o *server.Options) { o.HeartbeatTimeout = 2 * time.Second })
	idle := map[string]*peer{}
	for _, transport := range transports {
		idle[transport] = n.login(transport, "idle-"+transport)
	}
	begin := time.Now()
	alive, pinged := n.login("tcp", "alive"), n.login("websocket", "pinged")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
			}
			_ = alive.c.Send(context.Background(), []byte(`{"cmd":1}`))
			_ = pinged.c.SendFrame(context.Background(), codec.OpPing, nil) // a ping is no packet
		}
	}()
	for transport, p := range idle {
		p.expect(`{"cmd":15,"id":null,"data":{"code":4008,"name":"TIMEOUT"}}`)
		if code := p.closed(); code != closeCode(transport, 4008) {
			t.Errorf("%s: closed with %d", transport, code)
		}
	}
	pinged.expect(`{"cmd":15,"data":{"code":4008}}`)
	if took := time.Since(begin); took < 1900*time.Millisecond {
		t.Errorf("closed after %v", took)
	}
	close(stop)
	<-done
	alive.skip[1] = true
	alive.talk(`{"cmd":8,"id":"there","data":{"after":0}}`, `{"cmd":8,"id":"there"}`)
}

// A token may come with the upgrade; LOGIN is then sent without one.
func TestUpgradeToken(t *testing.T) {
	n := start(t)
	token := n.token("alice", "", time.Hour)
	for name, c := range map[string]struct {
		header   http.Header
		query    string
		protocol string
		fields   string
		ok       bool
	}{
		"header":              {http.Header{"Authorization": {"Bearer " + token}}, "", "", ``, true},
		"sub-protocol":        {http.Header{"Sec-WebSocket-Protocol": {"meshtalk.v1, bearer." + token}}, "", "meshtalk.v1", ``, true},
		"both, LOGIN decides": {http.Header{"Authorization": {"Bearer nonsense"}}, "", "", `"accessToken":"` + token + `"`, true},
		"query":               {nil, "?token=" + token + "&access_token=" + token, "", ``, false},
		"bad header":          {http.Header{"Authorization": {"Bearer " + token + "x"}}, "", "", ``, false},
		"other scheme":        {http.Header{"Authorization": {"Basic " + token}}, "", "", ``, false},
		"plain":               {http.Header{"Sec-WebSocket-Protocol": {"meshtalk.v1"}}, "", "meshtalk.v1", `"accessToken":"` + token + `"`, true},
	} {
		p := n.dialURL(n.url("websocket")+c.query, c.header)
		if p.c.Subprotocol() != c.protocol {
			t.Errorf("%s: sub-protocol %q", name, p.c.Subprotocol())
		}
		p.send(`{"cmd":0,"data":{` + c.fields + `}}`)
		if c.ok {
			p.expect(`{"cmd":0,"data":{"userId":"alice"}}`)
			continue
		}
		p.expect(`{"cmd":15,"data":{"code":4001,"name":"UNAUTHORIZED"}}`)
		if code := p.closed(); code != 4001 {
			t.Errorf("%s: closed with %d", name, code)
		}
	}
}
