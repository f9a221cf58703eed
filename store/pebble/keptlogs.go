package pebble

import (
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// keptLogs holds logs back from Pebble, which removes a log, or writes over it, when all that it has of it is in tables: of the blobs of
// commits it knows nothing. A log goes when its commits are in tables too.
type keptLogs struct {
	given atomic.Uint64 // the commit that was given to Pebble last

	mu      sync.Mutex
	begun   bool              // logs of earlier openings are not needed any more
	written uint64            // commits up to it are in tables
	current string            // the log that is being written
	ends    map[string]uint64 // of older logs of this opening: no later commit is in it
	removed map[string]bool   // Pebble has removed them
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// created: Pebble begins a log. What it gets from now on is not in the log before.
func (l *keptLogs) created(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ends == nil {
		l.ends, l.removed = map[string]uint64{}, map[string]bool{}
	}
	if l.current != "" {
		l.ends[l.current] = l.given.Load()
	}
	l.current = filepath.Clean(name)
}

// keep reports whether a log that Pebble removes has to stay.
func (l *keptLogs) keep(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	name = filepath.Clean(name)
	end, ours := l.ends[name]
	if ours && end <= l.written || !ours && l.begun {
		delete(l.ends, name)
		return false
	}
	if l.removed == nil {
		l.removed = map[string]bool{}
	}
	l.removed[name] = true
	return true
}

// begin: what was in the logs of earlier openings is in tables.
func (l *keptLogs) begin(fs vfs.FS) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun = true
	l.sweep(fs)
}

// wrote: commits up to serial are in tables, durably.
func (l *keptLogs) wrote(fs vfs.FS, serial uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written = serial
	l.sweep(fs)
}

// sweep removes what Pebble has removed and nobody needs. What cannot be removed costs space until the next start.
func (l *keptLogs) sweep(fs vfs.FS) {
	for name := range l.removed {
		if end, ours := l.ends[name]; ours && end <= l.written || !ours && l.begun {
			_ = fs.Remove(name)
			delete(l.removed, name)
			delete(l.ends, name)
		}
	}
}

// needed lists the logs older than one that hold commits which are in no table.
func (l *keptLogs) needed(before uint64) (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, end := range l.ends {
		if n, ok := logNumber(name); ok && n < before && end > l.written {
			names = append(names, name)
		}
	}
	return names
}
