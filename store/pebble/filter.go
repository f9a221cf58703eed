package pebble

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/meshtalk/meshtalk/store"
)

// repeatFilter answers "was this id stored in this bucket?" with "surely not" for nearly every new message, so that a commit
// reads nothing from the database. It is a blocked Bloom filter per bucket, in segments that grow: ids are
// SHA-256 already, so their own bits choose the block (8 bytes) and the 6 bits in it (8 bytes). At 16 bits an id, about 0.1 % of new ids
// of a full segment look old and cost one read.
//
// Owned by Store.commitMu, but for the segments that the rebuild at the start hands over.
type repeatFilter struct {
	budget  int64
	bytes   int64
	buckets []*bucketFilter // ascending by bucket

	mu   sync.Mutex
	done []*bucketFilter // rebuilt, not taken over yet
}

// bucketFilter covers one bucket.
type bucketFilter struct {
	bucket   uint16
	complete bool // every id of the bucket is in segments; otherwise only the database knows
	dropped  bool // given up for the budget: never complete again
	segments []*segment
}

// segment is a Bloom filter of 64-byte blocks.
type segment struct {
	blocks []block
	mask   uint64
	room   int // ids that it still takes
}

type block [8]uint64

const (
	bitsPerID      = 16
	firstSegment   = 1 << 16 // bytes: 32,768 ids
	largestSegment = 1 << 24 // bytes: 8 million ids
	blockBytes     = 64
	bitsPerProbe   = 9 // 512 bits in a block
	probes         = 7
	growSegmentBy  = 4 // few segments to ask
)

func newRepeatFilter(budget int64) *repeatFilter { return &repeatFilter{budget: budget} }

func newSegment(size int) *segment {
	n := size / blockBytes
	return &segment{blocks: make([]block, n), mask: uint64(n - 1), room: size * 8 / bitsPerID}
}

// split gives the block and the bits of an id.
func split(id *[16]byte) (block, bits uint64) {
	return binary.LittleEndian.Uint64(id[:8]), binary.LittleEndian.Uint64(id[8:])
}

func (s *segment) has(at, bits uint64) bool {
	b := &s.blocks[at&s.mask]
	for range probes {
		if b[bits>>6&7]&(1<<(bits&63)) == 0 {
			return false
		}
		bits >>= bitsPerProbe
	}
	return true
}

func (s *segment) add(at, bits uint64) {
	b := &s.blocks[at&s.mask]
	for range probes {
		b[bits>>6&7] |= 1 << (bits & 63)
		bits >>= bitsPerProbe
	}
	s.room--
}

// next is the size of the segment after the last one.
func (b *bucketFilter) next() int {
	if len(b.segments) == 0 {
		return firstSegment
	}
	last := b.segments[len(b.segments)-1]
	return min(len(last.blocks)*blockBytes*growSegmentBy, largestSegment)
}

// add puts an id in, growing when the last segment is full; it returns the bytes that the growth took.
func (b *bucketFilter) add(id *[16]byte) (grown int64) {
	at, bits := split(id)
	n := len(b.segments)
	if n == 0 || b.segments[n-1].room <= 0 {
		size := b.next()
		b.segments = append(b.segments, newSegment(size))
		grown, n = int64(size), n+1
	}
	b.segments[n-1].add(at, bits)
	return grown
}

func (b *bucketFilter) has(at, bits uint64) bool {
	for _, s := range b.segments {
		if s.has(at, bits) {
			return true
		}
	}
	return false
}

// suspects appends the buckets in which the id may be.
func (f *repeatFilter) suspects(id *[16]byte, to []uint16) []uint16 {
	at, bits := split(id)
	for i := len(f.buckets) - 1; i >= 0; i-- {
		if b := f.buckets[i]; !b.complete || b.has(at, bits) {
			to = append(to, b.bucket)
		}
	}
	return to
}

// add notes a stored id.
func (f *repeatFilter) add(bucket uint16, id *[16]byte) {
	b := f.of(bucket)
	if b.dropped {
		return
	}
	if f.bytes += b.add(id); f.bytes > f.budget {
		f.dropOldest()
	}
}

// of is the filter of a bucket, made when it is new: then it is complete, for nothing is in the bucket yet.
func (f *repeatFilter) of(bucket uint16) *bucketFilter {
	i := len(f.buckets)
	for i > 0 && f.buckets[i-1].bucket >= bucket {
		if i--; f.buckets[i].bucket == bucket {
			return f.buckets[i]
		}
	}
	b := &bucketFilter{bucket: bucket, complete: true}
	f.buckets = append(f.buckets, nil)
	copy(f.buckets[i+1:], f.buckets[i:])
	f.buckets[i] = b
	return b
}

// dropOldest gives up the filter of the oldest bucket that has one: its look-ups read the database from now on.
func (f *repeatFilter) dropOldest() {
	for _, b := range f.buckets {
		if len(b.segments) > 0 {
			f.drop(b)
			return
		}
	}
}

func (f *repeatFilter) drop(b *bucketFilter) {
	for _, s := range b.segments {
		f.bytes -= int64(len(s.blocks) * blockBytes)
	}
	b.segments, b.complete, b.dropped = nil, false, true
}

// forget removes the buckets before first.
func (f *repeatFilter) forget(first uint16) {
	for len(f.buckets) > 0 && f.buckets[0].bucket < first {
		for _, s := range f.buckets[0].segments {
			f.bytes -= int64(len(s.blocks) * blockBytes)
		}
		f.buckets = f.buckets[1:]
	}
}

// handOver gives a rebuilt bucket to the committer.
func (f *repeatFilter) handOver(b *bucketFilter) {
	f.mu.Lock()
	f.done = append(f.done, b)
	f.mu.Unlock()
}

// takeOver merges what the rebuild has finished: ids stored since the start are in segments of their own.
func (f *repeatFilter) takeOver() {
	f.mu.Lock()
	done := f.done
	f.done = nil
	f.mu.Unlock()
	for _, d := range done {
		for _, b := range f.buckets {
			if b.bucket != d.bucket || b.dropped {
				continue
			}
			b.segments = append(d.segments, b.segments...)
			b.complete = d.complete
			for _, s := range d.segments {
				f.bytes += int64(len(s.blocks) * blockBytes)
			}
			if d.dropped {
				f.drop(b)
			}
		}
		for f.bytes > f.budget {
			f.dropOldest()
		}
	}
}

// rebuildFilter reads the ids of every bucket in the dedupe window, newest first, in the background. Until a bucket is done
// its look-ups read the database. Ids that are stored meanwhile the committer adds itself.
func (s *Store) rebuildFilter(g *generation) error {
	buckets, err := g.repeatBuckets()
	if err != nil {
		return err
	}
	for _, b := range buckets {
		s.filter.buckets = append(s.filter.buckets, &bucketFilter{bucket: b})
	}
	for _, t := range *g.tails.Load() {
		for i := range t.count {
			m := t.msg(i)
			s.filter.add(m.bucket, &m.id)
		}
	}
	s.tasks.Add(1)
	go func() {
		defer s.tasks.Done()
		left := s.opts.FilterBytes
		for i := len(buckets) - 1; i >= 0; i-- {
			b := &bucketFilter{bucket: buckets[i]}
			if err := s.readFilter(b, &left); err != nil {
				s.opts.Logf("store: filter of repeats: %v", err)
				return
			}
			s.filter.handOver(b)
		}
	}()
	return nil
}

// repeatBuckets lists the buckets that hold repeats, ascending.
func (g *generation) repeatBuckets() ([]uint16, error) {
	it, err := g.iter(bucketKey(kRepeat, g.firstRepeat), []byte{kRepeat + 1})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var buckets []uint16
	for ok := it.First(); ok; {
		b := binary.BigEndian.Uint16(it.Key()[1:])
		buckets = append(buckets, b)
		if b == 1<<16-1 {
			break
		}
		ok = it.SeekGE(bucketKey(kRepeat, b+1))
	}
	return buckets, g.readError("filter of repeats", it.Error())
}

// readFilter builds the filter of one bucket, a piece at a time so that nothing waits for it.
func (s *Store) readFilter(b *bucketFilter, left *int64) error {
	next := bucketKey(kRepeat, b.bucket)
	for next != nil && *left > 0 {
		g, err := s.acquire()
		switch {
		case errors.Is(err, store.ErrReadOnly): // being opened again
			if !s.sleep(200 * time.Millisecond) {
				return nil
			}
			continue
		case err != nil:
			return nil
		}
		next, err = g.readFilterPiece(b, next, left)
		g.release()
		if err != nil {
			return err
		}
		if s.closing() {
			return nil
		}
	}
	b.complete, b.dropped = *left > 0, *left <= 0
	return nil
}

// readFilterPiece adds up to 16,384 ids (some milliseconds) and returns the key to go on from, nil at the end.
func (g *generation) readFilterPiece(b *bucketFilter, from []byte, left *int64) ([]byte, error) {
	it, err := g.iter(from, afterBucket(kRepeat, b.bucket))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		key := it.Key()
		if len(key) != repeatKeyLen {
			return nil, g.rowError(key)
		}
		if *left -= b.add((*[16]byte)(key[3:])); *left <= 0 {
			return nil, nil
		}
		if n++; n == 1<<14 {
			return append(append([]byte(nil), key...), 0), nil
		}
	}
	return nil, g.readError("filter of repeats", it.Error())
}

// sleep returns false when the store is closing.
func (s *Store) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.quit:
		return false
	case <-t.C:
		return true
	}
}

func (s *Store) closing() bool {
	select {
	case <-s.quit:
		return true
	default:
		return false
	}
}
