package pebble

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// failFS stands between Pebble and the disk. Pebble ends the process, panics with its locks held, or trusts pages after a
// failed fsync when a write to the log or the manifest fails. So it never learns of such an error: failFS notes
// it, calls onFail once, and from then on swallows every change (new files live in memory), so that nothing more
// of this generation reaches the disk and Pebble can be closed in order. Whoever waits for a sync asks failed
// afterwards. Reads go on. The store then opens the directory again, and the log decides what was kept.
//
// Tables are the exception once the database is open: what Pebble cannot write of one it drops, and tries again later. A compaction
// that meets a full disk does not even fail the generation; a table that is not whole when it fails is never finished, because reads go on.
type failFS struct {
	vfs.FS
	dir    string // errors elsewhere (the target of a checkpoint) are the caller's
	onFail func(error)

	logs   keptLogs
	down   atomic.Bool
	opened atomic.Bool // set once the database is open; before, Pebble would try to write a table for ever

	mu struct {
		sync.Mutex
		err     error
		overlay *vfs.MemFS // files created after the failure
	}
}

func newFailFS(base vfs.FS, dir string, onFail func(error)) *failFS {
	return &failFS{FS: base, dir: filepath.Clean(dir), onFail: onFail}
}

// failed is the first error, nil while all is well.
func (f *failFS) failed() error {
	if !f.down.Load() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.err
}

// fail begins the swallowing. Only the first error counts.
func (f *failFS) fail(err error) {
	f.mu.Lock()
	first := f.mu.err == nil
	if first {
		f.mu.err = err
		f.mu.overlay = vfs.NewMem()
		f.down.Store(true)
	}
	f.mu.Unlock()
	if first && f.onFail != nil {
		f.onFail(err)
	}
}

func (f *failFS) ours(name string) bool { return filepath.Dir(filepath.Clean(name)) == f.dir }

// memory is the overlay for changes after the failure, nil before it and outside the directory.
func (f *failFS) memory(name string) *vfs.MemFS {
	if !f.down.Load() || !f.ours(name) {
		return nil
	}
	_ = f.mu.overlay.MkdirAll(f.dir, 0o755)
	return f.mu.overlay
}

// judge turns an error of a change into silence where Pebble must not see it.
func (f *failFS) judge(name string, category vfs.DiskWriteCategory, err error) error {
	if err == nil || !f.ours(name) {
		return err
	}
	if !f.table(category) {
		f.fail(err)
		return nil
	}
	if category == compactionTable && errors.Is(err, syscall.ENOSPC) {
		return err
	}
	f.fail(err)
	time.Sleep(retryTable)
	return err
}

// The categories of tables.
const (
	compactionTable vfs.DiskWriteCategory = "pebble-compaction"
	flushTable      vfs.DiskWriteCategory = "pebble-memtable-flush"
)

// retryTable is the wait before Pebble hears that a table could not be written: it tries again at once.
const retryTable = time.Second

// table reports whether Pebble is to hear of errors, because it drops a table of this category that cannot be written.
func (f *failFS) table(category vfs.DiskWriteCategory) bool {
	return f.opened.Load() && (category == compactionTable || category == flushTable)
}

func (f *failFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.create(name, category, func() (vfs.File, error) { return f.FS.Create(name, category) })
}

func (f *failFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.create(newname, category, func() (vfs.File, error) {
		if isLog(oldname) && f.logs.keep(oldname) {
			return f.FS.Create(newname, category)
		}
		return f.FS.ReuseForWrite(oldname, newname, category)
	})
}

func (f *failFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return f.create(name, category, func() (vfs.File, error) { return f.FS.OpenReadWrite(name, category, opts...) })
}

func (f *failFS) create(name string, category vfs.DiskWriteCategory, open func() (vfs.File, error)) (vfs.File, error) {
	if mem := f.memory(name); mem != nil {
		if f.table(category) {
			time.Sleep(retryTable)
			return nil, f.failed()
		}
		return mem.Create(name, category)
	}
	if strings.HasPrefix(filepath.Base(name), "marker.") && f.ours(name) {
		// It names a file that was just made; some file systems may keep the name alone when the power fails now.
		if err := syncDir(f.FS, f.dir); err != nil {
			f.fail(err)
			return f.memory(name).Create(name, category)
		}
	}
	if isLog(name) {
		f.logs.created(name)
	}
	file, err := open()
	if err == nil {
		return &failFile{File: file, fs: f, name: name, category: category}, nil
	}
	if err = f.judge(name, category, err); err != nil {
		return nil, err
	}
	return f.memory(name).Create(name, category)
}

func (f *failFS) OpenDir(name string) (vfs.File, error) {
	dir, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &failFile{File: dir, fs: f, name: filepath.Join(name, "."), dir: true}, nil
}

func (f *failFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if mem := f.memory(name); mem != nil {
		if file, err := mem.Open(name, opts...); err == nil {
			return file, nil
		}
	}
	return f.FS.Open(name, opts...)
}

func (f *failFS) Stat(name string) (vfs.FileInfo, error) {
	if mem := f.memory(name); mem != nil {
		if info, err := mem.Stat(name); err == nil {
			return info, nil
		}
	}
	return f.FS.Stat(name)
}

// Remove of a file that cannot be removed costs space, not data: Pebble logs it.
func (f *failFS) Remove(name string) error {
	if mem := f.memory(name); mem != nil {
		_ = mem.Remove(name)
		return nil
	}
	if isLog(name) && f.logs.keep(name) {
		return nil
	}
	return f.FS.Remove(name)
}

func (f *failFS) Rename(oldname, newname string) error {
	if mem := f.memory(newname); mem != nil {
		_ = mem.Rename(oldname, newname)
		return nil
	}
	return f.judge(newname, vfs.WriteCategoryUnspecified, f.FS.Rename(oldname, newname))
}

func (f *failFS) Link(oldname, newname string) error {
	if f.memory(newname) != nil {
		return nil
	}
	return f.judge(newname, vfs.WriteCategoryUnspecified, f.FS.Link(oldname, newname))
}

func (f *failFS) Unwrap() vfs.FS { return f.FS }

// failFile is a file being written.
type failFile struct {
	vfs.File
	fs       *failFS
	name     string
	category vfs.DiskWriteCategory
	dir      bool
}

func (f *failFile) swallowed() bool { return f.fs.down.Load() && (f.dir || f.fs.ours(f.name)) }

// after is what a write answers after the failure: nothing, but for a table.
func (f *failFile) after() error {
	if f.fs.table(f.category) {
		return f.fs.failed()
	}
	return nil
}

func (f *failFile) judge(err error) error {
	if f.dir && err != nil && filepath.Clean(f.name) == f.fs.dir {
		f.fs.fail(err)
		return nil
	}
	return f.fs.judge(f.name, f.category, err)
}

func (f *failFile) Write(p []byte) (int, error) {
	if f.swallowed() {
		return len(p), f.after()
	}
	n, err := f.File.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err = f.judge(err); err != nil {
		return n, err
	}
	return len(p), nil
}

func (f *failFile) WriteAt(p []byte, off int64) (int, error) {
	if f.swallowed() {
		return len(p), f.after()
	}
	n, err := f.File.WriteAt(p, off)
	if err = f.judge(err); err != nil {
		return n, err
	}
	return len(p), nil
}

func (f *failFile) Sync() error {
	if f.swallowed() {
		return f.after()
	}
	return f.judge(f.File.Sync())
}

func (f *failFile) SyncData() error {
	if f.swallowed() {
		return f.after()
	}
	return f.judge(f.File.SyncData())
}

func (f *failFile) SyncTo(length int64) (bool, error) {
	if f.swallowed() {
		return true, f.after()
	}
	full, err := f.File.SyncTo(length)
	return full, f.judge(err)
}

// Close reports what the file system kept back until now, on some network file systems.
func (f *failFile) Close() error {
	err := f.File.Close()
	if f.swallowed() || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return f.judge(err)
}
