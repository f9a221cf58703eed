package hub

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"unique"

	"github.com/meshtalk/meshtalk/codec"
)

// registryShards is a power of two well above the cores, so that loops and the committer rarely meet on one mutex.
const registryShards = 64

// registry is who is logged in on this node. A shard's mutex is never held across a call out of the package.
type registry struct {
	seed   maphash.Seed
	shards [registryShards]struct {
		sync.Mutex
		users map[string]*member
		_     [40]byte // a cache line each
	}
}

// member is a user with at least one session here. There may be a million: 40 bytes, with the one terminal that most have in the
// struct itself.
type member struct {
	furthest uint64 // the furthest acknowledged inbox position of all terminals ever seen
	first    terminal
	more     *[]terminal // nil = none
}

// terminal is a session of a user. The same few names stand everywhere, so each is kept once.
type terminal struct {
	name  unique.Handle[string]
	ref   Ref
	order uint64 // of its LOGIN, see Hub.NextLogin
}

// others are the terminals but the first.
func (m *member) others() []terminal {
	if m.more == nil {
		return nil
	}
	return *m.more
}

// find is the member's terminal of that name, nil if it has none.
func (m *member) find(name unique.Handle[string]) *terminal {
	if m.first.name == name {
		return &m.first
	}
	others := m.others()
	for i := range others {
		if others[i].name == name {
			return &others[i]
		}
	}
	return nil
}

// add appends a terminal.
func (m *member) add(t terminal) {
	if m.more == nil {
		m.more = new([]terminal)
	}
	*m.more = append(*m.more, t)
}

// drop removes the terminal at t, which is not the only one: the last takes its place.
func (m *member) drop(t *terminal) {
	others := *m.more
	last := len(others) - 1
	*t = others[last]
	others[last] = terminal{}
	if *m.more = others[:last]; last == 0 {
		m.more = nil
	}
}

func (r *registry) init() {
	r.seed = maphash.MakeSeed()
	for i := range r.shards {
		r.shards[i].users = make(map[string]*member)
	}
}

func (r *registry) index(user string) int {
	return int(maphash.String(r.seed, user) & (registryShards - 1))
}

// add makes ref the session of (user, name), unless the one that is has a later LOGIN: then late is true and nothing changes. old is the
// one that it replaces, 0 if there was none; alone tells that the user had no session at all.
func (r *registry) add(user, name string, ref Ref, order uint64) (old Ref, alone, late bool) {
	t := terminal{unique.Make(name), ref, order}
	s := &r.shards[r.index(user)]
	s.Lock()
	defer s.Unlock()
	m := s.users[user]
	if m == nil {
		s.users[user] = &member{first: t}
		return 0, true, false
	}
	was := m.find(t.name)
	switch {
	case was == nil:
		m.add(t)
	case was.order > order:
		return 0, false, true
	default:
		old, *was = was.ref, t
	}
	return old, false, false
}

// current is the session of (user, name), 0 if there is none.
func (r *registry) current(user, name string) Ref {
	s := &r.shards[r.index(user)]
	s.Lock()
	defer s.Unlock()
	if m := s.users[user]; m != nil {
		if t := m.find(unique.Make(name)); t != nil {
			return t.ref
		}
	}
	return 0
}

// remove takes the session away if it still is the one of its terminal.
func (r *registry) remove(user, name string, ref Ref) (removed bool) {
	s := &r.shards[r.index(user)]
	s.Lock()
	defer s.Unlock()
	m := s.users[user]
	if m == nil {
		return false
	}
	t := m.find(unique.Make(name))
	switch {
	case t == nil || t.ref != ref:
		return false
	case m.more == nil:
		delete(s.users, user)
	default:
		m.drop(t)
	}
	return true
}

// refs appends the user's sessions to dst.
func (r *registry) refs(dst []Ref, user string) []Ref {
	s := &r.shards[r.index(user)]
	s.Lock()
	if m := s.users[user]; m != nil {
		dst = append(dst, m.first.ref)
		for _, t := range m.others() {
			dst = append(dst, t.ref)
		}
	}
	s.Unlock()
	return dst
}

// terminals are the user's sessions, with their names.
func (r *registry) terminals(user string) []terminal {
	s := &r.shards[r.index(user)]
	s.Lock()
	defer s.Unlock()
	m := s.users[user]
	if m == nil {
		return nil
	}
	return append([]terminal{m.first}, m.others()...)
}

// advance moves the user's furthest position to n and returns where it stood; moved is false when it was there already.
func (r *registry) advance(user string, n uint64) (from uint64, moved bool) {
	s := &r.shards[r.index(user)]
	s.Lock()
	defer s.Unlock()
	m := s.users[user]
	if m == nil || m.furthest >= n {
		return 0, false
	}
	from, m.furthest = m.furthest, n
	return from, true
}

// state is the user's presence as this node sees it; lastSeen is left to the caller.
func (r *registry) state(user string) codec.PresenceState {
	p := codec.PresenceState{User: user}
	for _, t := range r.terminals(user) {
		p.Online = true
		p.Terminals = append(p.Terminals, t.name.Value())
	}
	return p
}

// shardUsers are the users of one shard.
func (r *registry) shardUsers(shard int) []string {
	s := &r.shards[shard]
	s.Lock()
	defer s.Unlock()
	users := make([]string, 0, len(s.users))
	for u := range s.users {
		users = append(users, u)
	}
	return users
}

// users counts the users with a session here.
func (r *registry) users() (n int) {
	for i := range r.shards {
		s := &r.shards[i]
		s.Lock()
		n += len(s.users)
		s.Unlock()
	}
	return n
}

// prefixed are the users with at least one session here whose name begins with prefix, in byte order and after a name, at most
// limit; more tells that there are others. It looks at every user: for people, not for programs.
func (r *registry) prefixed(prefix, after string, limit int) (found []string, more bool) {
	for i := range r.shards {
		s := &r.shards[i]
		s.Lock()
		for u := range s.users {
			if u <= after || !strings.HasPrefix(u, prefix) {
				continue
			}
			at, _ := slices.BinarySearch(found, u)
			if at == limit {
				more = true
				continue
			}
			if len(found) == limit {
				found, more = found[:limit-1], true
			}
			found = slices.Insert(found, at, u)
		}
		s.Unlock()
	}
	return found, more
}
