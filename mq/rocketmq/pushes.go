package rocketmq

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/meshtalk/meshtalk/mq"
)

// pushQueues is how many queues a push topic that we make has, over all brokers.
const pushQueues = 16

// PushOptions say which pushes come.
type PushOptions struct {
	Topic string
	// Group is the consumer group whose offsets say how far each queue is done. One of all nodes, and never a new one per start: a new
	// group begins at the oldest message that is kept.
	Group string
	// Partitions and Of (how many the log has) spread the topic's queues over the nodes of a cluster: a queue is the owner's of one
	// partition of the log. Without Partitions all queues are this node's.
	Partitions mq.Partitions
	Of         int
}

// Pushes is an mq.Pushes on one topic.
type Pushes struct {
	client *Client
	o      PushOptions
	log    *slog.Logger
	known  map[queue]bool // of Run's goroutine: every queue that was ever seen
}

var _ mq.Pushes = (*Pushes)(nil)

// OpenPushes finds the topic or makes it.
func (c *Client) OpenPushes(ctx context.Context, o PushOptions) (*Pushes, error) {
	if _, err := c.find(ctx, o.Topic, pushQueues); err != nil {
		return nil, fmt.Errorf("rocketmq: topic %s: %w", o.Topic, err)
	}
	return &Pushes{client: c, o: o, log: c.log.With("topic", o.Topic), known: map[queue]bool{}}, nil
}

// Run implements mq.Pushes. Every queue is brought by its own goroutine, from the offset that the group has kept, which moves after
// each pull's messages: so after a crash or a change of owners some bodies come again. A body whose f panics is dropped
// with a log line; one that fails comes again, with pauses up to pauseMost.
func (p *Pushes) Run(ctx context.Context, f func(ctx context.Context, body []byte) error) error {
	running := map[queue]*bringing{}
	for ctx.Err() == nil {
		queues, changed := p.mine(ctx)
		for q, b := range running {
			if !queues[q] {
				b.cancel()
				<-b.done // its offset is kept, for whoever brings it next
				delete(running, q)
			}
		}
		for q := range queues {
			if running[q] == nil {
				running[q] = p.begin(ctx, q, f)
			}
		}
		again := time.NewTimer(refreshEvery) // for brokers that come and go
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
	for _, b := range running {
		<-b.done
	}
	return nil
}

// bringing is one queue that this node brings.
type bringing struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (p *Pushes) begin(ctx context.Context, q queue, f func(context.Context, []byte) error) *bringing {
	ctx, cancel := context.WithCancel(ctx)
	b := &bringing{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(b.done)
		p.bring(ctx, q, f)
	}()
	return b
}

// mine are the queues that this node brings now, and what tells that they are others. A queue whose broker is down stays.
func (p *Pushes) mine(ctx context.Context) (map[queue]bool, <-chan struct{}) {
	var owned []int
	var changed <-chan struct{}
	if p.o.Partitions != nil {
		owned, changed = p.o.Partitions.Owned()
	}
	if route, err := p.client.route(ctx, p.o.Topic); err == nil {
		for _, r := range route {
			for id := range r.Read {
				p.known[queue{r.Broker, id}] = true
			}
		}
	}
	list := map[queue]bool{}
	for q := range p.known {
		if p.o.Partitions == nil || slices.Contains(owned, Partition(q.String(), p.o.Of)) {
			list[q] = true
		}
	}
	return list, changed
}

// bring brings one queue until ctx ends.
func (p *Pushes) bring(ctx context.Context, q queue, f func(context.Context, []byte) error) {
	log := p.log.With("queue", q.String())
	var pause backOff
	failed := false
	for ctx.Err() == nil {
		offset, err := p.begins(ctx, q)
		for err == nil && ctx.Err() == nil {
			if failed {
				failed = false
				log.Info("pushes come again")
			}
			pause.reset()
			offset, err = p.next(ctx, q, offset, f)
		}
		if ctx.Err() != nil {
			return
		}
		if !failed {
			failed = true
			log.Warn("pushes do not come", "error", err)
		}
		pause.wait(ctx)
	}
}

// begins is where the group goes on in a queue, or its oldest message.
func (p *Pushes) begins(ctx context.Context, q queue) (int64, error) {
	offset, ok, err := p.client.groupOffset(ctx, p.o.Group, p.o.Topic, q)
	if err != nil || ok {
		return offset, err
	}
	return p.client.minOffset(ctx, p.o.Topic, q)
}

// next brings what one pull gives, and keeps the offset behind it.
func (p *Pushes) next(ctx context.Context, q queue, offset int64, f func(context.Context, []byte) error) (int64, error) {
	begin := time.Now()
	answer, err := p.client.pull(ctx, p.o.Group, p.o.Topic, q, offset, pullCount)
	if err != nil {
		return offset, err
	}
	next := answer.next
	for _, m := range answer.messages {
		if !p.hand(ctx, q, m, f) {
			next = m.offset
			break
		}
		next = m.offset + 1
	}
	if next == offset {
		if time.Since(begin) < pauseLeast && ctx.Err() == nil {
			sleep(ctx, pauseMost) // the broker should have waited
		}
		return offset, nil
	}
	// Also when ctx has ended: what is done need not come again.
	return next, p.client.moveGroup(context.WithoutCancel(ctx), p.o.Group, p.o.Topic, q, next)
}

// hand gives one body to f until f takes it; false: ctx ended first.
func (p *Pushes) hand(ctx context.Context, q queue, m message, f func(context.Context, []byte) error) bool {
	var pause backOff
	for ctx.Err() == nil {
		err := p.guard(ctx, q, m, f)
		if err == nil {
			return true
		}
		if pause.d == 0 {
			p.log.Warn("a push waits", "queue", q.String(), "offset", m.offset, "error", err)
		}
		pause.wait(ctx)
	}
	return false
}

// guard calls f. A body that makes it panic must not stop the queue, nor the process again and again.
func (p *Pushes) guard(ctx context.Context, q queue, m message, f func(context.Context, []byte) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			p.log.Error("a push is dropped: it made its handler panic", "queue", q.String(), "offset", m.offset, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = nil
		}
	}()
	return f(ctx, m.body)
}
