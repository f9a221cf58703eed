package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/server"
)

// refusal is one packet of a logged-in session and the ERROR that answers it.
type refusal struct {
	name, send string
	code       int
	id         string // of the answer; "" = none
}

// names that are none
var badNames = []string{
	`""`, `"` + strings.Repeat("x", 65) + `"`, `"` + strings.Repeat("é", 33) + `"`, `"a:b"`, `"a/b"`, `"a\u0000b"`, `"a\nb"`,
	`"\u007f"`, `"\u0085"`, `null`, `true`, `1.5`, `[]`, `{}`, `["bob"]`,
}

// refusals of a session of "alice", who is in the group "team" and not in "closed". The conversation p:alice:bob has 3
// messages of bob's and alice's, g:team one.
func refusals() []refusal {
	list := []refusal{
		{"no JSON", `nonsense`, 4000, ""},
		{"half JSON", `{"cmd":1`, 4000, ""},
		{"two values", `{"cmd":1}{"cmd":1}`, 4000, ""},
		{"trailing", `{"cmd":1},`, 4000, ""},
		{"array", `[]`, 4000, ""},
		{"text", `"x"`, 4000, ""},
		{"number", `1`, 4000, ""},
		{"null", `null`, 4000, ""},
		{"blank", ` `, 4000, ""},
		{"single quotes", `{'cmd':1}`, 4000, ""},
		{"leading zero", `{"cmd":01}`, 4000, ""},
		{"control character in a string", "{\"cmd\":1,\"x\":\"a\nb\"}", 4000, ""},
		{"bad escape", `{"cmd":1,"x":"\q"}`, 4000, ""},
		{"nested too deep", `{"cmd":1,"x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`, 4000, ""},
		{"no cmd", `{"id":"i"}`, 4000, "i"},
		{"cmd is text", `{"cmd":"1","id":"i"}`, 4000, "i"},
		{"cmd is a fraction", `{"cmd":1.5,"id":"i"}`, 4000, "i"},
		{"cmd is null", `{"cmd":null,"id":"i"}`, 4000, "i"},
		{"cmd is an object", `{"cmd":{},"id":"i"}`, 4000, "i"},
		{"id is empty", `{"cmd":1,"id":""}`, 4000, ""},
		{"id is a number", `{"cmd":1,"id":7}`, 4000, ""},
		{"id of 65 bytes", `{"cmd":1,"id":"` + strings.Repeat("i", 65) + `"}`, 4000, ""},
		{"id of 33 letters in 66 bytes", `{"cmd":1,"id":"` + strings.Repeat("é", 33) + `"}`, 4000, ""},

		{"data is text", `{"cmd":3,"id":"i","data":"x"}`, 4000, "i"},
		{"data is a list", `{"cmd":3,"id":"i","data":[]}`, 4000, "i"},
		{"no data", `{"cmd":3,"id":"i"}`, 4000, "i"},
		{"no to", `{"cmd":3,"id":"i","data":{"content":1}}`, 4000, "i"},
		{"no content", `{"cmd":3,"id":"i","data":{"to":"bob"}}`, 4000, "i"},
		{"type is text", `{"cmd":3,"id":"i","data":{"to":"bob","content":1,"type":"0"}}`, 4000, "i"},
		{"type is a fraction", `{"cmd":3,"id":"i","data":{"to":"bob","content":1,"type":0.5}}`, 4000, "i"},
		{"ephemeral is a number", `{"cmd":3,"id":"i","data":{"to":"bob","content":1,"ephemeral":1}}`, 4000, "i"},
		{"message without id", `{"cmd":3,"data":{"to":"bob","content":1}}`, 4000, ""},
		{"group message without id", `{"cmd":4,"data":{"group":"team","content":1}}`, 4000, ""},
		{"no group", `{"cmd":4,"id":"i","data":{"to":"bob","content":1}}`, 4000, "i"},
		{"unknown group", `{"cmd":4,"id":"i","data":{"group":"nobody","content":1}}`, 4004, "i"},
		{"not a member", `{"cmd":4,"id":"i","data":{"group":"closed","content":1}}`, 4003, "i"},
		{"ephemeral, unknown group", `{"cmd":4,"id":"i","data":{"group":"nobody","content":1,"ephemeral":true}}`, 4004, "i"},
		{"ephemeral, not a member", `{"cmd":4,"id":"i","data":{"group":"closed","content":1,"ephemeral":true}}`, 4003, "i"},

		{"ACK of nothing", `{"cmd":7,"id":"i","data":{}}`, 4000, "i"},
		{"ACK, inbox is text", `{"cmd":7,"id":"i","data":{"inbox":"1"}}`, 4000, "i"},
		{"ACK, inbox is negative", `{"cmd":7,"id":"i","data":{"inbox":-1}}`, 4000, "i"},
		{"ACK above the head", `{"cmd":7,"id":"i","data":{"inbox":1000}}`, 4000, "i"},
		{"ACK without seq", `{"cmd":7,"id":"i","data":{"conv":"g:team"}}`, 4000, "i"},
		{"ACK, not a member", `{"cmd":7,"id":"i","data":{"conv":"g:closed","seq":1}}`, 4003, "i"},

		{"PULL without after", `{"cmd":8,"id":"i","data":{}}`, 4000, "i"},
		{"PULL, after is negative", `{"cmd":8,"id":"i","data":{"after":-1}}`, 4000, "i"},
		{"PULL, after is a fraction", `{"cmd":8,"id":"i","data":{"after":0.5}}`, 4000, "i"},
		{"PULL, after from 2^53 on", `{"cmd":8,"id":"i","data":{"after":9007199254740992}}`, 4000, "i"},

		{"HISTORY without conv", `{"cmd":9,"id":"i","data":{}}`, 4000, "i"},
		{"HISTORY, conv is a number", `{"cmd":9,"id":"i","data":{"conv":1}}`, 4000, "i"},
		{"HISTORY, before and after", `{"cmd":9,"id":"i","data":{"conv":"p:alice:bob","before":2,"after":1}}`, 4000, "i"},
		{"HISTORY, before is negative", `{"cmd":9,"id":"i","data":{"conv":"p:alice:bob","before":-1}}`, 4000, "i"},
		{"HISTORY, not mine", `{"cmd":9,"id":"i","data":{"conv":"p:bob:carol"}}`, 4003, "i"},
		{"HISTORY, another's system messages", `{"cmd":9,"id":"i","data":{"conv":"n:bob"}}`, 4003, "i"},
		{"HISTORY, not a member", `{"cmd":9,"id":"i","data":{"conv":"g:closed"}}`, 4003, "i"},
		{"HISTORY, unknown group", `{"cmd":9,"id":"i","data":{"conv":"g:nobody"}}`, 4004, "i"},

		{"READ without seq", `{"cmd":10,"id":"i","data":{"conv":"p:alice:bob"}}`, 4000, "i"},
		{"READ without conv", `{"cmd":10,"id":"i","data":{"seq":1}}`, 4000, "i"},
		{"READ above the head", `{"cmd":10,"id":"i","data":{"conv":"p:alice:bob","seq":4}}`, 4000, "i"},
		{"READ above the head of a group", `{"cmd":10,"id":"i","data":{"conv":"g:team","seq":2}}`, 4000, "i"},
		{"READ, not mine", `{"cmd":10,"id":"i","data":{"conv":"p:bob:carol","seq":1}}`, 4003, "i"},
		{"READ, not a member", `{"cmd":10,"id":"i","data":{"conv":"g:closed","seq":1}}`, 4003, "i"},
		{"READ, unknown group", `{"cmd":10,"id":"i","data":{"conv":"g:nobody","seq":1}}`, 4004, "i"},

		{"TYPING to nobody", `{"cmd":12,"id":"i","data":{}}`, 4000, "i"},
		{"TYPING to both", `{"cmd":12,"id":"i","data":{"to":"bob","group":"team"}}`, 4000, "i"},
		{"TYPING, unknown group", `{"cmd":12,"id":"i","data":{"group":"nobody"}}`, 4004, "i"},
		{"TYPING, not a member", `{"cmd":12,"id":"i","data":{"group":"closed"}}`, 4003, "i"},

		{"PRESENCE, watch is text", `{"cmd":13,"id":"i","data":{"watch":"bob"}}`, 4000, "i"},
		{"PRESENCE, unwatch is an object", `{"cmd":13,"id":"i","data":{"unwatch":{}}}`, 4000, "i"},

		{"RECALL without id", `{"cmd":14,"data":{"conv":"p:alice:bob","seq":1}}`, 4000, ""},
		{"RECALL without seq", `{"cmd":14,"id":"i","data":{"conv":"p:alice:bob"}}`, 4000, "i"},
		{"RECALL of nothing", `{"cmd":14,"id":"i","data":{"conv":"p:alice:bob","seq":99}}`, 4004, "i"},
		{"RECALL of 0", `{"cmd":14,"id":"i","data":{"conv":"p:alice:bob","seq":0}}`, 4004, "i"},
		{"RECALL in my empty conversation", `{"cmd":14,"id":"i","data":{"conv":"p:alice:zoe","seq":1}}`, 4004, "i"},
		{"RECALL of another's", `{"cmd":14,"id":"i","data":{"conv":"p:alice:bob","seq":2}}`, 4003, "i"},
		{"RECALL, not mine", `{"cmd":14,"id":"i","data":{"conv":"p:bob:carol","seq":1}}`, 4003, "i"},
		{"RECALL, not a member", `{"cmd":14,"id":"i","data":{"conv":"g:closed","seq":1}}`, 4003, "i"},
		{"RECALL, unknown group", `{"cmd":14,"id":"i","data":{"conv":"g:nobody","seq":1}}`, 4004, "i"},

		{"REFRESH without a token", `{"cmd":17,"id":"i","data":{}}`, 4000, "i"},
		{"REFRESH with a bad token", `{"cmd":17,"id":"i","data":{"accessToken":"x"}}`, 4001, "i"},
		{"CONVERSATIONS, after is a number", `{"cmd":19,"id":"i","data":{"after":1}}`, 4000, "i"},
		{"HEART_BEAT with a list", `{"cmd":1,"id":"i","data":[1]}`, 4000, "i"},
		{"LOGOUT with text", `{"cmd":18,"id":"i","data":"x"}`, 4000, "i"},
		{"second LOGIN", `{"cmd":0,"id":"i","data":{"accessToken":"x"}}`, 4006, "i"},
	}
	for _, name := range badNames {
		list = append(list,
			refusal{"to " + name, `{"cmd":3,"id":"i","data":{"content":1,"to":` + name + `}}`, 4000, "i"},
			refusal{"group " + name, `{"cmd":4,"id":"i","data":{"content":1,"group":` + name + `}}`, 4000, "i"},
			refusal{"TYPING to " + name, `{"cmd":12,"id":"i","data":{"to":` + name + `}}`, 4000, "i"},
			refusal{"PRESENCE of " + name, `{"cmd":13,"id":"i","data":{"watch":["bob",` + name + `]}}`, 4000, "i"})
	}
	for _, limit := range []string{`0`, `-1`, `1.5`, `"5"`, `null`} {
		list = append(list,
			refusal{"PULL, limit " + limit, `{"cmd":8,"id":"i","data":{"after":0,"limit":` + limit + `}}`, 4000, "i"},
			refusal{"HISTORY, limit " + limit, `{"cmd":9,"id":"i","data":{"conv":"p:alice:bob","limit":` + limit + `}}`, 4000, "i"},
			refusal{"CONVERSATIONS, limit " + limit, `{"cmd":19,"id":"i","data":{"limit":` + limit + `}}`, 4000, "i"})
	}
	for _, conv := range []string{"", "x", "p:alice", "p:alice:", "p::alice", "p:bob:alice", "p:alice:bob:carol", "g:", "n:", "q:alice", "g:a:b", "alice"} {
		for cmd, more := range map[int]string{9: ``, 10: `,"seq":1`, 14: `,"seq":1`, 7: `,"seq":1`} {
			list = append(list, refusal{fmt.Sprintf("%d of %q", cmd, conv), fmt.Sprintf(`{"cmd":%d,"id":"i","data":{"conv":%q%s}}`, cmd, conv, more), 4004, "i"})
		}
	}
	// What only the server sends, and what nobody does.
	for _, cmd := range []string{"2", "5", "6", "11", "15", "16", "20", "21", "999", "1000", "70000", "-1", "2147483647", "2147483648", "-2147483649"} {
		list = append(list, refusal{"command " + cmd, `{"cmd":` + cmd + `,"id":"i","data":{}}`, 4005, "i"})
	}
	return list
}

var errorNames = map[int]string{
	4000: "BAD_PACKET", 4001: "UNAUTHORIZED", 4003: "FORBIDDEN", 4004: "NOT_FOUND", 4005: "UNKNOWN_COMMAND",
	4006: "BAD_STATE", 4008: "TIMEOUT", 4012: "CONFLICT", 4013: "TOO_LARGE", 4029: "RATE_LIMITED",
}

// Every refusal after LOGIN has its ERROR, with the id of the packet, and the session goes on.
func TestRefusals(t *testing.T) {
	n := start(t)
	n.call("PUT", "/v1/groups/team", `{"members":["alice","bob"]}`, 200, `{}`)
	n.call("PUT", "/v1/groups/closed", `{"members":["bob","carol"]}`, 200, `{}`)
	alice, bob := n.login("tcp", "alice", `"terminal":"sender"`), n.login("tcp", "bob")
	alice.sendN("bob", 1)
	bob.sendN("alice", 1)
	alice.sendN("bob", 1)
	bob.sendN("carol", 1)
	bob.skip[3], bob.skip[4] = true, true
	bob.talk(`{"cmd":4,"id":"g","data":{"group":"closed","content":1}}`, `{"cmd":6}`)
	bob.talk(`{"cmd":4,"id":"t","data":{"group":"team","content":1}}`, `{"cmd":6}`)
	for _, transport := range transports {
		p := n.login(transport, "alice", `"terminal":"`+transport+`"`)
		p.skip[3], p.skip[4] = true, true
		for _, r := range refusals() {
			id := "null"
			if r.id != "" {
				id = `"` + r.id + `"`
			}
			p.send(r.send)
			got := p.next()
			want := fmt.Sprintf(`{"cmd":15,"id":%s,"data":{"code":%d,"name":%q,"message":"*","retryable":false,"retryAfterMs":null}}`,
				id, r.code, errorNames[r.code])
			if path, ok := contains(map[string]any(got), map[string]any(parse(t, []byte(want)))); !ok {
				t.Fatalf("%s: %s\n%.300s\ngot  %v\nwant %s\ndiffers at %s", transport, r.name, r.send, got, want, path)
			}
			p.quiet() // and ends a row of BAD_PACKETs
		}
	}
}

// What is at the limits and not beyond them is taken.
func TestLimitsTaken(t *testing.T) {
	n := start(t)
	alice, bob := n.login("websocket", "alice"), n.login("tcp", "42")
	alice.skip[3] = true
	long, letters := strings.Repeat("x", 64), strings.Repeat("é", 32)
	for _, c := range []struct{ send, want string }{
		{`{"cmd":1,"id":"` + long + `"}`, `{"cmd":1,"id":"` + long + `"}`},
		{`{"cmd":1,"id":"` + letters + `"}`, `{"cmd":1,"id":"` + letters + `"}`},
		{`{"cmd":1,"id":"\u0000\"\\\/"}`, `{"cmd":1,"id":"\u0000\"\\/"}`},
		{` { "x" : [ { "cmd" : 5 } ] , "data" : null , "cmd" : 1 , "id" : "i" , "y" : 1e5 } `, `{"cmd":1,"id":"i"}`},
		{`{"cmd":3,"id":"` + long + `","data":{"to":"` + long + `","content":null}}`, `{"cmd":6,"id":"` + long + `","data":{"conv":"p:alice:` + long + `"}}`},
		{`{"cmd":3,"id":"e","data":{"to":"` + letters + `","content":false,"unknown":{"to":1}}}`, `{"cmd":6,"data":{"conv":"p:alice:` + letters + `"}}`},
		{`{"cmd":3,"id":"m","data":{"to":"Ünï 名前 🙂","content":""}}`, `{"cmd":6,"data":{"conv":"p:alice:Ünï 名前 🙂"}}`},
		{`{"cmd":3,"id":"n","data":{"to":42,"content":[]}}`, `{"cmd":6,"data":{"conv":"p:42:alice","seq":1}}`},
		{`{"cmd":3,"id":"o","data":{"to":"42","type":-7,"content":{}}}`, `{"cmd":6,"data":{"conv":"p:42:alice","seq":2}}`},
		{`{"cmd":9,"id":"h","data":{"conv":"p:42:alice","limit":100000}}`, `{"cmd":9,"id":"h","data":{"more":false}}`},
		{`{"cmd":9,"id":"h","data":{"conv":"p:alice:zoe"}}`, `{"cmd":9,"data":{"conv":"p:alice:zoe","messages":[],"more":false}}`},
		{`{"cmd":9,"id":"h","data":{"conv":"n:alice"}}`, `{"cmd":9,"data":{"conv":"n:alice","messages":[],"more":false}}`},
		{`{"cmd":9,"id":"h","data":{"conv":"p:alice:alice"}}`, `{"cmd":9,"data":{"messages":[]}}`},
		{`{"cmd":8,"id":"p","data":{"after":100,"limit":100000}}`, `{"cmd":8,"data":{"entries":[],"head":5,"first":1,"more":false}}`},
		{`{"cmd":8,"id":"p","data":{"after":100,"limit":99999999999999999999999}}`, `{"cmd":8,"data":{"entries":[]}}`},
		{`{"cmd":7,"id":"a","data":{"conv":"p:42:alice","seq":1}}`, ``}, // no large group: ignored
		{`{"cmd":7,"id":"a","data":{"inbox":0}}`, ``},
		{`{"cmd":10,"id":"r","data":{"conv":"p:42:alice","seq":0}}`, ``},
		{`{"cmd":12,"id":"t","data":{"to":"nobody"}}`, ``},
		{`{"cmd":13,"id":"w"}`, `{"cmd":13,"id":"w","data":{"states":[]}}`},
		{`{"cmd":19,"id":"c","data":{"limit":100000}}`, `{"cmd":19,"id":"c"}`},
	} {
		if c.want == "" {
			alice.send(c.send)
			alice.quiet()
			continue
		}
		alice.talk(c.send, c.want)
	}
	bob.expect(`{"cmd":3,"data":{"to":"42","from":"alice","content":[],"type":0}}`)
	bob.expect(`{"cmd":3,"data":{"to":"42","content":{},"type":-7}}`)
}

// Five BAD_PACKETs in a row close, however they were found; a good packet in between begins a new row.
func TestFiveBadPackets(t *testing.T) {
	n := start(t)
	kinds := []string{
		`{`, `{"cmd":"x"}`, `{"cmd":3,"data":{}}`, `{"cmd":8,"data":{"after":-1}}`,
		`{"cmd":7,"data":{"inbox":1}}`, `{"cmd":10,"data":{"conv":"n:alice","seq":1}}`, `{"cmd":17,"data":{}}`,
	}
	for _, transport := range transports {
		for _, kind := range kinds {
			p := n.login(transport, "alice")
			for range 5 {
				p.talk(kind, `{"cmd":15,"data":{"code":4000,"name":"BAD_PACKET"}}`)
			}
			if code := p.closed(); code != closeCode(transport, 4000) {
				t.Errorf("%s: closed with %d", kind, code)
			}
		}
		for _, good := range []string{
			`{"cmd":1,"id":"good"}`, `{"cmd":99,"id":"good"}`, `{"cmd":8,"id":"good","data":{"after":0}}`, `{"cmd":4,"id":"good","data":{"group":"no","content":1}}`,
		} {
			p := n.login(transport, "alice")
			for range 3 {
				for i := range 4 {
					p.talk(kinds[i], `{"cmd":15,"data":{"code":4000}}`)
				}
				p.send(good)
				if got := p.next(); got["id"] != "good" {
					t.Fatalf("%s answered by %v", good, got)
				}
			}
			p.quiet()
		}
	}
}

// Over the rate every packet is refused but HEART_BEAT, ACK and READ, and the session stays open.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	n := start(t, func(o *server.Options) { o.Limits.MessagesPerSecond, o.Limits.MessagesBurst = 2, 4 })
	p := n.login("tcp", "alice")
	p.skip[3] = true
	var limited packet
	for i := range 6 {
		p.send(fmt.Sprintf(`{"cmd":3,"id":"m%d","data":{"to":"bob","content":1}}`, i))
		switch got := p.next(); got.cmd() {
		case 6:
		case 15:
			limited = got
		default:
			t.Fatalf("got %v", got)
		}
	}
	if limited == nil {
		t.Fatal("six messages at once and none was refused, with a burst of 4")
	}
	check(t, limited, `{"id":"*","data":{"code":4029,"name":"RATE_LIMITED","retryable":true,"retryAfterMs":"*"}}`)
	if ms := limited.number("retryAfterMs"); ms < 1 || ms > 500 {
		t.Errorf("retryAfterMs %d, want up to 500", ms)
	}
	p.skip[15] = false
	for range 50 {
		p.quiet()
		p.send(`{"cmd":7,"data":{"inbox":0}}`)
		p.send(`{"cmd":10,"data":{"conv":"p:alice:bob","seq":1}}`)
	}
	p.quiet()
	// Every other packet counts, answered or not.
	for _, other := range []string{`{"cmd":12,"id":"o","data":{"to":"bob"}}`, `{"cmd":99,"id":"o"}`, `{"cmd":8,"id":"o","data":{"after":0}}`, `{"cmd":13,"id":"o"}`} {
		refused := false
		for range 20 {
			p.send(other)
			p.send(`{"cmd":1,"id":"barrier"}`)
			for got := p.next(); got["id"] != "barrier"; got = p.next() {
				refused = refused || got.cmd() == 15 && got.number("code") == 4029
			}
		}
		if !refused {
			t.Errorf("%s: 20 at once were taken", other)
		}
	}
	eventually(t, "a message is taken again", func() bool {
		p.send(`{"cmd":3,"id":"late","data":{"to":"bob","content":1}}`)
		return p.next().cmd() == 6
	})
}

// A message over the limits of the answers is cut into pages of about 256 KiB, at least one entry each.
func TestPagesOfBytes(t *testing.T) {
	t.Parallel()
	n := start(t)
	alice := n.login("tcp", "alice")
	alice.skip[3] = true
	big := strings.Repeat("x", 60_000)
	const count = 12
	for i := range count {
		alice.talk(fmt.Sprintf(`{"cmd":3,"id":"b%d","data":{"to":"bob","content":"%d%s"}}`, i, i, big), `{"cmd":6}`)
	}
	bob := n.dial("tcp")
	bob.login(n.token("bob", "", time.Hour), `"resume":{"inbox":12}`)
	page := func(send string, entries string) (got packet, bytes int) {
		bob.send(send)
		b := bob.raw()
		got = parse(t, b)
		if list, ok := got.data(entries).([]any); !ok || len(list) == 0 {
			t.Fatalf("%s: an answer without entries: %.200s", send, b)
		}
		return got, len(b)
	}
	for name, next := range map[string]func(at int) string{
		"entries": func(at int) string { return fmt.Sprintf(`{"cmd":8,"data":{"after":%d,"limit":500}}`, at) },
		"messages": func(at int) string {
			return fmt.Sprintf(`{"cmd":9,"data":{"conv":"p:alice:bob","after":%d,"limit":200}}`, at)
		},
	} {
		at, pages := 0, 0
		for more := true; more; pages++ {
			got, bytes := page(next(at), name)
			if bytes > 360<<10 {
				t.Errorf("%s: a page of %d bytes", name, bytes)
			}
			at += len(got.data(name).([]any))
			more = got.data("more").(bool)
		}
		if at != count || pages < 3 {
			t.Errorf("%s: %d entries in %d pages", name, at, pages)
		}
	}
}
