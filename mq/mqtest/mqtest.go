// Package mqtest is the executable meaning of mq.Log: every log passes Run.
package mqtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/mq"
)

// patience bounds the wait for what must happen.
const patience = 30 * time.Second

// record is one record of one sender.
type record struct {
	sender, n uint32
	kept      func(error)
}

func (r *record) AppendRecord(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, r.sender), r.n)
}

func (r *record) Kept(err error) { r.kept(err) }

// consumer remembers what it was given, by partition and sender.
type consumer struct {
	mu    sync.Mutex
	next  map[uint32]uint32 // by sender
	wrong []string
	total int
	inUse map[int]bool // partitions being applied
}

func (c *consumer) Apply(_ context.Context, b mq.Batch) error {
	c.mu.Lock()
	if c.inUse[b.Partition] {
		c.wrong = append(c.wrong, fmt.Sprintf("partition %d is applied twice at a time", b.Partition))
	}
	c.inUse[b.Partition] = true
	c.mu.Unlock()
	var bodies [][]byte
	for _, r := range b.Records {
		bodies = append(bodies, r.AppendRecord(nil))
	}
	bodies = append(bodies, b.Bodies...)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, body := range bodies {
		sender, n := binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])
		if want := c.next[sender]; n != want {
			c.wrong = append(c.wrong, fmt.Sprintf("sender %d: record %d, want %d", sender, n, want))
		}
		c.next[sender] = n + 1
		c.total++
	}
	c.inUse[b.Partition] = false
	return nil
}

// Run checks the contract on logs made by open.
func Run(t *testing.T, open func(t *testing.T) mq.Log) {
	t.Run("order", func(t *testing.T) { order(t, open(t)) })
	t.Run("stop", func(t *testing.T) { stop(t, open(t)) })
}

// order: many senders at once, each with a key of its own; every record comes once and in its sender's order.
func order(t *testing.T, l mq.Log) {
	const senders, each = 8, 2000
	c := &consumer{next: map[uint32]uint32{}, inUse: map[int]bool{}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	run, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- l.Run(run, c) }()

	var kept, sending sync.WaitGroup
	for s := range uint32(senders) {
		sending.Go(func() {
			for n := range uint32(each) {
				r := &record{sender: s, n: n, kept: func(error) {}}
				if l.Durable() {
					kept.Add(1)
					r.kept = func(error) { kept.Done() }
				}
				for {
					err := l.Append(fmt.Sprint("key", s), r)
					if err == nil {
						break
					}
					if !errors.Is(err, mq.ErrFull) || ctx.Err() != nil {
						t.Errorf("append: %v", err)
						return
					}
				}
			}
		})
	}
	sending.Wait()
	kept.Wait()
	end()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if c.total != senders*each || len(c.wrong) > 0 {
		t.Errorf("%d records of %d, wrong: %.10q", c.total, senders*each, c.wrong)
	}
	if l.Backlog() != 0 {
		t.Errorf("%d records wait after Run", l.Backlog())
	}
}

// stop: Run returns when its context ends, with what was appended before applied; afterwards nothing is taken.
func stop(t *testing.T, l mq.Log) {
	c := &consumer{next: map[uint32]uint32{}, inUse: map[int]bool{}}
	for n := range uint32(100) {
		if err := l.Append("key", &record{n: n, kept: func(error) {}}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Run(ctx, c); err != nil {
		t.Fatal(err)
	}
	if !l.Durable() && c.total != 100 {
		t.Errorf("%d of 100 records were applied", c.total)
	}
	if err := l.Append("key", &record{kept: func(error) {}}); !errors.Is(err, mq.ErrClosed) {
		t.Errorf("append after the end: %v", err)
	}
}
