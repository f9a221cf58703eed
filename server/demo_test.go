package server_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/server"
)

func withDemo(o *server.Options) { o.Demo.Enable = true }

// ask makes a request to the WebSocket port.
func ask(t *testing.T, method, url, origin string) (status int, header http.Header, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if origin != "" {
		r.Header.Set("Origin", origin)
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(b)
}

func TestDemoPage(t *testing.T) {
	n := start(t, withDemo)
	base := n.url("demo")
	for path, want := range map[string]struct{ kind, part string }{
		"":          {"text/html", "/demo/app.js"},
		"/app.js":   {"text/javascript", "WebSocket"},
		"/app.css":  {"text/css", "prefers-color-scheme"},
		"/icon.svg": {"image/svg+xml", "<svg"},
	} {
		status, header, body := ask(t, "GET", base+path, "")
		if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), want.kind) || !strings.Contains(body, want.part) {
			t.Errorf("%s: %d, %v", path, status, header)
		}
		if policy := header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
	}
	for path, want := range map[string]int{"/nothing": 404, "/token": 405} {
		if status, _, _ := ask(t, "GET", base+path, ""); status != want {
			t.Errorf("%s: %d", path, status)
		}
	}
	if status, _, body := ask(t, "HEAD", base, ""); status != 200 || body != "" {
		t.Errorf("HEAD: %d %q", status, body)
	}
}

func TestDemoTokens(t *testing.T) {
	n := start(t, withDemo, func(o *server.Options) { o.WebSocket.Path, o.Demo.TokenTTL = "/chat", 90*time.Second })
	base := n.url("demo")
	own := strings.TrimSuffix(base, "/demo")
	status, _, body := ask(t, "POST", base+"/token?user=alice%20%C3%A9&terminal=tab", own)
	var granted struct{ Token, Socket, Lobby string }
	if err := json.Unmarshal([]byte(body), &granted); err != nil || status != 200 || granted.Socket != "/chat" {
		t.Fatalf("%d %s", status, body)
	}
	c, err := client.Dial(t.Context(), client.Options{Addr: n.url("websocket"), Token: client.StaticToken(granted.Token)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if s := c.Session(); s.User != "alice é" || s.Terminal != "tab" || time.Until(s.ExpiresAt) > 91*time.Second {
		t.Errorf("session %+v", s)
	}
	if _, err := c.Send(t.Context(), client.Outgoing{Group: granted.Lobby, Content: client.Text("hello")}); err != nil {
		t.Errorf("to the lobby: %v", err)
	}

	if status, _, body := ask(t, "POST", base+"/groups?group=team&users=alice%20%C3%A9,bob", own); status != 200 {
		t.Errorf("a group: %d %s", status, body)
	}
	for path, want := range map[string]int{
		"/token?user=": 400, "/token?user=a:b": 400, "/token?user=a&terminal=a/b": 400, "/token": 400,
		"/groups?group=a:b&users=alice": 400, "/groups?group=team&users=,": 400,
		"/groups?group=team&users=" + strings.Repeat("x,", 200): 400,
		"/members?group=team&user=bob":                          200, "/members?group=team&user=eve": 400, "/members?group=nobody&user=eve": 400,
	} {
		if status, _, body := ask(t, "POST", base+path, ""); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if _, _, body := ask(t, "POST", base+"/members?group=team&user=bob", ""); body != `{"members":["alice é","bob"]}` {
		t.Errorf("members: %s", body)
	}
	for _, origin := range []string{"http://evil.example", "null"} {
		if status, _, body := ask(t, "POST", base+"/token?user=alice", origin); status != 403 || strings.Contains(body, "token\":") {
			t.Errorf("from %s: %d %s", origin, status, body)
		}
	}
}

// The demo's own page may connect, also where other origins are named; without the demo there is nothing.
func TestDemoOrigins(t *testing.T) {
	dial := func(n *node, origin string) error {
		c, err := client.DialConn(t.Context(), n.url("websocket"), client.ConnOptions{Header: http.Header{"Origin": {origin}}})
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	named := func(o *server.Options) { o.WebSocket.AllowedOrigins = []string{"https://chat.example.org"} }
	with, without := start(t, withDemo, named), start(t, named)
	own := func(n *node) string {
		return "http" + strings.TrimSuffix(strings.TrimPrefix(n.url("websocket"), "ws"), "/im")
	}
	if err := dial(with, own(with)); err != nil {
		t.Errorf("the demo's page: %v", err)
	}
	if dial(with, "http://evil.example") == nil || dial(without, own(without)) == nil {
		t.Error("another origin may connect")
	}
	if status, _, _ := ask(t, "GET", own(without)+"/demo", ""); status != 404 {
		t.Errorf("without the demo: %d", status)
	}
}

func TestDemoIsWarnedOfAndChecked(t *testing.T) {
	var log bytes.Buffer
	n := start(t, withDemo, func(o *server.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "demo.enable is on") {
		t.Errorf("the log has no warning:\n%s", log.String())
	}
	for part, change := range map[string]func(*server.Options){
		"websocket.enable": func(o *server.Options) { o.WebSocket.Enable = false },
		"websocket.path":   func(o *server.Options) { o.WebSocket.Path = "/demo" },
		"HS256":            func(o *server.Options) { o.JWT.JWKSURL = "http://127.0.0.1:1/keys" },
	} {
		o := options(t)
		withDemo(&o)
		change(&o)
		if err := server.Check(o); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", part, err)
		}
		srv, err := server.New(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.Start(t.Context()); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("start without %s: %v", part, err)
		}
	}
}
