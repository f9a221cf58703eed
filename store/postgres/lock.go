package postgres

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/meshtalk/meshtalk/store"
)

// userHead is a user of the batch. Its row is moved, and so locked, as late as possible: a user is in the batches of many partitions at once.
type userHead struct {
	id      int64
	name    string
	entries int64 // that the batch has for it
	head    int64 // its number before them, as the claim gives it
	opens   int32 // the day of the first of them
	bucket  int32 // the day of the last one
	began   bool  // the first of them begins a day
}

// convHead is a conversation's row. Those of private and of the system's conversations are kept between commits: the fence
// keeps everybody else from writing them.
type convHead struct {
	id     int64
	name   string
	kind   byte
	at     *partition // of the commit at hand, as the next two
	a, b   *userHead  // private: both; the system's: a
	*group            // of the commit at hand; nil for no group

	head, ts        int64
	lastSeq, lastTS int64
	lastA, lastB    int64
	lastPlace       int64 // in the batch, of its newest message; −1: none

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
	clear(c.userIDs)
	clear(c.convIDs)
	c.recalls = false
	names := make([]string, 0, len(c.drafts))
	for _, d := range c.drafts {
		names = append(names, d.Conv)
	}
	if err := c.s.findConvIDs(ctx, names, c.convIDs); err != nil {
		return err
	}
	names = names[:0]
	users := make([]string, 0, 2*len(c.drafts))
	for _, d := range c.drafts {
		kind, a, b := store.ConvKind(d.Conv)
		known := c.convIDs[d.Conv] != 0
		c.recalls = c.recalls || d.Kind == store.Recall
		switch {
		case kind == 0 || d.Kind == store.Recall && !known:
			continue
		case kind == 'p' && (known || d.From == a || d.From == b):
			users = append(users, a, b)
		case kind == 'n':
			users = append(users, a)
		case kind == 'g' && (known || d.Promised):
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

// The statements that open the transaction. Rows are locked in one order: partitions by number, groups by their ids, other conversations (which are
// of these partitions only), users by their ids. So two commits never wait for each other.
const (
	// Sorted by part, and a nested loop (sessionSettings) keeps that order.
	fence = `update offsets o set next = case when x.next = 0 then o.next else x.next end, commits = o.commits + 1, owner = $5
		from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[]) x (part, next, stands, commits)
		where o.part = x.part and o.next = x.stands and o.commits = x.commits returning o.part, (select first_bucket from meta)`
	findRepeats = `select msgid, seq, ts, fingerprint from repeats where msgid = any($1::uuid[]) and bucket >= (select first_repeat from meta)`
	convColumns = `select id, name, head, ts, bucket, events, from_a, last_seq, last_ts, last_bucket, last_a, last_b
		from convs where id = any($1::bigint[])`
	readConvs  = convColumns
	lockConvs  = convColumns + ` order by id for no key update` // groups: their members change under the same lock
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
)

// queueOpen begins the transaction, moves the offsets and looks for repeats.
func (c *commit) queueOpen(b *pgx.Batch) {
	b.Queue(`begin`)
	c.queueFence(b)
	c.queueRepeats(b)
}

// opened checks what queueOpen asked.
func (c *commit) opened() error {
	if c.moved < len(c.shares) {
		return store.ErrFenced
	}
	return nil
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
	n := len(c.shares)
	parts, next, stands, commits := make([]int, n), make([]int64, n), make([]int64, n), make([]int64, n)
	byPart := make(map[int]*share, n)
	for i, sh := range c.shares {
		parts[i], next[i], stands[i], commits[i] = sh.at.number, sh.next, sh.at.next, sh.at.commits
		sh.moved = false
		byPart[sh.at.number] = sh
	}
	var part int
	each(b, fence, []any{parts, next, stands, commits, c.s.owner}, []any{&part, &c.firstBucket}, func() error {
		byPart[part].moved = true
		c.moved++
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

// knowConvs takes the heads that this process knows; unknown are those that are to be read, groups those that are to be locked.
func (c *commit) knowConvs() (unknown, groups []int64) {
	for _, sh := range c.shares {
		for _, d := range sh.drafts {
			id := c.convIDs[d.Conv]
			if id == 0 || c.convs[id] != nil {
				continue
			}
			kind, x, y := store.ConvKind(d.Conv)
			v := c.newConv()
			v.id, v.name, v.kind, v.lastPlace = id, d.Conv, kind, -1
			if kind == 'g' {
				v.group = &group{}
				groups = append(groups, id)
			} else if known := sh.at.heads.get(id); known != nil && known.name == d.Conv {
				*v = *known
			} else {
				unknown = append(unknown, id)
			}
			v.at = sh.at
			switch kind {
			case 'p':
				v.a, v.b = c.user(x), c.user(y)
			case 'n':
				v.a = c.user(x)
			}
			c.convs[id] = v
		}
	}
	return unknown, groups
}

func (c *commit) queueHeadsOf(b *pgx.Batch, query string, ids []int64) {
	found := 0
	var r convHead
	b.Queue(query, ids).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&r.id, &r.name, &r.head, &r.ts, &r.bucket, &r.events, &r.fromA, &r.lastSeq, &r.lastTS,
			&r.lastBucket, &r.lastA, &r.lastB}, func() error {
			v := c.convs[r.id]
			if v.name != r.name {
				return errStaleID
			}
			found++
			r.kind, r.at, r.a, r.b, r.group, r.lastPlace = v.kind, v.at, v.a, v.b, v.group, -1
			*v = r
			return nil
		})
		if err == nil && found < len(ids) {
			err = errStaleID
		}
		return err
	})
}

// user is a user with an id; nil for one without.
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
		u = c.newUser()
		u.id, u.name = id, name
		c.users[id] = u
	}
	return u
}

func (c *commit) queueGroups(b *pgx.Batch, ids []int64) {
	var grp int64
	var g group
	each(b, findGroups, []any{ids}, []any{&grp, &g.size, &g.largeBucket, &g.largeFirst}, func() error {
		*c.convs[grp].group = g
		c.convs[grp].exists = true
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
