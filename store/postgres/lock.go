package postgres

import (
	"context"
	"fmt"
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
	a, b   *userHead // private: both; the system's: a. Of the commit at hand
	*group           // of the commit at hand; nil for no group

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

// The statements that open the transaction. Rows are locked in one order: the partition, groups by their ids, other conversations (which are of
// this partition only), users by their ids. So two commits never wait for each other.
const (
	fence = `update offsets set next = case when $2::bigint = 0 then next else $2 end, commits = commits + 1, owner = $5
		where part = $1 and next = $3 and commits = $4 returning (select first_bucket from meta)`
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

// queueOpen begins the transaction, moves the offset and looks for repeats.
func (c *commit) queueOpen(b *pgx.Batch) {
	b.Queue(`begin`)
	c.queueFence(b)
	c.queueRepeats(b)
}

// opened checks what queueOpen asked.
func (c *commit) opened() error {
	if !c.fenceMoved {
		return fmt.Errorf("%w: partition %d", store.ErrFenced, c.part)
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

// knowConvs takes the heads that this process knows; unknown are those that are to be read, groups those that are to be locked.
func (c *commit) knowConvs() (unknown, groups []int64) {
	for name, id := range c.convIDs {
		kind, x, y := store.ConvKind(name)
		v := c.newConv()
		v.id, v.name, v.kind, v.lastPlace = id, name, kind, -1
		if kind == 'g' {
			v.group = &group{}
			groups = append(groups, id)
		} else if known := c.at.heads.get(id); known != nil && known.name == name {
			*v = *known
		} else {
			unknown = append(unknown, id)
		}
		switch kind {
		case 'p':
			v.a, v.b = c.user(x), c.user(y)
		case 'n':
			v.a = c.user(x)
		}
		c.convs[id] = v
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
			r.kind, r.a, r.b, r.group, r.lastPlace = v.kind, v.a, v.b, v.group, -1
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
