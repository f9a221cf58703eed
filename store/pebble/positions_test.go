package pebble

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// Positions are taken without a look at the disk, at any time: also of a user that nobody has asked for, while no file can be
// read, and while nobody may use the database.
func TestPositionsWithoutIO(t *testing.T) {
	t.Parallel()
	s, f, o := faultyStore(t, 0)
	c := &sender{t: t, s: s, promised: map[int]uint64{}}
	c.must(c.send(100))
	_, err := s.Attach(t.Context(), "u1", "web")
	c.must(err)
	c.must(s.Ack("u1", "web", 5))
	c.must(s.Close())
	s = openTest(t, o)
	defer func() { _ = s.Close() }()
	c.must(s.flushTail(1))
	f.set(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, ".sst") {
			return syscall.EIO
		}
		return nil
	})
	g := s.gen.Load()
	g.life.Lock()
	c.must(s.Ack("u1", "web", 7))
	c.must(s.Ack("u2", "web", 1))
	c.must(s.AckGroup("u1", "web", "team", 3))
	s.Seen("u1", 1_700_000_000_000)
	s.Delivered("u1", "p:u1:u2", 1)
	g.life.Unlock()
	f.mu.Lock()
	hits := f.hits
	f.mu.Unlock()
	if hits != 0 {
		t.Fatalf("%d operations on tables", hits)
	}
	f.set(nil)
	c.must(s.Close())
	s = openTest(t, o)
	defer func() { _ = s.Close() }()
	p, err := s.Positions(t.Context(), "u1")
	c.must(err)
	seen, err := s.LastSeen(t.Context(), "u1")
	c.must(err)
	if p["web"] != 7 || seen != 1_700_000_000_000 {
		t.Fatalf("positions %v, last seen %d", p, seen)
	}
}

// A row that cannot be read while the flusher merges keeps the position waiting; nothing is lost or goes back.
func TestPositionsWaitForReads(t *testing.T) {
	t.Parallel()
	s, f, o := faultyStore(t, 0)
	c := &sender{t: t, s: s, promised: map[int]uint64{}}
	c.must(c.send(100))
	_, err := s.Attach(t.Context(), "u1", "web")
	c.must(err)
	c.must(s.Ack("u1", "web", 9))
	c.must(s.Close())
	o.CacheBytes = 1
	s = openTest(t, o)
	defer func() { _ = s.Close() }()
	c.must(s.gen.Load().db.Flush())
	f.set(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, ".sst") {
			return syscall.EIO
		}
		return nil
	})
	c.must(s.Ack("u1", "web", 3))
	c.must(s.Ack("u2", "web", 4))
	if err := s.writePositions(s.gen.Load(), false); !errors.Is(err, syscall.EIO) {
		t.Fatalf("%v, want EIO", err)
	}
	f.set(nil)
	c.must(s.writePositions(s.gen.Load(), false))
	for user, want := range map[string]uint64{"u1": 9, "u2": 4} {
		p, err := s.Positions(t.Context(), user)
		c.must(err)
		if p["web"] != want {
			t.Fatalf("%s: %v, want %d", user, p, want)
		}
	}
}
