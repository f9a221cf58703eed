package pebble

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// tmpDir below the store's directory holds tables while they are written. It is emptied at the start.
const tmpDir = "tmp"

const (
	tailMaxAge = 5 * time.Minute // an idle server gives the memory of its last messages back
	tailStall  = 4               // times the size of a tail: then commits wait for the disk
	tableBytes = 8 << 20         // a table of a tail; small ones let compactions be small
)

// flushTails writes tails as tables, when they are full or old.
func (s *Store) flushTails() {
	defer s.tasks.Done()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		least := s.sizes.tail
		select {
		case <-s.quit:
			return
		case <-s.tailFull:
		case <-tick.C:
			t := s.gen.Load().tails.Load()
			if time.Since((*t)[0].born) > tailMaxAge {
				least = 1
			}
		}
		if err := s.flushTail(least); err != nil {
			s.opts.Logf("store: writing tables: %v; trying again", err)
			if !s.sleep(time.Second) {
				return
			}
			s.wakeFlush()
		}
	}
}

func (s *Store) wakeFlush() {
	select {
	case s.tailFull <- struct{}{}:
	default:
	}
}

// flushTail writes what is to be written: a tail that an earlier attempt left, and the growing one if it has least bytes.
func (s *Store) flushTail(least int64) error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	g := s.gen.Load()
	if g.closed || g.fs.failed() != nil { // closing takes flushMu too
		return nil
	}
	if ts := *g.tails.Load(); len(ts) > 1 {
		if err := g.writeTail(ts[1]); err != nil {
			return err
		}
	}
	if t := g.rotate(least); t != nil {
		return g.writeTail(t)
	}
	return nil
}

// rotate begins a new tail and returns the old one once all its commits have entered, nil if it has less than least bytes.
func (g *generation) rotate(least int64) *tail {
	g.s.commitMu.Lock()
	ts := *g.tails.Load()
	if ts[0].given.Load() < least {
		g.s.commitMu.Unlock()
		return nil
	}
	next := tails{newTail(g.serial + 1), ts[0]}
	g.tails.Store(&next)
	last := g.last.Load()
	g.s.commitMu.Unlock()
	if last != nil {
		_ = last.settle()
	}
	return ts[0]
}

// writeTail makes tables of a tail, adds them to the database and forgets the commits in the log.
func (g *generation) writeTail(t *tail) (err error) {
	defer g.recovered(&err)
	w := tableWriter{g: g, dir: filepath.Join(g.s.opts.Dir, tmpDir)}
	defer w.removeAll()
	if err := w.write(t); err != nil {
		return err
	}
	if len(w.paths) > 0 {
		if err := g.db.Ingest(context.Background(), w.paths); err != nil {
			return err
		}
	}
	b := g.db.NewBatch()
	_ = b.DeleteRange(commitKey(0), commitKey(t.last+1), nil)
	_ = b.Set([]byte(rowSerial), uvarintBytes(t.last), nil)
	if err := g.apply(b, pebble.NoSync); err != nil {
		return err
	}
	g.s.commitMu.Lock()
	rest := tails{(*g.tails.Load())[0]}
	g.tails.Store(&rest)
	g.room.Broadcast()
	g.s.commitMu.Unlock()
	return nil
}

// tableWriter writes sorted rows into as many tables as they need.
type tableWriter struct {
	g     *generation
	dir   string
	paths []string

	w    *sstable.Writer
	size int
	row  []byte
}

func (w *tableWriter) set(key, row []byte) error {
	if w.w == nil {
		w.g.tables++
		path := filepath.Join(w.dir, fmt.Sprintf("%06d.sst", w.g.tables))
		file, err := w.g.fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		w.paths = append(w.paths, path)
		w.w, w.size = sstable.NewWriter(objstorageprovider.NewFileWritable(file), w.g.tableOptions), 0
	}
	w.size += len(key) + len(row)
	return w.w.Set(key, row)
}

// cut ends a table, if it is big enough.
func (w *tableWriter) cut(least int) error {
	if w.w == nil || w.size < least {
		return nil
	}
	err := w.w.Close()
	w.w = nil
	return err
}

// removeAll removes what was not added to the database.
func (w *tableWriter) removeAll() {
	if w.w != nil {
		_ = w.w.Close()
	}
	for _, path := range w.paths {
		_ = w.g.fs.FS.Remove(path)
	}
}

// write writes repeats, inbox entries and messages, in the order of their keys.
func (w *tableWriter) write(t *tail) error {
	for _, part := range []func(*tail) error{w.repeats, w.inboxes, w.messages} {
		if err := part(t); err != nil {
			return err
		}
		if err := w.cut(0); err != nil {
			return err
		}
	}
	return nil
}

// idAt is an id for sorting: bucket and id, and where its message stands.
type idAt struct {
	bucket uint16
	id     [16]byte
	loc    loc
}

func (w *tableWriter) repeats(t *tail) error {
	all := make([]idAt, 0, t.ids)
	var it item
	for _, s := range t.slots {
		if s == 0 {
			continue
		}
		if err := t.at(loc(s-1), &it); err != nil {
			return err
		}
		all = append(all, idAt{it.bucket, [16]byte(it.row[1:17]), loc(s - 1)})
	}
	slices.SortFunc(all, func(a, b idAt) int {
		if c := cmp.Compare(a.bucket, b.bucket); c != 0 {
			return c
		}
		return bytes.Compare(a.id[:], b.id[:])
	})
	var key [repeatKeyLen]byte
	var rec record
	for i := range all {
		if err := t.at(all[i].loc, &it); err != nil {
			return err
		}
		if err := rec.decode(it.row); err != nil {
			return err
		}
		rep := repeat{conv: it.conv, seq: it.seq, ts: rec.ts, fingerprint: it.fingerprint}
		w.row = slices.Grow(w.row[:0], rep.size())[:rep.size()]
		rep.encode(w.row)
		putRepeat(key[:], all[i].bucket, all[i].id)
		if err := w.set(key[:], w.row); err != nil {
			return err
		}
		if err := w.cut(tableBytes); err != nil {
			return err
		}
	}
	return nil
}

// part is a run of a list within one bucket.
type part struct {
	bucket uint16
	id     uint64
	first  uint64
	locs   []loc
}

// parts cuts all lists at the borders of days and sorts them as their keys.
func (t *tail) parts(inbox bool) ([]part, error) {
	var all []part
	var it item
	for i := range t.shards {
		m := t.shards[i].convs
		if inbox {
			m = t.shards[i].boxes
		}
		for id, v := range m { // nothing enters a tail that is being written
			locs, first := v.locs, v.first
			for len(locs) > 0 {
				if err := t.at(locs[0], &it); err != nil {
					return nil, err
				}
				bucket, n := it.bucket, len(locs)
				if err := t.at(locs[n-1], &it); err != nil {
					return nil, err
				}
				if it.bucket != bucket {
					var err error
					n, _ = slices.BinarySearchFunc(locs, bucket+1, func(l loc, b uint16) int {
						if e := t.at(l, &it); e != nil {
							err = e
						}
						return cmp.Compare(it.bucket, b)
					})
					if err != nil {
						return nil, err
					}
				}
				all = append(all, part{bucket, id, first, locs[:n]})
				locs, first = locs[n:], first+uint64(n)
			}
		}
	}
	slices.SortFunc(all, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.bucket, b.bucket), cmp.Compare(a.id, b.id))
	})
	return all, nil
}

// entriesPerRow is how many inbox entries a row holds at most: about 800 bytes.
const entriesPerRow = 128

// inboxes packs runs of a user's entries into rows, keyed by the last number of each.
func (w *tableWriter) inboxes(t *tail) error {
	parts, err := t.parts(true)
	if err != nil {
		return err
	}
	var key [bulkKeyLen]byte
	var it item
	for _, p := range parts {
		for at := 0; at < len(p.locs); at += entriesPerRow {
			run := p.locs[at:min(at+entriesPerRow, len(p.locs))]
			w.row = binary.AppendUvarint(w.row[:0], uint64(len(run)))
			var conv, seq uint64
			for _, l := range run {
				if err := t.at(l, &it); err != nil {
					return err
				}
				w.row = binary.AppendVarint(w.row, int64(it.conv-conv))
				w.row = binary.AppendVarint(w.row, int64(it.seq-seq))
				conv, seq = it.conv, it.seq
			}
			putBulk(key[:], kInbox, p.bucket, p.id, p.first+uint64(at+len(run))-1)
			if err := w.set(key[:], w.row); err != nil {
				return err
			}
		}
		if err := w.cut(tableBytes); err != nil {
			return err
		}
	}
	return nil
}

// unpackInbox gives f the entries of an inbox row whose last number is last.
func unpackInbox(row []byte, last uint64, f func(number, conv, seq uint64) bool) error {
	in := reader{b: row}
	n := in.uvarint()
	if n > last {
		return errRow
	}
	var conv, seq uint64
	for number := last - n + 1; number <= last; number++ {
		conv += uint64(in.varint())
		seq += uint64(in.varint())
		if in.bad {
			return errRow
		}
		if !f(number, conv, seq) {
			return nil
		}
	}
	return nil
}

// messages writes the messages, and those of older tables as recalls have left them, merged in order.
func (w *tableWriter) messages(t *tail) error {
	parts, err := t.parts(false)
	if err != nil {
		return err
	}
	patches, err := t.sortedPatches()
	if err != nil {
		return err
	}
	var it item
	for _, p := range parts {
		for i, l := range p.locs {
			key := bulkKey(kMessage, p.bucket, p.id, p.first+uint64(i))
			if patches, err = w.patchesBefore(patches, key[:]); err != nil {
				return err
			}
			if err := t.at(l, &it); err != nil {
				return err
			}
			row := it.row
			if len(patches) > 0 && bytes.Equal(patches[0].key[:], key[:]) {
				row, patches = patches[0].row, patches[1:]
			}
			if err := w.set(key[:], row); err != nil {
				return err
			}
		}
		if err := w.cut(tableBytes); err != nil {
			return err
		}
	}
	_, err = w.patchesBefore(patches, []byte{kMessage + 1})
	return err
}

type patchRow struct {
	key [bulkKeyLen]byte
	row []byte
}

func (t *tail) sortedPatches() ([]patchRow, error) {
	var all []patchRow
	var it item
	for _, l := range t.patches {
		if err := t.at(l, &it); err != nil {
			return nil, err
		}
		all = append(all, patchRow{bulkKey(kMessage, it.bucket, it.conv, it.seq), it.row})
	}
	slices.SortFunc(all, func(a, b patchRow) int { return bytes.Compare(a.key[:], b.key[:]) })
	return all, nil
}

// patchesBefore writes the patches before a key and returns the others.
func (w *tableWriter) patchesBefore(patches []patchRow, key []byte) ([]patchRow, error) {
	for len(patches) > 0 && bytes.Compare(patches[0].key[:], key) < 0 {
		if err := w.set(patches[0].key[:], patches[0].row); err != nil {
			return nil, err
		}
		patches = patches[1:]
	}
	return patches, nil
}
