package server_test

import (
	"fmt"
	"slices"
	"testing"
)

// RECEIPT delivered goes to the other side when the furthest terminal has taken a message; read when READ has moved.
func TestReceipts(t *testing.T) {
	n := start(t)
	alice, aliceIOS := n.login("tcp", "alice"), n.login("websocket", "alice", `"terminal":"ios"`)
	bob := n.login("websocket", "bob", `"ack":"client"`)
	alice.skip, aliceIOS.skip = map[int]bool{3: true}, map[int]bool{3: true}
	alice.talk(`{"cmd":3,"id":"1","data":{"to":"bob","content":1}}`, `{"cmd":6}`)
	alice.talk(`{"cmd":3,"id":"2","data":{"to":"bob","content":2}}`, `{"cmd":6}`)
	bob.inboxes(1, 2)
	alice.quiet() // nothing is acknowledged yet
	bob.send(`{"cmd":7,"data":{"inbox":1}}`)
	const one = `{"cmd":11,"id":null,"data":{"conv":"p:alice:bob","user":"bob","delivered":1,"read":null}}`
	alice.expect(one)
	aliceIOS.expect(one)

	// A second terminal that takes both moves the furthest over the second alone; the first then moves nothing more.
	ios := n.login("tcp", "bob", `"terminal":"ios"`)
	ios.inboxes(2, 1)
	const two = `{"cmd":11,"data":{"conv":"p:alice:bob","user":"bob","delivered":2}}`
	alice.expect(two)
	aliceIOS.expect(two)
	bob.send(`{"cmd":7,"data":{"inbox":2}}`)
	bob.quiet()
	alice.quiet()

	// READ: to the other side and to the reader's own other terminals; never back, never twice.
	bob.skip, ios.skip = map[int]bool{}, map[int]bool{}
	bob.send(`{"cmd":10,"data":{"conv":"p:alice:bob","seq":2}}`)
	const read = `{"cmd":11,"data":{"conv":"p:alice:bob","user":"bob","read":2,"delivered":null}}`
	for _, p := range []*peer{alice, aliceIOS, ios} {
		p.expect(read)
	}
	bob.send(`{"cmd":10,"data":{"conv":"p:alice:bob","seq":2}}`)
	bob.send(`{"cmd":10,"data":{"conv":"p:alice:bob","seq":1}}`)
	bob.quiet()
	for _, p := range []*peer{alice, aliceIOS, ios} {
		p.quiet()
	}

	// For a group and for system messages only the reader's own terminals are told.
	n.call("PUT", "/v1/groups/team", `{"members":["alice","bob"]}`, 200, `{}`)
	alice.skip[4], aliceIOS.skip[4] = true, true
	alice.talk(`{"cmd":4,"id":"g","data":{"group":"team","content":1}}`, `{"cmd":6}`)
	bob.expect(`{"cmd":4}`)
	ios.expect(`{"cmd":4}`)
	bob.send(`{"cmd":10,"data":{"conv":"g:team","seq":1}}`)
	ios.expect(`{"cmd":11,"data":{"conv":"g:team","user":"bob","read":1}}`)
	n.call("POST", "/v1/messages", `{"id":"s","to":"bob","content":1}`, 200, `{}`)
	bob.expect(`{"cmd":5}`)
	ios.expect(`{"cmd":5}`)
	ios.send(`{"cmd":10,"data":{"conv":"n:bob","seq":1}}`)
	bob.expect(`{"cmd":11,"data":{"conv":"n:bob","user":"bob","read":1}}`)
	bob.quiet()
	ios.quiet()
	alice.quiet()
}

// Delivery to who was away is told when he comes, and what was missed while away stands in CONVERSATIONS.
func TestReceiptsLater(t *testing.T) {
	n := start(t)
	alice := n.login("tcp", "alice")
	alice.skip = map[int]bool{3: true}
	for i := range 5 {
		alice.talk(fmt.Sprintf(`{"cmd":3,"id":"%d","data":{"to":"bob","content":1}}`, i), `{"cmd":6}`)
	}
	n.login("websocket", "bob").inboxes(1, 5)
	for last := uint64(0); last < 5; {
		got := alice.expect(`{"cmd":11,"data":{"conv":"p:alice:bob","user":"bob"}}`)
		if d := got.number("delivered"); d <= last || d > 5 {
			t.Fatalf("delivered %d after %d", d, last)
		} else {
			last = d
		}
	}
	alice.talk(`{"cmd":18}`, `{"cmd":18}`)
	alice.closed()
	bob := n.login("tcp", "bob", `"terminal":"ios"`)
	bob.send(`{"cmd":10,"data":{"conv":"p:alice:bob","seq":4}}`)
	bob.quiet()
	alice = n.login("tcp", "alice")
	alice.talk(`{"cmd":19}`, `{"cmd":19,"data":{"conversations":[{"conv":"p:alice:bob","peerDelivered":5,"peerRead":4,"unread":0,"head":5}]}}`)
	// An honoured resume acknowledges, and that is a delivery.
	alice.skip = map[int]bool{3: true}
	alice.talk(`{"cmd":3,"id":"r","data":{"to":"carol","content":1}}`, `{"cmd":6}`)
	n.login("tcp", "carol", `"ack":"client"`, `"resume":{"inbox":1}`)
	alice.expect(`{"cmd":11,"data":{"conv":"p:alice:carol","user":"carol","delivered":1}}`)
}

// Receipts of a busy conversation are gathered; the last one says it all.
func TestReceiptsCoalesced(t *testing.T) {
	n := start(t)
	n.login("tcp", "bob")
	alice := n.login("tcp", "alice")
	alice.skip = map[int]bool{3: true, 6: true}
	const count = 300
	for i := range count {
		alice.send(fmt.Sprintf(`{"cmd":3,"id":"%d","data":{"to":"bob","content":1}}`, i))
	}
	// Bob's connection is not read: what was handed to the kernel counts as delivered.
	receipts, last := 0, uint64(0)
	for last < count {
		got := alice.expect(`{"cmd":11,"data":{"conv":"p:alice:bob","user":"bob"}}`)
		if d := got.number("delivered"); d <= last {
			t.Fatalf("delivered %d after %d", d, last)
		} else {
			last = d
		}
		receipts++
	}
	if receipts > count/2 {
		t.Errorf("%d receipts for %d messages", receipts, count)
	}
}

// CONVERSATIONS: newest activity first, with what is unread and the last message; by pages.
func TestConversations(t *testing.T) {
	n := start(t)
	n.call("PUT", "/v1/groups/team", `{"members":["alice","bob"]}`, 200, `{}`)
	alice, bob := n.login("tcp", "alice", `"terminal":"a"`), n.login("tcp", "bob", `"terminal":"b"`)
	for _, p := range []*peer{alice, bob} {
		p.skip[3], p.skip[4], p.skip[5], p.skip[14] = true, true, true, true
	}
	bob.talk(`{"cmd":3,"id":"1","data":{"to":"alice","content":1}}`, `{"cmd":6}`)
	bob.talk(`{"cmd":3,"id":"2","data":{"to":"alice","content":2}}`, `{"cmd":6}`)
	alice.talk(`{"cmd":3,"id":"1","data":{"to":"bob","content":3}}`, `{"cmd":6}`)
	bob.talk(`{"cmd":4,"id":"3","data":{"group":"team","content":4}}`, `{"cmd":6}`)
	n.call("POST", "/v1/messages", `{"id":"s","to":"alice","content":5}`, 200, `{}`)
	alice.talk(`{"cmd":3,"id":"self","data":{"to":"alice","content":6}}`, `{"cmd":6}`)

	const (
		self   = `{"conv":"p:alice:alice","kind":"private","peer":"alice","group":null,"head":1,"read":0,"unread":0,"last":{"content":6,"seq":1}}`
		system = `{"conv":"n:alice","kind":"system","peer":null,"group":null,"head":1,"read":0,"unread":1,"last":{"content":5,"from":null}}`
		team   = `{"conv":"g:team","kind":"group","group":"team","peer":null,"head":1,"read":0,"unread":1,"last":{"content":4,"from":"bob"}}`
		bobs   = `{"conv":"p:alice:bob","kind":"private","peer":"bob","head":3,"read":0,"unread":2,"last":{"content":3,"from":"alice"}}`
	)
	alice.talk(`{"cmd":19,"id":"c","data":{}}`, `{"cmd":19,"id":"c","data":{"conversations":[`+self+`,`+system+`,`+team+`,`+bobs+`],"cursor":null}}`)
	alice.talk(`{"cmd":19,"data":null}`, `{"cmd":19,"data":{"conversations":["*","*","*","*"]}}`)

	// Pages.
	var convs []string
	cursor := ``
	for {
		got := alice.talk(`{"cmd":19,"data":{"limit":1`+cursor+`}}`, `{"cmd":19}`)
		for _, c := range got.data("conversations").([]any) {
			convs = append(convs, c.(map[string]any)["conv"].(string))
		}
		next, more := got.data("cursor").(string)
		if !more {
			break
		}
		cursor = fmt.Sprintf(`,"after":%q`, next)
	}
	if want := []string{"p:alice:alice", "n:alice", "g:team", "p:alice:bob"}; !slices.Equal(convs, want) {
		t.Errorf("by pages: %v, want %v", convs, want)
	}

	// READ lowers what is unread; a RECALL is neither activity nor unread, and what was recalled stays counted.
	alice.send(`{"cmd":10,"data":{"conv":"p:alice:bob","seq":1}}`)
	bob.talk(`{"cmd":14,"id":"r","data":{"conv":"p:alice:bob","seq":2}}`, `{"cmd":6,"data":{"seq":4}}`)
	alice.quiet()
	alice.talk(`{"cmd":19}`, `{"cmd":19,"data":{"conversations":["*","*","*",{"conv":"p:alice:bob","head":4,"read":1,"unread":1,"last":{"seq":3}}]}}`)
	bob.talk(`{"cmd":3,"id":"4","data":{"to":"alice","content":7}}`, `{"cmd":6,"data":{"seq":5}}`)
	alice.quiet()
	alice.talk(`{"cmd":19,"data":{"limit":1}}`, `{"cmd":19,"data":{"conversations":[{"conv":"p:alice:bob","head":5,"unread":2,"last":{"content":7}}],"cursor":"*"}}`)

	// A group's read begins where it stood at the join; a group that was left is not listed.
	n.call("POST", "/v1/groups/team/members", `{"add":["carol"]}`, 200, `{}`)
	bob.talk(`{"cmd":4,"id":"5","data":{"group":"team","content":8}}`, `{"cmd":6,"data":{"seq":2}}`)
	carol := n.login("tcp", "carol")
	carol.expect(`{"cmd":4}`)
	carol.talk(`{"cmd":19}`, `{"cmd":19,"data":{"conversations":[{"conv":"g:team","head":2,"read":1,"unread":1}]}}`)
	n.call("POST", "/v1/groups/team/members", `{"remove":["carol"]}`, 200, `{}`)
	carol.talk(`{"cmd":19}`, `{"cmd":19,"data":{"conversations":[]}}`)
	carol.talk(`{"cmd":19,"data":{"after":"nonsense"}}`, `{"cmd":15,"data":{"code":4004}}`)
}

// HISTORY pages both ways.
func TestHistory(t *testing.T) {
	n := start(t)
	alice := n.login("tcp", "alice")
	alice.sendN("bob", 7)
	alice.skip[3] = true
	alice.talk(`{"cmd":14,"id":"r","data":{"conv":"p:alice:bob","seq":3}}`, `{"cmd":6,"data":{"seq":8}}`)
	bob := n.login("websocket", "bob", `"resume":{"inbox":8}`)
	for _, c := range []struct {
		data string
		want []uint64
		more bool
	}{
		{``, []uint64{8, 7, 6, 5, 4, 3, 2, 1}, false},
		{`,"limit":3`, []uint64{8, 7, 6}, true},
		{`,"before":6,"limit":3`, []uint64{5, 4, 3}, true},
		{`,"before":3,"limit":3`, []uint64{2, 1}, false},
		{`,"before":3,"limit":2`, []uint64{2, 1}, false},
		{`,"before":1`, nil, false},
		{`,"before":0`, nil, false},
		{`,"before":100,"limit":1`, []uint64{8}, true},
		{`,"after":0,"limit":3`, []uint64{1, 2, 3}, true},
		{`,"after":3,"limit":3`, []uint64{4, 5, 6}, true},
		{`,"after":5,"limit":3`, []uint64{6, 7, 8}, false},
		{`,"after":8`, nil, false},
		{`,"after":9007199254740991`, nil, false},
	} {
		got := bob.talk(`{"cmd":9,"id":"h","data":{"conv":"p:alice:bob"`+c.data+`}}`, fmt.Sprintf(`{"cmd":9,"id":"h","data":{"conv":"p:alice:bob","more":%v}}`, c.more))
		var seqs []uint64
		for _, m := range got.data("messages").([]any) {
			// Bare data objects: the fields stand in the message itself.
			m := m.(map[string]any)
			if m["data"] != nil || m["cmd"] != nil || m["inbox"] != nil || m["conv"] != "p:alice:bob" {
				t.Errorf("a message of HISTORY is %v", m)
			}
			seqs = append(seqs, uint64(m["seq"].(float64)))
		}
		if !slices.Equal(seqs, c.want) {
			t.Errorf("HISTORY %s gives %v, want %v", c.data, seqs, c.want)
		}
	}
}
