package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/server"
)

// RECALL is a stored event, and the message reads null from then on, wherever it is read or pushed.
func TestRecall(t *testing.T) {
	n := start(t)
	alice, bob := n.login("websocket", "alice"), n.login("tcp", "bob")
	alice.send(`{"cmd":3,"id":"m","data":{"to":"bob","content":"secret"}}`)
	sent := alice.expectAll(`{"cmd":6}`, `{"cmd":3}`)[0]
	bob.expect(`{"cmd":3,"data":{"content":"secret"}}`)
	bob.talk(`{"cmd":14,"id":"b","data":{"conv":"p:alice:bob","seq":1}}`, `{"cmd":15,"id":"b","data":{"code":4003,"name":"FORBIDDEN"}}`)

	alice.send(`{"cmd":14,"id":"r","data":{"conv":"p:alice:bob","seq":1}}`)
	const event = `{"cmd":14,"data":{"conv":"p:alice:bob","seq":2,"inbox":2,"target":1,"from":"alice","ts":"*"}}`
	ack := alice.expectAll(`{"cmd":6,"id":"r","data":{"conv":"p:alice:bob","seq":2,"msgId":"*","ts":"*","duplicate":null}}`, event)[0]
	bob.expect(event)

	const recalled = `{"seq":1,"content":null,"recalled":true,"from":"alice"}`
	history := bob.talk(`{"cmd":9,"data":{"conv":"p:alice:bob"}}`, `{"cmd":9,"data":{"messages":[{"seq":2,"target":1,"from":"alice"},`+recalled+`]}}`)
	if h := fmt.Sprint(history); strings.Contains(h, "secret") {
		t.Errorf("HISTORY still has it: %s", h)
	}
	first := history.data("messages").([]any)[1].(map[string]any)
	if first["msgId"] != sent.data("msgId") || first["id"] != "m" {
		t.Errorf("the recalled message is %v", first)
	}
	bob.talk(`{"cmd":8,"data":{"after":0}}`, `{"cmd":8,"data":{"entries":[{"cmd":3,"data":`+recalled+`},`+event+`]}}`)
	bob.talk(`{"cmd":19}`, `{"cmd":19,"data":{"conversations":[{"conv":"p:alice:bob","head":2,"unread":1,"last":`+recalled+`}]}}`)
	later := n.login("tcp", "bob", `"terminal":"later"`, `"resume":{"inbox":0}`)
	later.expect(`{"cmd":3,"data":` + recalled + `}`)
	later.expect(event)
	n.call("GET", "/v1/conversations/p:alice:bob/messages", "", 200, `{"messages":[{"seq":2},`+recalled+`]}`)
	n.call("GET", "/v1/users/bob/inbox", "", 200, `{"entries":[{"data":`+recalled+`},`+event+`]}`)

	// Again, under another id: the first event's answer. Of the event: NOT_FOUND. By another: still FORBIDDEN.
	again := alice.talk(`{"cmd":14,"id":"r2","data":{"conv":"p:alice:bob","seq":1}}`, `{"cmd":6,"id":"r2","data":{"conv":"p:alice:bob","seq":2,"duplicate":true}}`)
	for _, field := range []string{"ts", "seq", "msgId"} {
		if again.data(field) != ack.data(field) {
			t.Errorf("a repeat's %s is %v, the first was %v", field, again.data(field), ack.data(field))
		}
	}
	alice.talk(`{"cmd":14,"id":"r3","data":{"conv":"p:alice:bob","seq":2}}`, `{"cmd":15,"id":"r3","data":{"code":4004,"name":"NOT_FOUND"}}`)
	bob.talk(`{"cmd":14,"id":"b2","data":{"conv":"p:alice:bob","seq":1}}`, `{"cmd":15,"id":"b2","data":{"code":4003}}`)
	// The send's repeat is still a repeat.
	alice.talk(`{"cmd":3,"id":"m","data":{"to":"bob","content":"secret"}}`, `{"cmd":6,"data":{"seq":1,"duplicate":true}}`)
	alice.quiet()
	bob.quiet()
}

// After the window only the API recalls; a repeat of an earlier recall is answered all the same.
func TestRecallWindow(t *testing.T) {
	n := start(t, func(o *server.Options) { o.Message.RecallWindow = 50 * time.Millisecond })
	alice, bob := n.login("tcp", "alice"), n.login("tcp", "bob")
	alice.send(`{"cmd":3,"id":"m","data":{"to":"bob","content":1}}`)
	ts := alice.expectAll(`{"cmd":6}`, `{"cmd":3}`)[0].number("ts")
	bob.expect(`{"cmd":3}`)
	eventually(t, "the window has passed", func() bool { return uint64(time.Now().UnixMilli()) > ts+100 })
	alice.talk(`{"cmd":14,"id":"r","data":{"conv":"p:alice:bob","seq":1}}`, `{"cmd":15,"id":"r","data":{"code":4003}}`)
	n.call("DELETE", "/v1/conversations/p:alice:bob/messages/1", "", 200, `{"seq":2}`)
	const event = `{"cmd":14,"data":{"conv":"p:alice:bob","seq":2,"inbox":2,"target":1,"from":null}}`
	alice.expect(event)
	bob.expect(event)
	n.call("DELETE", "/v1/conversations/p:alice:bob/messages/1", "", 200, `{"seq":2}`)
	alice.talk(`{"cmd":14,"id":"r","data":{"conv":"p:alice:bob","seq":1}}`, `{"cmd":6,"id":"r","data":{"seq":2,"duplicate":true}}`)
	n.call("DELETE", "/v1/conversations/p:alice:bob/messages/2", "", 404, `{"error":{"code":4004,"name":"NOT_FOUND"}}`)
	n.call("DELETE", "/v1/conversations/p:alice:bob/messages/9", "", 404, `{"error":{"code":4004}}`)
	n.call("DELETE", "/v1/conversations/nonsense/messages/1", "", 404, `{"error":{"code":4004}}`)
	alice.quiet()
}

// The event goes to those who are members then; system messages are the API's to recall.
func TestRecallInGroup(t *testing.T) {
	n := start(t)
	n.call("PUT", "/v1/groups/team", `{"members":["alice","bob"]}`, 200, `{}`)
	alice, bob, carol := n.login("tcp", "alice"), n.login("tcp", "bob"), n.login("tcp", "carol")
	alice.skip[4] = true
	alice.talk(`{"cmd":4,"id":"m","data":{"group":"team","content":"x"}}`, `{"cmd":6,"data":{"seq":1}}`)
	bob.expect(`{"cmd":4,"data":{"seq":1}}`)
	n.call("POST", "/v1/groups/team/members", `{"remove":["bob"],"add":["carol"]}`, 200, `{"size":2}`)
	alice.send(`{"cmd":14,"id":"r","data":{"conv":"g:team","seq":1}}`)
	alice.expectAll(`{"cmd":6,"id":"r","data":{"seq":2}}`, `{"cmd":14,"data":{"conv":"g:team","seq":2,"target":1}}`)
	carol.expect(`{"cmd":14,"data":{"conv":"g:team","seq":2,"inbox":1,"target":1,"from":"alice"}}`)
	bob.quiet()
	// What stays in the inbox of who has left is recalled too.
	bob.talk(`{"cmd":8,"data":{"after":0}}`, `{"cmd":8,"data":{"entries":[{"data":{"seq":1,"content":null,"recalled":true}}]}}`)

	n.call("POST", "/v1/messages", `{"id":"s","to":"bob","content":"x"}`, 200, `{}`)
	bob.expect(`{"cmd":5}`)
	bob.talk(`{"cmd":14,"id":"b","data":{"conv":"n:bob","seq":1}}`, `{"cmd":15,"id":"b","data":{"code":4003}}`)
	n.call("DELETE", "/v1/conversations/n:bob/messages/1", "", 200, `{"seq":2}`)
	bob.expect(`{"cmd":14,"data":{"conv":"n:bob","seq":2,"inbox":3,"target":1,"from":null}}`)
	n.call("POST", "/v1/messages", `{"id":"s","group":"team","content":"x"}`, 409, `{"error":{"code":4012,"name":"CONFLICT"}}`)
	n.call("POST", "/v1/messages", `{"id":"s2","group":"team","content":"x"}`, 200, `{}`)
	alice.talk(`{"cmd":14,"id":"r4","data":{"conv":"g:team","seq":3}}`, `{"cmd":5,"data":{"seq":3}}`)
	alice.expect(`{"cmd":15,"id":"r4","data":{"code":4003}}`)
}

// A client that lags is pushed the recalled message as it reads by then.
func TestRecallBeforePush(t *testing.T) {
	n := start(t)
	bob := n.login("tcp", "bob", `"ack":"client"`, `"window":1`)
	alice := n.login("tcp", "alice")
	alice.skip[3], alice.skip[14] = true, true
	alice.talk(`{"cmd":3,"id":"1","data":{"to":"bob","content":"one"}}`, `{"cmd":6}`)
	alice.talk(`{"cmd":3,"id":"2","data":{"to":"bob","content":"two"}}`, `{"cmd":6}`)
	alice.talk(`{"cmd":14,"id":"r","data":{"conv":"p:alice:bob","seq":2}}`, `{"cmd":6}`)
	bob.expect(`{"cmd":3,"data":{"inbox":1,"content":"one"}}`)
	bob.expect(`{"cmd":20}`)
	bob.talk(`{"cmd":7,"data":{"inbox":1}}`, `{"cmd":3,"data":{"inbox":2,"content":null,"recalled":true}}`)
	bob.talk(`{"cmd":7,"data":{"inbox":2}}`, `{"cmd":14,"data":{"inbox":3,"target":2}}`)
	bob.quiet()
}
