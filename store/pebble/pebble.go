// Package pebble is the embedded store: one Pebble database, one process.
//
// A commit builds one Pebble batch from the sequences it keeps in memory, hands it to the log and returns; Wait returns
// after the log's fsync and then publishes the new heads to readers, in order. What is on disk is described in keys.go
// and record.go, faults in fs.go and engine.go.
//
// Locks, in the order in which they are taken: Store.flushMu (writing tables, closing), generation.life (shared by every operation; exclusive for retention, a
// failure and Close), generation.groups.change, Store.commitMu, then the small ones that guard a map.
package pebble

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/meshtalk/meshtalk/store"
)

// Options of Open.
type Options struct {
	Dir          string
	Retention    time.Duration // of messages; default 30 days, 0 = the default
	DedupeWindow time.Duration // default 168 h
	InboxLimit   int           // members above which a group is large; default 500
	Logf         func(format string, args ...any)
	// Outbox keeps events for business services, see store.Store.Outbox. Without it nothing is kept; what an earlier run left is dropped.
	Outbox bool
	// AckBeforeSync breaks the promise on purpose: Wait returns before the sync. For the test that must catch it.
	AckBeforeSync bool

	CacheBytes  int64 // blocks read from disk; default 64 MiB, filled by reads only
	FilterBytes int64 // filters that recognise repeats, 2 bytes per message of the dedupe window; default 128 MiB
	HeadBytes   int64 // sequences of busy users and conversations, about 200 bytes each; default 256 MiB
	GroupBytes  int64 // members of busy groups; default 64 MiB

	// For tests.
	fs        vfs.FS // faults are injected here; default the disk
	tailBytes int64  // see sizes.tail
}

func (o *Options) setDefaults() {
	set := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	if o.Retention <= 0 {
		o.Retention = 30 * 24 * time.Hour
	}
	if o.DedupeWindow <= 0 {
		o.DedupeWindow = 168 * time.Hour
	}
	if o.InboxLimit <= 0 {
		o.InboxLimit = 500
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	set(&o.CacheBytes, 64<<20)
	set(&o.FilterBytes, 128<<20)
	set(&o.HeadBytes, 256<<20)
	set(&o.GroupBytes, 64<<20)
}

// Store implements store.Store.
type Store struct {
	// Static after Open.
	opts     Options
	identity identity
	lock     *pebble.Lock
	space    *space
	sizes    sizes
	quit     chan struct{}
	tasks    sync.WaitGroup // supervisor, flushers, filter rebuild

	gen    atomic.Pointer[generation] // the open database; replaced after a failure
	closed atomic.Bool
	downed chan *generation // generations that failed, for the supervisor

	// flushMu is held while a tail is written as tables: one at a time, and the database is not closed meanwhile.
	flushMu  sync.Mutex
	tailFull chan struct{} // wakes flushTails

	// commitMu makes Commit and changes of groups one at a time.
	commitMu sync.Mutex
	filter   *repeatFilter // owned by commitMu
	building commit        // owned by commitMu
	spare    spares        // memory of released commits

	positions positions

	stats struct {
		messages, entries, duplicates, filterHits atomic.Int64
		filterBytes                               atomic.Int64 // as the last commit found it

		syncMu    sync.Mutex
		syncs     store.SyncHistogram
		lastNanos int64 // the last sync
	}
}

var _ store.Store = (*Store)(nil)

// Open opens or creates the store in o.Dir. A directory that another process has open, a corrupt file or a newer
// format is an error that names the file and the reason.
func Open(o Options) (store.Store, error) {
	s, err := open(o)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func open(o Options) (_ *Store, err error) {
	o.setDefaults()
	if o.Dir == "" {
		return nil, errors.New("store: no directory given")
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := o.fs.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	lock, err := pebble.LockDirectory(o.Dir, o.fs)
	if err != nil {
		return nil, lockError(o.Dir, err)
	}
	// Of an Open that fails its error is all there is to say.
	var open atomic.Bool
	logf := o.Logf
	o.Logf = func(format string, args ...any) {
		if open.Load() {
			logf(format, args...)
		}
	}
	s := &Store{opts: o, lock: lock, quit: make(chan struct{}), downed: make(chan *generation, 1), tailFull: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	id, found, err := readIdentity(o.fs, o.Dir)
	if err != nil {
		return nil, err
	}
	if !found {
		id.epoch = newEpoch()
		if err = beginIdentity(o.fs, o.Dir, id); err != nil {
			return nil, err
		}
	}
	s.identity = id
	usage, err := o.fs.GetDiskUsage(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("store: free space of %s: %w", o.Dir, err)
	}
	s.sizes = sizesFor(usage.TotalBytes)
	if o.tailBytes > 0 {
		s.sizes.tail = o.tailBytes
	}
	s.space = newSpace(o.fs, o.Dir, s.sizes.reserve)
	s.positions.init()
	g, err := s.openGeneration(!found)
	if err != nil {
		return nil, err
	}
	s.filter = newRepeatFilter(o.FilterBytes)
	s.gen.Store(g)
	if err := s.rebuildFilter(g); err != nil {
		_ = g.close()
		return nil, err
	}
	s.tasks.Add(3)
	go s.supervise()
	go s.flushTails()
	go s.flushPositions()
	open.Store(true)
	if g.droppedOutbox {
		o.Logf("store: there is no outbox any more: what it still held is not published")
	}
	return s, nil
}

// lockError says in one line who has the directory.
func lockError(dir string, err error) error {
	if os.IsPermission(err) && !strings.Contains(err.Error(), "temporarily unavailable") {
		return fmt.Errorf("store: cannot lock %s: %w", dir, err)
	}
	return fmt.Errorf("store: %s is in use by another process (stop it, or choose another directory): %w", dir, err)
}

// Epoch implements store.Store.
func (s *Store) Epoch() string { return s.identity.epoch }

// Forget implements store.Store: there is no other node.
func (s *Store) Forget(string) {}

// Offset implements store.Store: commits have their place in Pebble's log.
func (s *Store) Offset(context.Context, int) (int64, error) {
	if s.closed.Load() {
		return 0, store.ErrClosed
	}
	return 0, nil
}

// State implements store.Store.
func (s *Store) State() error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	g := s.gen.Load()
	if err := g.fs.failed(); err != nil {
		return readOnly(err)
	}
	if err := g.stuck.Load(); err != nil && g.crowded() {
		return readOnly(*err)
	}
	return s.space.state()
}

// Stats implements store.Store.
func (s *Store) Stats() store.Stats {
	st := store.Stats{
		Messages: s.stats.messages.Load(), Entries: s.stats.entries.Load(), Duplicates: s.stats.duplicates.Load(),
		FilterHits: s.stats.filterHits.Load(), HeapBytes: s.stats.filterBytes.Load(), FreeBytes: int64(s.space.avail.Load()),
	}
	s.stats.syncMu.Lock()
	st.Syncs, st.SyncSeconds = s.stats.syncs, time.Duration(s.stats.lastNanos).Seconds()
	s.stats.syncMu.Unlock()
	if g, err := s.acquire(); err == nil {
		m := g.db.Metrics()
		st.SizeBytes = int64(m.DiskSpaceUsage())
		for _, t := range *g.tails.Load() {
			st.HeapBytes += t.given.Load()
		}
		st.HeadBytes = g.heads.held.Load()
		st.HeapBytes += st.HeadBytes
		manual := m.BlockCache.Size + int64(m.MemTable.Size+m.MemTable.ZombieSize)
		st.MemoryBytes = st.HeapBytes + manual
		if !outsideHeap {
			st.HeapBytes += manual
		}
		g.release()
	}
	return st
}

// Close implements store.Store. A second Close gives ErrClosed.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return store.ErrClosed
	}
	close(s.quit)
	s.wakeCommits(s.gen.Load())
	s.tasks.Wait()
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	g := s.gen.Load()
	var err error
	if p := g.last.Load(); p != nil {
		_ = p.settle()
	}
	if g.fs.failed() == nil {
		err = s.writePositions(g, 0)
	}
	g.life.Lock()
	err = errors.Join(err, g.close())
	g.life.Unlock()
	return errors.Join(err, s.lock.Close())
}

// Checkpoint implements store.Store. The copy is made under another name and renamed when it is whole.
func (s *Store) Checkpoint(_ context.Context, dir string) error {
	fs := s.opts.fs
	if _, err := fs.Stat(dir); err == nil {
		return fmt.Errorf("store: %s exists already", dir)
	}
	g, err := s.acquire()
	if err != nil {
		return err
	}
	err = s.writePositions(g, 0)
	g.release()
	if err == nil {
		err = s.flushTail(1) // little is left to be copied as logs
	}
	if err != nil {
		return err
	}
	s.flushMu.Lock() // keeps the database open without making anybody wait who would wait behind life
	defer s.flushMu.Unlock()
	if g = s.gen.Load(); g.closed {
		return store.ErrClosed
	}
	partial := dir + ".partial"
	if err := fs.RemoveAll(partial); err != nil {
		return fmt.Errorf("store: checkpoint: %w", err)
	}
	if err := g.db.Checkpoint(partial, pebble.WithFlushedWAL()); err != nil {
		_ = fs.RemoveAll(partial)
		return g.readError("checkpoint", err)
	}
	if err := g.copyLogs(partial); err != nil {
		_ = fs.RemoveAll(partial)
		return fmt.Errorf("store: checkpoint: %w", err)
	}
	if err := writeIdentity(fs, partial, identity{epoch: newEpoch(), copyOf: s.identity.epoch}); err != nil {
		return err
	}
	if err := g.fs.failed(); err != nil {
		return readOnly(err)
	}
	if err := errors.Join(fs.Rename(partial, dir), syncDir(fs, filepath.Dir(dir))); err != nil {
		return fmt.Errorf("store: checkpoint: %w", err)
	}
	return nil
}

// copyLogs copies the logs that hold commits which are in no table and that Pebble did not copy. flushMu is held: no log goes meanwhile.
// A log that is newer than one that Pebble has copied would leave a gap.
func (g *generation) copyLogs(dir string) error {
	fs := g.s.opts.fs
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	first := uint64(1<<64 - 1)
	for _, name := range names {
		if n, ok := logNumber(name); ok {
			first = min(first, n)
		}
	}
	for _, path := range g.fs.logs.needed(first) {
		if err := vfs.LinkOrCopy(fs, path, filepath.Join(dir, filepath.Base(path))); err != nil {
			return err
		}
	}
	return nil
}
