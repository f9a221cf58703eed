package pebble

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/meshtalk/meshtalk/store"
)

// The outbox costs a commit nothing: its events are the messages in its blob. When a tail is written as tables, the blobs of
// those commits that are not published yet become rows. Positions leave rows of their own, notes, in the batch that writes them. Rows:
//
//	l serial    the blob of a commit, see blob.go
//	e id        a note: kind, uvarint seq, uvarint ts, user 0 conv
//	o first     commits from first to the value (uvarint) are published and need no row
//	O serial    of this commit the events whose bits are set are published
//
// An id is the serial of a commit (40 bits), then a place (24 bits) that is even for the events of its blob, in order. Notes have odd places
// behind them: they tell of what was durable when they were written.
type outbox struct {
	given uint64 // the id of a note given last; owned by positions.flush

	noted atomic.Uint64 // the newest note that is durable

	mu    sync.Mutex
	rows  uint64 // no later commit has a row
	done  []span // ascending, with something between any two
	parts map[uint64]*partial
	notes uint64 // no note below it is there
}

// span is commits from one to another.
type span struct{ from, to uint64 }

// partial is a commit that was read from the outbox and is not published as a whole yet.
type partial struct {
	total     int
	published []byte // bits
}

const (
	placeBits = 24
	firstNote = 1 << (placeBits - 1) // place of the first note behind a commit, less 1; messages of a commit are half as many at most
)

func eventID(serial uint64, index int) uint64 { return serial<<placeBits | uint64(index)<<1 }

func isNote(id uint64) bool { return id&1 == 1 }

func idKey(kind byte, id uint64) []byte { return binary.BigEndian.AppendUint64([]byte{kind}, id) }

func (p *partial) has(i int) bool { return p.published[i/8]&(1<<(i%8)) != 0 }

func (p *partial) count() (n int) {
	for _, b := range p.published {
		n += bits.OnesCount8(b)
	}
	return n
}

// loadOutbox reads what is published. A store that had no outbox until now has nothing to tell of what it holds; one that has none
// any more forgets what it had.
func (g *generation) loadOutbox() error {
	done, err := g.readSpans()
	if err != nil {
		return err
	}
	if !g.s.opts.Outbox {
		if len(done) == 0 {
			return nil
		}
		g.droppedOutbox = true
		b := g.db.NewBatch()
		for _, kind := range []byte{kNote, kDone, kPart, kCommit} {
			_ = b.DeleteRange([]byte{kind}, []byte{kind + 1}, nil)
		}
		return g.apply(b, pebble.Sync)
	}
	x := &outbox{done: done, parts: map[uint64]*partial{}}
	if len(done) == 0 {
		x.done = []span{{0, g.serial}}
		b := g.db.NewBatch()
		_ = b.Set(idKey(kDone, 0), uvarintBytes(g.serial), nil)
		if err := g.apply(b, pebble.Sync); err != nil {
			return err
		}
	}
	if x.given, err = g.lastNumber(kNote); err == nil {
		x.noted.Store(x.given)
		x.rows, err = g.lastNumber(kCommit)
	}
	g.outbox = x
	return err
}

// lastNumber is the number in the last key of a kind whose keys are numbers, 0 if there is none.
func (g *generation) lastNumber(kind byte) (n uint64, err error) {
	it, err := g.iter([]byte{kind}, []byte{kind + 1})
	if err != nil {
		return 0, err
	}
	defer it.Close()
	if it.Last() && len(it.Key()) == 9 {
		n = binary.BigEndian.Uint64(it.Key()[1:])
	}
	return n, g.readError("outbox", it.Error())
}

func (g *generation) readSpans() (done []span, err error) {
	it, err := g.iter([]byte{kDone}, []byte{kDone + 1})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		row, err := it.ValueAndErr()
		if err != nil {
			return nil, g.readError("outbox", err)
		}
		to, n := binary.Uvarint(row)
		if len(it.Key()) != 9 || n <= 0 {
			return nil, g.rowError(it.Key())
		}
		done = append(done, span{binary.BigEndian.Uint64(it.Key()[1:]), to})
	}
	return done, g.readError("outbox", it.Error())
}

// commits writes the blobs of the commits that are not published.
func (w *tableWriter) commits(t *tail) error {
	x := w.g.outbox
	if x == nil {
		return nil
	}
	x.mu.Lock()
	done := slices.Clone(x.done)
	x.mu.Unlock()
	for serial := t.first; serial <= t.last; serial++ {
		if isDone(done, serial) {
			continue
		}
		if err := w.set(commitKey(serial), t.blob(serial)); err != nil {
			return err
		}
		w.commit = serial
		if err := w.cut(tableBytes); err != nil {
			return err
		}
	}
	return nil
}

// forget deletes the rows of commits that are published. last is the newest that has been written.
func (g *generation) forget(b *pebble.Batch, last uint64) {
	x := g.outbox
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rows = max(x.rows, last); x.rows == 0 {
		return
	}
	for _, d := range x.done {
		if d.from <= x.rows {
			_ = b.DeleteRange(commitKey(d.from), commitKey(min(d.to, x.rows)+1), nil)
		}
	}
	if x.done[0].to >= x.rows {
		x.rows = 0
	}
}

// blobOf is the blob of a commit that is not published as a whole, nil if there is none.
func (g *generation) blobOf(ts tails, serial uint64) ([]byte, error) {
	for _, t := range ts {
		if serial >= t.first {
			return t.blob(serial), nil
		}
	}
	return g.get(commitKey(serial))
}

// note adds the event of a position that b writes.
func (g *generation) note(b *pebble.Batch, kind store.EventKind, key []byte, seq uint64) {
	x := g.outbox
	x.given = max(x.given+2, g.durableSerial.Load()<<placeBits|firstNote+1)
	row := binary.AppendUvarint([]byte{byte(kind)}, seq)
	row = binary.AppendUvarint(row, uint64(time.Now().UnixMilli()))
	_ = b.Set(idKey(kNote, x.given), append(row, key[1:]...), nil)
}

// Delivered implements store.Store.
func (s *Store) Delivered(user, conv string, seq uint64) {
	if !s.opts.Outbox {
		return
	}
	var buf [256]byte
	if _, err := s.take(appendPair(buf[:0], kDelivered, user, conv), seq); err != nil && !s.closed.Load() {
		s.opts.Logf("store: a delivery for the outbox: %v", err)
	}
}

// acquireOutbox is acquire, with a nil generation if there is no outbox.
func (s *Store) acquireOutbox(partition int) (*generation, error) {
	g, err := s.acquire()
	if err != nil {
		return nil, err
	}
	if partition != 0 {
		err = fmt.Errorf("store: partition %d: the embedded store has only partition 0", partition)
	}
	if err != nil || g.outbox == nil {
		g.release()
		return nil, err
	}
	return g, nil
}
