package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Partition is the partition of a key among n: xxHash, 64 bits, modulo n. A hash whose low bits are weak will not do: the lowest one of
// FNV-1a is the parity of the key's bytes, which is the same for all pairs of neighbours (p:user-6:user-7).
func Partition(key string, n int) int {
	return int(xxhash.Sum64String(key) % uint64(n))
}

// layout says where each partition of a topic is. A partition keeps its place whatever is up: a broker at which the topic
// has r queues to read and w to write holds the partitions r − w … r − 1, each in the queue of its number. So one
// broker has r = w = n, two with 16 partitions have 8 of 8 and 8 of 16, and a broker that is down leaves a gap instead of
// moving its neighbours. Such a topic is made by createRanges, or by hand with mqadmin updateTopic -r … -w ….
type layout []queue // by partition

// errLayout: the topic is there, but not as a topic with a fixed number of partitions.
var errLayout = errors.New("its queues are not laid out as partitions")

// span is the partitions that a broker holds.
type span struct {
	broker   string
	from, to int // to is the first that it does not hold
}

// spans reads a route. The last of them ends where the topic's partitions end, unless its broker is down.
func spans(route []queues) ([]span, error) {
	var list []span
	for _, q := range route {
		if q.Write > 0 { // 0: it had some before their number shrank
			list = append(list, span{q.Broker, q.Read - q.Write, q.Read})
		}
	}
	slices.SortFunc(list, func(a, b span) int { return a.from - b.from })
	for i, s := range list {
		if s.from < 0 || i > 0 && s.from < list[i-1].to {
			return list, errLayout
		}
	}
	return list, nil
}

// end is the number of partitions that the spans tell of.
func end(list []span) int {
	if len(list) == 0 {
		return 0
	}
	return list[len(list)-1].to
}

// place puts the spans into a layout of n partitions; those of which they do not tell stay where they are.
func (l layout) place(list []span, n int) layout {
	next := make(layout, n)
	copy(next, l)
	for i := range next {
		next[i].id = i
	}
	for _, s := range list {
		for p := s.from; p < min(s.to, n); p++ {
			next[p].broker = s.broker
		}
	}
	return next
}

// split spreads the partitions from … to−1 over brokers, in the order of their names.
func split(brokers []string, from, to int) []span {
	var list []span
	n := to - from
	for i, b := range brokers {
		size := n / len(brokers)
		if i < n%len(brokers) {
			size++
		}
		if size > 0 {
			list = append(list, span{b, from, from + size})
			from += size
		}
	}
	return list
}

// createRanges makes the topic at the brokers of the spans, and waits until the name servers tell of it.
func (c *Client) createRanges(ctx context.Context, topic string, list []span) error {
	for _, s := range list {
		if err := c.createTopic(ctx, s.broker, topic, s.to, s.to-s.from); err != nil {
			return err
		}
		c.log.Info("topic made", "topic", topic, "broker", s.broker, "partitions", fmt.Sprintf("%d to %d", s.from, s.to-1))
	}
	return c.eventually(ctx, func() error {
		route, err := c.route(ctx, topic)
		if err != nil {
			return err
		}
		for _, s := range list {
			if !slices.ContainsFunc(route, func(q queues) bool {
				return q.Broker == s.broker && q.Read == s.to && q.Write == s.to-s.from
			}) {
				return fmt.Errorf("rocketmq: topic %s does not appear at broker %s as it was made", topic, s.broker)
			}
		}
		return nil
	})
}

// startPatience is how long a start waits for brokers that have just begun themselves: some tell their name servers only after 10 s.
const startPatience = 30 * time.Second

// eventually tries f until it succeeds, for startPatience.
func (c *Client) eventually(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return err
		}
	}
}

// sleep waits; false: ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// find gives the route of a topic, which is made with n partitions over all brokers when there is none.
func (c *Client) find(ctx context.Context, topic string, n int) ([]queues, error) {
	route, err := c.route(ctx, topic)
	if err == nil || !isRefusal(err, resTopicNotExist) {
		return route, err
	}
	var brokers []string
	if err := c.eventually(ctx, func() error {
		brokers, err = c.cluster(ctx)
		if err == nil && len(brokers) == 0 {
			err = errors.New("rocketmq: the name servers know no broker")
		}
		return err
	}); err != nil {
		return nil, err
	}
	if route, err = c.route(ctx, topic); err == nil { // a broker has come back with it
		return route, nil
	}
	if err := c.createRanges(ctx, topic, split(brokers, 0, n)); err != nil {
		return nil, err
	}
	return c.route(ctx, topic)
}

// refreshes: how often routes are asked for anyway, and at most when something failed.
const (
	refreshEvery = 10 * time.Second
	refreshLeast = 300 * time.Millisecond
)

// places is a layout that follows brokers as they come back, elsewhere too. Safe for concurrent use.
type places struct {
	client *Client
	topic  string
	now    atomic.Pointer[layout]
	kicks  chan struct{} // one token: something failed, ask at once
}

func newPlaces(c *Client, topic string, list []span, n int) *places {
	p := &places{client: c, topic: topic, kicks: make(chan struct{}, 1)}
	first := layout(nil).place(list, n)
	p.now.Store(&first)
	return p
}

func (p *places) at(partition int) queue { return (*p.now.Load())[partition] }

// kick asks for a refresh soon.
func (p *places) kick() {
	select {
	case p.kicks <- struct{}{}:
	default:
	}
}

// follow refreshes until ctx ends.
func (p *places) follow(ctx context.Context) {
	t := time.NewTicker(refreshEvery)
	defer t.Stop()
	for sleep(ctx, refreshLeast) {
		select {
		case <-t.C:
		case <-p.kicks:
		case <-ctx.Done():
			return
		}
		route, err := p.client.route(ctx, p.topic)
		if err != nil {
			continue // who needs a place has an error of its own to tell
		}
		list, err := spans(route)
		if err != nil {
			p.client.log.Error("a topic was changed while in use; its old places are kept", "topic", p.topic, "error", err)
			continue
		}
		old := *p.now.Load()
		next := old.place(list, len(old))
		for i := range next {
			if old[i].broker != "" && next[i].broker != old[i].broker {
				p.client.log.Error("a partition is told to be at another broker; its old place is kept",
					"topic", p.topic, "partition", i, "from", old[i].broker, "to", next[i].broker)
				next[i] = old[i]
			}
		}
		p.now.Store(&next)
	}
}

// lacking names the partitions that have no place.
func (l layout) lacking() string {
	var list []string
	for p, q := range l {
		if q.broker == "" {
			list = append(list, fmt.Sprint(p))
		}
	}
	return strings.Join(list, ", ")
}
