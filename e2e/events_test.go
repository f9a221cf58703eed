package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meshtalk/meshtalk/client"
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

// withEvents are options of an embedded node that has RocketMQ for events and pushes, with topics of their own.
func withEvents(t *testing.T, set *services.Set) (options, events, pushes string) {
	t.Helper()
	number := shared.tests.Add(1)
	events, pushes = fmt.Sprintf("e2e_event_%d", number), fmt.Sprintf("e2e_push_%d", number)
	b, err := json.Marshal(map[string]any{"RocketMQ": map[string]any{
		"NameServer": set.NameServer.Addr, "ProducerGroup": fmt.Sprintf("e2e-%d", number), "EventTopic": events, "PushTopic": pushes,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return envOptions + "=" + string(b), events, pushes
}

// What an embedded node has acknowledged is told of by message.stored at least once and in order, though it is killed between the
// commit and the publication: the broker takes nothing meanwhile, or the kill comes while it does.
func TestEventsSurviveKills(t *testing.T) {
	set := sharedServices(t)
	options, topic, _ := withEvents(t, set)
	ctx, dir := patient(t), t.TempDir()
	p := spawn(t, dir, options)
	users := crowdOf(8, newHistory())
	for _, u := range users {
		u.pace = pace
	}
	makeGroup(t, p, users)
	service := readEvents(t, set, topic)
	talks(t, p, "tcp", "first", "second", "hello")
	service.until("the first message is told of", func(e *event) bool { return e.Event == "message.stored" })

	// dies lets the users send, kills the node and starts it again when between has returned.
	dies := func(between func()) {
		t.Helper()
		l := startLoad(ctx, p, users)
		l.acknowledged(t, 200)
		p.kill()
		_ = l.end()
		between()
		p = spawn(t, dir, options)
	}
	nothing := func() {}
	must(t, set.Broker.Pause())
	dies(nothing) // the next start finds a broker that does not answer
	dies(func() {
		for _, e := range service.all() {
			if e.Event == "message.stored" && e.Conv != "p:first:second" {
				t.Fatalf("a broker that stands still has taken %+v", e)
			}
		}
		must(t, set.Broker.Resume())
	})
	must(t, set.Broker.Kill())
	dies(func() { must(t, set.Broker.Start()) })
	for range often(3, 20) {
		dies(nothing)
	}
	l := startLoad(ctx, p, users)
	finish(t, p, l)

	stored := map[string]map[uint64]string{} // conversation → seq → msgId
	for _, entries := range inboxes(t, p, users) {
		for _, e := range entries {
			if stored[e.conv] == nil {
				stored[e.conv] = map[uint64]string{}
			}
			stored[e.conv][e.seq] = e.msgID
		}
	}
	until(t, "every stored message is told of", func() (any, bool) {
		told, wrong := messagesStored(service.all())
		if wrong != "" {
			t.Fatal(wrong)
		}
		lacking := 0
		for conv, messages := range stored {
			for seq, id := range messages {
				if told[conv][seq] != id {
					lacking++
				}
			}
		}
		return fmt.Sprintf("%d messages are not told of", lacking), lacking == 0
	})
}

// messagesStored are the messages that events tell of, by conversation and seq. wrong says what is against the promise: a message
// that comes before its predecessor, or another one under the same seq.
func messagesStored(list []event) (told map[string]map[uint64]string, wrong string) {
	told = map[string]map[uint64]string{}
	for _, e := range list {
		if e.Event != "message.stored" {
			continue
		}
		conv := told[e.Conv]
		if conv == nil {
			conv = map[uint64]string{}
			told[e.Conv] = conv
		}
		id, again := conv[e.Seq]
		switch {
		case again && id != e.Message.MsgID:
			return told, fmt.Sprintf("%s/%d is %s and %s", e.Conv, e.Seq, id, e.Message.MsgID)
		case !again && e.Seq != uint64(len(conv))+1:
			return told, fmt.Sprintf("%s/%d comes after %d others", e.Conv, e.Seq, len(conv))
		}
		conv[e.Seq] = e.Message.MsgID
	}
	return told, ""
}

// A push that comes twice is delivered once, and answered twice with the same message; also when the node was killed meanwhile.
func TestPushTwice(t *testing.T) {
	set := sharedServices(t)
	options, topic, pushes := withEvents(t, set)
	ctx, dir := patient(t), t.TempDir()
	p := spawn(t, dir, options)
	service := readEvents(t, set, topic)
	bob, err := connect(ctx, p, "tcp", "bob")
	must(t, err)
	defer func() { _ = bob.Close() }()
	push := pusher(t, set, pushes)

	push(`{"id":"order-7","to":"bob","content":"shipped"}`)
	must(t, awaitContent(ctx, bob, `"shipped"`))
	push(`{"id":"order-7","to":"bob","content":"shipped"}`)
	service.results("order-7", 2)
	push(`{"id":"order-8","to":"bob","content":"arrived"}`)
	must(t, nextContent(ctx, bob, `"arrived"`))

	p.kill()
	push(`{"id":"order-7","to":"bob","content":"shipped"}`)
	p = spawn(t, dir, options)
	service.results("order-7", 3)
	var inbox struct{ Entries []json.RawMessage }
	must(t, json.Unmarshal(p.call("GET", "/v1/users/bob/inbox", ""), &inbox))
	if len(inbox.Entries) != 2 {
		t.Errorf("bob has %d messages, want 2: %s", len(inbox.Entries), inbox.Entries)
	}
}

// nextContent wants the next message that is received to have this content.
func nextContent(ctx context.Context, c *client.Conn, content string) error {
	for {
		got, err := c.ReceivePacket(ctx)
		if err != nil {
			return err
		}
		var m struct{ Content json.RawMessage }
		if err := json.Unmarshal(got.Data, &m); err == nil && m.Content != nil {
			if string(m.Content) != content {
				return fmt.Errorf("%s came, want %s", m.Content, content)
			}
			return nil
		}
	}
}

// results waits until a push was answered n times: each time with the same message, once at most as a new one.
func (r *events) results(id string, n int) {
	r.t.Helper()
	until(r.t, fmt.Sprintf("%s is answered %d times", id, n), func() (any, bool) {
		var answers []pushResult
		first := 0
		for _, e := range r.all() {
			if e.Event != "push.result" || e.ID != id {
				continue
			}
			if len(e.Results) != 1 || e.Error != nil {
				r.t.Fatalf("a push is answered %+v", e)
			}
			a := e.Results[0]
			if !a.Duplicate {
				first++
			}
			a.Duplicate = false
			answers = append(answers, a)
			if a != answers[0] || first > 1 {
				r.t.Fatalf("%s is answered %+v, %d times as a new message", id, answers, first)
			}
		}
		return answers, len(answers) >= n
	})
}

// pusher is a business service that writes to the topic of pushes, by RocketMQ's own client.
func pusher(t *testing.T, set *services.Set, topic string) func(body string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "events")
	if out, err := exec.Command("go", "build", "-o", binary, "../examples/events").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return func(body string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, "--name-server", set.NameServer.Addr, "--push-topic", topic, "--send", body)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("push: %v\n%s", err, strings.TrimSpace(string(out)))
		}
	}
}
