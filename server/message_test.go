package server_test

import "testing"

// The main job, end to end: a message from a WebSocket client is kept, acknowledged and delivered to a TCP client.
func TestPrivateMessage(t *testing.T) {
	n := start(t)
	alice, bob := n.login("websocket", "alice"), n.login("tcp", "bob")

	alice.skip[3] = true
	ack := alice.talk(`{"cmd":3,"id":"m1","data":{"to":"bob","content":{"text":"hi <&>  é"}}}`,
		`{"cmd":6,"id":"m1","data":{"conv":"p:alice:bob","seq":1,"msgId":"*","ts":"*","duplicate":null}}`)
	got := bob.expect(`{"cmd":3,"data":{"conv":"p:alice:bob","seq":1,"inbox":1,"from":"alice","to":"bob","type":0,"id":"m1",
		"content":{"text":"hi <&>  é"}}}`)
	if ack.data("msgId") != got.data("msgId") || ack.data("ts") != got.data("ts") {
		t.Errorf("the sender was told %v, the receiver %v", ack, got)
	}
	alice.talk(`{"cmd":3,"id":"m1","data":{"to":"bob","content":{"text":"hi <&>  é"}}}`,
		`{"cmd":6,"id":"m1","data":{"seq":1,"duplicate":true}}`)
	alice.talk(`{"cmd":3,"id":"m1","data":{"to":"bob","content":"other"}}`,
		`{"cmd":15,"id":"m1","data":{"code":4012,"name":"CONFLICT","retryable":false}}`)
	bob.quiet()
}

// What was kept is found again by a terminal that was away, over a restart.
func TestOfflineAndRestart(t *testing.T) {
	n := start(t)
	alice := n.login("tcp", "alice")
	alice.skip[3] = true
	for _, id := range []string{"a", "b", "c"} {
		alice.talk(`{"cmd":3,"id":"`+id+`","data":{"to":"bob","content":"`+id+`"}}`, `{"cmd":6,"id":"`+id+`"}`)
	}
	n.restart()
	bob := n.dial("websocket")
	bob.send(`{"cmd":0,"data":{"accessToken":"` + n.token("bob", "", 1e12) + `"}}`)
	bob.expect(`{"cmd":0,"data":{"userId":"bob","terminal":"web","inbox":{"head":3,"first":1,"acked":0},"resumed":false}}`)
	for i, id := range []string{"a", "b", "c"} {
		got := bob.expect(`{"cmd":3,"data":{"content":"` + id + `"}}`)
		if got.number("inbox") != uint64(i+1) {
			t.Errorf("entry %d is %v", i+1, got)
		}
	}
	alice = n.login("tcp", "alice")
	alice.skip[3] = true
	alice.talk(`{"cmd":3,"id":"d","data":{"to":"bob","content":4}}`, `{"cmd":6,"data":{"seq":4}}`)
	bob.expect(`{"cmd":3,"data":{"seq":4,"inbox":4}}`)
}
