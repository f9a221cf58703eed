package postgres

import (
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/store"
)

// rows are the new rows of a commit, by column as the statements take them. What they refer to is the drafts'.
type rows struct {
	// messages
	conv, seq, ts, place, sender, typ, target []int64
	bucket, events, fromA                     []int32
	msgID                                     [][16]byte
	kind                                      []int16
	large                                     []bool
	id, content                               [][]byte
	// no columns
	from    []string        // for recalls in the same batch
	entries []int           // how many entries are its
	result  []*store.Result // its draft's

	entry struct {
		user              []*userHead
		usr, n, conv, seq []int64
		bucket            []int32
	}
	fingerprint []int64 // repeats; their other columns are the messages'
	repeatedID  [][16]byte

	convDays, userDays firsts

	recalled recalledRows
	kept     keptRows
	event    eventRows
}

// recalledRows are messages of earlier commits that are taken back.
type recalledRows struct {
	conv, seq, event []int64
	bucket           []int32
}

// keptRows are contents of recalled messages, for the outbox.
type keptRows struct {
	conv, seq []int64
	content   [][]byte
}

// eventRows are of the outbox.
type eventRows struct {
	kind               []int16
	ts, usr, conv, seq []int64
	target             []int64
	part, bucket       []int32
}

// firsts are rows of user_days or conv_days.
type firsts struct {
	id, first []int64
	bucket    []int32
}

func (f *firsts) add(id int64, bucket int32, first int64) {
	f.id, f.bucket, f.first = append(f.id, id), append(f.bucket, bucket), append(f.first, first)
}

// reset keeps the memory of the columns, and nothing that they refer to.
func (w *rows) reset() {
	clear(w.id)
	clear(w.content)
	clear(w.from)
	clear(w.result)
	clear(w.entry.user)
	cut(&w.conv, &w.seq, &w.ts, &w.place, &w.sender, &w.typ, &w.target, &w.fingerprint)
	cut(&w.entry.usr, &w.entry.n, &w.entry.conv, &w.entry.seq)
	cut(&w.bucket, &w.events, &w.fromA, &w.entry.bucket)
	cut(&w.msgID, &w.repeatedID)
	cut(&w.kind)
	cut(&w.large)
	cut(&w.id, &w.content)
	cut(&w.from)
	cut(&w.entries)
	cut(&w.result)
	cut(&w.entry.user)
	w.convDays, w.userDays = firsts{}, firsts{}
	w.recalled, w.kept, w.event = recalledRows{}, keptRows{}, eventRows{}
}

func cut[T any](columns ...*[]T) {
	for _, c := range columns {
		*c = (*c)[:0]
	}
}

func (w *rows) addMessage(d *store.Draft, v *convHead, sender, place int64, entries int, r *store.Result) {
	w.conv, w.seq, w.ts, w.place = append(w.conv, v.id), append(w.seq, v.head), append(w.ts, v.ts), append(w.place, place)
	w.sender, w.typ, w.target = append(w.sender, sender), append(w.typ, d.Type), append(w.target, int64(d.Target))
	w.bucket, w.events, w.fromA = append(w.bucket, v.bucket), append(w.events, v.events), append(w.fromA, v.fromA)
	w.msgID, w.kind, w.large = append(w.msgID, d.MsgID), append(w.kind, int16(d.Kind)), append(w.large, r.Large)
	content := d.Content
	if d.Kind == store.Recall {
		content = nil
	}
	w.id, w.content = append(w.id, d.ID), append(w.content, content)
	w.from, w.entries, w.result = append(w.from, d.From), append(w.entries, entries), append(w.result, r)
}

func (w *rows) addEntry(u *userHead, v *convHead, bucket int32) {
	e := &w.entry
	e.user, e.usr, e.n = append(e.user, u), append(e.usr, u.id), append(e.n, 0)
	e.conv, e.seq, e.bucket = append(e.conv, v.id), append(e.seq, v.head), append(e.bucket, bucket)
}

func (w *rows) addRepeat(d *store.Draft, fp int64) {
	w.repeatedID, w.fingerprint = append(w.repeatedID, d.MsgID), append(w.fingerprint, fp)
}

func (w *rows) addRecalled(conv, seq int64, bucket int32, event int64) {
	r := &w.recalled
	r.conv, r.seq, r.bucket, r.event = append(r.conv, conv), append(r.seq, seq), append(r.bucket, bucket), append(r.event, event)
}

func (w *rows) keep(conv, seq int64, content []byte) {
	k := &w.kept
	k.conv, k.seq, k.content = append(k.conv, conv), append(k.seq, seq), append(k.content, content)
}

func (w *rows) addEvent(d *store.Draft, v *convHead) {
	e := &w.event
	kind := store.EventStored
	if d.Kind == store.Recall {
		kind = store.EventRecalled
	}
	e.part = append(e.part, int32(v.at.number))
	e.kind, e.ts, e.usr = append(e.kind, int16(kind)), append(e.ts, v.ts), append(e.usr, 0)
	e.conv, e.seq, e.bucket, e.target = append(e.conv, v.id), append(e.seq, v.head), append(e.bucket, v.bucket), append(e.target, int64(d.Target))
}

// The statements that write. The users come last but for their inboxes: who claims their numbers keeps everybody else from them.
const (
	insertMessages = `insert into messages (conv, seq, ts, ord, sender, type, target, bucket, events, from_a, msgid, kind, large, id, content)
		select conv, seq, ts, (select nextval('commits')) << 14 | place, sender, type, target, bucket, events, from_a, msgid, kind, large, id, content
		from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
		$8::int[], $9::int[], $10::int[], $11::uuid[], $12::smallint[], $13::boolean[], $14::bytea[], $15::bytea[])
		x (conv, seq, ts, place, sender, type, target, bucket, events, from_a, msgid, kind, large, id, content)`
	insertInbox   = `insert into inbox (usr, n, conv, seq, bucket) select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::int[])`
	insertRepeats = `insert into repeats (msgid, seq, ts, fingerprint, bucket) select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::int[])`
	// A conversation that got only events keeps its newest message.
	updateConvs = `update convs c set head = x.head, ts = x.ts, bucket = x.bucket, events = x.events, from_a = x.from_a, last_seq = x.last_seq, last_ts = x.last_ts,
		last_ord = case when x.place < 0 then c.last_ord else currval('commits') << 14 | x.place end,
		last_bucket = x.last_bucket, last_a = x.last_a, last_b = x.last_b
		from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::int[], $5::int[], $6::int[], $7::bigint[], $8::bigint[], $9::bigint[], $10::int[], $11::bigint[], $12::bigint[])
		x (id, head, ts, bucket, events, from_a, last_seq, last_ts, place, last_bucket, last_a, last_b) where c.id = x.id`
	// Sorted by id, and a nested loop (sessionSettings) keeps that order: rows are locked in it. A user who is in a later day already stays
	// behind (errDayBehind).
	claimUsers = `update users u set head = u.head + x.n, bucket = x.bucket, first = case when u.bucket < x.opens then u.head + 1 else u.first end
		from unnest($1::bigint[], $2::bigint[], $3::int[], $4::int[]) x (id, n, opens, bucket)
		where u.id = x.id and u.bucket <= x.opens returning u.id, u.name, u.head - x.n, u.first`
	insertUserDays = `insert into user_days (usr, bucket, first) select * from unnest($1::bigint[], $2::int[], $3::bigint[])`
	dropUserDays   = `delete from user_days where usr = any($1::bigint[]) and bucket < $2` // the rows of who begins a new day; nobody else's matter
	insertConvDays = `insert into conv_days (conv, bucket, first) select * from unnest($1::bigint[], $2::int[], $3::bigint[])`
	dropConvDays   = `delete from conv_days where conv = any($1::bigint[]) and bucket < $2`
	updateRecalled = `update messages m set target = x.event, content = null from unnest($1::bigint[], $2::bigint[], $3::int[], $4::bigint[]) x (conv, seq, bucket, event)
		where m.conv = x.conv and m.seq = x.seq and m.bucket = x.bucket`
	updateLarge  = `update groups g set large_bucket = x.bucket, large_first = x.first from unnest($1::bigint[], $2::int[], $3::bigint[]) x (id, bucket, first) where g.id = x.id`
	insertKept   = `insert into recalled (conv, seq, content) select * from unnest($1::bigint[], $2::bigint[], $3::bytea[]) on conflict do nothing`
	insertOutbox = `insert into outbox (part, kind, ts, usr, conv, seq, bucket, target)
		select * from unnest($1::int[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::int[], $8::bigint[])`
)

// queueWrites writes all but the inboxes and claims the numbers in them.
func (c *commit) queueWrites(b *pgx.Batch) {
	w := &c.rows
	if len(w.seq) == 0 {
		return
	}
	b.Queue(insertMessages, w.conv, w.seq, w.ts, w.place, w.sender, w.typ, w.target, w.bucket, w.events, w.fromA, w.msgID, w.kind, w.large, w.id, w.content)
	b.Queue(insertRepeats, w.repeatedID, w.seq, w.ts, w.fingerprint, w.bucket)
	c.queueHeads(b)
	if f := &w.convDays; len(f.id) > 0 {
		b.Queue(insertConvDays, f.id, f.bucket, f.first)
		b.Queue(dropConvDays, f.id, c.firstBucket)
	}
	if r := &w.recalled; len(r.conv) > 0 {
		b.Queue(updateRecalled, r.conv, r.seq, r.bucket, r.event)
	}
	if k := &w.kept; len(k.conv) > 0 {
		b.Queue(insertKept, k.conv, k.seq, k.content)
	}
	if e := &w.event; len(e.kind) > 0 {
		b.Queue(insertOutbox, e.part, e.kind, e.ts, e.usr, e.conv, e.seq, e.bucket, e.target)
	}
	c.queueClaims(b)
}

// queueHeads writes the heads of conversations.
func (c *commit) queueHeads(b *pgx.Batch) {
	var v convRows
	var large firsts
	for _, h := range c.convs {
		if h.moved {
			v.add(h)
		}
		if h.group != nil && h.noted {
			large.add(h.id, h.largeBucket, h.largeFirst)
		}
	}
	b.Queue(updateConvs, v.id, v.head, v.ts, v.bucket, v.events, v.fromA, v.lastSeq, v.lastTS, v.lastPlace, v.lastBucket, v.lastA, v.lastB)
	if len(large.id) > 0 {
		b.Queue(updateLarge, large.id, large.bucket, large.first)
	}
}

func (c *commit) queueClaims(b *pgx.Batch) {
	ids := make([]int64, 0, len(c.users))
	for id, u := range c.users {
		if u.entries > 0 {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return
	}
	slices.Sort(ids)
	n, opens, bucket := make([]int64, len(ids)), make([]int32, len(ids)), make([]int32, len(ids))
	for i, id := range ids {
		u := c.users[id]
		n[i], opens[i], bucket[i] = u.entries, u.opens, u.bucket
	}
	var id, head, first int64
	var name string
	c.unclaimed = len(ids)
	b.Queue(claimUsers, ids, n, opens, bucket).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&id, &name, &head, &first}, func() error {
			u := c.users[id]
			if u.name != name {
				return errStaleID
			}
			u.head, u.began = head, first == head+1
			c.unclaimed--
			return nil
		})
		return err
	})
}

// queueInboxes writes the inboxes and commits.
func (c *commit) queueInboxes(b *pgx.Batch) {
	w := &c.rows
	if e := &w.entry; len(e.usr) > 0 {
		b.Queue(insertInbox, e.usr, e.n, e.conv, e.seq, e.bucket)
	}
	if f := &w.userDays; len(f.id) > 0 {
		b.Queue(insertUserDays, f.id, f.bucket, f.first)
		b.Queue(dropUserDays, f.id, c.firstBucket)
	}
	b.Queue(`commit`)
}

// convRows are conversations' rows by column.
type convRows struct {
	id, head, ts, lastSeq, lastTS, lastPlace, lastA, lastB []int64
	bucket, events, fromA, lastBucket                      []int32
}

func (v *convRows) add(h *convHead) {
	v.id, v.head, v.ts = append(v.id, h.id), append(v.head, h.head), append(v.ts, h.ts)
	v.lastSeq, v.lastTS, v.lastPlace = append(v.lastSeq, h.lastSeq), append(v.lastTS, h.lastTS), append(v.lastPlace, h.lastPlace)
	v.lastA, v.lastB = append(v.lastA, h.lastA), append(v.lastB, h.lastB)
	v.bucket, v.events, v.fromA, v.lastBucket = append(v.bucket, h.bucket), append(v.events, h.events), append(v.fromA, h.fromA), append(v.lastBucket, h.lastBucket)
}
