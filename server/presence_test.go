package server_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// A watcher is told the present state at once and then every change, terminal by terminal.
func TestPresence(t *testing.T) {
	n := start(t)
	w := n.login("websocket", "watcher")
	w.talk(`{"cmd":13,"id":"p","data":{"watch":["bob","watcher","nobody"]}}`,
		`{"cmd":13,"id":"p","data":{"states":[{"user":"bob","online":false,"terminals":[],"lastSeen":0},
			{"user":"watcher","online":true,"terminals":["web"],"lastSeen":"*"},{"user":"nobody","online":false,"terminals":[],"lastSeen":0}]}}`)
	web := n.login("tcp", "bob")
	w.expect(`{"cmd":13,"id":null,"data":{"states":[{"user":"bob","online":true,"terminals":["web"]}]}}`)
	ios := n.login("websocket", "bob", `"terminal":"ios"`)
	w.expect(`{"cmd":13,"data":{"states":[{"user":"bob","online":true,"terminals":["web","ios"]}]}}`)
	_ = web.c.Close() // however it ends
	w.expect(`{"cmd":13,"data":{"states":[{"user":"bob","online":true,"terminals":["ios"]}]}}`)
	ios.talk(`{"cmd":18}`, `{"cmd":18}`)
	got := w.expect(`{"cmd":13,"data":{"states":[{"user":"bob","online":false,"terminals":[]}]}}`)
	seen := int64(got.data("states").([]any)[0].(map[string]any)["lastSeen"].(float64))
	if ago := time.Now().UnixMilli() - seen; ago < 0 || ago > 60_000 {
		t.Errorf("last seen %d ms ago", ago)
	}
	// A failed login is no presence, neither is a connection.
	p := n.dial("tcp")
	p.talk(`{"cmd":0,"data":{"accessToken":"x","terminal":"web"}}`, `{"cmd":15}`)
	n.dial("tcp")
	w.quiet()

	w.talk(`{"cmd":13,"id":"u","data":{"unwatch":["bob","stranger"]}}`, `{"cmd":13,"id":"u","data":{"states":[]}}`)
	n.login("tcp", "bob")
	w.quiet()
	_ = n.login("tcp", "carol")
	w.talk(`{"cmd":13,"data":{"watch":["carol"]}}`, `{"cmd":13,"data":{"states":[{"user":"carol","online":true,"terminals":["web"]}]}}`)
	n.call("POST", "/v1/presence", `{"users":["carol","bob","nobody"]}`, 200,
		`{"states":[{"user":"carol","online":true,"terminals":["web"]},{"user":"bob","online":true},{"user":"nobody","online":false,"terminals":[],"lastSeen":0}]}`)

	n.restart()
	w = n.login("tcp", "watcher")
	got = w.talk(`{"cmd":13,"data":{"watch":["carol"]}}`, `{"cmd":13,"data":{"states":[{"online":false,"terminals":[]}]}}`)
	seen = int64(got.data("states").([]any)[0].(map[string]any)["lastSeen"].(float64))
	if ago := time.Now().UnixMilli() - seen; ago < 0 || ago > 60_000 {
		t.Errorf("after a restart: last seen %d ms ago", ago)
	}
}

// At most 1,000 users are watched per connection; beyond it nothing changes.
func TestPresenceLimit(t *testing.T) {
	n := start(t)
	w := n.login("tcp", "watcher")
	names := func(from, to int) string {
		var list []string
		for i := from; i < to; i++ {
			list = append(list, fmt.Sprintf(`"u%d"`, i))
		}
		return strings.Join(list, ",")
	}
	const refused = `{"cmd":15,"id":"p","data":{"code":4000,"name":"BAD_PACKET"}}`
	w.talk(`{"cmd":13,"id":"p","data":{"watch":[`+names(0, 1001)+`]}}`, refused)
	n.login("tcp", "u5")
	w.quiet()
	w.talk(`{"cmd":13,"id":"p","data":{"watch":[`+names(0, 1000)+`]}}`, `{"cmd":13,"id":"p"}`)
	w.talk(`{"cmd":13,"id":"p","data":{"watch":["more"]}}`, refused)
	w.talk(`{"cmd":13,"id":"p","data":{"watch":["more","again"],"unwatch":["u1"]}}`, refused)
	n.login("tcp", "more")
	n.login("tcp", "u1")
	w.expect(`{"cmd":13,"data":{"states":[{"user":"u1","online":true}]}}`) // the refused unwatch did nothing
	w.quiet()
	w.talk(`{"cmd":13,"id":"p","data":{"watch":["u7"]}}`, `{"cmd":13,"id":"p","data":{"states":[{"user":"u7"}]}}`) // already watched
	w.talk(`{"cmd":13,"id":"p","data":{"watch":["again"],"unwatch":["u9"]}}`, `{"cmd":13,"id":"p","data":{"states":[{"user":"again"}]}}`)
	n.login("tcp", "again")
	w.expect(`{"cmd":13,"data":{"states":[{"user":"again","online":true}]}}`)
	// Another connection has its own thousand.
	n.login("websocket", "watcher", `"terminal":"ios"`).talk(`{"cmd":13,"id":"p","data":{"watch":["more"]}}`, `{"cmd":13,"id":"p"}`)
}

// However logins and logouts meet, the last that a watcher hears is true.
func TestPresenceSettles(t *testing.T) {
	t.Parallel()
	n := start(t)
	w := n.login("tcp", "watcher")
	w.talk(`{"cmd":13,"data":{"watch":["bob"]}}`, `{"cmd":13}`)
	for round := range 15 {
		var wg sync.WaitGroup
		var kept [4]*peer
		for i := range kept {
			terminal := fmt.Sprintf(`"terminal":"t%d"`, i%3) // two of them replace each other
			p := n.dial(transports[i%2])
			token := n.token("bob", "", time.Hour)
			wg.Go(func() {
				b := []byte(`{"cmd":0,"data":{"accessToken":"` + token + `",` + terminal + `}}`)
				if p.c.Send(t.Context(), b) != nil {
					return
				}
				_, _ = p.c.Receive(t.Context())
				if i%2 == round%2 {
					_ = p.c.Close()
				}
			})
			kept[i] = p
		}
		wg.Wait()
		var state packet
		stable := func() bool {
			w.send(`{"cmd":1,"id":"barrier"}`)
			for got := w.next(); got["id"] != "barrier"; got = w.next() {
				state = got
			}
			truth := n.call("POST", "/v1/presence", `{"users":["bob"]}`, 200, `{}`)
			want := truth["states"].([]any)[0].(map[string]any)
			if state == nil {
				return false
			}
			got := state.data("states").([]any)[0].(map[string]any)
			return fmt.Sprint(got["online"], got["terminals"]) == fmt.Sprint(want["online"], want["terminals"])
		}
		eventually(t, "the watcher knows the truth", stable)
		for _, p := range kept {
			_ = p.c.Close()
		}
		eventually(t, "all are gone", func() bool {
			return stable() && state.data("states").([]any)[0].(map[string]any)["online"] == false
		})
	}
}
