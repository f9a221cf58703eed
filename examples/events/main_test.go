package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/internal/services"
	"github.com/meshtalk/meshtalk/mq/rocketmq"
)

// build makes the command, as a program of its own: RocketMQ's client has data races of its own, which would end a test that
// runs in one process with it under the race detector.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "events")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// output is what a running command has printed.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// What the server publishes is read by RocketMQ's own client, in order and without repeats; what that client sends is a push.
func TestEventsAndPushes(t *testing.T) {
	binary := build(t)
	set := services.Start(t, services.RocketMQ)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c, err := rocketmq.Connect(ctx, rocketmq.Options{NameServers: []string{set.NameServer.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	e, err := c.OpenEvents(ctx, "meshtalk_event")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	one := `{"event":"message.stored","message":{"conv":"p:a:b","seq":1}}`
	two := `{"event":"message.stored","message":{"conv":"p:a:b","seq":2}}`
	for _, list := range [][][]byte{{[]byte(one)}, {[]byte(one), []byte(two)}} {
		if err := e.Publish(ctx, "p:a:b", list); err != nil {
			t.Fatal(err)
		}
	}
	var out output
	reader := exec.CommandContext(ctx, binary, "--name-server", set.NameServer.Addr)
	reader.Stdout, reader.Stderr = &out, os.Stderr
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(out.String(), two) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if got, want := out.String(), one+"\n"+two+"\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if err := reader.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := reader.Wait(); err != nil {
		t.Error("the reader: ", err)
	}

	p, err := c.OpenPushes(ctx, rocketmq.PushOptions{Topic: "meshtalk_push", Group: "meshtalk_push"})
	if err != nil {
		t.Fatal(err)
	}
	big := `{"id":"1","to":"bob","content":"` + strings.Repeat("x", 10000) + `"}` // above 4 KiB that client compresses
	if out, err := exec.CommandContext(ctx, binary, "--name-server", set.NameServer.Addr, "--send", big).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	taking, taken := context.WithTimeout(ctx, time.Minute)
	defer taken()
	got := ""
	if err := p.Run(taking, func(_ context.Context, body []byte) error { got = string(body); taken(); return nil }); err != nil {
		t.Fatal(err)
	}
	if got != big {
		t.Errorf("the push is %.60q of %d bytes", got, len(got))
	}
}
