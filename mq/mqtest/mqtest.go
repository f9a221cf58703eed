// Package mqtest is the executable meaning of mq.Log: every log passes Run.
package mqtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/mq"
)

// patience bounds the wait for what must happen.
const patience = time.Minute

// Run checks the contract on logs made by open, each with nothing in it and one node that owns all of its partitions. A log inside the
// process does not need the node.
func Run(t *testing.T, open func(t *testing.T, n *Node) mq.Log) {
	for name, test := range map[string]func(*testing.T, *Store, *Node, mq.Log){
		"order": order, "stop": stop, "failing consumer": failing, "sizes": sizes,
	} {
		t.Run(name, func(t *testing.T) {
			s := NewStore()
			n := s.Node(Everything...)
			test(t, s, n, open(t, n))
		})
	}
}

// Everything are more partitions than any test has.
var Everything = func() []int {
	all := make([]int, 64)
	for i := range all {
		all[i] = i
	}
	return all
}()

// start runs l; what it returns ends Run and waits for it.
func start(t *testing.T, l mq.Log, c mq.Consumer) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, c) }()
	var once sync.Once
	end = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(end)
	return end
}

// History is what senders have appended and what became of it. The zero value is empty; safe for concurrent use.
type History struct {
	mu       sync.Mutex
	senders  map[uint32]*sent
	kept     []ID
	refused  int
	answered sync.WaitGroup
}

// sent is the history of one sender.
type sent struct {
	events  []event
	refused map[ID]bool
}

// event is a record that was appended, or one that was kept.
type event struct {
	id   ID
	kept bool
}

func (h *History) of(sender uint32) *sent {
	if h.senders == nil {
		h.senders = map[uint32]*sent{}
	}
	if h.senders[sender] == nil {
		h.senders[sender] = &sent{refused: map[ID]bool{}}
	}
	return h.senders[sender]
}

// Key is the key of a sender's records.
func Key(sender uint32) string { return fmt.Sprint("key", sender) }

// Kept are the records that were promised.
func (h *History) Kept() []ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]ID(nil), h.kept...)
}

// Refused is how many times a record was answered with an error.
func (h *History) Refused() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refused
}

// Wait waits for the answers to all that was appended.
func (h *History) Wait() { h.answered.Wait() }

// Append appends r once, by the only goroutine of its sender. What the log takes counts as kept when it says so, or at once when it
// is not Durable; r.Done is called with that too.
func (h *History) Append(l mq.Log, r *Record) error {
	h.answered.Add(1)
	h.mu.Lock()
	s := h.of(r.Sender)
	s.events = append(s.events, event{id: r.ID})
	h.mu.Unlock()
	done := r.Done
	answer := func(err error) {
		h.mu.Lock()
		if err == nil {
			h.kept = append(h.kept, r.ID)
			s.events = append(s.events, event{r.ID, true})
		} else {
			h.refused++
			s.refused[r.ID] = true
		}
		h.mu.Unlock()
		if done != nil {
			done(err)
		}
		h.answered.Done()
	}
	record := &Record{ID: r.ID, Size: r.Size, Done: answer}
	err := l.Append(Key(r.Sender), record)
	switch {
	case errors.Is(err, mq.ErrFull):
		h.mu.Lock()
		s.refused[r.ID] = true
		h.mu.Unlock()
		h.answered.Done()
	case err != nil:
		answer(err)
	case !l.Durable():
		answer(nil)
	}
	return err
}

// Send appends records of one sender one after the other without waiting for answers.
func (h *History) Send(t *testing.T, l mq.Log, sender uint32, count int, size func(n int) int) {
	for n := range count {
		for {
			err := h.Append(l, &Record{ID: ID{sender, uint32(n)}, Size: size(n)})
			if err == nil {
				break
			}
			if !errors.Is(err, mq.ErrFull) {
				t.Errorf("append: %v", err)
				return
			}
			time.Sleep(time.Millisecond) // the only thing that ends it is that the log takes some
		}
	}
}

func small(int) int { return 100 }

// check waits until what was kept is applied, and judges.
func check(t *testing.T, s *Store, l mq.Log, h *History, want int) {
	t.Helper()
	h.Wait()
	kept := h.Kept()
	if !s.Await(kept, patience) {
		t.Error("not all that was kept is applied")
	}
	if len(kept) != want || h.Refused() != 0 {
		t.Errorf("%d of %d kept, %d refused", len(kept), want, h.Refused())
	}
	if wrong := s.Wrong(h); len(wrong) > 0 {
		t.Errorf("%d wrong: %.10q", len(wrong), wrong)
	}
	deadline := time.Now().Add(patience)
	for l.State() != nil && time.Now().Before(deadline) { // what failed goes on in its own time
		time.Sleep(time.Millisecond)
	}
	if err := l.State(); err != nil {
		t.Errorf("state: %v", err)
	}
}

// order: many senders at once, each with a key of its own; every record comes once and in its sender's order, in one partition.
func order(t *testing.T, s *Store, n *Node, l mq.Log) {
	const senders, each = 16, 2000
	end := start(t, l, n)
	var h History
	var sending sync.WaitGroup
	for sender := range uint32(senders) {
		sending.Go(func() { h.Send(t, l, sender, each, small) })
	}
	sending.Wait()
	check(t, s, l, &h, senders*each)
	end()
	if l.Backlog() != 0 {
		t.Errorf("%d records wait after Run", l.Backlog())
	}
	for p, lag := range l.Lag() {
		t.Errorf("partition %d has a lag of %d after Run", p, lag)
	}
}

// stop: Run returns when its context ends, with what was appended before kept or applied; afterwards nothing is taken.
func stop(t *testing.T, s *Store, n *Node, l mq.Log) {
	var h History
	h.Send(t, l, 1, 100, small)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Run(ctx, n); err != nil {
		t.Fatal(err)
	}
	h.Wait()
	if kept := h.Kept(); len(kept) != 100 || h.Refused() != 0 {
		t.Errorf("%d of 100 kept, %d refused", len(kept), h.Refused())
	}
	if !l.Durable() && s.Total() != 100 {
		t.Errorf("%d of 100 records were applied", s.Total())
	}
	if err := l.Append("key", &Record{}); !errors.Is(err, mq.ErrClosed) {
		t.Errorf("append after the end: %v", err)
	}
}

// failing: a consumer that fails before and after its commit gets the records again from a log that is Durable, and in any
// case those behind.
func failing(t *testing.T, s *Store, n *Node, l mq.Log) {
	const each = 300
	var mu sync.Mutex
	failures := 0
	n.Fail = func(mq.Batch) (error, bool) { //nolint:revive,staticcheck // see Node.Fail
		mu.Lock()
		defer mu.Unlock()
		if failures++; failures <= 6 && l.Durable() {
			return errors.New("mqtest: on purpose"), failures%2 == 0
		}
		return nil, false
	}
	start(t, l, n)
	var h History
	for sender := range uint32(3) {
		h.Send(t, l, sender, each, small)
	}
	check(t, s, l, &h, 3*each)
}

// sizes: records of any size that a frame of the API may have, between small ones.
func sizes(t *testing.T, s *Store, n *Node, l mq.Log) {
	const each = 64
	start(t, l, n)
	var h History
	h.Send(t, l, 1, each, func(n int) int {
		if n%16 == 0 {
			return 1 << 20
		}
		return n * 2000
	})
	check(t, s, l, &h, each)
}
