package main

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"

	"github.com/meshtalk/meshtalk/internal/services"
	"github.com/meshtalk/meshtalk/mq/rocketmq"
)

// output is what a running command has printed.
type output struct {
	mu sync.Mutex
	b  strings.Builder
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
	rlog.SetLogLevel("fatal")
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
	done := make(chan error, 1)
	reading, stop := context.WithCancel(ctx)
	go func() { done <- run(reading, []string{"--name-server", set.NameServer.Addr}, &out) }()
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(out.String(), two) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if got, want := out.String(), one+"\n"+two+"\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}

	p, err := c.OpenPushes(ctx, rocketmq.PushOptions{Topic: "meshtalk_push", Group: "meshtalk_push"})
	if err != nil {
		t.Fatal(err)
	}
	big := `{"id":"1","to":"bob","content":"` + strings.Repeat("x", 10000) + `"}` // above 4 KiB that client compresses
	if err := run(ctx, []string{"--name-server", set.NameServer.Addr, "--send", big}, &out); err != nil {
		t.Fatal(err)
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
