package rocketmq

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/internal/services"
	"github.com/meshtalk/meshtalk/mq"
	"github.com/meshtalk/meshtalk/mq/mqtest"
)

// patience bounds the wait for what must happen.
const patience = time.Minute

// shared is one broker for all tests that do not break it.
var shared *services.Set

func TestMain(m *testing.M) { services.Main(m, &shared, services.RocketMQ) }

// testLog puts log lines into the test's output, while it runs.
type testLog struct {
	t    testing.TB
	mu   sync.Mutex
	over bool
}

func (w *testLog) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func logger(t testing.TB) *slog.Logger {
	w := &testLog{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
	})
	return slog.New(slog.NewTextHandler(w, nil))
}

// connect makes a client of the name servers until t's cleanup.
func connect(t testing.TB, nameServers ...string) *Client {
	t.Helper()
	c, err := Connect(context.Background(), Options{NameServers: nameServers, Group: "test", Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

var topics atomic.Int64

// newTopic is the name of one that nobody has.
func newTopic() string { return fmt.Sprintf("t%d", topics.Add(1)) }

// openLog opens a log, with a client of its own.
func openLog(t testing.TB, nameServer, topic string, queues int, parts mq.Partitions) *Log {
	t.Helper()
	l, err := connect(t, nameServer).OpenLog(context.Background(), LogOptions{
		Topic: topic, Queues: queues, Backlog: 1 << 16, Partitions: parts,
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// run runs l until end is called or t's cleanup.
func run(t testing.TB, l *Log, c mq.Consumer) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, c) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(end)
	return end
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what must become true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("does not happen: %s", what)
		}
	}
}

func TestContract(t *testing.T) {
	mqtest.Run(t, func(t *testing.T, n *mqtest.Node) mq.Log {
		return openLog(t, shared.NameServer.Addr, newTopic(), 8, n)
	})
}
