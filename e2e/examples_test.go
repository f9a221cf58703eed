package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/codec"
)

// example builds an example program and runs it on free ports. It returns the addresses that it prints, by listener, and a function that
// ends it by SIGTERM and judges its exit.
func example(t *testing.T, name string, args ...string) (urls map[string]string, terminate func()) {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", program, "../examples/"+name).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.Command(program, append(args, "--ws", "0", "--tcp", "0")...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	ended := false
	end := func() error {
		for lines.Scan() { // Wait closes the pipe
		}
		ended = true
		late.Stop()
		return cmd.Wait()
	}
	t.Cleanup(func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = end()
		}
	})
	urls = map[string]string{}
	for lines.Scan() && lines.Text() != "ready" {
		kind, url, _ := strings.Cut(lines.Text(), " ")
		urls[kind] = url
	}
	return urls, func() {
		t.Helper()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	}
}

// eachTransport calls f with a fresh connection of both kinds.
func eachTransport(ctx context.Context, t *testing.T, urls map[string]string, f func(transport string, c *client.Conn)) {
	t.Helper()
	for _, transport := range []string{"websocket", "tcp"} {
		c, err := client.DialConn(ctx, urls[transport], client.ConnOptions{})
		if err != nil {
			t.Fatalf("%v: %v", urls, err)
		}
		f(transport, c)
		_ = c.Close()
	}
}

func TestExampleEcho(t *testing.T) {
	ctx := patient(t)
	listeners, terminate := example(t, "echo")
	urls := map[string]string{}
	for transport, scheme := range map[string]string{"websocket": "ws://", "tcp": "tcp://"} {
		_, port, err := net.SplitHostPort(listeners[transport])
		if err != nil {
			t.Fatal(err)
		}
		urls[transport] = scheme + net.JoinHostPort("127.0.0.1", port)
	}
	eachTransport(ctx, t, urls, func(transport string, c *client.Conn) {
		for _, s := range []string{"x", noise(100_000)} {
			if err := c.Send(ctx, []byte(s)); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Receive(ctx); err != nil || string(got) != s {
				t.Errorf("%s: %d bytes came back as %d, %v", transport, len(s), len(got), err)
			}
		}
	})
	terminate()
}

func TestExampleModeration(t *testing.T) {
	ctx := patient(t)
	dir := t.TempDir()
	urls, terminate := example(t, "moderation", "--data-dir", dir, "--admin", "0")
	keys := &process{t: t, dir: dir}
	eachTransport(ctx, t, urls, func(transport string, c *client.Conn) {
		if err := login(ctx, c, keys.token(transport)); err != nil {
			t.Fatal(err)
		}
		_, err := exchange(ctx, c, `{"cmd":3,"id":"a link","data":{"to":"bob","content":"look: http://example.org"}}`)
		var r *refusal
		if !errors.As(err, &r) || r.Code != int(codec.CodeForbidden) {
			t.Errorf("%s: a link: %v, want FORBIDDEN", transport, err)
		}
		if err := c.Send(ctx, []byte(`{"cmd":3,"id":"text","data":{"to":"bob","content":"  hello  "}}`)); err != nil {
			t.Fatal(err)
		}
		if err := awaitContent(ctx, c, `"hello"`); err != nil { // its own copy
			t.Errorf("%s: %v", transport, err)
		}
		got, err := exchange(ctx, c, `{"cmd":1000,"id":"count"}`)
		if err != nil || !strings.Contains(string(got.Data), `"kept":`) {
			t.Errorf("%s: command 1000: %s %v", transport, got.Data, err)
		}
	})
	terminate()
}

func TestExampleAPIKeys(t *testing.T) {
	ctx := patient(t)
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("k-123 alice\nk-456 bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	urls, terminate := example(t, "apikeys", "--keys", keys, "--data-dir", t.TempDir(), "--admin", "0")
	eachTransport(ctx, t, urls, func(transport string, c *client.Conn) {
		var r *refusal
		if err := login(ctx, c, "k-789"); !errors.As(err, &r) || r.Code != int(codec.CodeUnauthorized) {
			t.Errorf("%s: a wrong key: %v, want UNAUTHORIZED", transport, err)
		}
	})
	eachTransport(ctx, t, urls, func(transport string, c *client.Conn) {
		got, err := exchange(ctx, c, `{"cmd":0,"id":"login","data":{"accessToken":"k-456"}}`)
		if err != nil || !strings.Contains(string(got.Data), `"userId":"bob"`) {
			t.Errorf("%s: a right key: %s %v", transport, got.Data, err)
		}
	})
	terminate()
}
