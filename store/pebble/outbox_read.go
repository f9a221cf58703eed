package pebble

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/meshtalk/meshtalk/store"
)

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
