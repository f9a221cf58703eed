package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/store"
)

// largeGroups are the large groups of a user: above the limit ($2) or holding messages without inbox entries; $3 is a name, or ” for all. The
// terminals' positions in a group come as two arrays.
const largeGroups = `select c.name, c.head, m.joined, g.large_first, g.large_bucket >= t.first_bucket and g.large_first > 0,
		coalesce((select first from conv_days d where d.conv = g.id and d.bucket >= t.first_bucket order by d.bucket limit 1), c.head + 1),
		array(select terminal from large_positions p where p.usr = m.usr and p.grp = g.id order by terminal),
		array(select pos from large_positions p where p.usr = m.usr and p.grp = g.id order by terminal)
	from users u join members m on m.usr = u.id join groups g on g.id = m.grp join convs c on c.id = g.id cross join meta t
	where u.name = $1 and (g.size > $2 or g.large_bucket >= t.first_bucket and g.large_first > 0) and ($3 = '' or c.name = $3)
	order by c.name`

// standing is what is known of a user when a terminal comes.
type standing struct {
	view    view
	revoked int64
	acks    map[string]uint64 // by terminal
	large   []largeStanding
}

// largeStanding is a user in a large group.
type largeStanding struct {
	store.LargePosition
	floor uint64            // what was said up to here came through the inbox, or before the join
	at    map[string]uint64 // by terminal
}

// standing reads it in one round trip, with what this process has not written yet.
func (s *Store) standing(ctx context.Context, user string) (st standing, err error) {
	st.acks = make(map[string]uint64)
	s.pendingAcks(user, st.acks)
	waiting := s.pendingLarge(user)
	b := &pgx.Batch{}
	b.Queue(viewUser, user).QueryRow(st.view.scan)
	b.Queue(`select p.terminal, p.pos from users u join positions p on p.usr = u.id where u.name = $1`, user).Query(func(rows pgx.Rows) error {
		return s.takeAcks(rows, nil, st.acks)
	})
	b.Queue(`select m.revoked from users u join marks m on m.usr = u.id where u.name = $1`, user).QueryRow(func(row pgx.Row) error {
		if err := row.Scan(&st.revoked); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		return nil
	})
	s.queueLarge(b, user, "", waiting, &st.large)
	return st, s.failed("attach", s.reads.SendBatch(ctx, b).Close())
}

// pendingLarge are the positions in large groups that wait to be written, by group and terminal.
func (s *Store) pendingLarge(user string) map[[2]string]uint64 {
	all := make(map[[2]string]uint64)
	s.pending.of(user, func(k posKey, v uint64) {
		if k.kind == posLarge {
			all[[2]string{k.b, k.a}] = max(all[[2]string{k.b, k.a}], v)
		}
	})
	return all
}

func (s *Store) queueLarge(b *pgx.Batch, user, conv string, waiting map[[2]string]uint64, list *[]largeStanding) {
	var name string
	var head, joined, largeFirst, first int64
	var holds bool
	var terminals []string
	var at []int64
	scans := []any{&name, &head, &joined, &largeFirst, &holds, &first, &terminals, &at}
	each(b, largeGroups, []any{user, s.opts.InboxLimit, conv}, scans, func() error {
		g := largeStanding{at: make(map[string]uint64)}
		_, g.Group, _ = store.ConvKind(name)
		g.Head, g.First = uint64(head), uint64(first)
		// What was said before the first message without inbox entries came through the inbox.
		g.floor = max(uint64(joined), g.Head)
		if holds {
			g.floor = max(uint64(joined), uint64(largeFirst)-1)
		}
		for i, t := range terminals {
			g.at[t] = uint64(at[i])
		}
		for k, v := range waiting {
			if k[0] == g.Group {
				g.at[k[1]] = max(g.at[k[1]], v)
			}
		}
		*list = append(*list, g)
		return nil
	})
}

// position is where a terminal stands in the group.
func (g *largeStanding) position(terminal string) store.LargePosition {
	p := g.LargePosition
	p.Acked = max(g.floor, g.at[terminal])
	return p
}

// Attach implements store.Store: one round trip, for a terminal never seen before two more. Of two nodes that attach the same terminal at once
// one creates it and both read the same.
func (s *Store) Attach(ctx context.Context, user, terminal string) (a store.Attachment, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return a, err
	}
	defer end()
	st, err := s.standing(ctx, user)
	if err != nil {
		return a, err
	}
	if _, known := st.acks[terminal]; !known {
		if err := s.createTerminal(ctx, user, terminal, &st); err != nil {
			return a, err
		}
		if st, err = s.standing(ctx, user); err != nil {
			return a, err
		}
	}
	a.Inbox, a.RevokedBefore, a.Acked = st.view.box(), st.revoked, st.acks[terminal]
	for _, at := range st.acks {
		a.Furthest = max(a.Furthest, at)
	}
	for i := range st.large {
		a.Large = append(a.Large, st.large[i].position(terminal))
	}
	return a, nil
}

// createTerminal makes the first positions of a terminal: those of the furthest terminal of its user, as they are in the table at that moment or
// wait here.
func (s *Store) createTerminal(ctx context.Context, user, terminal string, st *standing) error {
	ids := make(map[string]int64, 1)
	if err := s.userIDs(ctx, []string{user}, ids); err != nil {
		return err
	}
	usr, furthest := ids[user], uint64(0)
	for _, at := range st.acks {
		furthest = max(furthest, at)
	}
	var groups, at []int64
	for i := range st.large {
		g := &st.large[i]
		most := uint64(0)
		for _, p := range g.at {
			most = max(most, p)
		}
		if most > g.position(terminal).Acked {
			id, err := s.convID(ctx, store.GroupConv(g.Group))
			if err != nil {
				return err
			}
			groups, at = append(groups, id), append(at, int64(most))
		}
	}
	return s.again(ctx, "attach", func() error {
		b := &pgx.Batch{} // one transaction
		b.Queue(`insert into positions (usr, terminal, pos)
			select $1, $2, greatest($3::bigint, (select max(pos) from positions where usr = $1)) on conflict do nothing`, usr, terminal, int64(furthest))
		if len(groups) > 0 {
			b.Queue(`insert into large_positions (usr, grp, terminal, pos) select $1, grp, $2, pos from unnest($3::bigint[], $4::bigint[]) x (grp, pos)
				on conflict (usr, grp, terminal) do update set pos = excluded.pos where large_positions.pos < excluded.pos`, usr, terminal, groups, at)
		}
		return s.reads.SendBatch(ctx, b).Close()
	})
}

// AttachGroup implements store.Store.
func (s *Store) AttachGroup(ctx context.Context, user, terminal, name string) (p store.LargePosition, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return p, err
	}
	defer end()
	var list []largeStanding
	member := false
	waiting := s.pendingLarge(user)
	b := &pgx.Batch{}
	s.queueLarge(b, user, store.GroupConv(name), waiting, &list)
	var head, first int64
	each(b, `select c.head, coalesce((select first from conv_days d where d.conv = c.id and d.bucket >= t.first_bucket order by d.bucket limit 1), c.head + 1)
		from convs c join members m on m.grp = c.id cross join meta t where c.name = $1 and m.name = $2`,
		[]any{store.GroupConv(name), user}, []any{&head, &first}, func() error {
			member = true
			return nil
		})
	if err := s.reads.SendBatch(ctx, b).Close(); err != nil {
		return p, s.failed("attach", err)
	}
	switch {
	case !member:
		return p, fmt.Errorf("%w: %s in group %s", store.ErrForbidden, user, name)
	case len(list) == 0: // not large: everything of it is in the inbox
		return store.LargePosition{Group: name, Acked: uint64(head), Head: uint64(head), First: uint64(first)}, nil
	}
	return list[0].position(terminal), nil
}
