package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/client"
)

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	if err := os.WriteFile(keys, []byte("k-123 alice\nk-456 bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"--keys", keys, "--data-dir", filepath.Join(dir, "data"), "--ws", "0", "--tcp", "0", "--admin", "0"}, w)
		_ = w.Close()
		done <- err
	}()
	in := bufio.NewScanner(r)
	urls := map[string]string{}
	for in.Scan() && in.Text() != "ready" {
		name, url, _ := strings.Cut(in.Text(), " ")
		urls[name] = url
	}
	told := make(chan []string, 1)
	go func() {
		var lines []string
		for in.Scan() {
			lines = append(lines, in.Text())
		}
		told <- lines
	}()

	for _, name := range []string{"websocket", "tcp"} {
		if _, err := login(t, urls[name], "k-000"); !errors.Is(err, client.ErrUnauthorized) {
			t.Errorf("%s: a wrong key: %v", name, err)
		}
		c, err := login(t, urls[name], "k-123")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Session().User; got != "alice" {
			t.Errorf("logged in as %q", got)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	lines := <-told
	if !slices.Contains(lines, "alice came from 127.0.0.1") || !slices.Contains(lines, "alice went: peer") {
		t.Errorf("told %q", lines)
	}
}

func login(t *testing.T, url, key string) (*client.Client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return client.Dial(ctx, client.Options{Addr: url, Token: client.StaticToken(key)})
}
