package server_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Beyond the window LAG is sent once until the connection has caught up; pushes go on as ACKs arrive.
func TestWindow(t *testing.T) {
	n := start(t)
	eachTransport(t, func(t *testing.T, transport string) {
		n := n.on(t)
		user := "bob-" + transport
		bob := n.login(transport, user, `"ack":"client"`, `"window":3`)
		alice := n.login("tcp", "alice")
		alice.sendN(user, 3)
		bob.inboxes(1, 3)
		bob.quiet() // the window is full, but nothing is held back
		alice.sendN(user, 7)
		lag := bob.expect(`{"cmd":20,"id":null,"data":{"head":"*"}}`)
		if head := lag.number("head"); head < 4 || head > 10 {
			t.Errorf("LAG with head %d", head)
		}
		bob.quiet()
		ack := func(inbox int) { bob.send(fmt.Sprintf(`{"cmd":7,"data":{"inbox":%d}}`, inbox)) }
		ack(1)
		bob.inboxes(4, 1)
		if head := bob.quiet().number("head"); head != 10 {
			t.Errorf("HEART_BEAT says %d", head)
		}
		ack(1) // again, and back: nothing
		ack(0)
		bob.quiet()
		ack(4)
		bob.inboxes(5, 3)
		ack(7)
		bob.inboxes(8, 3)
		alice.sendN(user, 1)
		bob.expect(`{"cmd":20,"data":{"head":11}}`) // it had caught up at 10
		ack(10)
		bob.inboxes(11, 1)
		n.call("GET", "/v1/users/"+user, "", 200, `{"terminals":[{"acked":10,"lagging":false}]}`)
		ack(12)
		bob.expect(`{"cmd":15,"data":{"code":4000,"name":"BAD_PACKET"}}`)
		n.call("GET", "/v1/users/"+user, "", 200, `{"terminals":[{"acked":10}]}`)
		bob.quiet()
	})
}

// What was taken by PULL and acknowledged is not pushed again.
func TestAckAfterPull(t *testing.T) {
	n := start(t)
	bob := n.login("tcp", "bob", `"ack":"client"`, `"window":1`)
	alice := n.login("tcp", "alice")
	alice.sendN("bob", 6)
	bob.inboxes(1, 1)
	bob.expect(`{"cmd":20}`)
	bob.talk(`{"cmd":8,"data":{"after":1,"limit":4}}`, `{"cmd":8,"data":{"head":6,"more":true}}`)
	bob.send(`{"cmd":7,"data":{"inbox":5}}`)
	bob.inboxes(6, 1)
	bob.send(`{"cmd":7,"data":{"inbox":6}}`)
	alice.sendN("bob", 1)
	bob.inboxes(7, 1)
	bob.quiet()
}

// auto positions move by themselves, client positions only by ACK; every terminal has its own; a clean stop keeps them.
func TestPositions(t *testing.T) {
	n := start(t)
	n.login("tcp", "alice").sendN("bob", 4)
	login := func(terminal, ack, want string) *peer {
		p := n.dial("websocket")
		check(t, p.login(n.token("bob", terminal, time.Hour), `"ack":"`+ack+`"`), want)
		return p
	}
	const fromTheStart = `{"data":{"inbox":{"head":4,"acked":0}}}`
	client := login("client", "client", fromTheStart)
	client.inboxes(1, 4)
	auto := login("auto", "auto", fromTheStart)
	auto.inboxes(1, 4)
	eventually(t, "the auto terminal's position has moved", func() bool {
		_, b := n.request("GET", "/v1/users/bob", "", nil)
		_, ok := contains(map[string]any(parse(t, b)), map[string]any(parse(t, []byte(`{"terminals":[{"terminal":"auto","acked":4},{"terminal":"client","acked":0}]}`))))
		return ok
	})
	client.send(`{"cmd":7,"data":{"inbox":2}}`)
	client.quiet()
	for range 2 {
		n.restart()
		login("auto", "auto", `{"data":{"inbox":{"acked":4}}}`).quiet()
		client = login("client", "client", `{"data":{"inbox":{"acked":2}}}`)
		client.inboxes(3, 2)
		client.quiet()
	}
	// An auto client may acknowledge too.
	auto = login("auto", "auto", `{"data":{"inbox":{"acked":4}}}`)
	auto.send(`{"cmd":7,"data":{"inbox":4}}`)
	auto.quiet()
}

// traffic are senders of private and group messages to one user, until they have sent their share.
type traffic struct {
	senders []*peer
	each    int
	done    sync.WaitGroup
}

func (n *node) traffic(user string, senders, each int) *traffic {
	tr := &traffic{each: each}
	n.call("PUT", "/v1/groups/with-"+user, fmt.Sprintf(`{"members":["%s","s0","s1","s2","s3"]}`, user), 200, `{}`)
	for i := range senders {
		tr.senders = append(tr.senders, n.login(transports[i%2], fmt.Sprintf("s%d", i)))
	}
	for i, p := range tr.senders {
		tr.done.Go(func() {
			for k := range each {
				to := fmt.Sprintf(`{"cmd":3,"id":"%s-%d","data":{"to":"%s","content":[%d,%d]}}`, user, k, user, i, k)
				if k%5 == 4 {
					to = fmt.Sprintf(`{"cmd":4,"id":"%s-%d","data":{"group":"with-%s","content":[%d,%d]}}`, user, k, user, i, k)
				}
				if p.c.Send(context.Background(), []byte(to)) != nil {
					return
				}
				if k%4 != 3 {
					continue
				}
				for acks := 0; acks < 4; { // four in flight; own copies and others' group messages come too
					b, err := p.c.Receive(context.Background())
					if err != nil {
						return
					}
					if strings.HasPrefix(string(b), `{"cmd":6`) {
						acks++
					}
				}
			}
		})
	}
	return tr
}

// A client that loses its connection at random moments and resumes, while messages keep coming: no hole and no repeat, with
// resume, with acknowledged positions and with PULL in between.
func TestResumeUnderTraffic(t *testing.T) {
	t.Parallel()
	n := start(t)
	const senders, each = 4, 200
	for _, mode := range []string{"resume", "ack", "auto"} {
		t.Run(mode, func(t *testing.T) {
			n := n.on(t)
			user := "bob-" + mode
			tr := n.traffic(user, senders, each)
			rng := rand.New(rand.NewPCG(1, uint64(len(mode))))
			last := uint64(0) // the newest entry taken
			next := map[int]int{}
			take := func(m packet) {
				t.Helper()
				if m.number("inbox") != last+1 {
					t.Fatalf("entry %d after %d", m.number("inbox"), last)
				}
				last++
				content := m.data("content").([]any)
				i, k := int(content[0].(float64)), int(content[1].(float64))
				if k < next[i] {
					t.Fatalf("message %d of sender %d came twice", k, i)
				}
				next[i] = k + 1
			}
			connections := 0
			for ; last < senders*each; connections++ {
				p := n.dial(transports[rng.IntN(2)])
				window := 1 + rng.IntN(40)
				more := []string{fmt.Sprintf(`"window":%d`, window)}
				switch mode {
				case "resume":
					more = append(more, `"ack":"client"`, fmt.Sprintf(`"resume":{"inbox":%d}`, last))
				case "auto":
					more = append(more, fmt.Sprintf(`"resume":{"inbox":%d}`, last))
				case "ack":
					more = append(more, `"ack":"client"`)
				}
				acked := p.login(n.token(user, "", time.Hour), more...).number("inbox", "acked")
				if mode == "ack" {
					if acked > last {
						t.Fatalf("position %d, but %d was the last acknowledged at most", acked, last)
					}
					// Pushes begin behind what was acknowledged: what is above and known already is a repeat on the wire that
					// the client drops.
					known := last
					for i := acked + 1; i <= known; i++ {
						if m := p.entry(); m.number("inbox") != i {
							t.Fatalf("entry %d, want %d", m.number("inbox"), i)
						}
						p.send(fmt.Sprintf(`{"cmd":7,"data":{"inbox":%d}}`, i))
					}
				}
				confirmed := last
				for range rng.IntN(60) {
					if last == senders*each {
						break
					}
					take(p.entry())
					if mode != "auto" && last-confirmed > uint64(rng.IntN(window)) {
						p.send(fmt.Sprintf(`{"cmd":7,"data":{"inbox":%d}}`, last))
						confirmed = last
					}
				}
				if rng.IntN(3) == 0 {
					p.pullAll(&last, take)
				}
				_ = p.c.Close()
			}
			tr.done.Wait()
			t.Logf("%d entries over %d connections", last, connections)
			p := n.dial("tcp")
			p.login(n.token(user, "", time.Hour), fmt.Sprintf(`"resume":{"inbox":%d}`, last))
			p.quiet()
		})
	}
}

// entry is the next pushed message; LAG is passed over.
func (p *peer) entry() packet {
	p.t.Helper()
	for {
		switch m := p.next(); m.cmd() {
		case 3, 4:
			return m
		case 20:
		default:
			p.t.Fatalf("got %v", m)
		}
	}
}

// pullAll takes by PULL what is there and acknowledges it. Pushes that were under way are dropped by the client's rule.
func (p *peer) pullAll(last *uint64, take func(packet)) {
	p.t.Helper()
	p.send(fmt.Sprintf(`{"cmd":8,"data":{"after":%d,"limit":50}}`, *last))
	for {
		m := p.next()
		if m.cmd() != 8 {
			continue // they come again: they are not acknowledged
		}
		for _, e := range m.data("entries").([]any) {
			take(packet(e.(map[string]any)))
		}
		break
	}
	p.send(fmt.Sprintf(`{"cmd":7,"data":{"inbox":%d}}`, *last))
	p.quietly()
}

// quietly waits until the server has handled everything sent so far, whatever it pushes meanwhile.
func (p *peer) quietly() {
	p.t.Helper()
	p.send(`{"cmd":1,"id":"barrier"}`)
	for p.next()["id"] != "barrier" {
	}
}

// Clients that read nothing while 20 MB are sent to each cost next to no memory of the server, and get everything afterwards.
func TestSlowConsumer(t *testing.T) {
	n := start(t)
	alice := n.login("tcp", "alice", `"ack":"client"`, `"window":1`) // spares the test its own copies
	modes := []string{`"ack":"auto"`, `"ack":"client","window":1024`, `"ack":"client"`}
	var slow []*peer
	for i, mode := range modes {
		slow = append(slow, n.login(transports[i%2], "bob", mode, fmt.Sprintf(`"terminal":"t%d"`, i)))
	}
	const count, size = 420, 50_000
	content := strings.Repeat("x", size)
	alice.skip[3], alice.skip[20] = true, true
	before := serverMemory()
	for i := range count {
		alice.talk(fmt.Sprintf(`{"cmd":3,"id":"big-%d","data":{"to":"bob","content":"%s"}}`, i, content), `{"cmd":6}`)
	}
	grown := serverMemory() - before
	t.Logf("%d messages of %d bytes to %d terminals that do not read: %d KiB more in use", count, size, len(slow), grown>>10)
	if grown > 2<<20 {
		t.Errorf("the server has grown by %d KiB", grown>>10)
	}
	for i, p := range slow {
		last := uint64(0)
		for last < count {
			b := string(p.raw()) // not parsed: 60 MB take their time
			if strings.HasPrefix(b, `{"cmd":20,`) {
				continue
			}
			if last++; !strings.HasPrefix(b, fmt.Sprintf(`{"cmd":3,"data":{"inbox":%d,`, last)) || !strings.Contains(b, content) {
				t.Fatalf("terminal %d, entry %d: %.200s", i, last, b)
			}
			if i > 0 {
				p.send(fmt.Sprintf(`{"cmd":7,"data":{"inbox":%d}}`, last))
			}
		}
		p.quietly()
	}
}

// serverMemory is the memory in use, in bytes, that neither the store nor the test itself holds: by the profile of
// allocations, whose rate TestMain sets, because what the store holds until it is in tables, whoever reads, is more than what
// is looked for.
func serverMemory() (bytes int64) {
	runtime.GC()
	runtime.GC() // the profile is that of the last but one collection
	var records []runtime.MemProfileRecord
	for n := 1000; ; n *= 2 {
		records = make([]runtime.MemProfileRecord, n)
		if k, ok := runtime.MemProfile(records, false); ok {
			records = records[:k]
			break
		}
	}
	for i := range records {
		if !isForeign(records[i].Stack()) {
			bytes += records[i].InUseBytes()
		}
	}
	return bytes
}

func isForeign(stack []uintptr) bool {
	frames := runtime.CallersFrames(stack)
	for {
		f, more := frames.Next()
		if strings.Contains(f.Function, "cockroachdb/pebble") || strings.Contains(f.Function, "meshtalk/store/pebble") || strings.Contains(f.Function, "server_test.") || strings.Contains(f.Function, "meshtalk/client") {
			return true
		}
		if !more {
			return false
		}
	}
}
