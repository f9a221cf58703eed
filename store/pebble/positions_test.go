package pebble

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/meshtalk/meshtalk/store"
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
	if err := s.writePositions(s.gen.Load(), 0); !errors.Is(err, syscall.EIO) {
		t.Fatalf("%v, want EIO", err)
	}
	f.set(nil)
	c.must(s.writePositions(s.gen.Load(), 0))
	for user, want := range map[string]uint64{"u1": 9, "u2": 4} {
		p, err := s.Positions(t.Context(), user)
		c.must(err)
		if p["web"] != want {
			t.Fatalf("%s: %v, want %d", user, p, want)
		}
	}
}

// spreadKeys are the rows of as many positions as make some pieces of one flush.
func spreadKeys(round int) [][]byte {
	keys := make([][]byte, 3*positionPiece+1)
	for i := range keys {
		keys[i] = pairKey(kPosition, fmt.Sprintf("user-%d-%d", round, i), "web")
	}
	return keys
}

// spread takes positions and begins a flush of them that would last for a day. It returns their rows when some of them are written; the
// flush's end comes through the channel.
func spread(t *testing.T, s *Store) ([][]byte, <-chan error) {
	t.Helper()
	for round := 0; ; round++ {
		keys := spreadKeys(round)
		for _, k := range keys {
			if _, err := s.take(k, 7); err != nil {
				t.Fatal(err)
			}
		}
		flushed := make(chan error, 1)
		go func() {
			g, err := s.acquire()
			if err == nil {
				err = s.writePositions(g, 24*time.Hour)
				g.release()
			}
			flushed <- err
		}()
		for late := false; !late; {
			select {
			case err := <-flushed: // the store's own flush was first
				if late = true; err != nil {
					t.Fatal(err)
				}
			case <-time.After(time.Millisecond):
				if n := written(t, s, keys); n > 0 && n < len(keys) {
					return keys, flushed
				}
			}
		}
	}
}

// written counts the rows that the database has.
func written(t *testing.T, s *Store, keys [][]byte) (n int) {
	t.Helper()
	for _, k := range keys {
		v, _, err := s.gen.Load().getNumber(k)
		if err != nil {
			t.Fatal(err)
		}
		if v > 0 {
			n++
		}
	}
	return n
}

func wantPositions(t *testing.T, s *Store, keys [][]byte) {
	t.Helper()
	for _, k := range keys {
		if v, err := s.gen.Load().position(k); err != nil || v != 7 {
			t.Fatalf("%q: %d, %v, want 7", k, v, err)
		}
	}
}

// A flush of which some pieces are written: readers see all positions, and a stop waits for no pause.
func TestPositionsSpread(t *testing.T) {
	t.Parallel()
	o := testOptions(t, t.TempDir())
	s := openTest(t, o)
	keys, flushed := spread(t, s)
	wantPositions(t, s, keys)
	if err := errors.Join(s.Close(), <-flushed); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, o)
	defer func() { _ = s.Close() }()
	wantPositions(t, s, keys)
}

// The disk fails between two pieces of a flush: what was written and is not synced is written again, with the rest.
func TestPositionsSpreadFault(t *testing.T) {
	t.Parallel()
	s, f, o := faultyStore(t, 0)
	c := &sender{t: t, s: s, promised: map[int]uint64{}}
	keys, flushed := spread(t, s)
	f.set(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, ".log") && op.Kind != errorfs.OpFileReadAt {
			return syscall.EIO
		}
		return nil
	})
	if err := c.send(1); !errors.Is(err, store.ErrReadOnly) {
		t.Fatalf("%v, want ErrReadOnly", err)
	}
	for ended := false; !ended; {
		select {
		case s.positions.full <- struct{}{}: // no pause any more; one of them may be taken by the store's own flush
		case err := <-flushed:
			if ended = true; !errors.Is(err, store.ErrReadOnly) {
				t.Fatalf("%v, want ErrReadOnly", err)
			}
		}
	}
	f.set(nil)
	c.recovered()
	wantPositions(t, s, keys)
	c.must(s.Close())
	s = openTest(t, o)
	defer func() { _ = s.Close() }()
	wantPositions(t, s, keys)
}
