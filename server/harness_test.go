package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/server"
)

// node is a server of the test's own process, on free ports, with its data in a temporary folder.
type node struct {
	t    *testing.T
	o    server.Options
	srv  *server.Server
	stop func() error // ends the server gracefully and returns Run's error; safe to call twice

	peers []*peer // all that were dialled
	ids   *atomic.Int64
}

// patience is how long a test waits for what must happen. It is no limit on speed: only a test that fails waits for it.
const patience = 20 * time.Second

// options are those of a server for tests; change them by the functions given to start.
func options(t *testing.T) server.Options {
	o := server.DefaultOptions()
	o.DataDir = t.TempDir()
	o.WebSocket.Host, o.WebSocket.Port = "127.0.0.1", 0
	o.TCP.Host, o.TCP.Port = "127.0.0.1", 0
	o.Admin.Port = 0
	o.Limits.MessagesPerSecond = 0
	o.Cluster.NodeID = "test"
	o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return o
}

// start runs a server until the test ends.
func start(t *testing.T, change ...func(*server.Options)) *node {
	t.Helper()
	o := options(t)
	for _, f := range change {
		f(&o)
	}
	n := &node{t: t, o: o, ids: new(atomic.Int64)}
	n.run()
	return n
}

func (n *node) run() {
	n.t.Helper()
	srv, err := server.New(n.o)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx := context.Background()
	if err := srv.Start(ctx); err != nil {
		n.t.Fatal(err)
	}
	n.srv = srv
	stopped := false
	n.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		ctx, cancel := context.WithTimeout(ctx, n.o.ShutdownTimeout)
		defer cancel()
		return srv.Stop(ctx)
	}
	n.t.Cleanup(func() {
		if err := n.stop(); err != nil {
			n.t.Errorf("stop: %v", err)
		}
	})
}

// restart stops the server and starts it on the same data. Connections are closed before: a server waits for its peers.
func (n *node) restart() {
	n.t.Helper()
	for _, p := range n.peers {
		_ = p.c.Close()
	}
	n.peers = nil
	if err := n.stop(); err != nil {
		n.t.Fatal(err)
	}
	n.run()
}

// url is the address of a listener: websocket, tcp or admin.
func (n *node) url(name string) string {
	n.t.Helper()
	for _, a := range n.srv.Addresses() {
		if a.Name == name {
			return a.URL
		}
	}
	n.t.Fatalf("no listener %q in %v", name, n.srv.Addresses())
	return ""
}

// token mints a token with the server's key.
func (n *node) token(user, terminal string, ttl time.Duration) string {
	n.t.Helper()
	key, err := os.ReadFile(filepath.Join(n.o.DataDir, "jwt.key"))
	if err != nil {
		n.t.Fatal(err)
	}
	token, err := auth.Mint([]byte(strings.TrimSpace(string(key))), user, terminal, ttl, time.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	return token
}

// peer is one bare connection in a dialogue.
type peer struct {
	t    *testing.T
	c    *client.Conn
	skip map[int]bool  // commands that expect passes over
	ids  *atomic.Int64 // of the node: the last number that sendN gave to an id
}

// dial opens a connection: "websocket" or "tcp".
func (n *node) dial(transport string) *peer {
	n.t.Helper()
	return n.dialURL(n.url(transport), nil)
}

// dialURL is dial with an address and headers of the test's own.
func (n *node) dialURL(url string, header http.Header) *peer {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.DialConn(ctx, url, client.ConnOptions{Header: header})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = c.Close() })
	p := &peer{t: n.t, c: c, ids: n.ids, skip: map[int]bool{11: true}} // receipts come when they come
	n.peers = append(n.peers, p)
	return p
}

// login opens a connection and logs in; more are further fields of LOGIN's data, as JSON without braces.
func (n *node) login(transport, user string, more ...string) *peer {
	n.t.Helper()
	p := n.dial(transport)
	p.login(n.token(user, "", time.Hour), more...)
	return p
}

func (p *peer) login(token string, more ...string) packet {
	p.t.Helper()
	fields := append([]string{fmt.Sprintf(`"accessToken":%q`, token)}, more...)
	p.send(fmt.Sprintf(`{"cmd":0,"id":"login","data":{%s}}`, strings.Join(fields, ",")))
	return p.expect(`{"cmd":0,"id":"login"}`)
}

// transports are both, for tests of what might differ.
var transports = []string{"websocket", "tcp"}

// eachTransport runs f once for each transport.
func eachTransport(t *testing.T, f func(t *testing.T, transport string)) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) { f(t, transport) })
	}
}

// on is n in the hands of a subtest.
func (n *node) on(t *testing.T) *node {
	return &node{t: t, o: n.o, srv: n.srv, stop: n.stop, ids: n.ids}
}

// send writes one packet as it is.
func (p *peer) send(packet string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.c.Send(ctx, []byte(packet)); err != nil {
		p.t.Fatalf("send %.200s: %v", packet, err)
	}
}

// packet is a received packet as a JSON tree.
type packet map[string]any

// data is a field of the packet's data, by path.
func (p packet) data(path ...string) any {
	var v any = map[string]any(p)
	for _, k := range append([]string{"data"}, path...) {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

// number is an integer field of the data.
func (p packet) number(path ...string) uint64 {
	f, _ := p.data(path...).(float64)
	return uint64(f)
}

func (p packet) cmd() int {
	f, _ := p["cmd"].(float64)
	return int(f)
}

// raw returns the next packet as it is.
func (p *peer) raw() []byte {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b, err := p.c.Receive(ctx)
	if err != nil {
		p.t.Fatalf("receive: %v", err)
	}
	return b
}

// receive returns the next packet.
func (p *peer) receive() packet {
	p.t.Helper()
	return parse(p.t, p.raw())
}

// next is receive without what p skips.
func (p *peer) next() packet {
	p.t.Helper()
	for {
		if got := p.receive(); !p.skip[got.cmd()] {
			return got
		}
	}
}

func parse(t *testing.T, b []byte) packet {
	t.Helper()
	var got packet
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("received %.200s: %v", b, err)
	}
	return got
}

// expect receives the next packet (but those of p.skip) and fails unless it contains what is wanted: every field of want, at any
// depth; arrays element by element; what want does not name does not matter. "*" stands for any value, null for an absent one.
func (p *peer) expect(want string) packet {
	p.t.Helper()
	w := parse(p.t, []byte(want))
	got := p.receive()
	for p.skip[got.cmd()] && got.cmd() != w.cmd() {
		got = p.receive()
	}
	check(p.t, got, want)
	return got
}

// check fails unless got contains what is wanted, see expect.
func check(t *testing.T, got packet, want string) {
	t.Helper()
	if path, ok := contains(map[string]any(got), map[string]any(parse(t, []byte(want)))); !ok {
		b, _ := json.Marshal(got)
		t.Fatalf("got  %.1000s\nwant %.1000s\ndiffers at %s", b, want, path)
	}
}

// expectAll is expect for packets that may come in any order; it returns them in the order of wants.
func (p *peer) expectAll(wants ...string) []packet {
	p.t.Helper()
	got := make([]packet, len(wants))
	for range wants {
		g := p.next()
		found := false
		for i, want := range wants {
			if got[i] != nil {
				continue
			}
			if _, ok := contains(map[string]any(g), map[string]any(parse(p.t, []byte(want)))); ok {
				got[i], found = g, true
				break
			}
		}
		if !found {
			b, _ := json.Marshal(g)
			p.t.Fatalf("got  %.1000s\nwant one of %.1000s", b, wants)
		}
	}
	return got
}

// talk sends and expects.
func (p *peer) talk(send, want string) packet {
	p.t.Helper()
	p.send(send)
	return p.expect(want)
}

// quiet fails if anything but skipped packets has come before the answer to a heartbeat.
func (p *peer) quiet() packet {
	p.t.Helper()
	return p.talk(`{"cmd":1,"id":"quiet"}`, `{"cmd":1,"id":"quiet"}`)
}

// closed waits for the end of the connection, passing over packets, and returns the WebSocket close code (0 on TCP).
func (p *peer) closed() uint16 {
	p.t.Helper()
	defer func() { _ = p.c.Close() }() // or the server waits for our end
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if _, err := p.c.Receive(ctx); err != nil {
			if ctx.Err() != nil {
				p.t.Fatal("the connection stays open")
			}
			var ce *client.CloseError
			if errors.As(err, &ce) {
				return ce.Code
			}
			return 0
		}
	}
}

func contains(got, want any) (path string, ok bool) {
	switch w := want.(type) {
	case map[string]any:
		g, isMap := got.(map[string]any)
		if !isMap {
			return "", false
		}
		for k, v := range w {
			if v == nil {
				if x, there := g[k]; there && x != nil {
					return "." + k, false
				}
				continue
			}
			if p, ok := contains(g[k], v); !ok {
				return "." + k + p, false
			}
		}
		return "", true
	case []any:
		g, isList := got.([]any)
		if !isList || len(g) != len(w) {
			return "[]", false
		}
		for i := range w {
			if p, ok := contains(g[i], w[i]); !ok {
				return fmt.Sprintf("[%d]%s", i, p), false
			}
		}
		return "", true
	case string:
		if w == "*" {
			return "", got != nil
		}
	}
	return "", reflect.DeepEqual(got, want)
}

// call makes a request of the HTTP API, checks the status and that the answer contains want, and returns it.
func (n *node) call(method, path, body string, status int, want string) packet {
	n.t.Helper()
	code, b := n.request(method, path, body, nil)
	if code != status {
		n.t.Fatalf("%s %s %.200s: %d %.500s, want %d", method, path, body, code, b, status)
	}
	got := parse(n.t, b)
	check(n.t, got, want)
	return got
}

// request makes a request of the admin port.
func (n *node) request(method, path, body string, header http.Header) (status int, answer []byte) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, n.url("admin")+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	// A connection of its own: none is left when the test ends.
	tr := &http.Transport{DisableKeepAlives: true}
	res, err := tr.RoundTrip(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err = io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return res.StatusCode, answer
}

// eventually waits for what no packet tells of.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// sendN sends count private messages "0", "1" … from p to user and waits for their acknowledgements.
func (p *peer) sendN(to string, count int) {
	p.t.Helper()
	skip := p.skip
	p.skip = maps.Clone(skip)
	p.skip[3], p.skip[11] = true, true
	defer func() { p.skip = skip }()
	for begun := 0; begun < count; {
		n := min(count-begun, 256)
		for i := range n {
			p.send(fmt.Sprintf(`{"cmd":3,"id":"n%d","data":{"to":%q,"content":%d}}`, p.ids.Add(1), to, begun+i))
		}
		for range n {
			p.expect(`{"cmd":6}`)
		}
		begun += n
	}
}

// inboxes expects count pushed entries with the numbers from, from+1 …
func (p *peer) inboxes(from, count uint64) {
	p.t.Helper()
	for i := range count {
		got := p.next()
		if got.cmd() < 3 || got.cmd() > 5 && got.cmd() != 14 || got.number("inbox") != from+i {
			p.t.Fatalf("got %v, want the entry %d", got, from+i)
		}
	}
}
