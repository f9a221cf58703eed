package pebble

import (
	"context"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Published implements store.Store. It is not synced: after a crash some events may be published again.
func (s *Store) Published(_ context.Context, partition int, ids []uint64) error {
	g, err := s.acquireOutbox(partition)
	if g == nil {
		return err
	}
	defer g.release()
	x := g.outbox
	x.mu.Lock()
	defer x.mu.Unlock()
	b := g.db.NewBatch()
	u := published{g: g, parts: map[uint64]*partial{}, done: slices.Clone(x.done)}
	for _, id := range ids {
		if isNote(id) {
			_ = b.Delete(idKey(kNote, id), nil)
		} else if err := u.add(id); err != nil {
			_ = b.Close()
			return err
		}
	}
	u.write(b)
	if err := g.apply(b, pebble.NoSync); err != nil {
		return err
	}
	for serial, p := range u.parts {
		if x.parts[serial] = p; p == nil {
			delete(x.parts, serial)
		}
	}
	x.done = u.done
	return nil
}

// published is what a call of Published makes of the outbox.
type published struct {
	g     *generation
	parts map[uint64]*partial // changed; nil: as a whole
	done  []span
}

func (u *published) add(id uint64) error {
	serial, index := id>>placeBits, int(id&(1<<placeBits-1)>>1)
	p, changed := u.parts[serial]
	if changed && p == nil || isDone(u.done, serial) || serial > u.g.durableSerial.Load() {
		return nil
	}
	if !changed {
		old, err := u.find(serial)
		if err != nil || old == nil {
			return err
		}
		p = &partial{old.total, slices.Clone(old.published)}
	}
	if index >= p.total {
		return nil
	}
	p.published[index/8] |= 1 << (index % 8)
	if u.parts[serial] = p; p.count() == p.total {
		u.parts[serial] = nil
		u.finish(serial)
	}
	return nil
}

func (u *published) find(serial uint64) (*partial, error) {
	if p := u.g.outbox.parts[serial]; p != nil {
		return p, nil
	}
	blob, err := u.g.blobOf(*u.g.tails.Load(), serial)
	if err != nil || blob == nil {
		return nil, err
	}
	return u.g.partOf(serial, blob)
}

// after is the index of the first span that begins after a commit; the first of all begins at 0.
func after(done []span, serial uint64) int {
	i, _ := slices.BinarySearchFunc(done, serial+1, func(s span, n uint64) int {
		switch {
		case s.from < n:
			return -1
		case s.from > n:
			return 1
		}
		return 0
	})
	return i
}

func isDone(done []span, serial uint64) bool {
	i := after(done, serial)
	return i > 0 && done[i-1].to >= serial
}

// finish takes a commit into the spans.
func (u *published) finish(serial uint64) {
	i := after(u.done, serial)
	left, right := i > 0 && u.done[i-1].to+1 == serial, i < len(u.done) && u.done[i].from == serial+1
	switch {
	case left && right:
		u.done[i-1].to = u.done[i].to
		u.done = slices.Delete(u.done, i, i+1)
	case left:
		u.done[i-1].to = serial
	case right:
		u.done[i].from = serial
	default:
		u.done = slices.Insert(u.done, i, span{serial, serial})
	}
}

// write adds to b what has changed.
func (u *published) write(b *pebble.Batch) {
	for serial, p := range u.parts {
		if p != nil {
			_ = b.Set(idKey(kPart, serial), p.published, nil)
		} else if old := u.g.outbox.parts[serial]; old != nil && old.count() > 0 {
			_ = b.Delete(idKey(kPart, serial), nil)
		}
	}
	before := map[span]bool{}
	for _, d := range u.g.outbox.done {
		before[d] = true
	}
	kept := map[uint64]bool{}
	for _, d := range u.done {
		kept[d.from] = true
		if !before[d] {
			_ = b.Set(idKey(kDone, d.from), uvarintBytes(d.to), nil)
		}
	}
	for d := range before {
		if !kept[d.from] {
			_ = b.Delete(idKey(kDone, d.from), nil)
		}
	}
}
