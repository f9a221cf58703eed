package pebble

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/meshtalk/meshtalk/store"
)

// group is a group as it stands. The members never change: a change makes a new group and puts it in the place of the old.
type group struct {
	// Static.
	name    string
	exists  bool
	members []string // sorted
	bytes   int64    // about what it costs in memory

	// The day and the first sequence of the messages without inbox entries that it holds; 0 for none. Written under commitMu.
	largeBucket atomic.Uint32
	largeFirst  atomic.Uint64

	heads []*userHead // of members; owned by commitMu
}

func (g *group) has(user string) bool {
	_, ok := slices.BinarySearch(g.members, user)
	return ok
}

// append writes the group's row: flags, size, largeBucket, largeFirst.
func (g *group) append(b []byte) []byte {
	exists := uint64(0)
	if g.exists {
		exists = 1
	}
	b = binary.AppendUvarint(b, exists)
	b = binary.AppendUvarint(b, uint64(len(g.members)))
	b = binary.AppendUvarint(b, uint64(g.largeBucket.Load()))
	return binary.AppendUvarint(b, g.largeFirst.Load())
}

// groups caches groups whole. Changes are durable before they are seen here.
type groups struct {
	// change is held exclusively from the write of a change to the end of its sync, and shared by reads of member rows.
	change sync.RWMutex

	mu     sync.RWMutex
	m      map[string]*group
	bytes  int64
	budget int64
}

func (c *groups) init(budget int64) {
	c.budget = budget
	c.m = make(map[string]*group)
}

func (c *groups) cached(name string) *group {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.m[name]
}

// put makes g the group's state. When the budget is spent, some others go: they are read again when needed.
func (c *groups) put(g *group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(g)
}

// putNew keeps what another has read meanwhile: a group is never twice in memory.
func (c *groups) putNew(g *group) *group {
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.m[g.name]; other != nil {
		return other
	}
	c.putLocked(g)
	return g
}

func (c *groups) putLocked(g *group) {
	if old := c.m[g.name]; old != nil {
		c.bytes -= old.bytes
	}
	c.m[g.name] = g
	c.bytes += g.bytes
	for name, other := range c.m {
		if c.bytes <= c.budget {
			break
		}
		if other != g {
			delete(c.m, name)
			c.bytes -= other.bytes
		}
	}
}

func newGroup(name string, exists bool, members []string) *group {
	g := &group{name: name, exists: exists, members: members, bytes: 256 + int64(len(name))}
	for _, m := range members {
		g.bytes += int64(len(m)) + 16 + 8 // with its head
	}
	return g
}

// group returns a group, from memory or the database. An unknown one does not exist and is not cached: anybody can ask.
func (g *generation) group(name string) (*group, error) {
	if grp := g.groups.cached(name); grp != nil {
		return grp, nil
	}
	grp, found, err := g.readGroup(name)
	if err != nil || !found {
		return grp, err
	}
	return g.groups.putNew(grp), nil
}

func (g *generation) readGroup(name string) (*group, bool, error) {
	key := nameKey(kGroup, name)
	row, err := g.get(key)
	if err != nil {
		return nil, false, err
	}
	if row == nil {
		return newGroup(name, false, nil), false, nil
	}
	in := reader{b: row}
	exists, size, bucket, first := in.uvarint(), in.uvarint(), in.uvarint(), in.uvarint()
	if in.bad {
		return nil, false, g.rowError(key)
	}
	var members []string
	if exists != 0 && size > 0 {
		if members, err = g.readMembers(name, size); err != nil {
			return nil, false, err
		}
		if uint64(len(members)) != size {
			return nil, false, g.rowError(key)
		}
	}
	grp := newGroup(name, exists != 0, members)
	grp.largeBucket.Store(uint32(bucket))
	grp.largeFirst.Store(first)
	return grp, true, nil
}

// readMembers reads all names into one string.
func (g *generation) readMembers(name string, size uint64) ([]string, error) {
	prefix := pairKey(kMember, name, "")
	it, err := g.iter(prefix, prefixEnd(prefix))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var all bytes.Buffer
	ends := make([]int, 0, size)
	for ok := it.First(); ok; ok = it.Next() {
		all.Write(it.Key()[len(prefix):])
		ends = append(ends, all.Len())
	}
	if err := it.Error(); err != nil {
		return nil, g.readError("members", err)
	}
	text, begin := all.String(), 0
	members := make([]string, len(ends))
	for i, end := range ends {
		members[i], begin = text[begin:end], end
	}
	return members, nil
}

func (s *Store) isLarge(size int) bool { return size > s.opts.InboxLimit }

// large tells whether the group is above the limit or still holds messages without inbox entries.
func (g *generation) large(grp *group) bool {
	return grp.exists && (g.s.isLarge(len(grp.members)) || g.holdsLarge(grp))
}

func (g *generation) holdsLarge(grp *group) bool {
	return grp.largeFirst.Load() != 0 && grp.largeBucket.Load() >= uint32(g.firstBucket)
}

func (g *generation) groupInfo(grp *group) (store.GroupInfo, error) {
	box, err := g.convBox(store.GroupConv(grp.name))
	return store.GroupInfo{Group: grp.name, Size: len(grp.members), Large: g.large(grp), Head: box.Head}, err
}

// change is what a call does to a group: next is its new list, from the old.
type change func(old *group) (next []string, err error)

// changeGroup makes one change durable. Commits wait meanwhile, so that a membership holds from one sequence on.
func (s *Store) changeGroup(name string, exists bool, f change) (info store.GroupInfo, added, removed []string, err error) {
	g, err := s.acquireWritable()
	if err != nil {
		return info, nil, nil, err
	}
	defer g.release()
	defer g.recovered(&err)
	g.groups.change.Lock()
	defer g.groups.change.Unlock()
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	old, err := g.group(name)
	if err != nil {
		return info, nil, nil, err
	}
	members, err := f(old)
	if err != nil {
		return info, nil, nil, err
	}
	added, removed = difference(old.members, members)
	if len(added) > 0 || len(removed) > 0 || old.exists != exists {
		if old, err = g.writeGroup(old, members, exists, added, removed); err != nil {
			return info, nil, nil, err
		}
	}
	info, err = g.groupInfo(old)
	return info, added, removed, err
}

// writeGroup writes the difference and waits for the sync. A new member joins at the sequence given out last.
func (g *generation) writeGroup(old *group, members []string, exists bool, added, removed []string) (*group, error) {
	v, err := g.conv(store.GroupConv(old.name))
	if err != nil {
		return nil, err
	}
	next := newGroup(old.name, exists, members)
	next.largeBucket.Store(old.largeBucket.Load())
	next.largeFirst.Store(old.largeFirst.Load())
	b := g.db.NewBatchWithSize((len(added)+len(removed))*(2*len(old.name)+64) + 256)
	var key []byte
	joined := uvarintBytes(v.head)
	for _, m := range added {
		key = appendPair(key[:0], kMember, old.name, m)
		_ = b.Set(key, joined, nil)
		key = appendPair(key[:0], kMemberOf, m, old.name)
		_ = b.Set(key, nil, nil)
	}
	for _, m := range removed {
		key = appendPair(key[:0], kMember, old.name, m)
		_ = b.Delete(key, nil)
		key = appendPair(key[:0], kMemberOf, m, old.name)
		_ = b.Delete(key, nil)
	}
	_ = b.Set(nameKey(kGroup, old.name), next.append(nil), nil)
	if err := g.apply(b, pebble.Sync); err != nil {
		return nil, err
	}
	g.groups.put(next)
	return next, nil
}

// difference of two sorted lists.
func difference(old, next []string) (added, removed []string) {
	i, j := 0, 0
	for i < len(old) || j < len(next) {
		switch {
		case j == len(next) || i < len(old) && old[i] < next[j]:
			removed = append(removed, old[i])
			i++
		case i == len(old) || next[j] < old[i]:
			added = append(added, next[j])
			j++
		default:
			i, j = i+1, j+1
		}
	}
	return added, removed
}

// sorted is a sorted copy of the names without repeats.
func sorted(names []string) []string {
	c := slices.Clone(names)
	slices.Sort(c)
	return slices.Compact(c)
}

// merge adds and takes away sorted names from a sorted list. A name in both stays out.
func merge(old, add, remove []string) []string {
	next := make([]string, 0, len(old)+len(add))
	i, j := 0, 0
	for i < len(old) || j < len(add) {
		var name string
		if j == len(add) || i < len(old) && old[i] <= add[j] {
			name = old[i]
			if j < len(add) && add[j] == name {
				j++
			}
			i++
		} else {
			name = add[j]
			j++
		}
		if _, gone := slices.BinarySearch(remove, name); !gone {
			next = append(next, name)
		}
	}
	return next
}

// PutGroup implements store.Store.
func (s *Store) PutGroup(_ context.Context, name string, members []string, most int) (store.GroupInfo, []string, []string, error) {
	list := sorted(members)
	return s.changeGroup(name, true, func(old *group) ([]string, error) {
		next := list
		if members == nil {
			next = old.members
		}
		if len(next) > most {
			return nil, fmt.Errorf("%w: %d above %d", store.ErrTooMany, len(next), most)
		}
		return next, nil
	})
}

// ChangeGroup implements store.Store. A name that is both added and removed is removed.
func (s *Store) ChangeGroup(_ context.Context, name string, add, remove []string, most int) (store.GroupInfo, []string, []string, error) {
	add, remove = sorted(add), sorted(remove)
	return s.changeGroup(name, true, func(old *group) ([]string, error) {
		if !old.exists {
			return nil, fmt.Errorf("%w: group %s", store.ErrNotFound, name)
		}
		next := merge(old.members, add, remove)
		if len(next) > most && len(next) > len(old.members) {
			return nil, fmt.Errorf("%w: %d above %d", store.ErrTooMany, len(next), most)
		}
		return next, nil
	})
}

// DeleteGroup implements store.Store.
func (s *Store) DeleteGroup(_ context.Context, name string) ([]string, error) {
	_, _, removed, err := s.changeGroup(name, false, func(old *group) ([]string, error) {
		if !old.exists {
			return nil, fmt.Errorf("%w: group %s", store.ErrNotFound, name)
		}
		return nil, nil
	})
	return removed, err
}

// readGroups gives f a generation whose member rows are durable.
func (s *Store) readGroups(f func(g *generation) error) error {
	g, err := s.acquire()
	if err != nil {
		return err
	}
	defer g.release()
	g.groups.change.RLock()
	defer g.groups.change.RUnlock()
	return f(g)
}

// Group implements store.Store.
func (s *Store) Group(_ context.Context, name string) (info store.GroupInfo, err error) {
	err = s.readGroups(func(g *generation) error {
		grp, err := g.group(name)
		if err != nil {
			return err
		}
		if !grp.exists {
			return fmt.Errorf("%w: group %s", store.ErrNotFound, name)
		}
		info, err = g.groupInfo(grp)
		return err
	})
	return info, err
}

// Members implements store.Store. The cursor is the last name of the page before.
func (s *Store) Members(_ context.Context, name, cursor string, limit int) (members []string, next string, err error) {
	err = s.readGroups(func(g *generation) error {
		grp, err := g.group(name)
		if err != nil {
			return err
		}
		if !grp.exists {
			return fmt.Errorf("%w: group %s", store.ErrNotFound, name)
		}
		i, found := slices.BinarySearch(grp.members, cursor)
		if found {
			i++
		}
		rest := grp.members[i:]
		if len(rest) > limit {
			rest = rest[:limit]
			next = rest[limit-1]
		}
		members = slices.Clone(rest)
		return nil
	})
	return members, next, err
}

// IsMember implements store.Store.
func (s *Store) IsMember(_ context.Context, name, user string) (exists, member bool, err error) {
	err = s.readGroups(func(g *generation) error {
		grp, err := g.group(name)
		if err == nil {
			exists, member = grp.exists, grp.has(user)
		}
		return err
	})
	return exists, member, err
}

// TryMember implements store.Store.
func (s *Store) TryMember(name, user string) (exists, member, known bool) {
	g := s.gen.Load()
	if grp := g.groups.cached(name); grp != nil && !s.closed.Load() {
		return grp.exists, grp.has(user), true
	}
	return false, false, false
}

// GroupsOf implements store.Store.
func (s *Store) GroupsOf(_ context.Context, user string) (list []string, err error) {
	err = s.readGroups(func(g *generation) error {
		list, err = g.groupsOf(user)
		return err
	})
	return list, err
}

func (g *generation) groupsOf(user string) ([]string, error) {
	prefix := pairKey(kMemberOf, user, "")
	it, err := g.iter(prefix, prefixEnd(prefix))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var list []string
	for ok := it.First(); ok; ok = it.Next() {
		list = append(list, string(it.Key()[len(prefix):]))
	}
	return list, g.readError("groups", it.Error())
}

// joinedAt is the sequence of the group at which a user joined; false for who is no member.
func (g *generation) joinedAt(name, user string) (uint64, bool, error) {
	return g.getNumber(pairKey(kMember, name, user))
}
