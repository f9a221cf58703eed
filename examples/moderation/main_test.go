package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/client"
)

// serve runs the program on free ports until the end of the test and returns its addresses by name.
func serve(t *testing.T, dir string) map[string]string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"--data-dir", dir, "--ws", "0", "--tcp", "0", "--admin", "0"}, w) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	urls := map[string]string{}
	for in := bufio.NewScanner(r); in.Scan() && in.Text() != "ready"; {
		name, url, _ := strings.Cut(in.Text(), " ")
		urls[name] = url
	}
	return urls
}

func TestModeration(t *testing.T) {
	dir := t.TempDir()
	urls := serve(t, dir)
	key, err := os.ReadFile(filepath.Join(dir, "jwt.key"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, name := range []string{"websocket", "tcp"} {
		t.Run(name, func(t *testing.T) {
			token, err := auth.Mint([]byte(strings.TrimSpace(string(key))), name, "", time.Hour, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			c, err := client.DialConn(ctx, urls[name], client.ConnOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			for _, step := range []struct{ send, want string }{
				{`{"cmd":0,"data":{"accessToken":"` + token + `"}}`, `"userId":"` + name + `"`},
				{`{"cmd":3,"id":"1","data":{"to":"bob","content":"see http://x"}}`, `"message":"links are not allowed here"`},
				{`{"cmd":3,"id":"2","data":{"to":"bob","content":"  hi "}}`, `"content":"hi"`},
				{`{"cmd":1000,"id":"3"}`, `{"cmd":1000,"id":"3","data":{"kept":`},
			} {
				if err := c.Send(ctx, []byte(step.send)); err != nil {
					t.Fatal(err)
				}
				for { // the SEND_ACK and the copy of a message come in either order
					b, err := c.Receive(ctx)
					if err != nil {
						t.Fatalf("%s: %v", step.send, err)
					}
					if strings.Contains(string(b), step.want) {
						break
					}
					if !strings.Contains(string(b), `"cmd":6`) && !strings.Contains(string(b), `"cmd":3`) {
						t.Fatalf("%s: got %s, want %s", step.send, b, step.want)
					}
				}
			}
		})
	}
}
