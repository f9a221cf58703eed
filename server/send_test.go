package server_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Sends of one connection to one conversation are sequenced in the order in which they were sent.
func TestOrder(t *testing.T) {
	n := start(t)
	eachTransport(t, func(t *testing.T, transport string) {
		n := n.on(t)
		bob, carol := "bob-"+transport, "carol-"+transport
		toBob, toCarol := n.login(transport, bob), n.login(transport, carol)
		alice := n.login(transport, "alice-"+transport)
		alice.skip[3] = true
		for _, p := range []*peer{alice, toBob, toCarol} {
			p.skip[20] = true // a busy machine reads late
		}
		const each = 150
		go func() {
			for i := range each {
				for _, to := range []string{bob, carol} {
					b := fmt.Appendf(nil, `{"cmd":3,"id":"%s-%d","data":{"to":"%s","content":%d}}`, to, i, to, i)
					if alice.c.Send(t.Context(), b) != nil {
						return // the test has failed elsewhere
					}
				}
			}
		}()
		for range 2 * each {
			ack := alice.expect(`{"cmd":6}`)
			if id := fmt.Sprintf("%s-%d", strings.Split(ack.data("conv").(string), ":")[2], ack.number("seq")-1); ack["id"] != id {
				t.Fatalf("the sequence %v was given to %v", ack.data("seq"), ack["id"])
			}
		}
		for _, p := range []*peer{toBob, toCarol} {
			for i := range each {
				p.expect(fmt.Sprintf(`{"cmd":3,"data":{"seq":%d,"inbox":%d,"content":%d}}`, i+1, i+1, i))
			}
			p.quiet()
		}
	})
}

// Sending twice is sending once: the first answer again, or CONFLICT.
func TestRepeats(t *testing.T) {
	n := start(t)
	n.call("PUT", "/v1/groups/team", `{"members":["alice","bob"]}`, 200, `{}`)
	alice, ios, bob := n.login("websocket", "alice"), n.login("tcp", "alice", `"terminal":"ios"`), n.login("tcp", "bob")
	for _, p := range []*peer{alice, ios} {
		p.skip[3], p.skip[4], p.skip[14] = true, true, true
	}
	const conflict = `{"cmd":15,"id":"m","data":{"code":4012,"name":"CONFLICT","retryable":false}}`
	first := alice.talk(`{"cmd":3,"id":"m","data":{"to":"bob","type":2,"content":{"a":1}}}`, `{"cmd":6,"id":"m","data":{"seq":1,"duplicate":null}}`)
	for _, p := range []*peer{alice, ios} {
		again := p.talk(`{"cmd":3,"id":"m","data":{"content":{"a":1},"type":2,"to":"bob","ephemeral":false}}`,
			`{"cmd":6,"id":"m","data":{"seq":1,"duplicate":true}}`)
		for _, field := range []string{"msgId", "conv", "ts", "seq"} {
			if first.data(field) != again.data(field) {
				t.Errorf("%s was %v and is %v", field, first.data(field), again.data(field))
			}
		}
	}
	for _, other := range []string{
		`{"cmd":3,"id":"m","data":{"to":"bob","type":2,"content":{"a":2}}}`,
		`{"cmd":3,"id":"m","data":{"to":"bob","type":3,"content":{"a":1}}}`,
		`{"cmd":3,"id":"m","data":{"to":"bob","content":{"a":1}}}`,
		`{"cmd":3,"id":"m","data":{"to":"carol","type":2,"content":{"a":1}}}`,
		`{"cmd":4,"id":"m","data":{"group":"team","type":2,"content":{"a":1}}}`,
		`{"cmd":14,"id":"m","data":{"conv":"p:alice:bob","seq":1}}`,
	} {
		alice.talk(other, conflict)
	}
	// A default that is written out is the same message.
	alice.talk(`{"cmd":3,"id":"d","data":{"to":"bob","content":1}}`, `{"cmd":6,"data":{"seq":2,"duplicate":null}}`)
	alice.talk(`{"cmd":3,"id":"d","data":{"to":"bob","type":0,"content":1}}`, `{"cmd":6,"data":{"seq":2,"duplicate":true}}`)
	// Another sender's ids are his own.
	bob.skip[3] = true
	bob.talk(`{"cmd":3,"id":"m","data":{"to":"alice","content":3}}`, `{"cmd":6,"id":"m","data":{"seq":3,"duplicate":null}}`)
	// The ids of RECALL are of the same kind.
	alice.talk(`{"cmd":14,"id":"r","data":{"conv":"p:alice:bob","seq":1}}`, `{"cmd":6,"id":"r","data":{"seq":4,"duplicate":null}}`)
	alice.talk(`{"cmd":14,"id":"r","data":{"conv":"p:alice:bob","seq":1}}`, `{"cmd":6,"id":"r","data":{"seq":4,"duplicate":true}}`)
	alice.talk(`{"cmd":14,"id":"r","data":{"conv":"p:alice:bob","seq":2}}`, `{"cmd":15,"id":"r","data":{"code":4012}}`)
	alice.talk(`{"cmd":3,"id":"r","data":{"to":"bob","content":1}}`, `{"cmd":15,"id":"r","data":{"code":4012}}`)
	// Those of ephemeral messages are neither remembered nor looked up.
	alice.talk(`{"cmd":3,"id":"m","data":{"to":"zoe","content":9,"ephemeral":true}}`, `{"cmd":6,"id":"m","data":{"seq":null,"duplicate":null}}`)
	alice.talk(`{"cmd":3,"id":"e","data":{"to":"zoe","content":9,"ephemeral":true}}`, `{"cmd":6,"id":"e","data":{"seq":null}}`)
	alice.talk(`{"cmd":3,"id":"e","data":{"to":"zoe","content":8}}`, `{"cmd":6,"id":"e","data":{"seq":1,"duplicate":null}}`)
	// What was refused is not remembered.
	alice.talk(`{"cmd":4,"id":"g","data":{"group":"late","content":1}}`, `{"cmd":15,"id":"g","data":{"code":4004}}`)
	n.call("PUT", "/v1/groups/late", `{"members":["alice"]}`, 200, `{}`)
	alice.talk(`{"cmd":4,"id":"g","data":{"group":"late","content":2}}`, `{"cmd":6,"id":"g","data":{"seq":1,"duplicate":null}}`)
	// Two at once are one.
	one, two := `{"cmd":3,"id":"twice","data":{"to":"bob","content":1}}`, `{"cmd":3,"id":"twice","data":{"to":"bob","content":2}}`
	for _, send := range []string{one, one, two} {
		alice.send(send)
	}
	alice.expect(`{"cmd":6,"id":"twice","data":{"seq":5,"duplicate":null}}`)
	alice.expect(`{"cmd":6,"id":"twice","data":{"seq":5,"duplicate":true}}`)
	alice.expect(`{"cmd":15,"id":"twice","data":{"code":4012}}`)

	n.restart()
	alice = n.login("tcp", "alice")
	alice.skip[3], alice.skip[14] = true, true
	again := alice.talk(`{"cmd":3,"id":"m","data":{"to":"bob","type":2,"content":{"a":1}}}`, `{"cmd":6,"data":{"duplicate":true}}`)
	if first.data("msgId") != again.data("msgId") || first.data("ts") != again.data("ts") {
		t.Error("after a restart the first answer differs")
	}
	alice.talk(`{"cmd":3,"id":"m","data":{"to":"bob","type":2,"content":{"a":9}}}`, conflict)

	// msgId is a function of sender and id alone: another server gives the same.
	other := start(t).login("tcp", "alice")
	other.skip[3] = true
	elsewhere := other.talk(`{"cmd":3,"id":"m","data":{"to":"nobody","content":0}}`, `{"cmd":6}`)
	if id := elsewhere.data("msgId").(string); id != first.data("msgId") || len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("msgId %v, elsewhere %v", first.data("msgId"), id)
	}
}

// The sender's terminals all get its messages, with the id that it sent; a message to oneself is one entry.
func TestOwnCopies(t *testing.T) {
	n := start(t)
	web, ios := n.login("websocket", "alice"), n.login("tcp", "alice", `"terminal":"ios"`)
	web.send(`{"cmd":3,"id":"m","data":{"to":"bob","type":5,"content":"x"}}`)
	const copied = `{"cmd":3,"data":{"conv":"p:alice:bob","seq":1,"inbox":1,"from":"alice","to":"bob","group":null,"type":5,"content":"x","id":"m"}}`
	web.expectAll(`{"cmd":6,"id":"m"}`, copied)
	ios.expect(copied)
	web.send(`{"cmd":3,"id":"self","data":{"to":"alice","content":null}}`)
	const self = `{"cmd":3,"data":{"conv":"p:alice:alice","seq":1,"inbox":2,"from":"alice","to":"alice","id":"self"}}`
	web.expectAll(`{"cmd":6,"id":"self","data":{"conv":"p:alice:alice","seq":1}}`, self)
	ios.expect(self)
	for _, p := range []*peer{web, ios} {
		if head := p.quiet().number("head"); head != 2 {
			t.Errorf("head %d after two entries", head)
		}
	}
}

// content is relayed byte for byte, wherever it is read.
func TestContentByteForByte(t *testing.T) {
	n := start(t)
	alice := n.login("tcp", "alice")
	alice.skip[3] = true
	contents := []string{
		`null`, `true`, `0`, `-0.0`, `1E+30`, `12345678901234567890123456789`, `1.50`, `""`, `[]`, `{}`,
		`"\u00e9\/\ud83d\ude42\u0000\b"`, "\"é\u2028\u2029🙂</script>&\"", `{ "a" : 1 ,	"a":2,"": [ ] }`,
		"[\n 1 ,\r\n 2\t]", `"}}"`, strings.Repeat("[", 500) + strings.Repeat("]", 500), `"` + strings.Repeat("x", 60_000) + `"`,
	}
	for _, transport := range transports {
		bob := "bob-" + transport
		live := n.login(transport, bob)
		for i, c := range contents {
			alice.talk(fmt.Sprintf(`{"cmd":3,"id":"%s%d","data":{"to":"%s","content": %s }}`, transport, i, bob, c), `{"cmd":6}`)
			if got := live.raw(); !bytes.Contains(got, []byte(`"content":`+c+`,"id"`)) {
				t.Errorf("live: %.300s\nholds no %.300s", got, c)
			}
		}
		later := n.login(transport, bob, `"terminal":"later"`, `"resume":{"inbox":0}`)
		for i, c := range contents {
			if got := later.raw(); !bytes.Contains(got, []byte(`"content":`+c+`,"id"`)) {
				t.Errorf("from the store: %.300s\nholds no %.300s", got, c)
			}
			for _, read := range []string{
				fmt.Sprintf(`{"cmd":8,"data":{"after":%d,"limit":1}}`, i),
				fmt.Sprintf(`{"cmd":9,"data":{"conv":"p:alice:%s","after":%d,"limit":1}}`, bob, i),
			} {
				live.send(read)
				if got := live.raw(); !bytes.Contains(got, []byte(`"content":`+c+`,"id"`)) {
					t.Errorf("%s: %.300s\nholds no %.300s", read, got, c)
				}
			}
		}
	}
	// The limit of nesting is the server's own; what it relays, it must be able to relay.
	alice.talk(`{"cmd":3,"id":"deep","data":{"to":"bob","content":`+strings.Repeat("[", 513)+strings.Repeat("]", 513)+`}}`,
		`{"cmd":15,"id":"deep","data":{"code":4000}}`)
}

// A message to a group is in the inbox of every member, the sender's too, and of nobody else.
func TestGroupMessages(t *testing.T) {
	n := start(t)
	n.call("PUT", "/v1/groups/team", `{"members":["alice","bob","carol"]}`, 200, `{"group":"team","size":3,"kind":"inbox","head":0}`)
	alice, bob, dave := n.login("tcp", "alice"), n.login("websocket", "bob"), n.login("tcp", "dave")
	alice.send(`{"cmd":4,"id":"g1","data":{"group":"team","type":3,"content":[1]}}`)
	const first = `{"cmd":4,"data":{"conv":"g:team","seq":1,"inbox":1,"from":"alice","group":"team","to":null,"type":3,"content":[1],"id":"g1"}}`
	alice.expectAll(`{"cmd":6,"id":"g1","data":{"conv":"g:team","seq":1}}`, first)
	bob.expect(first)
	dave.talk(`{"cmd":4,"id":"d","data":{"group":"team","content":1}}`, `{"cmd":15,"id":"d","data":{"code":4003,"name":"FORBIDDEN"}}`)
	n.login("tcp", "carol").expect(first)

	// The system's message in the group's conversation has no from.
	n.call("POST", "/v1/messages", `{"id":"s1","group":"team","content":"hi"}`, 200, `{"results":[{"group":"team","conv":"g:team","seq":2,"to":null,"msgId":"*"}]}`)
	const system = `{"cmd":5,"data":{"conv":"g:team","seq":2,"inbox":2,"from":null,"group":"team","to":null,"content":"hi"}}`
	alice.expect(system)
	bob.expect(system)

	// Who has left is sent no more and may not write; what is in the inbox stays. Who comes gets what is sent from then on.
	n.call("POST", "/v1/groups/team/members", `{"remove":["bob"],"add":["dave"]}`, 200, `{"size":3}`)
	bob.talk(`{"cmd":4,"id":"b","data":{"group":"team","content":1}}`, `{"cmd":15,"id":"b","data":{"code":4003}}`)
	bob.talk(`{"cmd":9,"id":"h","data":{"conv":"g:team"}}`, `{"cmd":15,"id":"h","data":{"code":4003}}`)
	dave.send(`{"cmd":4,"id":"d","data":{"group":"team","content":3}}`)
	dave.expectAll(`{"cmd":6,"id":"d","data":{"seq":3}}`, `{"cmd":4,"data":{"seq":3,"inbox":1,"from":"dave"}}`)
	alice.expect(`{"cmd":4,"data":{"seq":3,"inbox":3}}`)
	bob.quiet()
	bob.talk(`{"cmd":8,"data":{"after":0}}`, `{"cmd":8,"data":{"head":2,"entries":[{"cmd":4,"data":{"seq":1}},{"cmd":5,"data":{"seq":2}}]}}`)

	// A group that is deleted is unknown; its sequence goes on when it comes back, and its history is there.
	n.call("DELETE", "/v1/groups/team", ``, 200, `{}`)
	alice.talk(`{"cmd":4,"id":"x","data":{"group":"team","content":1}}`, `{"cmd":15,"id":"x","data":{"code":4004}}`)
	n.call("PUT", "/v1/groups/team", `{"members":["alice"]}`, 200, `{"size":1,"head":3}`)
	alice.send(`{"cmd":4,"id":"y","data":{"group":"team","content":1}}`)
	alice.expectAll(`{"cmd":6,"data":{"seq":4}}`, `{"cmd":4,"data":{"seq":4,"inbox":4}}`)
	alice.talk(`{"cmd":9,"data":{"conv":"g:team"}}`, `{"cmd":9,"data":{"messages":[{"seq":4},{"seq":3},{"seq":2},{"seq":1}],"more":false}}`)
}

// The system sends to a user, to users and to all who are online, and in the name of a user.
func TestSystemMessages(t *testing.T) {
	n := start(t)
	alice, bob := n.login("websocket", "alice"), n.login("tcp", "bob")
	n.call("POST", "/v1/messages", `{"id":"1","to":"alice","type":9,"content":{"a":1}}`, 200, `{"results":[{"to":"alice","conv":"n:alice","seq":1}]}`)
	alice.expect(`{"cmd":5,"data":{"conv":"n:alice","seq":1,"inbox":1,"from":null,"to":"alice","type":9,"content":{"a":1},"id":"1"}}`)
	n.call("POST", "/v1/messages", `{"id":"2","users":["bob","alice","zoe"],"content":2}`, 200,
		`{"results":[{"to":"bob","conv":"n:bob","seq":1},{"to":"alice","conv":"n:alice","seq":2},{"to":"zoe","conv":"n:zoe","seq":1}]}`)
	alice.expect(`{"cmd":5,"data":{"conv":"n:alice","seq":2,"id":"2/alice"}}`)
	bob.expect(`{"cmd":5,"data":{"conv":"n:bob","seq":1,"inbox":1,"id":"2/bob"}}`)
	n.call("POST", "/v1/messages", `{"id":"3","from":"alice","to":"bob","content":3}`, 200, `{"results":[{"to":"bob","conv":"p:alice:bob","seq":1}]}`)
	alice.expect(`{"cmd":3,"data":{"conv":"p:alice:bob","from":"alice","to":"bob","id":"3"}}`)
	bob.expect(`{"cmd":3,"data":{"conv":"p:alice:bob","from":"alice","content":3}}`)
	alice.talk(`{"cmd":3,"id":"3","data":{"to":"bob","content":3}}`, `{"cmd":6,"id":"3","data":{"seq":1,"duplicate":true}}`)

	n.call("POST", "/v1/broadcast", `{"type":4,"content":"all"}`, 200, `{"online":2}`)
	for user, p := range map[string]*peer{"alice": alice, "bob": bob} {
		p.expect(`{"cmd":5,"data":{"conv":"n:` + user + `","seq":null,"inbox":null,"from":null,"to":"` + user + `","type":4,"content":"all","msgId":"*","ts":"*"}}`)
		p.quiet()
	}
}

// Ephemeral messages go to who is online and are kept nowhere.
func TestEphemeral(t *testing.T) {
	n := start(t)
	n.call("PUT", "/v1/groups/team", `{"members":["alice","bob","carol"]}`, 200, `{}`)
	alice, bob, dave := n.login("tcp", "alice"), n.login("websocket", "bob"), n.login("tcp", "dave")
	alice.skip[3], alice.skip[4] = true, true
	alice.talk(`{"cmd":3,"id":"e","data":{"to":"bob","content":{"x": 1},"ephemeral":true}}`, `{"cmd":6,"id":"e","data":{"conv":"p:alice:bob","msgId":"*","ts":"*","seq":null}}`)
	bob.expect(`{"cmd":3,"data":{"conv":"p:alice:bob","from":"alice","to":"bob","seq":null,"inbox":null,"content":{"x":1},"id":"e"}}`)
	alice.talk(`{"cmd":4,"id":"g","data":{"group":"team","content":2,"ephemeral":true}}`, `{"cmd":6,"id":"g","data":{"conv":"g:team","seq":null}}`)
	bob.expect(`{"cmd":4,"data":{"conv":"g:team","from":"alice","seq":null,"inbox":null,"content":2}}`)
	n.call("POST", "/v1/messages", `{"id":"s","to":"bob","content":3,"ephemeral":true}`, 200, `{"results":[{"conv":"n:bob","seq":null}]}`)
	bob.expect(`{"cmd":5,"data":{"conv":"n:bob","from":null,"seq":null,"inbox":null,"content":3}}`)
	dave.quiet()
	if head := bob.quiet().number("head"); head != 0 {
		t.Errorf("head %d: an ephemeral message was kept", head)
	}
	bob.talk(`{"cmd":9,"data":{"conv":"p:alice:bob"}}`, `{"cmd":9,"data":{"messages":[]}}`)
	bob.talk(`{"cmd":19}`, `{"cmd":19,"data":{"conversations":[]}}`)
	n.login("tcp", "carol").quiet()
}

// TYPING reaches the others of a conversation and is kept nowhere.
func TestTyping(t *testing.T) {
	n := start(t)
	n.call("PUT", "/v1/groups/team", `{"members":["alice","bob","carol"]}`, 200, `{}`)
	alice, bob, carol := n.login("tcp", "alice"), n.login("websocket", "bob"), n.login("tcp", "carol")
	alice.send(`{"cmd":12,"data":{"to":"bob"}}`)
	bob.expect(`{"cmd":12,"id":null,"data":{"conv":"p:alice:bob","from":"alice"}}`)
	alice.send(`{"cmd":12,"data":{"group":"team"}}`)
	for _, p := range []*peer{bob, carol} {
		p.expect(`{"cmd":12,"data":{"conv":"g:team","from":"alice"}}`)
		p.quiet()
	}
	alice.send(`{"cmd":12,"data":{"to":"alice"}}`)
	alice.quiet()
}

// What a session is pushed is the same as what PULL gives.
func TestPullIsPush(t *testing.T) {
	n := start(t)
	n.call("PUT", "/v1/groups/team", `{"members":["alice","bob"]}`, 200, `{}`)
	bob, alice := n.login("tcp", "bob"), n.login("tcp", "alice")
	alice.skip[3], alice.skip[4] = true, true
	alice.talk(`{"cmd":3,"id":"1","data":{"to":"bob","content":1}}`, `{"cmd":6}`)
	alice.talk(`{"cmd":4,"id":"2","data":{"group":"team","content":2}}`, `{"cmd":6}`)
	n.call("POST", "/v1/messages", `{"id":"3","to":"bob","content":3}`, 200, `{}`)
	alice.talk(`{"cmd":14,"id":"4","data":{"conv":"g:team","seq":1}}`, `{"cmd":6}`)
	var pushed [][]byte
	for range 4 {
		pushed = append(pushed, bob.raw())
	}
	pushed[1] = bytes.Replace(pushed[1], []byte(`"content":2`), []byte(`"content":null,"recalled":true`), 1) // it was recalled since
	want := `{"cmd":8,"data":{"entries":[` + string(bytes.Join(pushed, []byte(","))) + `],"head":4,"first":1,"more":false}}`
	bob.send(`{"cmd":8,"data":{"after":0}}`)
	if got := bob.raw(); string(got) != want {
		t.Errorf("PULL gives %s\npushed were %s", got, want)
	}
	_, inbox := n.request("GET", "/v1/users/bob/inbox", "", nil)
	if got := strings.TrimSpace(string(inbox)); got != strings.TrimSuffix(strings.TrimPrefix(want, `{"cmd":8,"data":`), "}") {
		t.Errorf("the API gives %s", got)
	}
	// Pages.
	for _, c := range []struct {
		data string
		want []uint64
		more bool
	}{
		{`{"after":0,"limit":2}`, []uint64{1, 2}, true}, {`{"after":2,"limit":2}`, []uint64{3, 4}, false},
		{`{"after":3,"limit":1}`, []uint64{4}, false}, {`{"after":4}`, nil, false}, {`{"after":9007199254740991}`, nil, false},
	} {
		got := bob.talk(`{"cmd":8,"id":"p","data":`+c.data+`}`, fmt.Sprintf(`{"cmd":8,"id":"p","data":{"head":4,"first":1,"more":%v}}`, c.more))
		var numbers []uint64
		for _, e := range got.data("entries").([]any) {
			numbers = append(numbers, packet(e.(map[string]any)).number("inbox"))
		}
		if !slices.Equal(numbers, c.want) {
			t.Errorf("PULL %s gives %v, want %v", c.data, numbers, c.want)
		}
	}
}
