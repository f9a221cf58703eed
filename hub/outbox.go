package hub

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/store"
)

// Events for business services come from the store's outbox, which is written with what it tells of: a crash between the commit and the
// publication loses none and repeats some.

const (
	// outboxPage is how many events one read is for.
	outboxPage = 512
	// outboxInterval is the pause after which a partition is looked at though no commit here woke it: positions write events too,
	// and so do commits of the partition's last owner.
	outboxInterval = time.Second
	// outboxGather is the least time between two looks, but for full pages: events of many commits share a read, a message of the topic
	// and the write that notes it.
	outboxGather = 500 * time.Millisecond
	// eventKeys spreads conversations over the event topic's queues; one conversation's events stay in one. With a log that has
	// partitions these are spread already.
	eventKeys = 16
)

// outbox wakes the publishers.
type outbox struct {
	mu      sync.Mutex
	fresh   chan struct{} // closed by the next commit
	failing map[int]error // why the events of a partition wait
}

func (o *outbox) init() { o.fresh, o.failing = make(chan struct{}), map[int]error{} }

// note keeps why a partition's events wait, nil when they do not.
func (o *outbox) note(partition int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		delete(o.failing, partition)
	} else {
		o.failing[partition] = err
	}
}

// state is why events of some partition wait, nil when none do.
func (o *outbox) state() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, err := range o.failing {
		return err
	}
	return nil
}

func (o *outbox) wake() {
	o.mu.Lock()
	close(o.fresh)
	o.fresh = make(chan struct{})
	o.mu.Unlock()
}

func (o *outbox) next() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fresh
}

// publishOutbox runs one publisher for each partition that is this node's.
func (h *Hub) publishOutbox(ctx context.Context) {
	for ctx.Err() == nil {
		partitions, changed := h.o.Partitions.Owned()
		owned, stop := context.WithCancel(ctx)
		var publishers sync.WaitGroup
		for _, p := range partitions {
			publishers.Go(func() { h.publishPartition(owned, p) })
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
		stop()
		publishers.Wait()
	}
}

// publishPartition publishes what a partition's outbox holds, and waits for more.
func (h *Hub) publishPartition(ctx context.Context, partition int) {
	defer h.outbox.note(partition, nil)
	var failed bool
	for ctx.Err() == nil {
		fresh := h.outbox.next()
		n, err := h.publishPage(ctx, partition)
		if err != nil && ctx.Err() == nil {
			if !failed {
				h.o.Logf("events of partition %d wait: %v", partition, err)
			}
			fresh = nil
		}
		failed = err != nil
		h.outbox.note(partition, err)
		if n == outboxPage {
			continue
		}
		gathered := time.After(outboxGather)
		select {
		case <-fresh:
		case <-ctx.Done():
		case <-time.After(outboxInterval):
		}
		select {
		case <-gathered:
		case <-ctx.Done():
		}
	}
}

// publishPage publishes one page and returns how many events it had.
func (h *Hub) publishPage(ctx context.Context, partition int) (int, error) {
	events, err := h.store.Outbox(ctx, partition, outboxPage)
	if err != nil || len(events) == 0 {
		return 0, err
	}
	var bodies [eventKeys][][]byte
	ids := make([]uint64, len(events))
	for i := range events {
		e := &events[i]
		ids[i] = e.ID
		key := uint32(partition) % eventKeys
		if !h.durable {
			f := fnv.New32a()
			_, _ = f.Write([]byte(e.Conv))
			key = f.Sum32() % eventKeys
		}
		bodies[key] = append(bodies[key], h.appendEvent(nil, e))
	}
	for key, list := range bodies {
		if len(list) == 0 {
			continue
		}
		if err := h.o.Events.Publish(ctx, fmt.Sprintf("conv-%d", key), list); err != nil {
			return 0, err
		}
	}
	return len(events), h.store.Published(ctx, partition, ids)
}

// eventNames are the events of the outbox as docs/INTERFACES.md calls them.
var eventNames = map[store.EventKind]string{
	store.EventStored: "message.stored", store.EventRecalled: "message.recalled",
	store.EventDelivered: "message.delivered", store.EventRead: "message.read",
}

// appendEvent encodes one event: {event, ts, node, conv, seq, message | user}.
func (h *Hub) appendEvent(dst []byte, e *store.Event) []byte {
	dst = append(dst, `{"event":`...)
	dst = codec.AppendString(dst, eventNames[e.Kind])
	dst = fmt.Appendf(dst, `,"ts":%d,"node":`, e.TS)
	dst = codec.AppendString(dst, h.NodeID())
	dst = append(dst, `,"conv":`...)
	dst = codec.AppendString(dst, e.Conv)
	dst = fmt.Appendf(dst, `,"seq":%d`, e.Seq)
	if e.User != "" {
		dst = append(dst, `,"user":`...)
		dst = codec.AppendString(dst, e.User)
	}
	if e.Message != nil {
		m := StoredMessage(e.Message)
		dst = append(dst, `,"message":`...)
		dst = codec.AppendMessageJSON(dst, &m)
	}
	return append(dst, '}')
}
