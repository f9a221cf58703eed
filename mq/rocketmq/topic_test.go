package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/internal/services"
	"github.com/meshtalk/meshtalk/mq/mqtest"
)

// The numbers are written down: another hash would send conversations elsewhere while their messages wait.
func TestPartition(t *testing.T) {
	for _, c := range []struct {
		key  string
		n    int
		want int
	}{
		{"", 16, 9}, {"p:alice:bob", 16, 14}, {"g:team", 16, 4}, {"n:carol", 16, 8}, {"p:alice:bob", 1, 0}, {"p:alice:bob", 1024, 830},
	} {
		if got := Partition(c.key, c.n); got != c.want {
			t.Errorf("%q of %d: %d, want %d", c.key, c.n, got, c.want)
		}
	}
}

// Names with a pattern are spread as well as others: at 625 keys a partition, a deviation of a fifth is five times what chance allows.
func TestPartitionIsEven(t *testing.T) {
	for name, key := range map[string]func(i int) string{
		"neighbours":    func(i int) string { return fmt.Sprintf("p:user-%d:user-%d", 2*i, 2*i+1) },
		"one with many": func(i int) string { return fmt.Sprintf("p:support:user-%d", i) },
		"groups":        func(i int) string { return fmt.Sprintf("g:room-%d", i) },
		"hex":           func(i int) string { return fmt.Sprintf("p:%08x:%08x", 16*i, 16*i+8) },
	} {
		const keys, n = 10_000, 16
		var count [n]int
		for i := range keys {
			count[Partition(key(i), n)]++
		}
		if least, most := slices.Min(count[:]), slices.Max(count[:]); least < keys/n*4/5 || most > keys/n*6/5 {
			t.Errorf("%s: %v", name, count)
		}
	}
}

func TestSpans(t *testing.T) {
	for _, c := range []struct {
		name  string
		route []queues
		want  []span
		err   error
	}{
		{"one broker", []queues{{"a", 16, 16, 6}}, []span{{"a", 0, 16}}, nil},
		{"two", []queues{{"a", 8, 8, 6}, {"b", 16, 8, 6}}, []span{{"a", 0, 8}, {"b", 8, 16}}, nil},
		{"the first is down", []queues{{"b", 16, 8, 6}}, []span{{"b", 8, 16}}, nil},
		{"one without any", []queues{{"a", 8, 8, 6}, {"b", 16, 0, 6}}, []span{{"a", 0, 8}}, nil},
		{"made by somebody else", []queues{{"a", 8, 8, 6}, {"b", 8, 8, 6}}, nil, errLayout},
		{"more to write than to read", []queues{{"a", 4, 8, 6}}, nil, errLayout},
	} {
		got, err := spans(c.route)
		if !errors.Is(err, c.err) || err == nil && !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		brokers  []string
		from, to int
		want     []span
	}{
		{[]string{"a"}, 0, 16, []span{{"a", 0, 16}}},
		{[]string{"a", "b", "c"}, 0, 16, []span{{"a", 0, 6}, {"b", 6, 11}, {"c", 11, 16}}},
		{[]string{"a", "b"}, 16, 17, []span{{"a", 16, 17}}},
		{nil, 0, 4, nil},
	} {
		if got := split(c.brokers, c.from, c.to); !slices.Equal(got, c.want) {
			t.Errorf("%v %d to %d: %v, want %v", c.brokers, c.from, c.to, got, c.want)
		}
	}
}

func TestPlaceKeepsWhatIsDown(t *testing.T) {
	l := layout(nil).place([]span{{"a", 0, 2}, {"b", 2, 4}}, 4).place([]span{{"b", 2, 4}}, 4)
	if want := (layout{{"a", 0}, {"a", 1}, {"b", 2}, {"b", 3}}); !slices.Equal(l, want) {
		t.Errorf("%v, want %v", l, want)
	}
	if got := layout(nil).place([]span{{"b", 2, 4}}, 4).lacking(); got != "0, 1" {
		t.Errorf("lacking %q", got)
	}
}

func open(c *Client, topic string, queues int, n *mqtest.Node) (*Log, error) {
	return c.OpenLog(context.Background(), LogOptions{Topic: topic, Queues: queues, Backlog: 1 << 16, Partitions: n})
}

// Another number of queues is refused while messages wait, also for a node that does not own them; then it is taken, in
// both directions, and order and offsets go on.
func TestQueueCount(t *testing.T) {
	t.Parallel()
	topic := newTopic()
	c := connect(t, shared.NameServer.Addr)
	s := mqtest.NewStore()
	sent := uint32(0)
	var h mqtest.History
	send := func(l *Log) {
		t.Helper()
		for range 16 {
			h.Send(t, l, sent, 20, func(int) int { return 50 })
			sent++
		}
		h.Wait()
	}
	nobody, all := s.Node(), s.Node(mqtest.Everything...)
	l, err := open(c, topic, 4, nobody)
	must(t, err)
	end := run(t, l, nobody)
	send(l)
	end()
	for _, other := range []int{2, 8} {
		if _, err := open(c, topic, other, s.Node()); err == nil || !strings.Contains(err.Error(), "not committed") || !strings.Contains(err.Error(), "rocketmq.log.queues") {
			t.Errorf("4 to %d queues while messages wait: %v", other, err)
		}
	}
	for _, queues := range []int{4, 8, 2, 4} {
		l, err := open(c, topic, queues, all)
		must(t, err)
		end := run(t, l, all)
		send(l)
		if !s.Await(h.Kept(), patience) {
			t.Fatalf("with %d queues not all is applied", queues)
		}
		eventually(t, "the lag ends", func() bool {
			return !slices.ContainsFunc(mqtest.Everything, func(p int) bool { return l.Lag()[p] > 0 })
		})
		end()
		// A probe says nothing, so it does not count as waiting.
		must(t, c.send(context.Background(), topic, l.places.at(0), "", empty()))
	}
	if wrong := withoutMoves(s.Wrong(&h)); len(wrong) > 0 {
		t.Errorf("wrong: %.5q", wrong)
	}
}

func empty() []byte {
	var c composite
	c.reset()
	return slices.Clone(c.seal())
}

// withoutMoves leaves out that senders change their partition.
func withoutMoves(wrong []string) []string {
	return slices.DeleteFunc(wrong, func(s string) bool { return strings.Contains(s, "comes in partitions") })
}

// A topic that was made in the usual way cannot be the log.
func foreignLayout(t *testing.T, set *services.Set) {
	c := connect(t, set.NameServer.Addr)
	ctx := context.Background()
	for _, b := range []string{"broker", "broker2"} {
		must(t, c.createTopic(ctx, b, "usual", 4, 4))
	}
	eventually(t, "both brokers tell of it", func() bool {
		route, err := c.route(ctx, "usual")
		return err == nil && len(route) == 2
	})
	n := mqtest.NewStore().Node()
	if _, err := open(c, "usual", 8, n); !errors.Is(err, errLayout) {
		t.Errorf("the log: %v", err)
	}
	e, err := c.OpenEvents(ctx, "usual")
	must(t, err)
	for i := range 20 {
		must(t, e.Publish(ctx, fmt.Sprint("key", i), [][]byte{[]byte("1")}))
	}
	must(t, e.Close())

	// A broker that was not there when the log was made takes what is added.
	must(t, set.Broker2.Kill())
	eventually(t, "the name server forgets it", func() bool {
		names, err := c.cluster(ctx)
		return err == nil && len(names) == 1
	})
	_, err = open(c, "grows", 2, n)
	must(t, err)
	must(t, set.Broker2.Start())
	l, err := open(c, "grows", 5, n)
	must(t, err)
	if got := fmt.Sprint(*l.places.now.Load()); got != "[broker/0 broker/1 broker2/2 broker2/3 broker2/4]" {
		t.Errorf("grown: %s", got)
	}

	// While one of its brokers is down the log opens without its partitions, which are refused until it is back.
	s := mqtest.NewStore()
	all := s.Node(mqtest.Everything...)
	l, err = open(c, "grows", 5, all)
	must(t, err)
	end := run(t, l, all)
	var h mqtest.History
	for sender := range uint32(20) {
		h.Send(t, l, sender, 5, func(int) int { return 50 })
	}
	h.Wait()
	if !s.Await(h.Kept(), patience) {
		t.Fatal("not all is applied")
	}
	end()
	must(t, set.Broker2.Stop())
	l, err = open(connect(t, set.NameServer.Addr), "grows", 5, all)
	must(t, err)
	run(t, l, all)
	if missing := l.places.now.Load().lacking(); missing != "2, 3, 4" {
		t.Fatalf("lacking %q", missing)
	}
	eventually(t, "a partition without a broker refuses", func() bool { return refuses(l, 4) })
	if refuses(l, 0) {
		t.Error("the other broker's refuse too")
	}
	must(t, set.Broker2.Start())
	eventually(t, "it takes messages again", func() bool { return !refuses(l, 4) })
}
