package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/meshtalk/meshtalk/store"
)

// generation is one opening of the database with everything that is derived from it in memory. A write or sync error
// ends a generation (see failFS): whatever it assigned without having synced is forgotten with it.
type generation struct {
	// Static after opening.
	s  *Store
	db *pebble.DB
	fs *failFS

	// life is held shared by every operation, exclusively by retention and the end of the generation.
	life   sync.RWMutex
	closed bool // guarded by life

	// Guarded by life: exclusive to write.
	firstBucket uint16 // older messages are gone
	firstRepeat uint16 // older repeats are forgotten

	// Owned by commitMu.
	nextID  uint64 // of users and conversations
	savedID uint64 // nextID as it stands in the database
	bucket  uint16 // the newest
	serial  uint64 // of the last commit

	inflight []*pending // commits that may not have entered their tail; owned by commitMu
	tables   int        // made for tails; owned by Store.flushMu
	logged   int64      // bytes of commits since the log was changed; owned by Store.flushMu

	tails atomic.Pointer[tails]
	room  sync.Cond             // of commitMu: a tail has become tables, or will not for now
	stuck atomic.Pointer[error] // why the last attempt to make tables of a tail failed, nil if it did not

	tableOptions sstable.WriterOptions

	last          atomic.Pointer[pending]
	durableSerial atomic.Uint64 // the last commit known to be durable
	heads         heads
	groups        groups
	names         names
	outbox        *outbox // nil if there is none
	droppedOutbox bool    // an earlier run had one; static
	marks         logMarks
}

// readOnly wraps the reason why nothing can be kept.
func readOnly(err error) error { return fmt.Errorf("%w: %w", store.ErrReadOnly, err) }

// acquire returns the open generation; release must follow.
func (s *Store) acquire() (*generation, error) {
	if s.closed.Load() {
		return nil, store.ErrClosed
	}
	g := s.gen.Load()
	g.life.RLock()
	if !g.closed {
		return g, nil
	}
	g.life.RUnlock()
	if s.closed.Load() {
		return nil, store.ErrClosed
	}
	if g = s.gen.Load(); g.life.TryRLock() {
		if !g.closed {
			return g, nil
		}
		g.life.RUnlock()
	}
	return nil, fmt.Errorf("%w: the store is being opened again after a failure", store.ErrReadOnly)
}

func (g *generation) release() { g.life.RUnlock() }

// acquireWritable is acquire for an operation that keeps something new.
func (s *Store) acquireWritable() (*generation, error) {
	g, err := s.acquire()
	if err != nil {
		return nil, err
	}
	if err = g.fs.failed(); err != nil {
		err = readOnly(err)
	} else {
		err = s.space.check()
	}
	if err != nil {
		g.release()
		return nil, err
	}
	return g, nil
}

// maxOpenFiles is how many tables Pebble may hold open. Descriptors belong to connections: the engine keeps a quarter of them, at most
// 512, for everything else, and this is half of that.
func maxOpenFiles() int {
	const most, least = 256, 64
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return least
	}
	return int(min(max(limit.Cur/8, least), most))
}

// openGeneration opens the database, the first time or again. fresh: the directory is no store yet and becomes one.
func (s *Store) openGeneration(fresh bool) (*generation, error) {
	g := &generation{s: s}
	g.room.L = &s.commitMu
	compactions := newScheduler()
	g.fs = newFailFS(s.opts.fs, s.opts.Dir, func(err error) {
		compactions.stop()
		s.opts.Logf("store: %s: %v; read-only until it is open again", s.opts.Dir, err)
		select {
		case s.downed <- g:
		default:
		}
	})
	opts := s.pebbleOptions(g)
	opts.Experimental.CompactionScheduler = compactions
	opts.EventListener.CompactionEnd = func(info pebble.CompactionInfo) {
		if info.Err != nil && !errors.Is(info.Err, pebble.ErrCancelledCompaction) {
			compactions.failed()
		}
	}
	tmp := filepath.Join(s.opts.Dir, tmpDir)
	if err := errors.Join(s.opts.fs.RemoveAll(tmp), s.opts.fs.MkdirAll(tmp, 0o755)); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	marks, err := readLogMarks(s.opts.fs, s.opts.Dir, s.identity)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	g.marks = marks
	db, err := pebble.Open(s.opts.Dir, opts)
	opts.Cache.Unref()
	if err != nil {
		return nil, openError(s.opts.Dir, err)
	}
	opts.EnsureDefaults()
	g.tableOptions = opts.MakeWriterOptions(0, pebble.FormatNewest.MaxTableFormat())
	g.db = db
	g.fs.opened.Store(true)
	compactions.opened()
	if err = g.fs.failed(); err == nil { // else what was written is not whole, and reading it tells the wrong story
		err = g.load()
	}
	if err == nil {
		err = g.fs.failed()
	}
	if err != nil {
		_ = g.close()
		return nil, fmt.Errorf("store: open %s: %w", s.opts.Dir, err)
	}
	if fresh {
		if err = g.refuseForeign(); err == nil {
			err = writeIdentity(s.opts.fs, s.opts.Dir, s.identity)
		}
	}
	if err == nil {
		err = g.loadOutbox()
	}
	if err == nil {
		err = g.endReplay()
	}
	if err != nil {
		_ = g.close()
		return nil, err
	}
	return g, nil
}

// openError names the file where Pebble knows it.
func openError(dir string, err error) error {
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		return fmt.Errorf("store: %s is corrupt: %w", info.Path, oneLine{err})
	}
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("store: %s is corrupt: %w", dir, oneLine{err})
	}
	return fmt.Errorf("store: open %s: %w", dir, oneLine{err})
}

// pebbleOptions: the reasons are beside the numbers; the numbers were measured by BenchmarkCommit.
func (s *Store) pebbleOptions(g *generation) *pebble.Options {
	o := &pebble.Options{
		FS:                          g.fs,
		Lock:                        s.lock,
		Cache:                       pebble.NewCache(s.opts.CacheBytes),
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      &logger{g: g},
		MemTableSize:                s.sizes.memTable,
		MemTableStopWritesThreshold: stopWrites,
		L0CompactionThreshold:       8,    // a tail adds one
		L0StopWritesThreshold:       1000, // the watermark and the memtables are what makes commits wait
		LBaseMaxBytes:               s.sizes.base,
		MaxOpenFiles:                maxOpenFiles(),
		FlushDelayDeleteRange:       10 * time.Second,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		EventListener: &pebble.EventListener{
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				s.opts.Logf("store: %s is corrupt: %v", info.Path, info.Details)
			},
			BackgroundError: func(err error) {
				if g.fs.failed() == nil { // what follows from the failure has been said
					s.opts.Logf("store: %v", err)
				}
			},
		},
	}
	o.TargetFileSizes[0] = max(s.sizes.base/64, 1<<20)
	for i := range o.Levels {
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
	}
	return o
}

// load reads what a generation keeps in memory.
func (g *generation) load() error {
	var err error
	read := func(row string, otherwise uint64) uint64 {
		v, found, e := g.getNumber([]byte(row))
		if err = errors.Join(err, e); !found {
			return otherwise
		}
		return v
	}
	g.nextID = read(rowNextID, 1)
	g.savedID = g.nextID
	g.firstBucket = uint16(read(rowFirstBucket, 0))
	g.firstRepeat = uint16(read(rowFirstRepeat, 0))
	if err != nil {
		return err
	}
	g.heads.init(g.s.opts.HeadBytes)
	g.groups.init(g.s.opts.GroupBytes)
	g.names.init()
	if g.bucket, err = g.newestBucket(); err != nil {
		return err
	}
	return g.replay()
}

// replay makes a tail of the commits that are not in tables.
func (g *generation) replay() error {
	written, _, err := g.getNumber([]byte(rowSerial))
	last, _, err2 := g.getNumber(keyCommit)
	oldLog, _, err3 := g.getNumber([]byte(rowOldLog))
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	if g.marks.durable > last {
		return fmt.Errorf("%s is corrupt: commits %d to %d cannot be read", g.marks.file, last+1, g.marks.durable)
	}
	t := newTail(written + 1)
	err = g.marks.replay(g.s.opts.fs, oldLog, written, last, func(serial uint64, blob []byte) error {
		newest, err := t.replay(serial, bytes.Clone(blob))
		g.bucket = max(g.bucket, newest)
		return err
	})
	if err != nil {
		return err
	}
	g.serial = max(written, last)
	g.fs.logs.given.Store(g.serial)
	g.tails.Store(&tails{t})
	g.durableSerial.Store(g.serial)
	return nil
}

// endReplay makes tables of what was replayed, and lets go of the logs.
func (g *generation) endReplay() error {
	if t := (*g.tails.Load())[0]; t.count > 0 || len(t.patches) > 0 {
		g.tails.Store(&tails{newTail(g.serial + 1), t})
		if err := g.writeTail(t); err != nil {
			return fmt.Errorf("store: writing tables: %w", err)
		}
	}
	b := g.db.NewBatch()
	_ = b.Set([]byte(rowOldLog), uvarintBytes(g.marks.newest()), nil)
	if err := g.apply(b, pebble.Sync); err != nil {
		return err
	}
	g.marks = logMarks{}
	g.fs.logs.begin(g.fs.FS)
	return nil
}

// newestBucket is the bucket of the newest message, at least the first live one.
func (g *generation) newestBucket() (uint16, error) {
	it, err := g.iter([]byte{kMessage}, []byte{kMessage + 1})
	if err != nil {
		return 0, err
	}
	defer it.Close()
	bucket := g.firstBucket
	if it.Last() {
		bucket = max(bucket, uint16(it.Key()[1])<<8|uint16(it.Key()[2]))
	}
	return bucket, g.readError("newest bucket", it.Error())
}

// refuseForeign is for a database without the format row: an empty one becomes a store, any other is somebody else's.
func (g *generation) refuseForeign() error {
	it, err := g.db.NewIter(nil)
	if err != nil {
		return g.readError("open", err)
	}
	defer it.Close()
	if it.First() {
		return fmt.Errorf("store: %s holds a database that is not Mesh-Talk's, or its file STORE is lost", g.s.opts.Dir)
	}
	return g.readError("open", it.Error())
}

// close ends the generation; life is held exclusively, or nobody else knows it. Whoever waits for a commit gets its answer first.
func (g *generation) close() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("store: close: %v", r)
		}
	}()
	if g.closed {
		return nil
	}
	g.closed = true
	if p := g.last.Load(); p != nil {
		_ = p.settle()
	}
	if g.db == nil {
		return nil
	}
	if err := g.db.Close(); err != nil && g.fs.failed() == nil {
		return fmt.Errorf("store: close: %w", err)
	}
	return nil
}

// apply writes a batch and closes it. The error is the generation's end or a refusal to write.
func (g *generation) apply(b *pebble.Batch, o *pebble.WriteOptions) (err error) {
	defer g.recovered(&err)
	if err := g.fs.failed(); err != nil {
		return readOnly(err)
	}
	if b.Empty() {
		return b.Close()
	}
	if err := g.db.Apply(b, o); err != nil {
		g.fs.fail(err)
	}
	if err := g.fs.failed(); err != nil {
		return readOnly(err)
	}
	return b.Close()
}

// recovered turns a panic of Pebble into the end of the generation.
func (g *generation) recovered(err *error) {
	if r := recover(); r != nil {
		g.s.opts.Logf("store: %v\n%s", r, debug.Stack())
		g.fs.fail(fmt.Errorf("%v", r))
		*err = readOnly(fmt.Errorf("%v", r))
	}
}

// readError names the operation and, where Pebble knows it, the corrupt file.
func (g *generation) readError(op string, err error) error {
	if err == nil {
		return nil
	}
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		return fmt.Errorf("store: %s: %s is corrupt: %w", op, info.Path, oneLine{err})
	}
	return fmt.Errorf("store: %s: %w", op, oneLine{err})
}

// oneLine is the first line of an error: Pebble joins some with carriers of details.
type oneLine struct{ error }

func (e oneLine) Error() string {
	line, _, _ := strings.Cut(e.error.Error(), "\n")
	return line
}

func (e oneLine) Unwrap() error { return e.error }

// rowError is for a row that cannot be read although its checksum holds.
func (g *generation) rowError(key []byte) error {
	return fmt.Errorf("store: %s: row %q: %w", filepath.Clean(g.s.opts.Dir), key, errRow)
}

// supervise opens the database again after a failure and keeps the watermark current.
func (s *Store) supervise() {
	defer s.tasks.Done()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
			_ = s.space.check()
			if g := s.gen.Load(); g.fs.failed() != nil {
				s.wakeCommits(g)
			}
		case g := <-s.downed:
			if g == s.gen.Load() {
				s.reopen(g)
			}
		}
	}
}

// reopen replaces a failed generation. The failed one is read until the directory takes files again, then it must be closed for the
// new one to open. It tries until it succeeds or the store is closed.
func (s *Store) reopen(failed *generation) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		if s.space.check() == nil && (failed.closed || s.probe() == nil) {
			s.giveUp(failed)
			g, err := s.openGeneration(false)
			if err == nil {
				s.gen.Store(g)
				s.opts.Logf("store: %s is open again", s.opts.Dir)
				return
			}
			s.opts.Logf("%v; trying again in %v", err, wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-s.quit:
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// wakeCommits lets a commit that waits for room see that there will be none.
func (s *Store) wakeCommits(g *generation) {
	s.commitMu.Lock()
	g.room.Broadcast()
	s.commitMu.Unlock()
}

// giveUp closes a failed generation. Its tables go into memory from now on, so that no commit waits for Pebble to write one.
func (s *Store) giveUp(failed *generation) {
	failed.fs.opened.Store(false)
	s.wakeCommits(failed)
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	failed.life.Lock()
	defer failed.life.Unlock()
	if err := failed.close(); err != nil {
		s.opts.Logf("%v", err)
	}
}

// probe reports whether the directory takes a file, and a sync of it.
func (s *Store) probe() error {
	name := filepath.Join(s.opts.Dir, "probe")
	f, err := s.opts.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4<<10))
	return errors.Join(err, f.Sync(), f.Close(), s.opts.fs.Remove(name))
}

// logger passes Pebble's troubles on; Fatalf, after which Pebble expects not to live, ends the generation only.
type logger struct{ g *generation }

func (l *logger) Infof(string, ...any) {}
func (l *logger) Errorf(format string, args ...any) {
	l.g.s.opts.Logf("store: "+format, args...)
}
func (l *logger) Fatalf(format string, args ...any) { l.g.fs.fail(fmt.Errorf(format, args...)) }
