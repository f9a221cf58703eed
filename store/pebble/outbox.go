package pebble

import (
	"context"
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

// Forget implements store.Store: there is no other node.
func (s *Store) Forget(string) {}

// Offset implements store.Store: commits have their place in Pebble's log.
func (s *Store) Offset(context.Context, int) (int64, error) {
	if s.closed.Load() {
		return 0, store.ErrClosed
	}
	return 0, nil
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

// Outbox implements store.Store.
func (s *Store) Outbox(_ context.Context, partition, limit int) ([]store.Event, error) {
	g, err := s.acquireOutbox(partition)
	if g == nil {
		return nil, err
	}
	defer g.release()
	r := outboxReader{g: g, limit: max(limit, 1), durable: g.durableSerial.Load(), tails: *g.tails.Load()}
	g.outbox.mu.Lock()
	defer g.outbox.mu.Unlock()
	if err := r.readNotes(); err != nil {
		return nil, err
	}
	return r.list, r.readCommits()
}

// outboxReader collects events in the order of their ids.
type outboxReader struct {
	g       *generation
	limit   int
	durable uint64 // commits after it are not
	tails   tails  // loaded before any table is read
	size    int    // of content
	notes   []store.Event
	list    []store.Event
}

func (r *outboxReader) full() bool { return len(r.list) >= r.limit || r.size >= pageBytes }

// add appends an event and the notes before it.
func (r *outboxReader) add(e store.Event) {
	r.addNotes(e.ID)
	if !r.full() {
		r.list = append(r.list, e)
		r.size += len(e.Message.Content)
	}
}

func (r *outboxReader) addNotes(before uint64) {
	for len(r.notes) > 0 && r.notes[0].ID < before && !r.full() {
		r.list, r.notes = append(r.list, r.notes[0]), r.notes[1:]
	}
}

// readNotes reads the first notes. outbox.mu is held.
func (r *outboxReader) readNotes() error {
	x, last := r.g.outbox, r.g.outbox.noted.Load()
	if x.notes > last {
		return nil
	}
	it, err := r.g.iter(idKey(kNote, x.notes), idKey(kNote, last+1))
	if err != nil {
		return err
	}
	defer it.Close()
	x.notes = last + 1
	for ok := it.First(); ok && len(r.notes) < r.limit; ok = it.Next() {
		row, err := it.ValueAndErr()
		if err != nil {
			return r.g.readError("outbox", err)
		}
		in := reader{b: row}
		e := store.Event{ID: binary.BigEndian.Uint64(it.Key()[1:]), Kind: store.EventKind(in.byte()), Seq: in.uvarint(), TS: int64(in.uvarint())}
		end := slices.Index(in.b, 0)
		if in.bad || end < 0 {
			return r.g.rowError(it.Key())
		}
		e.User, e.Conv = string(in.b[:end]), string(in.b[end+1:])
		x.notes = min(x.notes, e.ID)
		r.notes = append(r.notes, e)
	}
	return r.g.readError("outbox", it.Error())
}

// readCommits reads what is not done, with the notes in their places. outbox.mu is held.
func (r *outboxReader) readCommits() error {
	done := r.g.outbox.done
	for i, d := range done {
		until := r.durable
		if i+1 < len(done) {
			until = min(until, done[i+1].from-1)
		}
		if d.to >= until || r.full() {
			continue
		}
		if err := r.readSpan(span{d.to + 1, until}); err != nil {
			return err
		}
	}
	r.addNotes(1<<64 - 1)
	return nil
}

// readSpan reads tables, then memory.
func (r *outboxReader) readSpan(s span) error {
	inMemory := r.tails[len(r.tails)-1].first
	if s.from < inMemory {
		if err := r.readRows(s.from, min(s.to+1, inMemory)); err != nil {
			return err
		}
	}
	for serial := max(s.from, inMemory); serial <= s.to && !r.full(); serial++ {
		blob, err := r.g.blobOf(r.tails, serial)
		if err != nil {
			return err
		}
		if err := r.commit(serial, blob); err != nil {
			return err
		}
	}
	return nil
}

func (r *outboxReader) readRows(from, to uint64) error {
	it, err := r.g.iter(commitKey(from), commitKey(to))
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok && !r.full(); ok = it.Next() {
		row, err := it.ValueAndErr()
		if err != nil {
			return r.g.readError("outbox", err)
		}
		if err := r.commit(binary.BigEndian.Uint64(it.Key()[1:]), row); err != nil {
			return err
		}
	}
	return r.g.readError("outbox", it.Error())
}

func (r *outboxReader) commit(serial uint64, blob []byte) error {
	p, err := r.g.partOf(serial, blob)
	if err != nil {
		return err
	}
	err = eachMessage(blob, func(i int, m *item) error {
		if r.full() || p.has(i) {
			return nil
		}
		return r.message(eventID(serial, i), m)
	})
	if err != nil {
		return fmt.Errorf("%w: %w", r.g.rowError(commitKey(serial)), err)
	}
	return nil
}

// message adds the event of a message in a blob.
func (r *outboxReader) message(id uint64, m *item) error {
	var rec record
	if err := rec.decode(m.row); err != nil {
		return err
	}
	name, err := r.g.convName(m.conv)
	if err != nil {
		return err
	}
	e := store.Event{ID: id, Kind: store.EventStored, TS: rec.ts, Conv: name, Seq: m.seq, Message: new(store.Message)}
	if rec.kind() == store.Recall {
		e.Kind = store.EventRecalled
	}
	rec.message(name, m.seq, e.Message)
	r.add(e)
	return nil
}

// eachMessage gives f the messages of a blob, numbered.
func eachMessage(blob []byte, f func(i int, m *item) error) error {
	_, items, err := parseBlob(blob)
	if err != nil {
		return err
	}
	var it item
	for i := 0; len(items) > 0; {
		if err := it.parse(items); err != nil {
			return err
		}
		if items = it.rest; it.tag == itemMessage {
			if err := f(i, &it); err != nil {
				return err
			}
			i++
		}
	}
	return nil
}

// partOf is what is published of a commit. outbox.mu is held.
func (g *generation) partOf(serial uint64, blob []byte) (*partial, error) {
	if p := g.outbox.parts[serial]; p != nil {
		return p, nil
	}
	p := new(partial)
	if err := eachMessage(blob, func(int, *item) error { p.total++; return nil }); err != nil {
		return nil, g.rowError(commitKey(serial))
	}
	var err error
	if p.published, err = g.get(idKey(kPart, serial)); err != nil {
		return nil, err
	}
	if p.published == nil {
		p.published = make([]byte, (p.total+7)/8)
	}
	if len(p.published) != (p.total+7)/8 {
		return nil, g.rowError(idKey(kPart, serial))
	}
	g.outbox.parts[serial] = p
	return p, nil
}

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
