package hub

import (
	"context"
	"hash/maphash"
	"sync"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
)

// watchers are the sessions of this node that watch a user's presence. A shard's mutex is never held across a call out.
type watchers struct {
	seed   maphash.Seed
	shards [registryShards]struct {
		sync.Mutex
		users map[string]map[Ref]struct{}
	}
}

func (w *watchers) init() {
	w.seed = maphash.MakeSeed()
	for i := range w.shards {
		w.shards[i].users = make(map[string]map[Ref]struct{})
	}
}

func (w *watchers) index(user string) int {
	return int(maphash.String(w.seed, user) & (registryShards - 1))
}

func (w *watchers) any(user string) bool {
	s := &w.shards[w.index(user)]
	s.Lock()
	defer s.Unlock()
	return len(s.users[user]) > 0
}

func (w *watchers) refs(user string) (refs []Ref) {
	s := &w.shards[w.index(user)]
	s.Lock()
	defer s.Unlock()
	for r := range s.users[user] {
		refs = append(refs, r)
	}
	return refs
}

// Watch makes the session be told of changes of the user's presence, Unwatch ends it. They do not block.
func (h *Hub) Watch(ref Ref, user string) {
	s := &h.watchers.shards[h.watchers.index(user)]
	s.Lock()
	defer s.Unlock()
	m := s.users[user]
	if m == nil {
		m = make(map[Ref]struct{}, 1)
		s.users[user] = m
	}
	m[ref] = struct{}{}
}

// Unwatch undoes Watch.
func (h *Hub) Unwatch(ref Ref, user string) {
	s := &h.watchers.shards[h.watchers.index(user)]
	s.Lock()
	defer s.Unlock()
	if m := s.users[user]; m != nil {
		if delete(m, ref); len(m) == 0 {
			delete(s.users, user)
		}
	}
}

// presence is the user's state on all nodes. The lastSeen of who is online is now.
func (h *Hub) presence(ctx context.Context, user string) (codec.PresenceState, error) {
	p := h.registry.state(user)
	routes, err := h.cluster.Routes(ctx, []string{user})
	if err != nil {
		return p, fail(err)
	}
	for _, r := range routes {
		p.Online, p.Terminals = true, append(p.Terminals, r.Terminal)
	}
	if p.Online {
		p.LastSeen = h.now()
		return p, nil
	}
	p.LastSeen, err = h.store.LastSeen(ctx, user)
	return p, fail(err)
}

// PresenceOf gives the present state of users, in the order asked.
func (h *Hub) PresenceOf(ctx context.Context, users []string) ([]codec.PresenceState, error) {
	states := make([]codec.PresenceState, len(users))
	for i, u := range users {
		var err error
		if states[i], err = h.presence(ctx, u); err != nil {
			return nil, err
		}
	}
	return states, nil
}

// presenceChanged tells who watches the user, here and elsewhere: one packet per change. One change at a time looks and
// tells, so that nobody hears an older state last; the mutex for it is taken by nothing else.
func (h *Hub) presenceChanged(ctx context.Context, user string) {
	if h.cluster.Alone() && !h.watchers.any(user) {
		return
	}
	h.telling.Lock()
	defer h.telling.Unlock()
	state, err := h.presence(ctx, user)
	if err != nil {
		h.o.Logf("presence of a user: %v", err)
		return
	}
	h.cluster.Send([]cluster.Signal{{User: user, State: &state}})
	if refs := h.watchers.refs(user); len(refs) > 0 {
		h.tell(refs, codec.Presence, codec.AppendPresence(nil, nil, []codec.PresenceState{state}))
	}
}
