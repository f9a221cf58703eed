package hub

import (
	"context"
	"hash/maphash"
	"slices"
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

// PresenceOf gives the present state of users on all nodes, in the order asked. The lastSeen of who is online is now.
func (h *Hub) PresenceOf(ctx context.Context, users []string) ([]codec.PresenceState, error) {
	routes, err := h.cluster.Routes(ctx, users)
	if err != nil { // what this node knows is better than nothing
		h.o.Logf("presence without the other nodes: %v", err)
	}
	elsewhere := make(map[string][]string)
	for _, r := range routes {
		elsewhere[r.User] = append(elsewhere[r.User], r.Terminal)
	}
	states := make([]codec.PresenceState, len(users))
	for i, u := range users {
		p := &states[i]
		*p = h.registry.state(u)
		for _, t := range elsewhere[u] {
			if !slices.Contains(p.Terminals, t) { // of a session that is being replaced
				p.Terminals = append(p.Terminals, t)
			}
			p.Online = true
		}
		if p.Online {
			p.LastSeen = h.now()
		} else if p.LastSeen, err = h.store.LastSeen(ctx, u); err != nil {
			return nil, fail(err)
		}
	}
	return states, nil
}

func (h *Hub) presence(ctx context.Context, user string) (codec.PresenceState, error) {
	states, err := h.PresenceOf(ctx, []string{user})
	if err != nil {
		return codec.PresenceState{}, err
	}
	return states[0], nil
}

// presenceChanged tells who watches the user, here and elsewhere: one packet per change. One change at a time looks and
// tells, so that nobody hears an older state last; the mutex for it is taken by nothing else.
func (h *Hub) presenceChanged(ctx context.Context, user string) {
	if h.alone && !h.watchers.any(user) {
		return
	}
	h.telling.Lock()
	defer h.telling.Unlock()
	state, err := h.presence(ctx, user)
	if err != nil {
		h.o.Logf("presence of a user: %v", err)
		return
	}
	if !h.alone {
		h.cluster.Send([]cluster.Signal{{User: user, State: &state}})
	}
	h.tellWatchers(&state)
}

// tellWatchers tells who watches the user here.
func (h *Hub) tellWatchers(state *codec.PresenceState) {
	if refs := h.watchers.refs(state.User); len(refs) > 0 {
		h.tell(refs, codec.Presence, codec.AppendPresence(nil, nil, []codec.PresenceState{*state}))
	}
}
