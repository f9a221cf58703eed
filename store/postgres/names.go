package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/store"
)

// names remembers the ids of names. A pair never changes while the database is the same; every transaction that writes by an id reads the name beside
// it, so one that was restored or failed over behind our back is noticed (errStaleID).
//
// Two maps instead of a list by age: when the young one is full it becomes the old one, and what is used moves back.
type names struct {
	mu         sync.Mutex
	limit      int
	young, old map[string]int64
}

func (n *names) init(limit int) { n.limit, n.young = limit, make(map[string]int64) }

func (n *names) get(name string) (int64, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if id, ok := n.young[name]; ok {
		return id, true
	}
	id, ok := n.old[name]
	if ok {
		n.putLocked(name, id)
	}
	return id, ok
}

func (n *names) put(name string, id int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.putLocked(name, id)
}

func (n *names) putLocked(name string, id int64) {
	if len(n.young) >= n.limit/2 {
		n.old, n.young = n.young, make(map[string]int64)
	}
	n.young[name] = id
}

func (n *names) clear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.young, n.old = make(map[string]int64), nil
}

// forgetIDs is called when an id turned out to be another's.
func (s *Store) forgetIDs() {
	s.users.clear()
	s.convs.clear()
}

// missing are the names without a known id, sorted, each once; ids gets the known ones.
func (n *names) missing(list []string, ids map[string]int64) (unknown []string) {
	for _, name := range list {
		if _, done := ids[name]; done {
			continue
		}
		if id, ok := n.get(name); ok {
			ids[name] = id
		} else {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return slices.Compact(unknown)
}

// makeAttempts bounds how often ids are asked for: once a name is there it is seen, unless another process is just making it.
const makeAttempts = 20

// userIDs gives every name an id, in ids. Names that are new are made, in their order, in a statement of its own: a commit only ever locks rows
// that were there before.
func (s *Store) userIDs(ctx context.Context, list []string, ids map[string]int64) error {
	unknown := s.users.missing(list, ids)
	for range makeAttempts {
		if len(unknown) == 0 {
			return nil
		}
		rows, err := s.reads.Query(ctx, `select name, id from users where name = any($1)`, unknown)
		if err := s.takeIDs(&s.users, rows, err, ids); err != nil {
			return err
		}
		if unknown = s.users.missing(unknown, ids); len(unknown) == 0 {
			return nil
		}
		rows, err = s.reads.Query(ctx, `insert into users (name) select n from unnest($1::text[]) n on conflict do nothing returning name, id`, unknown)
		if err := s.takeIDs(&s.users, rows, err, ids); err != nil {
			return err
		}
		unknown = s.users.missing(unknown, ids)
	}
	return s.failed("users", fmt.Errorf("%d names could not be made", len(unknown)))
}

// takeIDs reads rows of name and id.
func (s *Store) takeIDs(n *names, rows pgx.Rows, err error, ids map[string]int64) error {
	if err == nil {
		var name string
		var id int64
		_, err = pgx.ForEachRow(rows, []any{&name, &id}, func() error {
			ids[name] = id
			n.put(name, id)
			return nil
		})
	}
	return s.failed("names", err)
}

// convID is the id of one conversation, 0 if it has none.
func (s *Store) convID(ctx context.Context, name string) (int64, error) {
	ids := make(map[string]int64, 1)
	err := s.findConvIDs(ctx, []string{name}, ids)
	return ids[name], err
}

const findConvs = `select name, id from convs where name = any($1)`

// findConvIDs puts the ids of those conversations that exist into ids.
func (s *Store) findConvIDs(ctx context.Context, list []string, ids map[string]int64) error {
	unknown := s.convs.missing(list, ids)
	if len(unknown) == 0 {
		return nil
	}
	rows, err := s.reads.Query(ctx, findConvs, unknown)
	return s.takeIDs(&s.convs, rows, err, ids)
}

// makeConvIDs gives every conversation an id. The users of the private ones are in users.
func (s *Store) makeConvIDs(ctx context.Context, list []string, users, ids map[string]int64) error {
	for range makeAttempts {
		if err := s.findConvIDs(ctx, list, ids); err != nil {
			return err
		}
		unknown := s.convs.missing(list, ids)
		if len(unknown) == 0 {
			return nil
		}
		a, b := make([]int64, len(unknown)), make([]int64, len(unknown))
		for i, name := range unknown {
			if kind, x, y := store.ConvKind(name); kind == 'p' {
				a[i], b[i] = users[x], users[y]
			}
		}
		rows, err := s.reads.Query(ctx, `insert into convs (name, a, b) select * from unnest($1::text[], $2::bigint[], $3::bigint[])
			on conflict do nothing returning name, id`, unknown, a, b)
		if err := s.takeIDs(&s.convs, rows, err, ids); err != nil {
			return err
		}
	}
	return s.failed("conversations", fmt.Errorf("%d names could not be made", len(list)))
}
