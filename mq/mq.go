// Package mq is the ordered durable hand-over from the nodes that accept messages to the one writer of each partition,
// and the way of events to business services. mq/local is the hand-over inside one process.
package mq

import (
	"context"
	"errors"
)

// ErrFull: too much waits; the caller answers UNAVAILABLE or stops reading. ErrClosed: the log has ended.
var (
	ErrFull   = errors.New("mq: full")
	ErrClosed = errors.New("mq: closed")
)

// Record is one accepted message on its way to the committer.
type Record interface {
	// AppendRecord appends the record as a log outside the process carries it.
	AppendRecord(dst []byte) []byte
	// Kept tells that the log has made the record durable (nil) or has not (err). It is called once per appended record, by
	// a log whose Durable is true only, from any goroutine.
	Kept(err error)
}

// Batch is consecutive records of one partition in their order: Records if they never left this process, else Bodies.
// Its slices are reused after Apply has returned.
type Batch struct {
	Partition int
	Next      int64 // the partition's offset after this batch; 0 in a log without offsets
	Records   []Record
	Bodies    [][]byte
}

// Consumer applies batches. Apply is called by one goroutine at a time per partition, in order; it may return before
// the batch is durable in the store as long as batches become durable in order. After an error a log that is Durable reads the
// partition's offset again and goes on from there, so the same records may come again; from one that is not they are lost to
// their senders (who were told).
type Consumer interface {
	Apply(ctx context.Context, b Batch) error
}

// Log is the hand-over. Records with one key (a conversation) appended by one goroutine keep their order.
type Log interface {
	// Append takes r for the partition of key. It does not block: ErrFull, ErrClosed, or why the key's partition takes nothing now.
	Append(key string, r Record) error
	// Durable: the log itself keeps what it took, so a sender is answered at Kept. Otherwise the commit is the promise.
	Durable() bool
	// Run feeds c until ctx ends; records appended before are still applied.
	Run(ctx context.Context, c Consumer) error
	// Backlog is how many records wait here.
	Backlog() int
	// State is nil when the log takes and brings records, else what it lacks.
	State() error
	// Lag is, for each partition that this node consumes, how many bodies are behind its offset; nil in a log without offsets.
	Lag() map[int]int64
}

// Partitions is what a log outside the process asks of who wires it: which partitions are this node's, and where each goes on.
// Safe for concurrent use.
type Partitions interface {
	// Owned are the partitions that this node is to consume now, and a channel that closes when that has changed. Two nodes
	// may believe to own one for a while: the offset in the store's transaction decides.
	Owned() (partitions []int, changed <-chan struct{})
	// Offset is where the partition goes on, as the store has it.
	Offset(ctx context.Context, partition int) (int64, error)
}

// Events carries events to business services, after the commit.
type Events interface {
	// Publish sends JSON objects as one or more arrays and returns when they are durable there. Events of one key (a
	// conversation, a user) keep their order.
	Publish(ctx context.Context, key string, events [][]byte) error
}

// Pushes brings what business services write. f gets one body at a time per queue; after an error the same body comes again.
// Run returns when ctx ends.
type Pushes interface {
	Run(ctx context.Context, f func(ctx context.Context, body []byte) error) error
}
