package rocketmq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/meshtalk/meshtalk/mq/mqtest"
)

// seen are bodies in the order in which they came.
type seen struct {
	mu     sync.Mutex
	bodies []string
}

func (s *seen) add(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies = append(s.bodies, string(b))
}

func (s *seen) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.bodies)
}

// takePushes runs pushes until end or t's cleanup.
func takePushes(t *testing.T, o PushOptions, f func(ctx context.Context, body []byte) error) (end func()) {
	t.Helper()
	p, err := connect(t, shared.NameServer.Addr).OpenPushes(context.Background(), o)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, f) }()
	end = sync.OnceFunc(func() {
		cancel()
		must(t, <-done)
	})
	t.Cleanup(end)
	return end
}

// Events of a key come in its order, in arrays of JSON; read here as pushes, which come from any topic.
func TestEventsAreOrderedByKey(t *testing.T) {
	const keys, each = 20, 100
	topic := newTopic()
	e, err := connect(t, shared.NameServer.Addr).OpenEvents(context.Background(), topic)
	must(t, err)
	defer func() { must(t, e.Close()) }()
	var publishing sync.WaitGroup
	for k := range keys {
		publishing.Go(func() {
			for i := 0; i < each; i += 4 {
				var list [][]byte
				for n := i; n < i+4; n++ {
					list = append(list, fmt.Appendf(nil, `{"key":%d,"n":%d}`, k, n))
				}
				if err := e.Publish(context.Background(), fmt.Sprint("key", k), list); err != nil {
					t.Error(err)
				}
			}
		})
	}
	publishing.Wait()
	var mu sync.Mutex
	next, wrong := map[int]int{}, 0
	takePushes(t, PushOptions{Topic: topic, Group: topic}, func(_ context.Context, body []byte) error {
		var list []struct{ Key, N int }
		if err := json.Unmarshal(body, &list); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, event := range list {
			if event.N != next[event.Key] {
				wrong++
			}
			next[event.Key] = event.N + 1
		}
		return nil
	})
	eventually(t, "all events come", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(next) == keys && !slices.ContainsFunc(slices.Collect(maps.Values(next)), func(n int) bool { return n != each })
	})
	if wrong > 0 {
		t.Errorf("%d events are out of order", wrong)
	}
}

func TestArray(t *testing.T) {
	big := bytes.Repeat([]byte("1"), maxEvents)
	for _, c := range []struct {
		in   [][]byte
		want []string
	}{
		{[][]byte{[]byte("1")}, []string{"[1]"}},
		{[][]byte{[]byte("1"), []byte(`"a"`), []byte("{}")}, []string{`[1,"a",{}]`}},
		{[][]byte{[]byte("1"), big, []byte("2"), []byte("3")}, []string{"[1]", "[" + string(big) + "]", "[2,3]"}},
	} {
		var got []string
		for rest := c.in; len(rest) > 0; {
			var body []byte
			body, rest = array(rest)
			got = append(got, string(body))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%.60q, want %.60q", got, c.want)
		}
	}
}

// A body that fails comes again until it is taken, those behind it wait, other queues do not; one that panics is dropped.
func TestPushesRepeatAndGoOn(t *testing.T) {
	topic := newTopic()
	c := connect(t, shared.NameServer.Addr)
	var got seen
	var mu sync.Mutex
	fails := 3
	end := takePushes(t, PushOptions{Topic: topic, Group: "g" + topic}, func(_ context.Context, body []byte) error {
		got.add(body)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case string(body) == "fail" && fails > 0:
			fails--
			return errors.New("not now")
		case string(body) == "panic":
			panic("on purpose")
		}
		return nil
	})
	send := func(q int, body string) {
		t.Helper()
		must(t, c.send(context.Background(), topic, queue{"broker", q}, "", []byte(body)))
	}
	if _, err := c.cluster(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"one", "fail", "\x00 no JSON", "panic", "last"} {
		send(0, body)
	}
	send(1, "other")
	eventually(t, "the last comes", func() bool { return slices.Contains(got.all(), "last") && slices.Contains(got.all(), "other") })
	all := slices.DeleteFunc(got.all(), func(s string) bool { return s == "other" })
	if want := []string{"one", "fail", "fail", "fail", "fail", "\x00 no JSON", "panic", "last"}; !slices.Equal(all, want) {
		t.Errorf("%q, want %q", all, want)
	}
	end()

	// The next run goes on behind what was taken.
	send(0, "more")
	takePushes(t, PushOptions{Topic: topic, Group: "g" + topic}, func(_ context.Context, body []byte) error {
		got.add(body)
		return nil
	})
	eventually(t, "what came meanwhile", func() bool { return slices.Contains(got.all(), "more") })
	if again := got.all()[len(all)+1:]; !slices.Equal(again, []string{"more"}) {
		t.Errorf("a second run brings %q", again)
	}
}

// Two nodes share the queues by their partitions of the log, also when those move.
func TestPushesAreShared(t *testing.T) {
	const each = 10
	topic := newTopic()
	s := mqtest.NewStore()
	nodes := []*mqtest.Node{s.Node(0, 1), s.Node(2, 3)}
	var got [2]seen
	for i, n := range nodes {
		takePushes(t, PushOptions{Topic: topic, Group: "g" + topic, Partitions: n, Of: 4}, func(_ context.Context, body []byte) error {
			got[i].add(body)
			return nil
		})
	}
	c := connect(t, shared.NameServer.Addr)
	sent := 0
	send := func() {
		for range each {
			for q := range pushQueues {
				must(t, c.send(context.Background(), topic, queue{"broker", q}, "", fmt.Append(nil, sent)))
				sent++
			}
		}
		eventually(t, "all pushes come", func() bool {
			distinct := map[string]bool{}
			for i := range got {
				for _, b := range got[i].all() {
					distinct[b] = true
				}
			}
			return len(distinct) == sent
		})
	}
	send()
	if len(got[0].all()) == 0 || len(got[1].all()) == 0 || len(got[0].all())+len(got[1].all()) != sent {
		t.Errorf("%d and %d of %d", len(got[0].all()), len(got[1].all()), sent)
	}
	nodes[0].Own()
	nodes[1].Own(0, 1, 2, 3)
	send()
	if b := strings.Join(got[1].all(), " "); !strings.Contains(b, fmt.Sprint(sent-1)) {
		t.Error("the last owner has not taken the last push")
	}
}
