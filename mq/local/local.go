// Package local is the hand-over inside one process: a queue with one consumer. It keeps nothing: the commit is the
// promise.
package local

import (
	"context"
	"sync"

	"github.com/meshtalk/meshtalk/mq"
)

// MaxBatch is how many records one batch has at most: 2,048 gains 5 % over 512 and delays the first of them more,
// 128 costs a quarter (measured on a sketch of the whole path).
const MaxBatch = 512

// Log is an mq.Log without a disk.
type Log struct {
	limit int

	mu     sync.Mutex
	queue  []mq.Record // appended at the end
	closed bool

	wake chan struct{} // holds one token while queue may be non-empty
}

var _ mq.Log = (*Log)(nil)

// New makes a log that takes at most limit waiting records.
func New(limit int) *Log {
	return &Log{limit: limit, wake: make(chan struct{}, 1)}
}

// Append implements mq.Log. The key does not matter: there is one partition.
func (l *Log) Append(_ string, r mq.Record) error {
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		return mq.ErrClosed
	case len(l.queue) >= l.limit:
		l.mu.Unlock()
		return mq.ErrFull
	}
	l.queue = append(l.queue, r)
	first := len(l.queue) == 1
	l.mu.Unlock()
	if first {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// Durable implements mq.Log.
func (l *Log) Durable() bool { return false }

// State implements mq.Log.
func (l *Log) State() error { return nil }

// Lag implements mq.Log.
func (l *Log) Lag() map[int]int64 { return nil }

// Backlog implements mq.Log.
func (l *Log) Backlog() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

// Run implements mq.Log. It takes what is there, up to MaxBatch, and never waits for more: while one batch is applied
// the next gathers. When ctx ends it refuses new records, applies the waiting ones and returns.
func (l *Log) Run(ctx context.Context, c mq.Consumer) error {
	apply := context.WithoutCancel(ctx) // the last batches are applied after ctx has ended
	var taken, rest []mq.Record
	for {
		if len(rest) == 0 {
			var last bool
			if taken, last = l.take(ctx, taken); len(taken) == 0 && last {
				return nil
			}
			rest = taken
		}
		n := min(len(rest), MaxBatch)
		// What went wrong was answered to the senders by the consumer; there is nothing to apply again.
		_ = c.Apply(apply, mq.Batch{Records: rest[:n]})
		rest = rest[n:]
	}
}

// take swaps the queue for old, waiting until it holds something. last: the log is closed and nothing more will come.
func (l *Log) take(ctx context.Context, old []mq.Record) (queue []mq.Record, last bool) {
	clear(old)
	for {
		l.mu.Lock()
		if ctx.Err() != nil {
			l.closed = true
		}
		if len(l.queue) > 0 || l.closed {
			queue, l.queue = l.queue, old[:0]
			last = l.closed
			l.mu.Unlock()
			return queue, last
		}
		l.mu.Unlock()
		select {
		case <-l.wake:
		case <-ctx.Done():
		}
	}
}
