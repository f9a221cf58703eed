package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/meshtalk/meshtalk/store"
)

// userHead is a user's row while the commit holds its lock.
type userHead struct {
	id, head int64
	name     string
	bucket   int32
	moved    bool
}

// convHead is a conversation's row, likewise.
type convHead struct {
	id   int64
	name string
	kind byte
	a, b *userHead // private: both; the system's: a
	group
	head, ts           int64
	lastSeq, lastTS    int64
	lastOrd            int64
	lastA, lastB       int64
	bucket, lastBucket int32
	events, fromA      int32
	moved              bool
}

// group is what a commit must know of a group.
type group struct {
	exists      bool
	size        int
	members     []*userHead // in byte order; nil above the inbox limit
	largeFirst  int64
	largeBucket int32
	noted       bool // large… moved
}

type repeat struct {
	seq, ts, fingerprint int64
}

type member struct {
	conv int64
	name string
}

// target names a message that is to be taken back.
type target struct {
	conv, seq int64
}

type targetRow struct {
	kind   store.Kind
	from   string
	ts     int64
	event  int64 // that took it back already; 0 = none
	bucket int32

	eventTS int64
	eventID [16]byte
	row     int // in commit.rows, if it is of this batch; else −1
	content []byte
}

// identify finds and makes the ids that the batch needs, outside the transaction. Nothing is made for what will be refused.
func (c *commit) identify(ctx context.Context) error {
	c.userIDs, c.convIDs, c.groups = make(map[string]int64), make(map[string]int64), false
	names := make([]string, 0, len(c.drafts))
	for _, d := range c.drafts {
		names = append(names, d.Conv)
	}
	if err := c.s.findConvIDs(ctx, names, c.convIDs); err != nil {
		return err
	}
	names = names[:0]
	var users []string
	for _, d := range c.drafts {
		kind, a, b := store.ConvKind(d.Conv)
		known := c.convIDs[d.Conv] != 0
		switch {
		case kind == 0 || d.Kind == store.Recall && !known:
			continue
		case kind == 'p' && (known || d.From == a || d.From == b):
			users = append(users, a, b)
		case kind == 'n':
			users = append(users, a)
		case kind == 'g' && (known || d.Promised):
			c.groups = true
			if d.From != "" {
				users = append(users, d.From)
			}
		default:
			continue
		}
		if !known {
			names = append(names, d.Conv)
		}
	}
	if err := c.s.userIDs(ctx, users, c.userIDs); err != nil {
		return err
	}
	return c.s.makeConvIDs(ctx, names, c.userIDs, c.convIDs)
}

// The statements that open the transaction. Rows are locked in the order of their ids: conversations, then users; so two commits never wait for
// each other.
const (
	fence = `update offsets set next = case when $2::bigint = 0 then next else $2 end, commits = commits + 1, owner = $5
		where part = $1 and next = $3 and commits = $4 returning (select first_bucket from meta)`
	findRepeats = `select msgid, seq, ts, fingerprint from repeats where msgid = any($1::uuid[]) and bucket >= (select first_repeat from meta)`
	lockConvs   = `select id, name, head, ts, bucket, events, from_a, last_seq, last_ts, last_ord, last_bucket, last_a, last_b
		from convs where id = any($1::bigint[]) order by id for no key update`
	findGroups = `select id, size, large_bucket, large_first from groups where id = any($1::bigint[]) and not deleted`
	// Only of groups whose messages go into inboxes.
	findMembers = `select m.grp, m.usr, m.name from groups g join members m on m.grp = g.id
		where g.id = any($1::bigint[]) and g.size <= $2 order by m.grp, m.name`
	findSenders = `select m.grp, m.name from unnest($1::bigint[], $2::text[]) x (grp, name) join members m on m.grp = x.grp and m.name = x.name`
	findTargets = `select m.conv, m.seq, m.kind, coalesce(u.name, ''), m.ts, m.target, m.bucket, m.content, coalesce(e.ts, 0), coalesce(e.msgid, m.msgid)
		from unnest($1::bigint[], $2::bigint[]) x (conv, seq)
		join messages m on m.conv = x.conv and m.seq = x.seq and m.bucket >= (select first_bucket from meta)
		left join messages e on m.kind <> 4 and m.target > 0 and e.conv = m.conv and e.seq = m.target and e.bucket >= m.bucket
		left join users u on u.id = m.sender`
	lockUsers = `select id, name, head, bucket from users where id = any($1::bigint[]) order by id for no key update`
	nextOrder = `select nextval('commits')`
)

// lock opens the transaction, moves the offset, and reads and locks what the batch needs: one round trip, two if a group is in it.
func (c *commit) lock(ctx context.Context, conn *pgxpool.Conn) error {
	b := &pgx.Batch{}
	b.Queue(`begin`)
	c.queueFence(b)
	c.queueRepeats(b)
	c.queueConvs(b)
	if c.groups {
		c.queueGroups(b)
	}
	c.queueTargets(b)
	if !c.groups {
		c.queueUsers(b)
	}
	if err := c.send(ctx, conn, b); err != nil {
		return err
	}
	if !c.fenceMoved {
		return fmt.Errorf("%w: partition %d", store.ErrFenced, c.part)
	}
	if !c.groups {
		return nil
	}
	b = &pgx.Batch{}
	c.queueUsers(b)
	return c.send(ctx, conn, b)
}

// send runs a batch with its callbacks.
func (c *commit) send(ctx context.Context, conn *pgxpool.Conn, b *pgx.Batch) error {
	c.s.stats.statements.Add(int64(b.Len()))
	return conn.SendBatch(ctx, b).Close()
}

// each queues a query and gives f its rows.
func each(b *pgx.Batch, query string, args []any, scans []any, f func() error) {
	b.Queue(query, args...).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, scans, f)
		return err
	})
}

func (c *commit) queueFence(b *pgx.Batch) {
	args := []any{c.part, c.next, c.at.next, c.at.commits, c.s.owner}
	each(b, fence, args, []any{&c.firstBucket}, func() error {
		c.fenceMoved = true
		return nil
	})
}

func (c *commit) queueRepeats(b *pgx.Batch) {
	ids := make([][16]byte, len(c.drafts))
	for i, d := range c.drafts {
		ids[i] = d.MsgID
	}
	var id [16]byte
	var r repeat
	each(b, findRepeats, []any{ids}, []any{&id, &r.seq, &r.ts, &r.fingerprint}, func() error {
		if c.repeats == nil {
			c.repeats = make(map[[16]byte]repeat)
		}
		c.repeats[id] = r
		return nil
	})
}

func (c *commit) queueConvs(b *pgx.Batch) {
	ids := make([]int64, 0, len(c.convIDs))
	for name, id := range c.convIDs {
		if c.convs[id] != nil { // two names of one id
			continue
		}
		kind, x, y := store.ConvKind(name)
		v := &convHead{id: id, name: name, kind: kind}
		switch kind {
		case 'p':
			v.a, v.b = c.user(x), c.user(y)
		case 'n':
			v.a = c.user(x)
		}
		c.convs[id] = v
		ids = append(ids, id)
	}
	found := 0
	var r convHead
	b.Queue(lockConvs, ids).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&r.id, &r.name, &r.head, &r.ts, &r.bucket, &r.events, &r.fromA, &r.lastSeq, &r.lastTS, &r.lastOrd,
			&r.lastBucket, &r.lastA, &r.lastB}, func() error {
			v := c.convs[r.id]
			if v.name != r.name {
				return errStaleID
			}
			found++
			r.kind, r.a, r.b = v.kind, v.a, v.b
			*v = r
			return nil
		})
		if err == nil && found < len(ids) {
			err = errStaleID
		}
		return err
	})
}

// user is the head of a user with an id, to be locked; nil for one without.
func (c *commit) user(name string) *userHead {
	id := c.userIDs[name]
	if id == 0 {
		return nil
	}
	return c.userOf(id, name)
}

func (c *commit) userOf(id int64, name string) *userHead {
	u := c.users[id]
	if u == nil {
		u = &userHead{id: id, name: name}
		c.users[id] = u
	}
	return u
}

func (c *commit) queueGroups(b *pgx.Batch) {
	var ids []int64
	for _, v := range c.convs {
		if v.kind == 'g' {
			ids = append(ids, v.id)
		}
	}
	var grp int64
	var g group
	each(b, findGroups, []any{ids}, []any{&grp, &g.size, &g.largeBucket, &g.largeFirst}, func() error {
		g.exists = true
		c.convs[grp].group = g
		return nil
	})
	var usr int64
	var name string
	each(b, findMembers, []any{ids, c.s.opts.InboxLimit}, []any{&grp, &usr, &name}, func() error {
		v := c.convs[grp]
		v.members = append(v.members, c.userOf(usr, name))
		return nil
	})
	ids = nil
	var senders []string
	for _, d := range c.drafts {
		if kind, _, _ := store.ConvKind(d.Conv); kind == 'g' && d.From != "" && !d.Promised {
			if id := c.convIDs[d.Conv]; id != 0 {
				ids, senders = append(ids, id), append(senders, d.From)
			}
		}
	}
	each(b, findSenders, []any{ids, senders}, []any{&grp, &name}, func() error {
		if c.members == nil {
			c.members = make(map[member]bool)
		}
		c.members[member{grp, name}] = true
		return nil
	})
	for _, d := range c.drafts { // who gets a promised message of a group that he has left
		if d.Promised && d.From != "" {
			c.user(d.From)
		}
	}
}

func (c *commit) queueTargets(b *pgx.Batch) {
	var convs, seqs []int64
	for _, d := range c.drafts {
		if id := c.convIDs[d.Conv]; d.Kind == store.Recall && id != 0 && d.Target > 0 {
			convs, seqs = append(convs, id), append(seqs, int64(d.Target))
		}
	}
	if len(convs) == 0 {
		return
	}
	c.targets = make(map[target]*targetRow, len(convs))
	var t target
	var r targetRow
	each(b, findTargets, []any{convs, seqs}, []any{&t.conv, &t.seq, &r.kind, &r.from, &r.ts, &r.event, &r.bucket, &r.content, &r.eventTS, &r.eventID}, func() error {
		row := r
		row.row, row.content = -1, slices.Clone(r.content)
		c.targets[t] = &row
		return nil
	})
}

func (c *commit) queueUsers(b *pgx.Batch) {
	ids := make([]int64, 0, len(c.users))
	for id := range c.users {
		ids = append(ids, id)
	}
	found := 0
	var r userHead
	b.Queue(lockUsers, ids).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&r.id, &r.name, &r.head, &r.bucket}, func() error {
			u := c.users[r.id]
			if u.name != r.name {
				return errStaleID
			}
			u.head, u.bucket = r.head, r.bucket
			found++
			return nil
		})
		if err == nil && found < len(ids) {
			err = errStaleID
		}
		return err
	})
	each(b, nextOrder, nil, []any{&c.serial}, func() error { return nil })
}
