package pebble

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/store"
)

// smallDisk mounts a file system of some MiB. It needs root, as CI has.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Fatalf("mount a tmpfs on %s: %v: this test needs root (or CAP_SYS_ADMIN)", dir, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fill writes a file until the disk is full, but for some bytes.
func fill(t *testing.T, path string, leave uint64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	chunk := make([]byte, 64<<10)
	for {
		var st syscall.Statfs_t
		if err := syscall.Statfs(filepath.Dir(path), &st); err != nil {
			t.Fatal(err)
		}
		if free := st.Bavail * uint64(st.Bsize); free <= leave {
			return
		}
		if _, err := f.Write(chunk); err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				return
			}
			t.Fatal(err)
		}
	}
}

// sendUntilFull sends until the store refuses; what was promised stays promised.
func (c *sender) sendUntilFull() {
	c.t.Helper()
	for range 100_000 {
		if err := c.send(50); err != nil {
			if !errors.Is(err, store.ErrReadOnly) {
				c.t.Fatal(err)
			}
			return
		}
	}
	c.t.Fatal("the disk is never full")
}

// Somebody else fills the disk, to the last byte: nothing promised is lost, reads go on, and when there is room the store goes on.
func TestDiskFilledByAnother(t *testing.T) {
	for _, mib := range []int{64, 256} {
		t.Run(fmt.Sprint(mib), func(t *testing.T) {
			t.Parallel()
			disk := smallDisk(t, mib)
			o := testOptions(t, filepath.Join(disk, "store"))
			o.Logf = func(string, ...any) {}
			s := openTest(t, o)
			c := &sender{t: t, s: s, promised: map[int]uint64{}}
			for range 100 {
				c.must(c.send(20))
			}
			for round := range 2 {
				ballast := filepath.Join(disk, "ballast")
				fill(t, ballast, 0)
				c.sendUntilFull()
				if err := s.State(); !errors.Is(err, store.ErrReadOnly) {
					t.Fatalf("State: %v", err)
				}
				if _, err := s.Attach(context.Background(), "u1", fmt.Sprint("new", round)); !errors.Is(err, store.ErrReadOnly) {
					t.Fatalf("Attach: %v", err)
				}
				c.check()
				c.must(os.Remove(ballast))
				c.recovered()
				for range 50 {
					c.must(c.send(20))
				}
				c.check()
			}
			c.must(s.Close())
			c.s = openTest(t, o)
			c.check()
			c.must(c.s.Close())
		})
	}
}

// The store fills the disk itself: it stops before Pebble has no room left, closes and opens, and retention makes room.
func TestDiskFilledByItself(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 40)
	o := testOptions(t, filepath.Join(disk, "store"))
	o.Logf = func(string, ...any) {}
	c := &sender{t: t, s: openTest(t, o), pad: 4000, promised: map[int]uint64{}}
	c.sendUntilFull()
	c.check()
	c.must(c.s.Close())
	c.s = openTest(t, o)
	c.check()
	if err := c.send(1); !errors.Is(err, store.ErrReadOnly) {
		t.Logf("after opening again: %v", err) // the replay may have made room
	}
	if kept := len(c.promised); kept < 2_000 {
		t.Fatalf("only %d messages of 4 KB fit into 40 MiB", kept)
	}
	n, err := c.s.Expire(context.Background(), time.UnixMilli(1_700_000_000_000).Add(o.Retention+48*time.Hour))
	c.must(err)
	if n != 1 {
		t.Fatalf("%d buckets dropped", n)
	}
	c.recovered()
	c.promised = map[int]uint64{}
	if err := c.send(20); err != nil {
		t.Fatal(err)
	}
	c.must(c.s.Close())
}
