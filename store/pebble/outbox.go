package pebble

import (
	"context"

	"github.com/meshtalk/meshtalk/store"
)

// Forget implements store.Store: there is no other node.
func (s *Store) Forget(string) {}

// Offset implements store.Store: commits have their place in Pebble's log.
func (s *Store) Offset(context.Context, int) (int64, error) {
	if s.closed.Load() {
		return 0, store.ErrClosed
	}
	return 0, nil
}

// Delivered implements store.Store.
func (s *Store) Delivered(string, string, uint64) {}

// Outbox implements store.Store.
func (s *Store) Outbox(context.Context, int, int) ([]store.Event, error) { return nil, nil }

// Published implements store.Store.
func (s *Store) Published(context.Context, int, []uint64) error { return nil }
