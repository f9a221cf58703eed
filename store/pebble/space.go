package pebble

import (
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/meshtalk/meshtalk/store"
)

// sizes are chosen from the size of the file system, so that a small disk is not all reserve.
type sizes struct {
	memTable uint64 // of one memtable; up to stopWrites of them before commits wait for the disk
	tail     int64  // bytes of commits that are kept in memory before they become tables
	log      int64  // bytes of commits in one log
	base     int64  // bytes of the level above the last
	reserve  uint64 // free space below which nothing new is taken
}

const stopWrites = 4

// sizesFor: as measured in docs/benchmarks.md, less below 4 GiB of disk. The reserve is what may still be written for what was taken:
// tails and memtables as tables, a new log with its preallocation, and small compactions.
func sizesFor(total uint64) sizes {
	unit := min(max(total/64, 1<<20), 64<<20)
	s := sizes{memTable: max(unit/8, 1<<20), tail: int64(unit / 4), log: int64(unit), base: int64(4 * unit)}
	s.reserve = min(stopWrites*s.memTable+tailStall*uint64(s.tail)+unit+4<<20, total/4)
	return s
}

// space is the free-space watermark: Pebble must not meet a full disk.
type space struct {
	fs      vfs.FS
	dir     string
	reserve uint64
	low     atomic.Bool
	avail   atomic.Uint64
}

func newSpace(fs vfs.FS, dir string, reserve uint64) *space {
	s := &space{fs: fs, dir: dir, reserve: reserve}
	_ = s.check()
	return s
}

// check asks the file system (about a microsecond) and returns state. Once low, a quarter more than the reserve ends it.
func (s *space) check() error {
	usage, err := s.fs.GetDiskUsage(s.dir)
	if err == nil {
		s.avail.Store(usage.AvailBytes)
		limit := s.reserve
		if s.low.Load() {
			limit += limit / 4
		}
		if low := usage.AvailBytes < limit; low != s.low.Load() {
			s.low.Store(low)
		}
	}
	return s.state()
}

func (s *space) state() error {
	if !s.low.Load() {
		return nil
	}
	return fmt.Errorf("%w: %s has %d MiB free, below the reserve of %d MiB", store.ErrReadOnly, s.dir, s.avail.Load()>>20,
		(s.reserve+1<<20-1)>>20)
}
