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

// flushTail writes what is to be written: a tail that an earlier attempt left, and the growing one if it has least bytes. If that
// fails, commits that wait for it are refused.
func (s *Store) flushTail(least int64) error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	g := s.gen.Load()
	if g.closed || g.fs.failed() != nil { // closing takes flushMu too
		return nil
	}
	if err := g.flushTail(least); err != nil {
		g.stuck.Store(&err)
		s.wakeCommits(g)
		return err
	}
	g.stuck.Store(nil)
	return nil
}

func (g *generation) flushTail(least int64) error {
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
	g.forget(b, w.commit)
	_ = b.Set([]byte(rowSerial), uvarintBytes(t.last), nil)
	if err := g.apply(b, pebble.Sync); err != nil { // before the log goes
		return err
	}
	g.fs.logs.wrote(g.fs.FS, t.last)
	g.stuck.Store(nil) // before there is room: what comes into it must not be refused for an error that is over
	g.s.commitMu.Lock()
	rest := tails{(*g.tails.Load())[0]}
	g.tails.Store(&rest)
	g.room.Broadcast()
	g.s.commitMu.Unlock()
	return g.changeLog(t.given.Load())
}

// changeLog begins a new log when commits have filled one: Pebble itself counts what goes into its memtable, and blobs do not.
func (g *generation) changeLog(more int64) error {
	if g.logged += more; g.logged < g.s.sizes.log {
		return nil
	}
	g.logged = 0
	_, err := g.db.AsyncFlush()
	return err
}

// tableWriter writes sorted rows into as many tables as they need.
type tableWriter struct {
	g     *generation
	dir   string
	paths []string

	w      *sstable.Writer
	size   int
	row    []byte
	commit uint64 // the newest that was written for the outbox
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

// write writes repeats, inbox entries, commits that are to be published, and messages, in the order of their keys.
func (w *tableWriter) write(t *tail) error {
	for _, part := range []func(*tail) error{w.repeats, w.inboxes, w.commits, w.messages} {
		if err := part(t); err != nil {
			return err
		}
		if err := w.cut(0); err != nil {
			return err
		}
	}
	return nil
}

// idAt is an id for sorting: its first bytes as a number, and which message it is.
type idAt struct {
	high   uint64
	index  uint32
	bucket uint16
}

func (w *tableWriter) repeats(t *tail) error {
	all := make([]idAt, t.count)
	for i := range all {
		m := t.msg(uint32(i))
		all[i] = idAt{binary.BigEndian.Uint64(m.id[:]), uint32(i), m.bucket}
	}
	slices.SortFunc(all, func(a, b idAt) int {
		switch {
		case a.bucket != b.bucket:
			return cmp.Compare(a.bucket, b.bucket)
		case a.high != b.high:
			return cmp.Compare(a.high, b.high)
		}
		return bytes.Compare(t.msg(a.index).id[:], t.msg(b.index).id[:])
	})
	var key [repeatKeyLen]byte
	for _, a := range all {
		m := t.msg(a.index)
		rep := repeat{conv: m.conv, seq: m.seq, ts: m.ts, fingerprint: m.fingerprint}
		w.row = slices.Grow(w.row[:0], rep.size())[:rep.size()]
		rep.encode(w.row)
		putRepeat(key[:], m.bucket, m.id)
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
	msgs   []uint32
}

// parts cuts all lists at the borders of days and sorts them as their keys. Nothing enters a tail that is being written.
func (t *tail) parts(inbox bool) []part {
	var all []part
	for i := range t.shards {
		sh := &t.shards[i]
		m := sh.convs
		if inbox {
			m = sh.boxes
		}
		for id, at := range m {
			v := sh.lists[at]
			for len(v.msgs) > 0 {
				n := len(v.msgs)
				bucket := t.msg(v.msgs[0]).bucket
				if t.msg(v.msgs[n-1]).bucket != bucket {
					n, _ = slices.BinarySearchFunc(v.msgs, bucket+1, func(i uint32, b uint16) int {
						return cmp.Compare(t.msg(i).bucket, b)
					})
				}
				all = append(all, part{bucket, id, v.first, v.msgs[:n]})
				v.msgs, v.first = v.msgs[n:], v.first+uint64(n)
			}
		}
	}
	slices.SortFunc(all, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.bucket, b.bucket), cmp.Compare(a.id, b.id))
	})
	return all
}

// entriesPerRow is how many inbox entries a row holds at most: about 800 bytes.
const entriesPerRow = 128

// inboxes packs runs of a user's entries into rows, keyed by the last number of each.
func (w *tableWriter) inboxes(t *tail) error {
	var key [bulkKeyLen]byte
	for _, p := range t.parts(true) {
		for at := 0; at < len(p.msgs); at += entriesPerRow {
			run := p.msgs[at:min(at+entriesPerRow, len(p.msgs))]
			w.row = binary.AppendUvarint(w.row[:0], uint64(len(run)))
			var conv, seq uint64
			for _, i := range run {
				m := t.msg(i)
				w.row = binary.AppendVarint(w.row, int64(m.conv-conv))
				w.row = binary.AppendVarint(w.row, int64(m.seq-seq))
				conv, seq = m.conv, m.seq
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
	patches := t.sortedPatches()
	var err error
	var key [bulkKeyLen]byte
	for _, p := range t.parts(false) {
		for i, index := range p.msgs {
			putBulk(key[:], kMessage, p.bucket, p.id, p.first+uint64(i))
			if patches, err = w.patchesBefore(patches, key[:]); err != nil {
				return err
			}
			row := t.row(t.msg(index))
			if len(patches) > 0 && patches[0].key == key {
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

func (t *tail) sortedPatches() []patchRow {
	var all []patchRow
	for at, p := range t.patches {
		all = append(all, patchRow{bulkKey(kMessage, p.bucket, at[0], at[1]), p.row})
	}
	slices.SortFunc(all, func(a, b patchRow) int { return bytes.Compare(a.key[:], b.key[:]) })
	return all
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
