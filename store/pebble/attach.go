package pebble

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/meshtalk/meshtalk/store"
)

// Attach implements store.Store. Only a terminal that was never seen costs a write; concurrent ones share a sync.
func (s *Store) Attach(_ context.Context, user, terminal string) (a store.Attachment, err error) {
	g, err := s.acquire()
	if err != nil {
		return a, err
	}
	defer g.release()
	mu := s.positions.user(user)
	mu.Lock()
	defer mu.Unlock()
	v, err := g.userView(user)
	if err != nil {
		return a, err
	}
	a.Inbox = v.box
	revoked, _, err := g.getNumber(nameKey(kRevoked, user))
	if err != nil {
		return a, err
	}
	a.RevokedBefore = int64(revoked)
	known := false
	furthest := uint64(0)
	err = g.terminals(user, func(t []byte, at uint64) {
		furthest = max(furthest, at)
		if string(t) == terminal {
			known, a.Acked = true, at
		}
	})
	if err != nil {
		return a, err
	}
	a.Furthest = furthest
	g.groups.change.RLock()
	defer g.groups.change.RUnlock()
	if known {
		a.Large, err = g.largeOf(user, terminal, nil)
		return a, err
	}
	if err := g.writable(); err != nil {
		return a, err
	}
	a.Acked = furthest
	b := g.db.NewBatch()
	_ = b.Set(pairKey(kPosition, user, terminal), uvarintBytes(furthest), nil)
	if a.Large, err = g.largeOf(user, terminal, b); err != nil {
		return a, err
	}
	return a, g.apply(b, pebble.Sync)
}

func (g *generation) writable() error {
	if err := g.fs.failed(); err != nil {
		return readOnly(err)
	}
	return g.s.space.check()
}

// largeOf lists the user's large groups with the terminal's position. b is not nil for a terminal never seen: its first
// positions go there.
func (g *generation) largeOf(user, terminal string, b *pebble.Batch) ([]store.LargePosition, error) {
	names, err := g.groupsOf(user)
	if err != nil {
		return nil, err
	}
	var list []store.LargePosition
	for _, name := range names {
		grp, err := g.group(name)
		if err != nil {
			return nil, err
		}
		if !g.large(grp) {
			continue
		}
		p, err := g.largePosition(user, terminal, grp, b)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

func (g *generation) largePosition(user, terminal string, grp *group, b *pebble.Batch) (store.LargePosition, error) {
	p := store.LargePosition{Group: grp.name}
	joined, member, err := g.joinedAt(grp.name, user)
	if err != nil {
		return p, err
	}
	if !member {
		return p, fmt.Errorf("%w: %s in group %s", store.ErrForbidden, user, grp.name)
	}
	box, err := g.convBox(store.GroupConv(grp.name))
	if err != nil {
		return p, err
	}
	p.Head, p.First = box.Head, box.First
	// What was said before the first message without inbox entries came through the inbox.
	floor := joined
	if first := grp.largeFirst.Load(); g.holdsLarge(grp) && first > 0 {
		floor = max(floor, first-1)
	} else {
		floor = max(floor, box.Head)
	}
	at, err := g.position(largeKey(user, terminal, grp.name))
	if err != nil {
		return p, err
	}
	if p.Acked = max(at, floor); b == nil {
		return p, nil
	}
	furthest := floor
	err = g.terminals(user, func(t []byte, _ uint64) {
		if v, e := g.position(largeKey(user, string(t), grp.name)); e == nil {
			furthest = max(furthest, v)
		}
	})
	if err == nil && furthest > p.Acked {
		p.Acked = furthest
		_ = b.Set(largeKey(user, terminal, grp.name), uvarintBytes(furthest), nil)
	}
	return p, err
}

// AttachGroup implements store.Store.
func (s *Store) AttachGroup(_ context.Context, user, terminal, name string) (p store.LargePosition, err error) {
	err = s.readGroups(func(g *generation) error {
		grp, err := g.group(name)
		if err != nil {
			return err
		}
		p, err = g.largePosition(user, terminal, grp, nil)
		return err
	})
	return p, err
}
