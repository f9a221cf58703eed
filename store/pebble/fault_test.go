package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/meshtalk/meshtalk/store"
)

// faults decides which operations of a file system fail.
type faults struct {
	mu   sync.Mutex
	fail func(op errorfs.Op) error
	hits int
}

func (f *faults) MaybeError(op errorfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		return nil
	}
	err := f.fail(op)
	if err != nil {
		f.hits++
	}
	return err
}

func (f *faults) String() string { return "faults" }

func (f *faults) set(fail func(op errorfs.Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.hits = fail, 0
}

func faultyStore(t *testing.T, tailBytes int64) (*Store, *faults, Options) {
	t.Helper()
	f := &faults{}
	o := testOptions(t, t.TempDir())
	o.Logf = func(string, ...any) {}
	o.fs, o.tailBytes = errorfs.Wrap(vfs.Default, f), tailBytes
	s := openTest(t, o)
	t.Cleanup(func() { _ = s.Close() })
	return s, f, o
}

// sender commits numbered messages and knows what was promised.
type sender struct {
	t        *testing.T
	s        *Store
	n        int
	pad      int // bytes more of content
	promised map[int]uint64
}

func (c *sender) draft(n int) *store.Draft {
	d := crashDraft(n)
	r := rand.New(rand.NewPCG(uint64(n), 0)) // nothing to compress
	for range c.pad / 8 {
		d.Content = binary.LittleEndian.AppendUint64(d.Content, r.Uint64())
	}
	return d
}

// send commits one batch; the error is Commit's or Wait's.
func (c *sender) send(n int) error {
	c.t.Helper()
	var drafts []*store.Draft
	first := c.n
	for range n {
		drafts = append(drafts, c.draft(c.n))
		c.n++
	}
	p, err := c.s.Commit(context.Background(), 0, 0, drafts)
	if err != nil {
		return err
	}
	results, err := p.Wait()
	if err != nil {
		return err
	}
	for i, r := range results {
		if r.Outcome != store.Stored && r.Outcome != store.Duplicate {
			c.t.Fatalf("outcome %d", r.Outcome)
		}
		c.promised[first+i] = r.Seq
	}
	p.Release()
	return nil
}

func (c *sender) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// recovered waits until the store keeps messages again.
func (c *sender) recovered() {
	c.t.Helper()
	for c.s.State() != nil {
		runtime.Gosched()
		select {
		case <-c.t.Context().Done():
			c.t.Fatal(c.s.State())
		case <-time.After(time.Millisecond):
		}
	}
}

// check reads all inboxes, and in history everything that was promised, or a sample of it.
func (c *sender) check() {
	c.t.Helper()
	every := 1 + len(c.promised)/2000
	for n, seq := range c.promised {
		if n%every != 0 {
			continue
		}
		d := c.draft(n)
		after := seq - 1
		list, _, err := c.s.History(context.Background(), d.Conv, nil, &after, 1)
		c.must(err)
		if len(list) != 1 || list[0].Seq != seq || list[0].ID != string(d.ID) || string(list[0].Content) != string(d.Content) {
			c.t.Fatalf("message %d, seq %d: %+v", n, seq, list)
		}
	}
	for u := range crashUsers {
		user := fmt.Sprint("u", u)
		for after, more := uint64(0), true; more; {
			list, _, m, err := c.s.ReadInbox(context.Background(), user, after, 100)
			c.must(err)
			for _, e := range list {
				if after++; e.Inbox != after {
					c.t.Fatalf("%s: %d, want %d", user, e.Inbox, after)
				}
			}
			more = m
		}
	}
}

func ext(op errorfs.Op, suffix string) bool { return strings.HasSuffix(op.Path, suffix) }

// One failing operation of every kind that a commit needs: nothing of it is promised, the store opens itself again and goes on.
func TestFaultOfTheLog(t *testing.T) {
	for name, fails := range map[string]func(op errorfs.Op) bool{
		"sync":  func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileSyncData && ext(op, ".log") },
		"write": func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && ext(op, ".log") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, f, _ := faultyStore(t, 0)
			c := &sender{t: t, s: s, promised: map[int]uint64{}}
			c.must(c.send(100))
			epoch := s.Epoch()
			for round := range 3 {
				once := true
				f.set(func(op errorfs.Op) error {
					if once && fails(op) {
						once = false
						return syscall.EIO
					}
					return nil
				})
				n := c.n
				if err := c.send(10); !errors.Is(err, store.ErrReadOnly) {
					t.Fatalf("round %d: %v, want ErrReadOnly", round, err)
				}
				c.recovered()
				if s.Epoch() != epoch {
					t.Fatal("another epoch")
				}
				c.n = n // the sender's retry, by the same ids
				c.must(c.send(10))
				c.must(c.send(10))
				c.check()
			}
		})
	}
}

// A commit that follows one whose sync failed fails too, and readers see neither before the log has been replayed.
func TestFaultOfTwoCommits(t *testing.T) {
	t.Parallel()
	s, f, _ := faultyStore(t, 0)
	c := &sender{t: t, s: s, promised: map[int]uint64{}}
	c.must(c.send(7 * 7))
	before, err := s.Head(context.Background(), "u1")
	c.must(err)
	g := s.gen.Load()
	f.set(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && ext(op, ".log") {
			return syscall.EIO
		}
		return nil
	})
	var all []store.Pending
	for i := range 3 {
		p, err := s.Commit(context.Background(), 0, 0, []*store.Draft{crashDraft(1000 + i)})
		if err != nil {
			if !errors.Is(err, store.ErrReadOnly) {
				t.Fatal(err)
			}
			continue
		}
		all = append(all, p)
	}
	for i := len(all) - 1; i >= 0; i-- {
		if _, err := all[i].Wait(); !errors.Is(err, store.ErrReadOnly) {
			t.Fatalf("commit %d: %v", i, err)
		}
		all[i].Release()
	}
	after, err := s.Head(context.Background(), "u1")
	if err == nil && after != before && s.gen.Load() == g {
		t.Fatalf("head %v, want %v", after, before)
	}
	f.set(nil)
	c.recovered()
	c.must(c.send(10))
	c.check()
}

// Anything may fail at any time. What was promised is there, in order, and the store always comes back.
func TestFaultsAnywhere(t *testing.T) {
	t.Parallel()
	s, f, o := faultyStore(t, 2000)
	c := &sender{t: t, s: s, promised: map[int]uint64{}}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 7))
	failed := 0
	for round := range 12 {
		if round%2 == 1 {
			odds, r := 1+r.IntN(60), rand.New(rand.NewPCG(r.Uint64(), 1)) // other goroutines ask it
			f.set(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose && op.Kind != errorfs.OpLock && r.IntN(odds) == 0 {
					return syscall.EIO
				}
				return nil
			})
		}
		for range 5 {
			if err := c.send(1 + r.IntN(20)); err != nil {
				if !errors.Is(err, store.ErrReadOnly) {
					t.Fatal(err)
				}
				failed++
			}
			_, err := s.Attach(context.Background(), "u1", fmt.Sprint("t", round))
			if err == nil {
				err = s.Ack("u1", fmt.Sprint("t", round), 1)
			}
			if err != nil && !errors.Is(err, store.ErrReadOnly) {
				t.Fatal(err)
			}
		}
		f.set(nil)
		c.recovered()
	}
	c.must(c.send(10))
	c.check()
	t.Logf("%d commits failed", failed)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.fs = nil
	c.s = openTest(t, o)
	defer func() { _ = c.s.Close() }()
	c.check()
}

// Reads of tables that fail are errors of that read and nothing else.
func TestFaultOfReads(t *testing.T) {
	t.Parallel()
	s, f, _ := faultyStore(t, 0)
	c := &sender{t: t, s: s, promised: map[int]uint64{}}
	c.must(c.send(500))
	c.must(s.flushTail(1))
	f.set(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileReadAt && ext(op, ".sst") {
			return syscall.EIO
		}
		return nil
	})
	_, _, _, err := s.ReadInbox(context.Background(), "u1", 0, 100)
	if !errors.Is(err, syscall.EIO) {
		t.Fatalf("%v, want EIO", err)
	}
	f.set(nil)
	c.check()
	c.must(c.send(10))
}

// A tail that cannot be written as tables stays in memory and in the log, and is written later.
func TestFaultOfTables(t *testing.T) {
	t.Parallel()
	s, f, o := faultyStore(t, 0)
	c := &sender{t: t, s: s, promised: map[int]uint64{}}
	c.must(c.send(200))
	f.set(func(op errorfs.Op) error {
		if strings.HasPrefix(op.Path, filepath.Join(o.Dir, tmpDir)) && op.Kind == errorfs.OpFileWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	if err := s.flushTail(1); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%v, want ENOSPC", err)
	}
	c.must(c.send(200))
	c.check()
	f.set(nil)
	c.must(s.flushTail(1))
	c.check()
	if ts := *s.gen.Load().tails.Load(); len(ts) != 1 || ts[0].given.Load() != 0 {
		t.Fatalf("%d tails", len(ts))
	}
	c.must(s.Close())
	o.fs = nil
	c.s = openTest(t, o)
	defer func() { _ = c.s.Close() }()
	c.check()
}

// When tables cannot be written at all, commits are refused once there is no room left for what waits: nobody waits for ever. They are
// taken again by themselves when tables can be written.
func TestFaultOfTablesForLong(t *testing.T) {
	t.Parallel()
	s, f, o := faultyStore(t, 1<<12)
	defer func() { _ = s.Close() }()
	c := &sender{t: t, s: s, promised: map[int]uint64{}}
	f.set(func(op errorfs.Op) error {
		if strings.HasPrefix(op.Path, filepath.Join(o.Dir, tmpDir)) && op.Kind == errorfs.OpCreate {
			return syscall.EMFILE
		}
		return nil
	})
	var err error
	for sent := 0; err == nil; sent += 10 {
		if sent > 10_000 {
			t.Fatal("commits beyond any limit are taken")
		}
		err = c.send(10)
	}
	if !errors.Is(err, store.ErrReadOnly) || !errors.Is(err, syscall.EMFILE) {
		t.Fatalf("%v, want ErrReadOnly with EMFILE", err)
	}
	if err := s.State(); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("the state is %v, want EMFILE", err)
	}
	c.check()
	f.set(nil)
	c.recovered()
	c.must(c.send(200))
	c.check()
	c.must(s.State())
}
