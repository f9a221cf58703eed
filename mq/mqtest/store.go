package mqtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/meshtalk/meshtalk/mq"
)

// Store stands for what commits: it applies batches behind the fence of their partition's offset, drops records that come
// twice and remembers the order of the others. It also is the mq.Partitions of a node, or by Node of several. Safe for
// concurrent use.
type Store struct {
	mu      sync.Mutex
	offsets map[int]int64
	applied map[ID]int      // the place of each record in order
	order   []ID            // first occurrences
	places  map[uint32]int  // the partition in which a sender's records come
	busy    map[*Node][]int // partitions that a node applies now
	batches []int           // records in each
	wrong   []string
	changed chan struct{} // closed at the next change of applied
}

// ID is the n-th record of a sender.
type ID struct{ Sender, N uint32 }

// NewStore makes an empty store.
func NewStore() *Store {
	return &Store{
		offsets: map[int]int64{}, applied: map[ID]int{}, places: map[uint32]int{}, busy: map[*Node][]int{}, changed: make(chan struct{}),
	}
}

// Record is a record of one sender; Kept calls Done.
type Record struct {
	ID
	Size int // bytes of its body, at least 8
	Done func(error)
}

// AppendRecord implements mq.Record.
func (r *Record) AppendRecord(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, r.Sender), r.N)
	if r.Size > 8 {
		dst = append(dst, make([]byte, r.Size-8)...)
	}
	return dst
}

// Kept implements mq.Record.
func (r *Record) Kept(err error) {
	if r.Done != nil {
		r.Done(err)
	}
}

// Node is one node's view of the store: an mq.Consumer and mq.Partitions.
type Node struct {
	s *Store
	// Fail may refuse a batch before anything of it is committed, or, with after true, tell of an error once it is. Set before use.
	Fail func(b mq.Batch) (err error, after bool) //nolint:revive,staticcheck // the order in which it is read

	mu       sync.Mutex
	owned    []int
	moved    chan struct{}
	expected map[int]int64 // offsets as this node has read and moved them
}

// Node makes a node that owns partitions.
func (s *Store) Node(owned ...int) *Node {
	return &Node{s: s, owned: owned, moved: make(chan struct{}), expected: map[int]int64{}}
}

// Own changes what the node owns.
func (n *Node) Own(owned ...int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.owned = owned
	close(n.moved)
	n.moved = make(chan struct{})
}

// Owned implements mq.Partitions.
func (n *Node) Owned() ([]int, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.owned), n.moved
}

// Offset implements mq.Partitions.
func (n *Node) Offset(_ context.Context, partition int) (int64, error) {
	n.s.mu.Lock()
	offset := n.s.offsets[partition]
	n.s.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expected[partition] = offset
	return offset, nil
}

// errFenced is what a node gets whose offset somebody else has moved.
var errFenced = errors.New("mqtest: fenced")

// Apply implements mq.Consumer.
func (n *Node) Apply(_ context.Context, b mq.Batch) error {
	if !n.s.enter(n, b.Partition) {
		return errors.New("mqtest: applied by two goroutines")
	}
	defer n.s.leave(n, b.Partition)
	var after error
	if n.Fail != nil {
		err, late := n.Fail(b)
		if err != nil && !late {
			return err
		}
		after = err
	}
	n.mu.Lock()
	expected := n.expected[b.Partition]
	n.mu.Unlock()
	if err := n.s.commit(b, expected); err != nil {
		return err
	}
	n.mu.Lock()
	n.expected[b.Partition] = b.Next
	n.mu.Unlock()
	return after
}

func (s *Store) enter(n *Node, partition int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.busy[n], partition) {
		s.wrong = append(s.wrong, fmt.Sprintf("partition %d is applied twice at a time", partition))
		return false
	}
	s.busy[n] = append(s.busy[n], partition)
	return true
}

func (s *Store) leave(n *Node, partition int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy[n] = slices.DeleteFunc(s.busy[n], func(p int) bool { return p == partition })
}

func (s *Store) commit(b mq.Batch, expected int64) error {
	bodies := slices.Clone(b.Bodies)
	for _, r := range b.Records {
		bodies = append(bodies, r.AppendRecord(nil))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.offsets[b.Partition] != expected {
		return errFenced
	}
	if len(bodies) == 0 {
		s.wrong = append(s.wrong, "an empty batch")
	}
	s.offsets[b.Partition] = b.Next
	s.batches = append(s.batches, len(bodies))
	for _, body := range bodies {
		id := ID{binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])}
		if p, known := s.places[id.Sender]; known && p != b.Partition {
			s.wrong = append(s.wrong, fmt.Sprintf("sender %d comes in partitions %d and %d", id.Sender, p, b.Partition))
		}
		s.places[id.Sender] = b.Partition
		if _, twice := s.applied[id]; !twice {
			s.applied[id] = len(s.order)
			s.order = append(s.order, id)
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// Await waits until all of ids are applied; false: not within the time.
func (s *Store) Await(ids []ID, patience time.Duration) bool {
	timeout := time.After(patience)
	for i := 0; ; {
		s.mu.Lock()
		for i < len(ids) {
			if _, ok := s.applied[ids[i]]; !ok {
				break
			}
			i++
		}
		changed := s.changed
		s.mu.Unlock()
		if i == len(ids) {
			return true
		}
		select {
		case <-changed:
		case <-timeout:
			return false
		}
	}
}

// Total is how many different records were applied.
func (s *Store) Total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.order)
}

// Offsets are the offsets of all partitions that have one.
func (s *Store) Offsets() map[int]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.offsets)
}

// Batches are the sizes of the batches so far.
func (s *Store) Batches() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.batches)
}

// Wrong is what breaks the contract, given what the senders have seen.
func (s *Store) Wrong(h *History) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	wrong := slices.Clone(s.wrong)
	for _, sender := range h.senders {
		wrong = append(wrong, s.judge(sender)...)
	}
	return wrong
}

// judge checks one sender's records: what was kept is there; what was kept before another was first appended comes before it;
// and so does what was appended before it, if both were kept at once. A record that was refused and appended again may
// stand at either place: its first attempt may have turned up.
func (s *Store) judge(h *sent) []string {
	var wrong []string
	promised, smooth := -1, -1 // the furthest places of records that were kept, and that were kept at once
	seen := map[ID]bool{}
	for _, e := range h.events {
		at, applied := s.applied[e.id]
		switch {
		case e.kept && !applied:
			wrong = append(wrong, fmt.Sprintf("%v was kept and is missing", e.id))
		case e.kept:
			promised = max(promised, at)
		case applied && !seen[e.id]:
			seen[e.id] = true
			if at < promised {
				wrong = append(wrong, fmt.Sprintf("%v stands before one that was kept before it was sent", e.id))
			}
			if !h.refused[e.id] {
				if at < smooth {
					wrong = append(wrong, fmt.Sprintf("%v stands before one that was sent before it", e.id))
				}
				smooth = max(smooth, at)
			}
		}
	}
	return wrong
}
