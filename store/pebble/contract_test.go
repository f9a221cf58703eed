package pebble

import (
	"testing"

	"github.com/meshtalk/meshtalk/store"
	"github.com/meshtalk/meshtalk/store/storetest"
)

// openTest opens a store or ends the test.
func openTest(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// testOptions are the suite's settings.
func testOptions(t testing.TB, dir string) Options {
	return Options{Dir: dir, Retention: storetest.Retention, DedupeWindow: storetest.DedupeWindow, InboxLimit: storetest.InboxLimit, Logf: t.Logf}
}

func TestContract(t *testing.T) { t.Parallel(); contract(t, 0) }

// TestContractSmall is the contract with next to no memory: tails of a few messages, so that everything is in tables soon,
// heads and groups forgotten at once, no filters.
func TestContractSmall(t *testing.T) { t.Parallel(); contract(t, 600) }

func contract(t *testing.T, small int64) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		dir := t.TempDir()
		open := func(dir string, outbox bool) store.Store {
			o := testOptions(t, dir)
			o.Outbox = outbox
			if small > 0 {
				o.tailBytes, o.HeadBytes, o.GroupBytes, o.FilterBytes = small, 1, 1, 1
			}
			return openTest(t, o)
		}
		return storetest.Backend{
			Open:       func() store.Store { return open(dir, false) },
			OpenCopy:   func(dir string) store.Store { return open(dir, false) },
			OpenOutbox: func() store.Store { return open(dir, true) },
		}
	})
}
