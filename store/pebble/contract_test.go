package pebble

import (
	"testing"

	"github.com/meshtalk/meshtalk/store"
	"github.com/meshtalk/meshtalk/store/storetest"
)

// openTest opens a store with the suite's settings.
func openTest(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := open(testOptions(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testOptions(t testing.TB, dir string) Options {
	return Options{Dir: dir, Retention: storetest.Retention, DedupeWindow: storetest.DedupeWindow, InboxLimit: storetest.InboxLimit, Logf: t.Logf}
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		dir := t.TempDir()
		return storetest.Backend{
			Open:     func() store.Store { return openTest(t, dir) },
			OpenCopy: func(dir string) store.Store { return openTest(t, dir) },
		}
	})
}
