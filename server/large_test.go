package server_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/server"
)

// smallLimit makes groups of more than three members large.
func smallLimit(o *server.Options) { o.Group.InboxLimit = 3 }

// group sends one message to a group and waits for its acknowledgement, which it returns.
func (p *peer) group(group, content string) packet {
	p.t.Helper()
	p.send(fmt.Sprintf(`{"cmd":4,"id":"n%d","data":{"group":%q,"content":%q}}`, p.ids.Add(1), group, content))
	for {
		if got := p.next(); got.cmd() == 6 {
			return got
		} else if got.cmd() == 15 {
			p.t.Fatalf("got %v", got)
		}
	}
}

// seqs expects pushed messages of a large group with the given sequences, and no inbox number.
func (p *peer) seqs(conv string, want ...uint64) {
	p.t.Helper()
	for _, seq := range want {
		got := p.next()
		if got.data("conv") != conv || got.number("seq") != seq || got.data("inbox") != nil || got["id"] != nil {
			p.t.Fatalf("got %v, want message %d of %s", got, seq, conv)
		}
	}
}

// Messages of a large group are in no inbox; they are counted by the conversation alone.
func TestLargeGroup(t *testing.T) {
	n := start(t, smallLimit)
	n.call("PUT", "/v1/groups/big", `{"members":["alice","bob","carol","dave","erin"]}`, 200, `{"size":5,"kind":"large","head":0}`)
	alice, bob, zoe := n.login("tcp", "alice"), n.login("websocket", "bob"), n.login("tcp", "zoe")
	aliceIOS := n.login("websocket", "alice", `"terminal":"ios"`)
	alice.send(`{"cmd":4,"id":"1","data":{"group":"big","type":2,"content":{"a": 1}}}`)
	const first = `{"cmd":4,"id":null,"data":{"conv":"g:big","seq":1,"inbox":null,"from":"alice","group":"big","type":2,"content":{"a":1},"id":"1","msgId":"*","ts":"*"}}`
	alice.expectAll(`{"cmd":6,"id":"1","data":{"conv":"g:big","seq":1}}`, first)
	bob.expect(first)
	aliceIOS.expect(first)
	n.call("POST", "/v1/messages", `{"id":"s","group":"big","content":2}`, 200, `{"results":[{"group":"big","seq":2}]}`)
	const system = `{"cmd":5,"data":{"conv":"g:big","seq":2,"inbox":null,"from":null,"group":"big","content":2}}`
	bob.expect(system)
	alice.expect(system)
	aliceIOS.expect(system)
	alice.send(`{"cmd":14,"id":"r","data":{"conv":"g:big","seq":1}}`)
	const event = `{"cmd":14,"data":{"conv":"g:big","seq":3,"inbox":null,"target":1,"from":"alice"}}`
	alice.expectAll(`{"cmd":6,"id":"r","data":{"seq":3}}`, event)
	bob.expect(event)
	aliceIOS.expect(event)
	// Of what is kept nowhere too.
	alice.send(`{"cmd":4,"id":"e","data":{"group":"big","content":3,"ephemeral":true}}`)
	const ephemeral = `{"cmd":4,"data":{"conv":"g:big","seq":null,"inbox":null,"content":3}}`
	alice.expectAll(`{"cmd":6,"id":"e","data":{"seq":null}}`, ephemeral)
	bob.expect(ephemeral)
	aliceIOS.expect(ephemeral)
	bob.send(`{"cmd":12,"data":{"group":"big"}}`)
	alice.expect(`{"cmd":12,"data":{"conv":"g:big","from":"bob"}}`)
	for _, p := range []*peer{alice, bob, zoe} {
		if head := p.quiet().number("head"); head != 0 {
			t.Errorf("an inbox has the head %d", head)
		}
	}
	bob.talk(`{"cmd":8,"data":{"after":0}}`, `{"cmd":8,"data":{"entries":[],"head":0}}`)
	bob.talk(`{"cmd":9,"data":{"conv":"g:big"}}`, `{"cmd":9,"data":{"messages":[{"seq":3},{"seq":2},{"seq":1,"content":null,"recalled":true}]}}`)
	bob.talk(`{"cmd":19}`, `{"cmd":19,"data":{"conversations":[{"conv":"g:big","kind":"group","head":3,"read":0,"unread":2,"last":{"seq":2}}]}}`)
	zoe.talk(`{"cmd":4,"id":"z","data":{"group":"big","content":1}}`, `{"cmd":15,"data":{"code":4003}}`)
	n.login("tcp", "dave").seqs("g:big", 1, 2, 3) // was away, never seen before: from where the group stood when he joined
}

// After a reconnect the server pushes what the terminal has not acknowledged of each large group.
func TestLargeCatchUp(t *testing.T) {
	n := start(t, smallLimit)
	n.call("PUT", "/v1/groups/big", `{"members":["alice","bob","carol","dave"]}`, 200, `{}`)
	alice := n.login("tcp", "alice")
	login := func(terminal, ack string) *peer {
		return n.login("websocket", "bob", `"terminal":"`+terminal+`"`, `"ack":"`+ack+`"`)
	}
	web := login("web", "client")
	for range 3 {
		alice.group("big", "x")
	}
	web.seqs("g:big", 1, 2, 3)
	web.send(`{"cmd":7,"data":{"conv":"g:big","seq":2}}`)
	web.quiet()
	web = login("web", "client")
	web.seqs("g:big", 3)
	web.quiet()
	// A terminal never seen before starts where the furthest stands, and has a position from then on.
	login("ios", "client").seqs("g:big", 3)
	web.send(`{"cmd":7,"data":{"conv":"g:big","seq":3}}`)
	web.quiet()
	login("ios", "client").seqs("g:big", 3)
	n.login("tcp", "carol", `"ack":"client"`).seqs("g:big", 1, 2, 3)
	// Refusals move nothing.
	web.talk(`{"cmd":7,"id":"a","data":{"conv":"g:big","seq":4}}`, `{"cmd":15,"id":"a","data":{"code":4000,"name":"BAD_PACKET"}}`)
	web.send(`{"cmd":7,"data":{"conv":"g:big","seq":1}}`)
	n.login("tcp", "zoe").talk(`{"cmd":7,"id":"a","data":{"conv":"g:big","seq":1}}`, `{"cmd":15,"id":"a","data":{"code":4003}}`)
	web.quiet()
	login("web", "client").quiet()

	// auto: what was handed to the kernel is acknowledged.
	auto := login("auto", "auto")
	auto.quiet()
	alice.group("big", "x")
	auto.seqs("g:big", 4)
	n.restart()
	login("auto", "auto").quiet()
	login("web", "client").seqs("g:big", 4)
	n.login("tcp", "dave").seqs("g:big", 1, 2, 3, 4)
	login("tablet", "client").quiet() // the furthest, auto, stood at 4
}

// Who leaves is pushed no more; who comes, or comes again, begins where the group stands then.
func TestLargeMembers(t *testing.T) {
	n := start(t, smallLimit)
	n.call("PUT", "/v1/groups/big", `{"members":["alice","bob","carol","dave","erin"]}`, 200, `{}`)
	alice, bob, zoe := n.login("tcp", "alice"), n.login("tcp", "bob", `"ack":"client"`), n.login("websocket", "zoe", `"ack":"client"`)
	alice.group("big", "1")
	bob.seqs("g:big", 1)
	n.call("POST", "/v1/groups/big/members", `{"remove":["bob"],"add":["zoe"]}`, 200, `{"size":5}`)
	alice.group("big", "2")
	zoe.seqs("g:big", 2)
	bob.quiet()
	bob.talk(`{"cmd":4,"id":"x","data":{"group":"big","content":1}}`, `{"cmd":15,"data":{"code":4003}}`)
	bob.talk(`{"cmd":7,"id":"a","data":{"conv":"g:big","seq":1}}`, `{"cmd":15,"data":{"code":4003}}`)
	n.login("tcp", "bob", `"terminal":"ios"`, `"ack":"client"`).quiet()
	n.call("POST", "/v1/groups/big/members", `{"add":["bob"]}`, 200, `{"size":6}`)
	alice.group("big", "3")
	bob.seqs("g:big", 3)
	for _, terminal := range []string{"web", "ios", "new"} { // all begin at the second join
		p := n.login("websocket", "bob", `"ack":"client"`, `"terminal":"`+terminal+`"`)
		p.seqs("g:big", 3)
		p.quiet()
	}
	n.login("tcp", "zoe", `"ack":"client"`).seqs("g:big", 2, 3)
	n.call("DELETE", "/v1/groups/big", ``, 200, `{}`)
	alice.skip[4] = true
	alice.talk(`{"cmd":4,"id":"gone","data":{"group":"big","content":1}}`, `{"cmd":15,"data":{"code":4004}}`)
	n.call("PUT", "/v1/groups/big", `{"members":["alice","bob","carol","dave"]}`, 200, `{"head":3}`)
	alice.group("big", "4")
	p := n.login("tcp", "bob", `"ack":"client"`)
	p.seqs("g:big", 4)
	p.quiet()
}

// A group that crosses the limit, both ways, while its members are there: one count over both kinds, without gap or repeat.
func TestLargeCrossing(t *testing.T) {
	n := start(t, smallLimit)
	n.call("PUT", "/v1/groups/g", `{"members":["alice","bob"]}`, 200, `{"kind":"inbox"}`)
	alice := n.login("tcp", "alice")
	auto, client := n.login("websocket", "bob", `"terminal":"auto"`), n.login("tcp", "bob", `"terminal":"client"`, `"ack":"client"`)
	both := func(seq, inbox int) {
		t.Helper()
		in := "null"
		if inbox > 0 {
			in = fmt.Sprint(inbox)
		}
		for _, p := range []*peer{auto, client} {
			p.expect(fmt.Sprintf(`{"cmd":4,"data":{"conv":"g:g","seq":%d,"inbox":%s}}`, seq, in))
		}
	}
	alice.group("g", "small")
	both(1, 1)
	n.call("POST", "/v1/groups/g/members", `{"add":["carol","dave"]}`, 200, `{"size":4}`)
	n.call("GET", "/v1/groups/g", ``, 200, `{"kind":"large","head":1}`)
	alice.group("g", "large")
	both(2, 0)
	alice.group("g", "large")
	both(3, 0)
	n.call("POST", "/v1/groups/g/members", `{"remove":["carol"]}`, 200, `{"size":3}`)
	n.call("GET", "/v1/groups/g", ``, 200, `{"kind":"large"}`) // it still holds such messages
	alice.group("g", "small again")
	both(4, 2)
	n.call("POST", "/v1/groups/g/members", `{"add":["erin"]}`, 200, `{"size":4}`)
	alice.group("g", "large again")
	both(5, 0)
	alice.group("g", "large again")
	both(6, 0)
	auto.quiet()
	client.quiet()

	// The one that acknowledged nothing is pushed all of it again, each message once.
	client = n.login("tcp", "bob", `"terminal":"client"`, `"ack":"client"`)
	var inbox, large []uint64
	for range 6 {
		if m := client.next(); m.data("inbox") != nil {
			inbox = append(inbox, m.number("seq"))
		} else {
			large = append(large, m.number("seq"))
		}
	}
	if !slices.Equal(inbox, []uint64{1, 4}) || !slices.Equal(large, []uint64{2, 3, 5, 6}) {
		t.Errorf("after a reconnect: %v by the inbox, %v by the group", inbox, large)
	}
	client.quiet()
	eventually(t, "the auto terminal's position in the group has been kept", func() bool {
		p := n.login("websocket", "bob", `"terminal":"auto"`)
		p.send(`{"cmd":1,"id":"barrier"}`)
		quiet := p.next()["id"] == "barrier"
		_ = p.c.Close()
		return quiet
	})
	// Who was away all the time, and who came when it was large.
	carol := n.login("tcp", "carol")
	carol.quiet()
	dave := n.login("tcp", "dave")
	inbox, large = nil, nil
	for range 5 {
		if m := dave.next(); m.data("inbox") != nil {
			inbox = append(inbox, m.number("seq"))
		} else {
			large = append(large, m.number("seq"))
		}
	}
	if !slices.Equal(inbox, []uint64{4}) || !slices.Equal(large, []uint64{2, 3, 5, 6}) {
		t.Errorf("dave: %v by the inbox, %v by the group", inbox, large)
	}
	dave.quiet()
}

// A member that loses its connection at random while messages come: by seq, no hole, no repeat on one connection. It
// stays on the last one, since what an auto terminal had not read when it left is acknowledged and never comes again.
func TestLargeUnderTraffic(t *testing.T) {
	t.Parallel()
	n := start(t, smallLimit)
	const senders, connections = 3, 20
	for _, mode := range []string{"client", "auto"} {
		t.Run(mode, func(t *testing.T) {
			n := n.on(t)
			group := "big-" + mode
			n.call("PUT", "/v1/groups/"+group, `{"members":["s0","s1","s2","bob-`+mode+`"]}`, 200, `{"kind":"large"}`)
			var sending sync.WaitGroup
			var sent atomic.Uint64 // acknowledged
			var done atomic.Bool
			for i := range senders {
				p := n.login(transports[i%2], fmt.Sprintf("s%d", i))
				sending.Go(func() {
					for k := 0; !done.Load(); k++ {
						b := fmt.Sprintf(`{"cmd":4,"id":"%s-%d","data":{"group":"%s","content":%d}}`, mode, k, group, k)
						if p.c.Send(t.Context(), []byte(b)) != nil {
							return
						}
						for { // one in flight; others' messages come too
							got, err := p.c.Receive(t.Context())
							if err != nil {
								return
							}
							if strings.HasPrefix(string(got), `{"cmd":6`) {
								break
							}
						}
						sent.Add(1)
					}
				})
			}
			rng := rand.New(rand.NewPCG(2, uint64(len(mode))))
			var p *peer
			var last, here uint64 // of all, and of this connection
			receive := func() {
				m := p.next()
				if m.cmd() == 20 {
					return
				}
				seq := m.number("seq")
				if here > 0 && seq != here+1 {
					t.Fatalf("message %d after %d on one connection", seq, here)
				}
				if mode == "client" && seq > last+1 {
					t.Fatalf("message %d, %d was the last", seq, last)
				}
				here, last = seq, max(last, seq)
				if mode == "client" && rng.IntN(2) == 0 {
					p.send(fmt.Sprintf(`{"cmd":7,"data":{"conv":"g:%s","seq":%d}}`, group, last))
				}
			}
			for range connections {
				if p != nil {
					_ = p.c.Close()
				}
				p, here = n.login(transports[rng.IntN(2)], "bob-"+mode, `"ack":"`+mode+`"`), 0
				for range 1 + rng.IntN(60) {
					receive()
				}
			}
			done.Store(true)
			sending.Wait()
			for here < sent.Load() {
				receive()
			}
			p.quiet()
			t.Logf("%d messages over %d connections", last, connections)
		})
	}
}

// A member that does not read lags in its large groups and in its inbox, is told once, and gets everything afterwards.
func TestLargeSlow(t *testing.T) {
	t.Parallel()
	n := start(t, smallLimit)
	n.call("PUT", "/v1/groups/big", `{"members":["alice","bob","carol","dave"]}`, 200, `{}`)
	alice := n.login("tcp", "alice")
	alice.skip[4] = true
	bob := n.login("tcp", "bob")
	content := strings.Repeat("x", 40_000)
	const count = 300 // 12 MB: more than sockets hold
	for i := range count {
		alice.talk(fmt.Sprintf(`{"cmd":4,"id":"%d","data":{"group":"big","content":"%s"}}`, i, content), `{"cmd":6}`)
	}
	alice.group("big", "end")
	alice.sendN("bob", 3)
	lags, seq, inbox := 0, uint64(0), uint64(0)
	for seq <= count || inbox < 3 {
		b := string(bob.raw())
		switch {
		case strings.HasPrefix(b, `{"cmd":20`):
			lags++
		case strings.HasPrefix(b, `{"cmd":4,"data":{"msgId"`):
			if seq++; !strings.Contains(b, fmt.Sprintf(`,"seq":%d,`, seq)) {
				t.Fatalf("want message %d: %.200s", seq, b)
			}
		case strings.HasPrefix(b, fmt.Sprintf(`{"cmd":3,"data":{"inbox":%d,`, inbox+1)):
			inbox++
		default:
			t.Fatalf("got %.200s", b)
		}
	}
	if lags != 1 {
		t.Errorf("LAG came %d times", lags)
	}
	bob.quiet()
	eventually(t, "it no longer lags", func() bool {
		_, b := n.request("GET", "/v1/users/bob", "", nil)
		return strings.Contains(string(b), `"lagging":false`)
	})
}

// What happens to a member that lags does not touch what the others are sent.
func TestLargeSlowNeighbour(t *testing.T) {
	t.Parallel()
	n := start(t, smallLimit, func(o *server.Options) { o.Performance.WorkerThreads = 1 })
	n.call("PUT", "/v1/groups/big", `{"members":["alice","bob","carol","dave"]}`, 200, `{}`)
	n.login("tcp", "bob")
	carol := n.login("websocket", "carol")
	alice := n.login("tcp", "alice")
	alice.skip[4] = true
	content := strings.Repeat("x", 30_000)
	for i := range uint64(400) { // bob, who reads nothing, begins to lag somewhere on the way
		alice.talk(fmt.Sprintf(`{"cmd":4,"id":"%d","data":{"group":"big","content":"%s"}}`, i, content), `{"cmd":6}`)
		carol.seqs("g:big", i+1)
	}
	eventually(t, "bob lags", func() bool {
		_, b := n.request("GET", "/v1/users/bob", "", nil)
		return strings.Contains(string(b), `"lagging":true`)
	})
}

// A group of 100,000 members takes messages and changes like any other.
func TestHugeGroup(t *testing.T) {
	t.Parallel()
	n := start(t)
	n.call("PUT", "/v1/groups/huge", `{}`, 200, `{"size":0,"kind":"inbox"}`)
	const members, page = 100_000, 25_000
	for at := 0; at < members; at += page {
		var names []string
		for i := at; i < at+page; i++ {
			names = append(names, fmt.Sprintf(`"u%d"`, i))
		}
		n.call("POST", "/v1/groups/huge/members", `{"add":[`+strings.Join(names, ",")+`]}`, 200, fmt.Sprintf(`{"size":%d}`, at+page))
	}
	n.call("POST", "/v1/groups/huge/members", `{"add":["one more"]}`, 400, `{"error":{"code":4000,"name":"BAD_PACKET"}}`)
	n.call("GET", "/v1/groups/huge", ``, 200, `{"size":100000,"kind":"large","head":0}`)
	first, last := n.login("tcp", "u0"), n.login("websocket", "u99999")
	began := time.Now()
	const messages = 20
	for range messages {
		first.group("huge", "x")
	}
	t.Logf("a message to %d members in %v", members, time.Since(began)/messages)
	last.seqs("g:huge", 1, 2, 3)
	n.login("tcp", "u50000").seqs("g:huge", 1, 2)
	n.call("POST", "/v1/groups/huge/members", `{"remove":["u7"],"add":["one more"]}`, 200, `{"size":100000}`)
	n.login("tcp", "one more").quiet()
	n.call("DELETE", "/v1/groups/huge", ``, 200, `{}`)
}
