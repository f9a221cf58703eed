package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshtalk/meshtalk/mq"
)

const (
	endPatience = 2 * time.Second // for an Apply that runs when its partition is taken away

	pauseLeast = 50 * time.Millisecond // after a failure, doubled up to
	pauseMost  = time.Second

	// ahead is how many pulls may wait to be applied, of 256 KiB or one message at least: what comes meanwhile gathers at the broker, and is one
	// pull and not one for each message.
	ahead = 1
)

// consumption is one partition while this node has it: a goroutine that pulls and one that applies.
type consumption struct {
	log       *Log
	partition int
	consumer  mq.Consumer
	cancel    context.CancelFunc
	done      chan struct{}

	next, last atomic.Int64                  // where it goes on, and the offset that the next message gets, for Lag
	trouble    [stages]atomic.Pointer[error] // what fails now
}

// stage is where a consumption may fail.
type stage int

const (
	asking   stage = iota // the store, for the offset
	pulling               // from the broker
	applying              // what was pulled
	stages
)

func (s stage) String() string { return [...]string{"offset", "pull", "apply"}[s] }

// fail notes that a stage fails, or with nil that it does not. It is logged when that changes, and not for every reason in between.
func (n *consumption) fail(s stage, err error) {
	old := n.trouble[s].Load()
	switch {
	case err != nil:
		n.trouble[s].Store(&err)
		if old == nil {
			n.log.log.Warn("a partition brings nothing", "partition", n.partition, "at", s.String(), "offset", n.next.Load(), "error", err)
		}
	case old != nil:
		n.trouble[s].Store(nil)
		n.log.log.Info("a partition goes on", "partition", n.partition, "at", s.String(), "offset", n.next.Load())
	}
}

// failure is what fails now, or nil.
func (n *consumption) failure() error {
	for s := range n.trouble {
		if err := n.trouble[s].Load(); err != nil {
			return *err
		}
	}
	return nil
}

// consume keeps a consumption for each partition that is this node's until ctx ends, and then waits for all of them.
func (l *Log) consume(ctx context.Context, c mq.Consumer) {
	ending := map[int]*consumption{} // the last of each partition that was taken away
	for {
		owned, changed := l.o.Partitions.Owned()
		l.mu.Lock()
		for p, running := range l.mu.running {
			if ctx.Err() != nil || !slices.Contains(owned, p) {
				running.cancel()
				delete(l.mu.running, p)
				ending[p] = running
			}
		}
		for _, p := range owned {
			if ctx.Err() == nil && l.mu.running[p] == nil && p >= 0 && p < l.o.Queues {
				l.mu.running[p] = l.begin(ctx, p, c, ending[p])
				delete(ending, p)
			}
		}
		l.mu.Unlock()
		if ctx.Err() != nil {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	for _, e := range ending {
		<-e.done
	}
}

// begin starts a consumption, after before has ended.
func (l *Log) begin(ctx context.Context, p int, c mq.Consumer, before *consumption) *consumption {
	ctx, cancel := context.WithCancel(ctx)
	n := &consumption{log: l, partition: p, consumer: c, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		if before != nil {
			<-before.done
		}
		n.run(ctx)
	}()
	return n
}

// run consumes from the store's offset, again and again: whatever goes wrong, the store knows where to go on.
func (n *consumption) run(ctx context.Context) {
	var pause backOff
	for ctx.Err() == nil {
		offset, err := n.log.o.Partitions.Offset(ctx, n.partition)
		if ctx.Err() != nil {
			return
		}
		n.fail(asking, err)
		if err == nil {
			if offset != n.next.Load() { // what failed was committed after all, by whomever
				n.fail(applying, nil)
			}
			n.next.Store(offset)
			if err = n.from(ctx, offset, &pause); ctx.Err() != nil {
				return
			}
			n.fail(applying, err)
		}
		pause.wait(ctx)
	}
}

// backOff is a pause that doubles.
type backOff struct{ d time.Duration }

func (b *backOff) wait(ctx context.Context) {
	b.d = min(max(2*b.d, pauseLeast), pauseMost)
	sleep(ctx, b.d)
}

func (b *backOff) reset() { b.d = 0 }

// from pulls and applies from offset on until applying fails or ctx ends.
func (n *consumption) from(ctx context.Context, offset int64, pause *backOff) error {
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan pulled, ahead)
	var puller sync.WaitGroup
	puller.Go(func() {
		defer close(answers)
		n.pull(ctx, offset, answers)
	})
	err := n.apply(ctx, answers, pause)
	cancel()
	puller.Wait()
	return err
}

// pull brings messages from offset on, in their order, until ctx ends.
func (n *consumption) pull(ctx context.Context, offset int64, answers chan<- pulled) {
	var pause backOff
	beyond := 0 // answers in a row that the queue ends before offset
	for {
		asked := time.Now()
		q := n.log.places.at(n.partition)
		p, err := n.log.client.pull(ctx, n.log.o.Topic, n.log.o.Topic, q, offset, pullCount)
		if ctx.Err() != nil {
			return
		}
		n.fail(pulling, err)
		if err != nil {
			n.log.places.kick()
			pause.wait(ctx)
			continue
		}
		pause.reset()
		n.last.Store(p.max)
		if len(p.messages) > 0 {
			offset, beyond = p.messages[len(p.messages)-1].offset+1, 0
			select {
			case answers <- p:
				continue
			case <-ctx.Done():
				return
			}
		}
		if p.moved && offset > p.max {
			beyond++
		} else {
			beyond = 0
		}
		next := n.goOn(p, q, offset, beyond)
		if next == offset && time.Since(asked) < pauseLeast { // it should have waited
			sleep(ctx, pauseMost)
		}
		offset = next
	}
}

// goOn is the offset to pull from after an answer without messages; beyond says how often in a row it was that the queue ends
// before offset.
func (n *consumption) goOn(p pulled, q queue, offset int64, beyond int) int64 {
	switch {
	case p.moved && offset < p.min:
		n.tellGap(offset, p.min)
		return p.min
	case p.moved && offset > p.max:
		if beyond < 2 { // a broker that is just starting is not taken at its word
			return offset
		}
		n.log.log.Error("a queue ends before what was committed from it: its broker has lost messages. What it has is applied from its begin, what comes twice is dropped",
			"partition", n.partition, "queue", q, "committed", offset, "first", p.min, "end", p.max)
		return p.min
	}
	return max(offset, p.next) // beyond what cannot be read, by the broker's word
}

// tellGap tells of messages that the broker's retention has taken.
func (n *consumption) tellGap(offset, first int64) {
	if offset == 0 {
		n.log.log.Warn("a partition that was never committed begins where its broker's retention has left it",
			"partition", n.partition, "first", first)
		return
	}
	n.log.log.Error("accepted messages are lost: the broker's retention took them before they were committed",
		"partition", n.partition, "from", offset, "to", first-1)
}

// apply applies what comes, as much at once as is there, until the pulling ends or the consumer fails.
func (n *consumption) apply(ctx context.Context, answers <-chan pulled, pause *backOff) error {
	// An Apply that runs gets some time to finish.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(endPatience, cancel) })
	defer stop()
	var b mq.Batch
	var rest []message
	for {
		if len(rest) == 0 {
			p, ok := <-answers
			if !ok {
				return nil
			}
			rest = p.messages
		}
		b.Partition, b.Bodies = n.partition, b.Bodies[:0]
		var err error
		if rest, err = n.gather(&b, rest, answers); err != nil && len(b.Bodies) == 0 {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if len(b.Bodies) > 0 {
			if err := n.consumer.Apply(work, b); err != nil {
				return fmt.Errorf("applying: %w", err)
			}
			n.fail(applying, nil)
			pause.reset()
		}
		n.next.Store(b.Next)
		clear(b.Bodies)
		if err != nil {
			return err
		}
	}
}

// gather fills a batch with whole messages, up to maxRecords records or what is there, and returns the messages that it did not take.
// Those before a message that cannot be read are in the batch.
func (n *consumption) gather(b *mq.Batch, rest []message, answers <-chan pulled) ([]message, error) {
	for {
		for len(rest) > 0 {
			m := rest[0]
			before := len(b.Bodies)
			bodies, err := appendRecords(b.Bodies, m.body)
			switch {
			case errors.Is(err, errForeign):
				n.log.log.Error("a message that no node wrote is dropped", "partition", n.partition, "offset", m.offset)
				bodies = b.Bodies
			case err != nil:
				return rest, fmt.Errorf("offset %d: %w", m.offset, err)
			case before > 0 && len(bodies) > maxRecords:
				return rest, nil // it has been cut, and is cut again for the next batch
			}
			b.Bodies = bodies
			b.Next = m.offset + 1
			rest = rest[1:]
		}
		select {
		case p, ok := <-answers:
			if !ok {
				return nil, nil
			}
			rest = p.messages
		default:
			return nil, nil
		}
	}
}
