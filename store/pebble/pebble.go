// Package pebble is the embedded store.
package pebble

import (
	"time"

	"github.com/meshtalk/meshtalk/store"
)

// Options of Open.
type Options struct {
	Dir          string
	Retention    time.Duration // of messages; default 30 days, 0 = the default
	DedupeWindow time.Duration // default 168 h
	InboxLimit   int           // members above which a group is large; default 500
	Logf         func(format string, args ...any)
	// AckBeforeSync breaks the promise on purpose: Wait returns before the sync. For the test that must catch it.
	AckBeforeSync bool
}

// Open opens or creates the store in o.Dir. A directory that another process has open, a corrupt file or a newer
// format is an error that names the file and the reason.
func Open(o Options) (store.Store, error) { panic("stub") }
