package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meshtalk/meshtalk/internal/services"
	"github.com/meshtalk/meshtalk/mq/rocketmq"
)

// event is one of the topic of events.
type event struct {
	Event   string          `json:"event"`
	ID      string          `json:"id"`
	Conv    string          `json:"conv"`
	Seq     uint64          `json:"seq"`
	Message eventMessage    `json:"message"`
	Results []pushResult    `json:"results"`
	Error   json.RawMessage `json:"error"`
}

type eventMessage struct {
	MsgID   string          `json:"msgId"`
	Content json.RawMessage `json:"content"`
}

type pushResult struct {
	MsgID     string `json:"msgId"`
	Seq       uint64 `json:"seq"`
	Duplicate bool   `json:"duplicate"`
}

// events is a business service that reads a topic of events from its beginning, each queue in order.
type events struct {
	t *testing.T

	mu   sync.Mutex
	list []event
	bad  error
}

var eventGroups atomic.Int32

// readEvents reads until t's cleanup.
func readEvents(t *testing.T, set *services.Set, topic string) *events {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c, err := rocketmq.Connect(ctx, rocketmq.Options{NameServers: []string{set.NameServer.Addr}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	pulls, err := c.OpenPushes(ctx, rocketmq.PushOptions{Topic: topic, Group: fmt.Sprintf("e2e-events-%d", eventGroups.Add(1))})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	r := &events{t: t}
	done := make(chan error, 1)
	go func() { done <- pulls.Run(ctx, r.take) }()
	t.Cleanup(func() {
		cancel()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// take takes one array of events.
func (r *events) take(_ context.Context, body []byte) error {
	var list []event
	err := json.Unmarshal(body, &list)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, list...)
	if err != nil {
		r.bad = fmt.Errorf("no array of events: %w: %.200s", err, body)
	}
	return nil
}

// all are the events that have come.
func (r *events) all() []event {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bad != nil {
		r.t.Fatal(r.bad)
	}
	return r.list[:len(r.list):len(r.list)]
}

// until waits for an event.
func (r *events) until(what string, f func(*event) bool) {
	r.t.Helper()
	until(r.t, what, func() (any, bool) {
		list := r.all()
		for i := range list {
			if f(&list[i]) {
				return nil, true
			}
		}
		return fmt.Sprintf("%d events", len(list)), false
	})
}
