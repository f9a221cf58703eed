package server_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/server"
	"github.com/meshtalk/meshtalk/session"
)

// A graceful stop under load: every client is told to come back, everything acknowledged is there after a restart, and
// the sequences go on.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	n := start(t)
	const senders = 6
	type outcome struct {
		acked  []int // messages that were acknowledged
		sent   int
		goAway packet
		code   uint16
	}
	outcomes := make([]outcome, senders)
	var running sync.WaitGroup
	halfway := make(chan struct{}, senders)
	for i := range senders {
		p := n.login(transports[i%2], fmt.Sprintf("s%d", i), `"ack":"client"`, `"window":1`)
		inFlight, ended := make(chan struct{}, 32), make(chan struct{})
		running.Go(func() {
			o := &outcomes[i]
			defer close(ended)
			for {
				b, err := p.c.Receive(context.Background())
				var ce *client.CloseError
				switch {
				case errors.As(err, &ce):
					o.code = ce.Code
					return
				case err != nil:
					return
				}
				switch m := parse(t, b); m.cmd() {
				case 6:
					<-inFlight
					var k int
					_, _ = fmt.Sscan(m["id"].(string), &k)
					if o.acked = append(o.acked, k); len(o.acked) == 40 {
						halfway <- struct{}{}
					}
				case 16:
					o.goAway = m
				}
			}
		})
		running.Go(func() {
			for k := 0; ; k++ {
				select {
				case inFlight <- struct{}{}:
				case <-ended:
					return
				}
				if p.c.Send(context.Background(), fmt.Appendf(nil, `{"cmd":3,"id":"%d","data":{"to":"bob","content":[%d,%d]}}`, k, i, k)) != nil {
					return
				}
				outcomes[i].sent = k + 1
			}
		})
	}
	bob := n.dial("websocket")
	epoch := bob.login(n.token("bob", "", time.Hour), `"ack":"client"`).data("epoch")
	for range senders {
		<-halfway
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	for _, p := range n.peers {
		_ = p.c.Close() // a writer may wait for a socket that nobody reads any more
	}
	running.Wait()
	acked := 0
	for i, o := range outcomes {
		check(t, o.goAway, `{"cmd":16,"id":null,"data":{"reason":"*","retryAfterMs":"*"}}`)
		if ms := o.goAway.number("retryAfterMs"); ms < 1 || ms > 30_000 {
			t.Errorf("retryAfterMs %d", ms)
		}
		if o.code != closeCode(transports[i%2], 1001) {
			t.Errorf("%s closed with %d", transports[i%2], o.code)
		}
		acked += len(o.acked)
	}
	t.Logf("%d messages were acknowledged before the stop", acked)

	n.run()
	bob = n.dial("tcp")
	got := bob.login(n.token("bob", "", time.Hour), `"ack":"client"`, `"window":1`, `"resume":{"inbox":0}`)
	if got.data("epoch") != epoch {
		t.Errorf("the epoch was %v and is %v", epoch, got.data("epoch"))
	}
	bob.skip[20], bob.skip[3] = true, true
	kept := map[[2]int]int{}
	last, head := uint64(0), got.number("inbox", "head")
	for last < head {
		page := bob.talk(fmt.Sprintf(`{"cmd":8,"data":{"after":%d,"limit":500}}`, last), `{"cmd":8}`)
		for _, e := range page.data("entries").([]any) {
			m := packet(e.(map[string]any))
			if last++; m.number("inbox") != last || m.number("seq") == 0 {
				t.Fatalf("entry %d is %v", last, m)
			}
			content := m.data("content").([]any)
			kept[[2]int{int(content[0].(float64)), int(content[1].(float64))}]++
		}
	}
	for i, o := range outcomes {
		for _, k := range o.acked {
			if kept[[2]int{i, k}] != 1 {
				t.Fatalf("message %d of sender %d was acknowledged and is there %d times", k, i, kept[[2]int{i, k}])
			}
		}
		// What was not acknowledged may be sent again under its id; the sequence goes on without a hole.
		again := n.login("tcp", fmt.Sprintf("s%d", i), `"ack":"client"`, `"window":1`)
		again.skip[3], again.skip[20] = true, true
		before := again.talk(fmt.Sprintf(`{"cmd":9,"data":{"conv":"p:bob:s%d","limit":1}}`, i), `{"cmd":9}`)
		newest := uint64(before.data("messages").([]any)[0].(map[string]any)["seq"].(float64))
		k := o.sent
		ack := again.talk(fmt.Sprintf(`{"cmd":3,"id":"%d","data":{"to":"bob","content":[%d,%d]}}`, k, i, k), `{"cmd":6}`)
		if ack.data("duplicate") == nil && ack.number("seq") != newest+1 {
			t.Errorf("after a restart %d follows %d", ack.number("seq"), newest)
		}
	}
}

// While it stops the server is not ready, takes no connections, and still commits and answers what it had accepted.
func TestStopping(t *testing.T) {
	held, release := make(chan struct{}, 1), make(chan struct{})
	n := start(t, func(o *server.Options) {
		o.Hooks.AfterCommit = func(*codec.ConvMessage) {
			select {
			case held <- struct{}{}:
				<-release
			default:
			}
		}
	})
	alice, fresh := n.login("websocket", "alice", `"ack":"client"`, `"window":1`), n.dial("tcp")
	n.call("GET", "/readyz", "", 200, `{}`)
	alice.send(`{"cmd":3,"id":"held","data":{"to":"bob","content":1}}`)
	<-held // the commit of that one is under way
	admin, tcp := n.url("admin"), n.url("tcp")
	stopped := make(chan error, 1)
	go func() { stopped <- n.stop() }()
	alice.expect(`{"cmd":16}`)
	fresh.expect(`{"cmd":16}`) // who has not logged in yet too
	status := func(path string) int {
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(mustRequest(t, admin+path))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	if code := status("/readyz"); code != 503 {
		t.Errorf("/readyz answers %d while stopping", code)
	}
	if code := status("/healthz"); code != 200 {
		t.Errorf("/healthz answers %d while stopping", code)
	}
	if c, err := client.DialConn(context.Background(), tcp, client.ConnOptions{}); err == nil {
		_ = c.Close()
		t.Error("a connection was taken while stopping")
	}
	close(release)
	alice.expectAll(`{"cmd":6,"id":"held","data":{"seq":1}}`, `{"cmd":3,"data":{"inbox":1}}`)
	if code := alice.closed(); code != 1001 {
		t.Errorf("closed with %d", code)
	}
	fresh.closed()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// A hook that hangs does not keep the server from stopping in time, nor another from starting on the same data.
func TestStopInTime(t *testing.T) {
	began, release := make(chan struct{}, 2), make(chan struct{})
	hang := func() { began <- struct{}{}; <-release }
	o := options(t)
	o.Hooks.AfterCommit = func(*codec.ConvMessage) { hang() }
	o.Hooks.BeforeSend = func(_ context.Context, m *session.Outgoing) error {
		if m.To == "hang" {
			hang()
		}
		return nil
	}
	srv, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Stop(t.Context()); err != nil { // before the start
		t.Error(err)
	}
	if err := srv.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, o: o, srv: srv, ids: new(atomic.Int64)}
	alice, bob := n.login("tcp", "alice"), n.login("websocket", "bob")
	alice.send(`{"cmd":3,"id":"1","data":{"to":"bob","content":1}}`)
	bob.send(`{"cmd":3,"id":"1","data":{"to":"hang","content":1}}`)
	<-began
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err = srv.Stop(ctx)
	if err == nil || !strings.Contains(err.Error(), "shutdown.timeout") {
		t.Errorf("Stop: %v, want what was cut short", err)
	}
	if err := srv.Stop(t.Context()); err != nil { // once is enough
		t.Error(err)
	}
	o.Hooks = server.Hooks{}
	next := &node{t: t, o: o, ids: new(atomic.Int64)}
	next.run()
	next.login("tcp", "bob").inboxes(1, 1) // it was committed before the hook hung
	close(release)
}

// A start that fails leaves nothing behind and says in one line which key is wrong.
func TestFailedStart(t *testing.T) {
	n := start(t)
	port := func(name string) int {
		u, err := url.Parse(n.url(name))
		if err != nil {
			t.Fatal(err)
		}
		var p int
		_, _ = fmt.Sscan(u.Port(), &p)
		return p
	}
	for want, change := range map[string]func(o *server.Options){
		"websocket.port": func(o *server.Options) { o.WebSocket.Port = port("websocket") },
		"tcpsocket.port": func(o *server.Options) { o.TCP.Port = port("tcp") },
		"admin.port":     func(o *server.Options) { o.Admin.Port = port("admin") },
		"data-dir":       func(o *server.Options) { o.DataDir = n.o.DataDir },
		"admin.host":     func(o *server.Options) { o.Admin.Host = "0.0.0.0" },
		"auth.jwt":       func(o *server.Options) { o.JWT.Secret = "short" },
	} {
		o := options(t)
		change(&o)
		srv, err := server.New(o)
		if err == nil {
			err = srv.Start(t.Context())
		}
		if err == nil {
			t.Errorf("%s: started", want)
			_ = srv.Stop(t.Context())
			continue
		}
		if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, "\n") {
			t.Errorf("%s: %q", want, text)
		}
	}
	n.login("tcp", "alice").quiet()
}

// Run is start, wait, stop.
func TestRun(t *testing.T) {
	srv, err := server.New(options(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// However connections end, no descriptor is left behind.
func TestNoDescriptorsLeft(t *testing.T) {
	n := start(t)
	token := n.token("alice", "", time.Hour)
	login := `{"cmd":0,"data":{"accessToken":"` + token + `"}}`
	packet := func(s string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }
	upgrade := []byte("GET /im HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	host := func(name string) string {
		u, err := url.Parse(n.url(name))
		if err != nil {
			t.Fatal(err)
		}
		return u.Host
	}
	ws, tcp := host("websocket"), host("tcp")
	type ending struct {
		host  string
		bytes []byte
		end   func(c *net.TCPConn)
	}
	leave := func(c *net.TCPConn) {}
	half := func(c *net.TCPConn) { _ = c.CloseWrite(); _, _ = io.Copy(io.Discard, c) }
	reset := func(c *net.TCPConn) { _ = c.SetLinger(0) }
	wait := func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) } // the server closes
	endings := []ending{
		{ws, nil, leave}, {ws, nil, half}, {ws, nil, reset}, {tcp, nil, leave}, {tcp, nil, half}, {tcp, nil, reset},
		{ws, upgrade[:20], leave}, {ws, upgrade[:20], reset}, {ws, []byte("nonsense\r\n\r\n"), half}, {ws, upgrade, leave}, {ws, upgrade, reset},
		{ws, join(upgrade, frame(0x81, login)), leave}, {ws, join(upgrade, frame(0x81, login)), reset}, {ws, join(upgrade, frame(0x81, login)), half},
		{ws, join(upgrade, frame(0x81, login), frame(0x81, `{"cmd":18}`), frame(0x88, "\x03\xe8")), wait},
		{ws, join(upgrade, frame(0x88, "\x03\xe8")), wait}, {ws, join(upgrade, frame(0x83, "")), wait},
		{tcp, packet(login), leave}, {tcp, packet(login), reset}, {tcp, packet(login), half}, {tcp, packet(login)[:30], half},
		{tcp, join(packet(login), packet(`{"cmd":18}`)), wait}, {tcp, packet(`{`), wait}, {tcp, []byte{255, 255, 255, 255}, wait},
	}
	run := func(rounds int) {
		var workers sync.WaitGroup
		for w := range 4 {
			workers.Go(func() {
				for i := range rounds {
					e := endings[(i+w)%len(endings)]
					c, err := net.Dial("tcp", e.host)
					if err != nil {
						t.Error(err)
						return
					}
					_ = c.SetDeadline(time.Now().Add(patience))
					_, _ = c.Write(e.bytes) // the server may be faster
					e.end(c.(*net.TCPConn))
					_ = c.Close()
				}
			})
		}
		workers.Wait()
		eventually(t, "all connections have ended", func() bool {
			_, b := n.request("GET", "/metrics", "", nil)
			return strings.Contains(string(b), "\nmeshtalk_connections{transport=\"tcp\"} 0\n") &&
				strings.Contains(string(b), "\nmeshtalk_connections{transport=\"websocket\"} 0\n") && strings.Contains(string(b), "\nmeshtalk_sessions 0\n")
		})
	}
	run(10 * len(endings)) // what is opened once is open now
	before := descriptors(t)
	run(25 * len(endings))
	eventually(t, "as few descriptors as before", func() bool { return descriptors(t) <= before })
	n.call("GET", "/v1/users/alice", "", 200, `{"online":false,"terminals":[]}`)
	if _, b := n.request("GET", "/metrics", "", nil); !strings.Contains(string(b), "\nmeshtalk_panics_total 0\n") {
		t.Error("there were panics")
	}
}

// descriptors counts what this process has open, but for the store's files, which come and go.
func descriptors(t *testing.T) (count int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range list {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && !strings.HasPrefix(target, "/") {
			count++
		}
	}
	return count
}
