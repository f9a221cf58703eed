package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/meshtalk/meshtalk/mq"
)

// LogOptions say how the log is kept.
type LogOptions struct {
	Topic string // made when it is missing; also the name of the consumer group that pulls use
	// Queues is the number of partitions. It cannot change while messages wait: their conversations would go elsewhere.
	Queues int
	// Backlog is how many records may wait to be sent, in all partitions together.
	Backlog int
	// Partitions tells which are this node's, and where they go on.
	Partitions mq.Partitions
}

// Log is an mq.Log on one topic. Every partition is one queue of it. A node sends at most one message of a partition at a
// time, which carries what has gathered since the last one: so no record of a conversation can overtake another, and the busier a
// partition is the larger its messages are.
type Log struct {
	client *Client
	o      LogOptions
	log    *slog.Logger
	places *places

	backlog atomic.Int64 // records that wait to be kept
	senders []*sender

	mu struct {
		sync.Mutex
		running map[int]*consumption // partitions that this node consumes
		away    map[string]error     // brokers that do not answer, and why
	}
}

var _ mq.Log = (*Log)(nil)

// OpenLog makes the topic if it is missing and checks its number of queues. Run does the rest.
func (c *Client) OpenLog(ctx context.Context, o LogOptions) (*Log, error) {
	list, err := c.openRanges(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("rocketmq: topic %s: %w", o.Topic, err)
	}
	l := &Log{client: c, o: o, log: c.log.With("topic", o.Topic), places: newPlaces(c, o.Topic, list, o.Queues)}
	l.mu.running, l.mu.away = map[int]*consumption{}, map[string]error{}
	for p := range o.Queues {
		l.senders = append(l.senders, newSender(l, p))
	}
	if missing := l.places.now.Load().lacking(); missing != "" {
		l.log.Error("no broker is up that has these partitions: their conversations are unavailable until it is", "partitions", missing)
	}
	return l, nil
}

// openRanges finds the topic and makes its number of partitions the configured one, unless messages wait.
func (c *Client) openRanges(ctx context.Context, o LogOptions) ([]span, error) {
	route, err := c.find(ctx, o.Topic, o.Queues)
	if err != nil {
		return nil, err
	}
	list, err := spans(route)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", err, list)
	}
	is := end(list)
	if is == o.Queues {
		return list, nil
	}
	for p := is; p < o.Queues; p++ {
		offset, err := o.Partitions.Offset(ctx, p)
		if err != nil {
			return nil, err
		}
		if offset > 0 { // it was there: its broker is not up
			return list, nil
		}
	}
	if err := c.drained(ctx, o, list); err != nil {
		return nil, fmt.Errorf("it has %d queues and %d are configured (rocketmq.log.queues); that number can change only when nothing waits in it, with all nodes stopped: %w",
			is, o.Queues, err)
	}
	return c.resize(ctx, o, route, list)
}

// drained fails when a partition holds what is not committed.
func (c *Client) drained(ctx context.Context, o LogOptions, list []span) error {
	l := layout(nil).place(list, end(list))
	for p, q := range l {
		if q.broker == "" {
			return fmt.Errorf("the broker of partition %d is not up", p)
		}
		offset, err := o.Partitions.Offset(ctx, p)
		if err != nil {
			return err
		}
		waiting, err := c.waiting(ctx, o.Topic, q, offset)
		if err != nil {
			return err
		}
		if waiting > 0 {
			return fmt.Errorf("partition %d (%s) holds %d messages that are not committed", p, q, waiting)
		}
	}
	return nil
}

// waiting counts the messages from an offset on. Messages without records say nothing, and do not count.
func (c *Client) waiting(ctx context.Context, topic string, q queue, offset int64) (int64, error) {
	last, err := c.maxOffset(ctx, topic, q)
	if err != nil {
		return 0, err
	}
	first, err := c.minOffset(ctx, topic, q)
	if err != nil {
		return 0, err
	}
	for offset = max(offset, first); offset < last; {
		p, err := c.pull(ctx, topic, topic, q, offset, pullCount)
		if err != nil {
			return 0, err
		}
		if len(p.messages) == 0 {
			return last - offset, nil
		}
		for _, m := range p.messages {
			if records, err := appendRecords(nil, m.body); len(records) > 0 || err != nil && !errors.Is(err, errForeign) {
				return last - m.offset, nil
			}
			offset = m.offset + 1
		}
	}
	return 0, nil
}

// resize changes the number of partitions of a topic in which nothing waits. No partition moves to another broker: its offset is
// one of a queue. New ones go to brokers that have none yet, else to the one that holds the last.
func (c *Client) resize(ctx context.Context, o LogOptions, route []queues, list []span) ([]span, error) {
	var changed []span
	is := end(list)
	if is > o.Queues {
		for _, s := range list {
			if s.to > o.Queues {
				changed = append(changed, span{s.broker, min(s.from, o.Queues), o.Queues})
			}
		}
		return c.apply(ctx, o, changed)
	}
	brokers, err := c.cluster(ctx)
	if err != nil {
		return nil, err
	}
	var fresh []string
	for _, b := range brokers {
		used := false
		for _, q := range route {
			used = used || q.Broker == b
		}
		if !used {
			fresh = append(fresh, b)
		}
	}
	if changed = split(fresh, is, o.Queues); len(fresh) == 0 {
		last := list[len(list)-1]
		changed = []span{{last.broker, last.from, o.Queues}}
	}
	return c.apply(ctx, o, changed)
}

// apply changes the topic at some brokers and reads how it is laid out then.
func (c *Client) apply(ctx context.Context, o LogOptions, changed []span) ([]span, error) {
	if err := c.createRanges(ctx, o.Topic, changed); err != nil {
		return nil, err
	}
	route, err := c.route(ctx, o.Topic)
	if err != nil {
		return nil, err
	}
	return spans(route)
}

// Append implements mq.Log. A partition whose broker does not keep what it is sent answers why, until it does again.
func (l *Log) Append(key string, r mq.Record) error {
	if l.backlog.Add(1) > int64(l.o.Backlog) {
		l.backlog.Add(-1)
		return mq.ErrFull
	}
	err := l.senders[Partition(key, l.o.Queues)].append(r)
	if err != nil {
		l.backlog.Add(-1)
	}
	return err
}

// Durable implements mq.Log.
func (l *Log) Durable() bool { return true }

// Backlog implements mq.Log.
func (l *Log) Backlog() int { return int(l.backlog.Load()) }

// Lag implements mq.Log; it counts RocketMQ's messages, each of which carries up to some hundred records.
func (l *Log) Lag() map[int]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	lag := map[int]int64{}
	for p, c := range l.mu.running {
		lag[p] = max(0, c.last.Load()-c.next.Load())
	}
	return lag
}

// State implements mq.Log.
func (l *Log) State() error {
	var errs []error
	for p, s := range l.senders {
		if err := s.state(); err != nil {
			errs = append(errs, fmt.Errorf("partition %d takes nothing: %w", p, err))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, c := range l.mu.running {
		if err := c.failure(); err != nil {
			errs = append(errs, fmt.Errorf("partition %d brings nothing: %w", p, err))
		}
	}
	for _, err := range l.mu.away {
		errs = append(errs, err)
	}
	return summary(errs)
}

// summary is the first error and how many more there are: a broker has many partitions.
func summary(errs []error) error {
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return fmt.Errorf("%w (and %d more)", errs[0], len(errs)-1)
}

// Run implements mq.Log: it sends what is appended and feeds c with the partitions that are this node's. When ctx ends it refuses
// new records, sends the waiting ones, lets running Apply calls finish, for endPatience at most, and returns.
func (l *Log) Run(ctx context.Context, c mq.Consumer) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx)) // ends when all is sent
	defer stop()
	var places, senders sync.WaitGroup
	places.Go(func() { l.places.follow(background) })
	places.Go(func() { l.watch(background) })
	for _, s := range l.senders {
		senders.Go(func() { s.run(background) })
	}
	l.consume(ctx, c)
	for _, s := range l.senders {
		s.close()
	}
	senders.Wait()
	stop()
	places.Wait()
	return nil
}
