package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/store"
)

// groupRow is a group as a change finds it, its conversation locked: no message is committed to it meanwhile, so a membership holds from one sequence on.
type groupRow struct {
	id, head    int64
	size        int
	exists      bool
	largeFirst  int64
	largeBucket int32
	firstBucket int32
}

// changeGroup runs f in a transaction that holds the group. made: the group may be made.
func (s *Store) changeGroup(ctx context.Context, name string, made bool, f func(ctx context.Context, tx pgx.Tx, g *groupRow) error) (info store.GroupInfo, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return info, err
	}
	defer end()
	conv := store.GroupConv(name)
	ids := make(map[string]int64, 1)
	if made {
		err = s.makeConvIDs(ctx, []string{conv}, nil, ids)
	} else {
		err = s.findConvIDs(ctx, []string{conv}, ids)
	}
	if err != nil {
		return info, err
	}
	if ids[conv] == 0 {
		return info, fmt.Errorf("%w: group %s", store.ErrNotFound, name)
	}
	err = s.again(ctx, "group", func() error {
		return pgx.BeginFunc(ctx, s.reads, func(tx pgx.Tx) error {
			g, err := lockGroup(ctx, tx, conv, ids[conv])
			if err != nil {
				return err
			}
			if err := f(ctx, tx, &g); err != nil {
				return err
			}
			info = store.GroupInfo{Group: name, Size: g.size, Large: s.large(&g), Head: uint64(g.head)}
			return nil
		})
	})
	s.members.forget(name)
	if errors.Is(err, errStaleID) {
		s.forgetIDs()
	}
	return info, err
}

func lockGroup(ctx context.Context, tx pgx.Tx, conv string, id int64) (g groupRow, err error) {
	var name string
	err = tx.QueryRow(ctx, `select id, name, head, (select first_bucket from meta) from convs where id = $1 for no key update`, id).Scan(&g.id, &name, &g.head, &g.firstBucket)
	if err == nil && name != conv || errors.Is(err, pgx.ErrNoRows) {
		return g, errStaleID
	}
	if err != nil {
		return g, err
	}
	err = tx.QueryRow(ctx, `select size, large_first, large_bucket, not deleted from groups where id = $1`, id).Scan(&g.size, &g.largeFirst, &g.largeBucket, &g.exists)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return g, err
}

func (s *Store) large(g *groupRow) bool {
	return g.size > s.opts.InboxLimit || g.largeFirst > 0 && g.largeBucket >= g.firstBucket
}

// sorted is a sorted copy of the names without repeats.
func sorted(names []string) []string {
	c := slices.Clone(names)
	slices.Sort(c)
	return slices.Compact(c)
}

// without are the names of a sorted list that are not in another.
func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(name string) bool {
		_, found := slices.BinarySearch(other, name)
		return found
	})
}

// PutGroup implements store.Store.
func (s *Store) PutGroup(ctx context.Context, name string, members []string, most int) (info store.GroupInfo, added, removed []string, err error) {
	list := sorted(members)
	if len(list) > most {
		return info, nil, nil, fmt.Errorf("%w: %d above %d", store.ErrTooMany, len(list), most)
	}
	ids, err := s.memberIDs(ctx, list)
	if err != nil {
		return info, nil, nil, err
	}
	info, err = s.changeGroup(ctx, name, true, func(ctx context.Context, tx pgx.Tx, g *groupRow) error {
		added, removed = nil, nil
		if members == nil {
			if g.size > most {
				return fmt.Errorf("%w: %d above %d", store.ErrTooMany, g.size, most)
			}
		} else {
			old, err := queryNames(ctx, tx, `select name from members where grp = $1 order by name`, g.id)
			if err != nil {
				return err
			}
			if added, err = addMembers(ctx, tx, g, without(list, old), ids); err != nil {
				return err
			}
			if removed, err = removeMembers(ctx, tx, g, without(old, list)); err != nil {
				return err
			}
		}
		return saveGroup(ctx, tx, g, true)
	})
	return info, added, removed, err
}

// ChangeGroup implements store.Store. A name that is both added and removed is removed.
func (s *Store) ChangeGroup(ctx context.Context, name string, add, remove []string, most int) (info store.GroupInfo, added, removed []string, err error) {
	remove = sorted(remove)
	add = without(sorted(add), remove)
	ids, err := s.memberIDs(ctx, add)
	if err != nil {
		return info, nil, nil, err
	}
	info, err = s.changeGroup(ctx, name, false, func(ctx context.Context, tx pgx.Tx, g *groupRow) (err error) {
		if !g.exists {
			return fmt.Errorf("%w: group %s", store.ErrNotFound, name)
		}
		before := g.size
		if removed, err = removeMembers(ctx, tx, g, remove); err != nil {
			return err
		}
		if added, err = addMembers(ctx, tx, g, add, ids); err != nil {
			return err
		}
		if g.size > most && g.size > before {
			return fmt.Errorf("%w: %d above %d", store.ErrTooMany, g.size, most)
		}
		return saveGroup(ctx, tx, g, true)
	})
	if err != nil {
		return info, nil, nil, err
	}
	return info, added, removed, nil
}

// DeleteGroup implements store.Store.
func (s *Store) DeleteGroup(ctx context.Context, name string) (members []string, err error) {
	_, err = s.changeGroup(ctx, name, false, func(ctx context.Context, tx pgx.Tx, g *groupRow) (err error) {
		if !g.exists {
			return fmt.Errorf("%w: group %s", store.ErrNotFound, name)
		}
		if members, err = queryNames(ctx, tx, `delete from members where grp = $1 returning name`, g.id); err != nil {
			return err
		}
		g.size = 0
		return saveGroup(ctx, tx, g, false)
	})
	slices.Sort(members)
	return members, err
}

// memberIDs are the ids of who is to become a member.
func (s *Store) memberIDs(ctx context.Context, list []string) (map[string]int64, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	ids := make(map[string]int64, len(list))
	return ids, s.userIDs(ctx, list, ids)
}

func queryNames(ctx context.Context, q querier, query string, args ...any) ([]string, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// addMembers adds who is no member yet and returns them, sorted: they join at the group's head.
func addMembers(ctx context.Context, tx pgx.Tx, g *groupRow, list []string, ids map[string]int64) ([]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	usr := make([]int64, len(list))
	for i, name := range list {
		usr[i] = ids[name]
	}
	added, err := queryNames(ctx, tx, `insert into members (grp, name, usr, joined) select $1, name, usr, $2 from unnest($3::text[], $4::bigint[]) x (name, usr)
		on conflict do nothing returning name`, g.id, g.head, list, usr)
	g.size += len(added)
	slices.Sort(added)
	return added, err
}

func removeMembers(ctx context.Context, tx pgx.Tx, g *groupRow, list []string) ([]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	removed, err := queryNames(ctx, tx, `delete from members where grp = $1 and name = any($2::text[]) returning name`, g.id, list)
	g.size -= len(removed)
	slices.Sort(removed)
	return removed, err
}

func saveGroup(ctx context.Context, tx pgx.Tx, g *groupRow, exists bool) error {
	_, err := tx.Exec(ctx, `insert into groups (id, size, deleted) values ($1, $2, $3)
		on conflict (id) do update set size = excluded.size, deleted = excluded.deleted`, g.id, g.size, !exists)
	return err
}

// Group implements store.Store.
func (s *Store) Group(ctx context.Context, name string) (info store.GroupInfo, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return info, err
	}
	defer end()
	var g groupRow
	err = s.reads.QueryRow(ctx, `select c.head, g.size, g.large_first, g.large_bucket, t.first_bucket
		from convs c join groups g on g.id = c.id cross join meta t where c.name = $1 and not g.deleted`, store.GroupConv(name)).
		Scan(&g.head, &g.size, &g.largeFirst, &g.largeBucket, &g.firstBucket)
	if errors.Is(err, pgx.ErrNoRows) {
		return info, fmt.Errorf("%w: group %s", store.ErrNotFound, name)
	}
	return store.GroupInfo{Group: name, Size: g.size, Large: s.large(&g), Head: uint64(g.head)}, s.failed("group", err)
}

// Members implements store.Store. The cursor is the last name of the page before.
func (s *Store) Members(ctx context.Context, name, cursor string, limit int) (members []string, next string, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, "", err
	}
	defer end()
	limit = max(limit, 1)
	var exists bool
	err = s.reads.QueryRow(ctx, `select g.id is not null, array(select name from members where grp = g.id and name > $2 order by name limit $3)
		from convs c join groups g on g.id = c.id where c.name = $1 and not g.deleted`, store.GroupConv(name), cursor, limit+1).Scan(&exists, &members)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, "", fmt.Errorf("%w: group %s", store.ErrNotFound, name)
	}
	if len(members) > limit {
		members = members[:limit]
		next = members[limit-1]
	}
	return members, next, s.failed("members", err)
}

// GroupsOf implements store.Store.
func (s *Store) GroupsOf(ctx context.Context, user string) (list []string, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	list, err = queryNames(ctx, s.reads, `select substr(c.name, 3) from users u join members m on m.usr = u.id join convs c on c.id = m.grp
		where u.name = $1 order by c.name`, user)
	return list, s.failed("groups", err)
}
