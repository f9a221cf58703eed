package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/meshtalk/meshtalk/store"
)

// Expire implements store.Store. It also works on a full disk: it is what makes room.
func (s *Store) Expire(ctx context.Context, now time.Time) (int, error) {
	messages, repeats := s.firstKept(now, s.opts.Retention), s.firstKept(now, s.opts.DedupeWindow)
	if err := s.flushBefore(messages, repeats); err != nil {
		return 0, err
	}
	g, err := s.acquire()
	if err != nil {
		return 0, err
	}
	dropMessages, err := g.bucketsBefore(kMessage, messages)
	dropRepeats, err2 := g.bucketsBefore(kRepeat, repeats)
	g.release()
	if err := errors.Join(err, err2); err != nil || len(dropMessages) == 0 && len(dropRepeats) == 0 {
		return 0, err
	}
	if len(dropMessages) > 0 {
		for _, kind := range []byte{kUser, kConv} {
			if err := s.saveHeads(ctx, kind, messages); err != nil {
				return 0, err
			}
		}
	}
	return len(dropMessages), s.dropBuckets(messages, repeats, dropMessages, dropRepeats)
}

// flushBefore keeps commits out of the days that go, and writes what the tails have of them: it would come back after the drop.
func (s *Store) flushBefore(messages, repeats uint16) error {
	g, err := s.acquire()
	if err != nil {
		return err
	}
	s.commitMu.Lock()
	g.bucket = max(g.bucket, messages)
	s.commitMu.Unlock()
	oldest := uint32(1 << 16)
	for _, t := range *g.tails.Load() {
		if b := t.oldest.Load(); b != 0 {
			oldest = min(oldest, b)
		}
	}
	g.release()
	if oldest >= uint32(max(messages, repeats)) {
		return nil
	}
	return s.flushTail(1)
}

// firstKept is the first bucket that has not ended before now − window.
func (s *Store) firstKept(now time.Time, window time.Duration) uint16 {
	return bucketOf(now.Add(-window).UnixMilli())
}

// bucketsBefore lists the buckets of a bulk kind before a bucket.
func (g *generation) bucketsBefore(kind byte, first uint16) ([]uint16, error) {
	it, err := g.iter([]byte{kind}, bucketKey(kind, first))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var list []uint16
	for ok := it.First(); ok; {
		b := binary.BigEndian.Uint16(it.Key()[1:])
		list = append(list, b)
		ok = it.SeekGE(afterBucket(kind, b))
	}
	return list, g.readError("expire", it.Error())
}

// saveHeads writes what must never go back of every user or conversation whose last day is about to go.
func (s *Store) saveHeads(ctx context.Context, kind byte, first uint16) error {
	next := []byte{kind}
	for next != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		g, err := s.acquire()
		if err != nil {
			return err
		}
		s.commitMu.Lock()
		next, err = g.saveHeadsPiece(kind, next, first)
		s.commitMu.Unlock()
		g.release()
		if err != nil {
			return err
		}
	}
	return nil
}

// saveHeadsPiece looks at up to 2,048 rows (some milliseconds, in which commits wait) and returns where to go on.
func (g *generation) saveHeadsPiece(kind byte, from []byte, first uint16) ([]byte, error) {
	it, err := g.iter(from, []byte{kind + 1})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	b := g.db.NewBatch()
	var e entity
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n > 2048 {
			from = append([]byte(nil), it.Key()...)
			return from, g.apply(b, pebble.Sync)
		}
		row, err := it.ValueAndErr()
		if err != nil {
			return nil, g.readError("expire", err)
		}
		if err := e.decode(row); err != nil {
			return nil, g.rowError(it.Key())
		}
		if len(e.days) == 0 || e.days[0].bucket >= first {
			continue
		}
		if last := e.days[len(e.days)-1].bucket; last < first {
			if err := g.saveHead(kind, &e, last); err != nil {
				return nil, err
			}
		}
		e.days = e.live(first)
		_ = b.Set(it.Key(), e.append(nil), nil)
	}
	if err := it.Error(); err != nil {
		return nil, g.readError("expire", err)
	}
	return nil, g.apply(b, pebble.Sync)
}

// saveHead keeps what the last row of an entity tells in its base.
func (g *generation) saveHead(kind byte, e *entity, bucket uint16) error {
	bulk := byte(kInbox)
	if kind == kConv {
		bulk = kMessage
	}
	err := g.lastRow(bulk, bucket, e.id, func(n uint64, row []byte) error {
		e.base.seq = n
		if kind == kUser {
			return nil
		}
		var r record
		if err := r.decode(row); err != nil {
			return err
		}
		e.base.ts, e.base.recalls, e.base.fromA = r.ts, r.recalls, r.fromA
		return nil
	})
	return err
}

// dropBuckets removes whole buckets. Readers stand aside for the write: what they see is before or after it.
func (s *Store) dropBuckets(messages, repeats uint16, dropMessages, dropRepeats []uint16) error {
	s.flushMu.Lock() // a tail being written would make readers wait behind us
	defer s.flushMu.Unlock()
	g := s.gen.Load()
	g.life.Lock()
	defer g.life.Unlock()
	if g.closed {
		return store.ErrClosed
	}
	b := g.db.NewBatch()
	for _, bucket := range dropMessages {
		for _, kind := range []byte{kMessage, kInbox, kIndex} {
			_ = b.DeleteRange(bucketKey(kind, bucket), afterBucket(kind, bucket), nil)
		}
	}
	for _, bucket := range dropRepeats {
		_ = b.DeleteRange(bucketKey(kRepeat, bucket), afterBucket(kRepeat, bucket), nil)
	}
	messages, repeats = max(messages, g.firstBucket), max(repeats, g.firstRepeat)
	_ = b.Set([]byte(rowFirstBucket), uvarintBytes(uint64(messages)), nil)
	_ = b.Set([]byte(rowFirstRepeat), uvarintBytes(uint64(repeats)), nil)
	if err := g.apply(b, pebble.Sync); err != nil {
		return err
	}
	g.firstBucket, g.firstRepeat = messages, repeats
	s.commitMu.Lock()
	s.filter.takeOver()
	s.filter.forget(repeats)
	s.commitMu.Unlock()
	return nil
}
