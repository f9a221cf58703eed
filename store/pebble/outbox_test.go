package pebble

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/meshtalk/meshtalk/store"
)

// commitRows counts commits that stand in the database as rows.
func commitRows(t *testing.T, s *Store) (n int) {
	t.Helper()
	g := s.gen.Load()
	it, err := g.iter([]byte{kCommit}, []byte{kCommit + 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = it.Close() }()
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	return n
}

func events(t *testing.T, s *Store, limit int) []store.Event {
	t.Helper()
	list, err := s.Outbox(t.Context(), 0, limit)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func publish(t *testing.T, s *Store, list ...store.Event) {
	t.Helper()
	var ids []uint64
	for _, e := range list {
		ids = append(ids, e.ID)
	}
	if err := s.Published(t.Context(), 0, ids); err != nil {
		t.Fatal(err)
	}
}

// Commits that are not published when their tail becomes tables are rows then, until they are.
func TestOutboxRows(t *testing.T) {
	t.Parallel()
	o := testOptions(t, t.TempDir())
	o.Outbox = true
	s := openTest(t, o)
	defer func() { _ = s.Close() }()
	c := &sender{t: t, s: s, promised: map[int]uint64{}}
	rows := func(want int) {
		t.Helper()
		if n := commitRows(t, s); n != want {
			t.Fatalf("%d rows, want %d", n, want)
		}
	}
	for range 10 {
		c.must(c.send(3))
	}
	publish(t, s, events(t, s, 3*4+1)...)
	rows(0)
	c.must(s.flushTail(1))
	rows(6)
	stuck := events(t, s, 2) // the rest of the fifth
	for {
		list := events(t, s, 9)
		if publish(t, s, list[2:]...); len(list) == 2 {
			break
		}
	}
	for range 5 {
		c.must(c.send(1))
	}
	publish(t, s, events(t, s, 100)[3:]...)
	c.must(s.flushTail(1))
	rows(2)
	if done := s.gen.Load().outbox.done; len(done) != 3 {
		t.Fatalf("spans %v", done)
	}
	c.must(s.Close())
	s = openTest(t, o)
	list := events(t, s, 100)
	if len(list) != 3 || list[0].ID != stuck[0].ID || list[1].ID != stuck[1].ID || list[2].Message.ID != crashID(30) {
		t.Fatalf("%d events", len(list))
	}
	publish(t, s, list...)
	c.s = s
	c.must(c.send(1))
	publish(t, s, events(t, s, 100)...)
	c.must(s.flushTail(1))
	rows(0)
	x := s.gen.Load().outbox
	if len(x.done) != 1 || len(x.parts) != 0 {
		t.Fatalf("spans %v, %d parts", x.done, len(x.parts))
	}
	c.check()
}

// A store that gets an outbox tells of what comes then; one that has none any more forgets what it had.
func TestOutboxComesAndGoes(t *testing.T) {
	t.Parallel()
	o := testOptions(t, t.TempDir())
	c := &sender{t: t, promised: map[int]uint64{}}
	first := 0 // the first message that the outbox is to have
	for i, on := range []bool{false, true, true, false, true, false, false} {
		if o.Outbox = on; !on {
			first = c.n + 3
		}
		c.s = openTest(t, o)
		c.must(c.send(2))
		if i%2 == 0 {
			c.must(c.s.flushTail(1))
		}
		c.must(c.send(1))
		list := events(t, c.s, 100)
		if !on && len(list) > 0 || on && len(list) != c.n-first {
			t.Fatalf("%d: %d events, want %d", i, len(list), c.n-first)
		}
		for j, e := range list {
			if e.Message.ID != crashID(first+j) {
				t.Fatalf("%d: event %d is of %s", i, j, e.Message.ID)
			}
		}
		c.check()
		c.must(c.s.Close())
	}
}

// Events of what was not kept are never told, and those of what was kept are, across an opening again after a failure.
func TestOutboxFault(t *testing.T) {
	t.Parallel()
	s, f, o := faultyStore(t, 3000)
	_ = s.Close()
	o.Outbox = true
	s = openTest(t, o)
	defer func() { _ = s.Close() }()
	c := &sender{t: t, s: s, promised: map[int]uint64{}}
	told := map[string]bool{}
	take := func(n int) {
		list, err := s.Outbox(t.Context(), 0, n)
		if err != nil && !errors.Is(err, store.ErrReadOnly) {
			t.Fatal(err)
		}
		var ids []uint64
		for _, e := range list {
			told[fmt.Sprint(e.Conv, " ", e.Seq, " ", e.Message.ID)] = true
			ids = append(ids, e.ID)
		}
		if err := s.Published(t.Context(), 0, ids); err != nil && !errors.Is(err, store.ErrReadOnly) {
			t.Fatal(err)
		}
	}
	for round := range 6 {
		n := 0
		f.set(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileSyncData && ext(op, ".log") {
				if n++; n > round {
					return syscall.EIO
				}
			}
			return nil
		})
		for range 5 + round {
			_ = c.send(4)
			take(3)
		}
		f.set(nil)
		c.recovered()
		c.must(c.send(4))
	}
	for len(events(t, s, 1)) > 0 {
		take(100)
	}
	c.check()
	for n, seq := range c.promised {
		if d := crashDraft(n); !told[fmt.Sprint(d.Conv, " ", seq, " ", crashID(n))] {
			t.Fatalf("message %d, %s %d, was promised and never told", n, d.Conv, seq)
		}
	}
	kept := 0
	for _, a := range []int{0, 1, 2, 3, 4, 5, 6} {
		for b := a; b < crashUsers; b++ {
			conv := store.PrivateConv(fmt.Sprint("u", a), fmt.Sprint("u", b))
			for after, more := uint64(0), true; more; {
				list, m, err := s.History(t.Context(), conv, nil, &after, 100)
				c.must(err)
				for _, e := range list {
					kept, after = kept+1, e.Seq
					if !told[fmt.Sprint(conv, " ", e.Seq, " ", e.ID)] {
						t.Fatalf("%s %d is kept and was never told", conv, e.Seq)
					}
				}
				more = m
			}
		}
	}
	if kept != len(told) {
		t.Fatalf("%d messages were told of, %d are kept", len(told), kept)
	}
}
