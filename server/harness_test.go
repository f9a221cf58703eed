package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
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
	n := &node{t: t, o: o}
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

// restart stops the server and starts it on the same data.
func (n *node) restart() {
	n.t.Helper()
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
	skip map[int]bool // commands that expect passes over
}

// dial opens a connection: "websocket" or "tcp".
func (n *node) dial(transport string) *peer {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.DialConn(ctx, n.url(transport), client.ConnOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = c.Close() })
	return &peer{t: n.t, c: c, skip: map[int]bool{11: true}} // receipts come when they come
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
	got := p.expect(`{"cmd":0,"id":"login"}`)
	return got
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

// receive returns the next packet.
func (p *peer) receive() packet {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b, err := p.c.Receive(ctx)
	if err != nil {
		p.t.Fatalf("receive: %v", err)
	}
	var got packet
	if err := json.Unmarshal(b, &got); err != nil {
		p.t.Fatalf("received %.200s: %v", b, err)
	}
	return got
}

// expect receives the next packet (but those of p.skip) and fails unless it contains what is wanted: every field of want, at any
// depth; arrays as a whole; what want does not name does not matter. "*" stands for any value, null for an absent one.
func (p *peer) expect(want string) packet {
	p.t.Helper()
	var w packet
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		p.t.Fatalf("expect %s: %v", want, err)
	}
	got := p.receive()
	for p.skip[got.cmd()] && got.cmd() != w.cmd() {
		got = p.receive()
	}
	if path, ok := contains(map[string]any(got), map[string]any(w)); !ok {
		b, _ := json.Marshal(got)
		p.t.Fatalf("got  %s\nwant %s\ndiffers at %s", b, want, path)
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
	case string:
		if w == "*" {
			return "", got != nil
		}
	}
	return "", reflect.DeepEqual(got, want)
}
