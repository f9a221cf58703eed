package pebble

import (
	"sync"
	"sync/atomic"

	"github.com/meshtalk/meshtalk/store"
)

// userHead is a user's inbox as the committer sees it.
type userHead struct {
	// Static.
	name string
	id   uint64
	// Owned by commitMu.
	head   uint64 // the newest number given
	serial uint64 // the commit that touched it last
	turn   uint32 // the turn of the cache that used it last
	bucket uint16 // of head
	fresh  bool   // its row is not written yet
	// Read by all: the newest number that is durable.
	durable atomic.Uint64
}

// convHead is a conversation as the committer sees it.
type convHead struct {
	// Static.
	name string
	id   uint64
	kind byte // 'p', 'g', 'n'
	// Owned by commitMu.
	users   [2]*userHead // of a private conversation, of a system conversation the first
	head    uint64
	ts      int64 // of head: TS never goes back
	recalls uint64
	fromA   uint64
	serial  uint64
	bucket  uint16 // of head
	indexed uint16 // the bucket whose index rows were written
	fresh   bool
	// Read by all.
	durable atomic.Uint64
}

// heads caches what commits need. It has two generations: what is used moves to the young one; when that holds half of the
// budget, the old one is forgotten and the young one becomes old. So nothing that an unfinished commit touched is ever
// forgotten, provided that the commits of the last turn are done (see turn).
type heads struct {
	budget int64 // bytes

	// Written under commitMu and mu, read under either.
	mu       sync.RWMutex
	users    [2]map[string]*userHead // young, old
	convs    [2]map[string]*convHead
	bytes    int64  // of young
	turns    uint32 // begins at 1; what has an older turn than the last is forgotten
	turnedAt uint64 // the commit before the last turn

	held atomic.Int64 // bytes of both
}

// What an entry costs with its map slot and name, measured on 64-bit.
const (
	userHeadBytes = 160
	convHeadBytes = 240
)

func (h *heads) init(budget int64) {
	h.budget, h.turns = budget, 1
	for i := range h.users {
		h.users[i], h.convs[i] = map[string]*userHead{}, map[string]*convHead{}
	}
}

// turn forgets the old half when the young one is full. serial is the last commit given out, durable the last that is done.
func (h *heads) turn(serial, durable uint64) {
	if h.bytes < h.budget/2 || durable < h.turnedAt {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users[1], h.users[0] = h.users[0], make(map[string]*userHead)
	h.convs[1], h.convs[0] = h.convs[0], make(map[string]*convHead)
	h.held.Store(h.bytes)
	h.bytes, h.turnedAt = 0, serial
	h.turns++
}

func (h *heads) addUser(u *userHead) {
	u.turn = h.turns
	h.mu.Lock()
	delete(h.users[1], u.name)
	h.users[0][u.name] = u
	h.mu.Unlock()
	h.grow(userHeadBytes + int64(len(u.name)))
}

func (h *heads) addConv(c *convHead) {
	h.mu.Lock()
	delete(h.convs[1], c.name)
	h.convs[0][c.name] = c
	h.mu.Unlock()
	h.grow(convHeadBytes + int64(len(c.name)))
}

func (h *heads) grow(by int64) {
	h.bytes += by
	h.held.Add(by)
}

// durableUser is the durable head of a user that commits have used lately. Everything up to it is in the tails or tables.
func (h *heads) durableUser(name string) (uint64, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, m := range h.users {
		if u := m[name]; u != nil {
			return u.durable.Load(), true
		}
	}
	return 0, false
}

func (h *heads) durableConv(name string) (uint64, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, m := range h.convs {
		if c := m[name]; c != nil {
			return c.durable.Load(), true
		}
	}
	return 0, false
}

// user returns the head of a user, loaded or new. Under commitMu.
func (g *generation) user(name string) (*userHead, error) {
	u := g.heads.users[0][name]
	if u != nil {
		return u, nil
	}
	if u = g.heads.users[1][name]; u != nil {
		g.heads.addUser(u)
		return u, nil
	}
	var e entity
	found, err := g.getEntity(nameKey(kUser, name), &e)
	if err != nil {
		return nil, err
	}
	u = &userHead{name: name, id: e.id, head: e.base.seq}
	if !found {
		u.id, u.fresh = g.newID(), true
	}
	if days := e.live(g.firstBucket); len(days) > 0 {
		u.bucket = days[len(days)-1].bucket
		if u.head, err = g.lastInbox(*g.tails.Load(), e.id, u.bucket); err != nil {
			return nil, err
		}
	}
	u.durable.Store(u.head)
	g.heads.addUser(u)
	return u, nil
}

// keepUser returns u, or its successor if the cache has forgotten it meanwhile. Under commitMu.
func (g *generation) keepUser(u *userHead) (*userHead, error) {
	if u.turn == g.heads.turns {
		return u, nil
	}
	return g.user(u.name)
}

// conv returns the head of a conversation, loaded or new. Under commitMu.
func (g *generation) conv(name string) (*convHead, error) {
	c := g.heads.convs[0][name]
	if c == nil {
		if c = g.heads.convs[1][name]; c != nil {
			g.heads.addConv(c)
		}
	}
	if c == nil {
		var err error
		if c, err = g.loadConv(name); err != nil {
			return nil, err
		}
		g.heads.addConv(c)
	}
	for i, u := range c.users {
		if u == nil {
			break
		}
		var err error
		if c.users[i], err = g.keepUser(u); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (g *generation) loadConv(name string) (*convHead, error) {
	var e entity
	found, err := g.getEntity(nameKey(kConv, name), &e)
	if err != nil {
		return nil, err
	}
	kind, a, b := store.ConvKind(name)
	c := &convHead{name: name, kind: kind, id: e.id, head: e.base.seq, ts: e.base.ts, recalls: e.base.recalls, fromA: e.base.fromA}
	if !found {
		c.id, c.fresh = g.newID(), true
	}
	if days := e.live(g.firstBucket); len(days) > 0 {
		c.bucket = days[len(days)-1].bucket
		err := g.lastMessage(*g.tails.Load(), c.id, c.bucket, func(seq uint64, r *record) {
			c.head, c.ts, c.recalls, c.fromA = seq, r.ts, r.recalls, r.fromA
		})
		if err != nil {
			return nil, err
		}
	}
	c.durable.Store(c.head)
	if kind == 'g' {
		return c, nil
	}
	if c.users[0], err = g.user(a); err == nil && kind == 'p' && b != a {
		c.users[1], err = g.user(b)
	}
	return c, err
}

// newID gives the next id of a user or conversation. The commit that uses it writes the counter.
func (g *generation) newID() uint64 {
	id := g.nextID
	g.nextID++
	return id
}
