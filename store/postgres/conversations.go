package postgres

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/store"
)

// cursor is where a page of conversations ended. They are ordered by their activity as it was when the first page was made (asOf, an order of
// messages), so that new traffic moves none of them.
type cursor struct {
	asOf, ts, ord int64
}

const cursorBytes = 24

func (c *cursor) encode() string {
	b := make([]byte, 0, cursorBytes)
	for _, v := range []int64{c.asOf, c.ts, c.ord} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(text string) (c cursor, err error) {
	if text == "" {
		return cursor{asOf: math.MaxInt64, ts: math.MaxInt64, ord: math.MaxInt64}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) != cursorBytes {
		return c, fmt.Errorf("%w: cursor", store.ErrNotFound)
	}
	for i, v := range []*int64{&c.asOf, &c.ts, &c.ord} {
		*v = int64(binary.BigEndian.Uint64(b[8*i:]))
	}
	return c, nil
}

// listConversations: the user's private conversations by convs_a and convs_b, its groups, the system's; each at its newest message up to
// asOf ($2), which is mostly in its row. Below the cursor ($3, $4), of the kept days.
const listConversations = `with me as materialized (select u.id, m.first_bucket from users u cross join meta m where u.name = $1),
	mine as (
		select v.*, 0::bigint as joined from me join convs v on v.a = me.id and v.a > 0
		union all select v.*, 0 from me join convs v on v.b = me.id and v.b > 0 and v.a <> v.b
		union all select v.*, m.joined from me join members m on m.usr = me.id join convs v on v.id = m.grp
		union all select v.*, 0 from me join convs v on v.name = 'n:' || $1)
	select mine.id, mine.name, mine.joined, mine.head, mine.events, mine.from_a, mine.a, mine.b,
		mine.last_seq, mine.last_bucket, mine.last_a, mine.last_b, x.ts, x.ord, max(x.ord) over (),
		me.id, me.first_bucket, d.buckets, d.firsts
	from me cross join mine cross join lateral (
		select mine.last_ts ts, mine.last_ord ord, mine.last_bucket bucket where mine.last_ord <= $2
		union all (select m.ts, m.ord, m.bucket from messages m
			where mine.last_ord > $2 and m.conv = mine.id and m.bucket between me.first_bucket and mine.last_bucket and m.ord <= $2 and m.kind <> 4
			order by m.seq desc limit 1)
	) x
	cross join lateral (select array_agg(bucket order by bucket) buckets, array_agg(first order by bucket) firsts
		from conv_days where conv = mine.id and bucket >= me.first_bucket) d
	where x.bucket >= me.first_bucket and x.ord > 0 and (x.ts, x.ord) < ($3::bigint, $4::bigint)
	order by x.ts desc, x.ord desc limit $5`

// line is a conversation on its way into a page.
type line struct {
	store.Conversation
	view
	kind          byte
	me, a, b      int64
	events, fromA int64 // as of the head
	joined        int64
	lastSeq       int64
	lastBucket    int32
	ts, ord       int64 // by which the page is ordered
	newest        int64 // order of the user's newest message

	lastMine int64  // private: the user's newest message, 0 if it is gone
	peerAt   uint64 // the peer's furthest terminal
}

// peer is the other user of a private conversation.
func (l *line) peer() int64 {
	if l.a == l.me {
		return l.b
	}
	return l.a
}

// Conversations implements store.Store: three round trips. It costs a row per conversation of the user, listed or not, and in groups one per
// unread message.
func (s *Store) Conversations(ctx context.Context, user, text string, limit int) (list []store.Conversation, next string, err error) {
	from, err := parseCursor(text)
	if err != nil {
		return nil, "", err
	}
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, "", err
	}
	defer end()
	limit = max(limit, 1)
	for range readAttempts {
		lines, err := s.listLines(ctx, user, from, limit+1)
		if err != nil || len(lines) == 0 {
			return nil, "", err
		}
		if text == "" {
			from.asOf = lines[0].newest
		}
		all := len(lines)
		lines, err = s.describe(ctx, user, lines[:min(limit, all)])
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		for i := range lines {
			list = append(list, lines[i].Conversation)
		}
		if n := len(lines); n < all {
			next = (&cursor{asOf: from.asOf, ts: lines[n-1].ts, ord: lines[n-1].ord}).encode()
		}
		return list, next, nil
	}
	return nil, "", s.failed("conversations", errGone)
}

func (s *Store) listLines(ctx context.Context, user string, from cursor, limit int) (lines []line, err error) {
	rows, err := s.reads.Query(ctx, listConversations, user, from.asOf, from.ts, from.ord, limit)
	if err != nil {
		return nil, s.failed("conversations", err)
	}
	defer rows.Close()
	for rows.Next() {
		var l line
		var lastA, lastB int64
		var buckets []int32
		var firsts []int64
		if err := rows.Scan(&l.id, &l.Conv, &l.joined, &l.head, &l.events, &l.fromA, &l.a, &l.b, &l.lastSeq, &l.lastBucket, &lastA, &lastB,
			&l.ts, &l.ord, &l.newest, &l.me, &l.kept, &buckets, &firsts); err != nil {
			return nil, s.failed("conversations", err)
		}
		l.days = makeDayFirsts(buckets, firsts)
		l.Head = uint64(l.head)
		l.classify(user, lastA, lastB)
		lines = append(lines, l)
	}
	return lines, s.failed("conversations", rows.Err())
}

func (l *line) classify(user string, lastA, lastB int64) {
	var name string
	switch l.kind, name, _ = store.ConvKind(l.Conv); l.kind {
	case 'p':
		l.Kind = "private"
		l.Peer, _ = store.Peer(l.Conv, user)
		if l.lastMine = lastA; l.me != l.a {
			l.lastMine = lastB
		}
		if l.lastMine < int64(l.box().First) {
			l.lastMine = 0
		}
	case 'g':
		l.Kind, l.Group = "group", name
	default:
		l.Kind = "system"
	}
}

// points name messages by the line that they belong to.
type points struct {
	line, bucket []int32
	conv, seq    []int64
}

func (p *points) add(i int, l *line, bucket int32, seq int64) {
	p.line, p.conv, p.bucket, p.seq = append(p.line, int32(i)), append(p.conv, l.id), append(p.bucket, bucket), append(p.seq, seq)
}

const (
	fromPoints = ` from unnest($1::int[], $2::bigint[], $3::int[], $4::bigint[]) x (line, conv, bucket, seq)
		join messages m on m.bucket = x.bucket and m.conv = x.conv and m.seq = x.seq `
	lastMessages = `select line::bigint, ` + messageColumns + ` from (
			select x.line, m.*, sum(octet_length(content)) over (order by line rows between unbounded preceding and 1 preceding) size` + fromPoints + `) m
		join convs c on c.id = m.conv left join users f on f.id = m.sender where coalesce(size, 0) < $5 order by line`
	readCounters = `select line, m.events, m.from_a, m.kind, m.sender` + fromPoints
	findReads    = `select x.line, r.pos from unnest($1::int[], $2::bigint[], $3::bigint[]) x (line, usr, conv) join reads r on r.usr = x.usr and r.conv = x.conv`
	furthest     = `select x.line, (select max(pos) from positions where usr = x.usr) from unnest($1::int[], $2::bigint[]) x (line, usr)`
	// The peer's furthest terminal stands at pos: the user's newest message (up to seq) before the first entry above pos that the peer has of the
	// conversation. That is in the first day of the conversation from pos on, so entries of one day of the inbox are looked through.
	lastDelivered = `select x.line, coalesce((select m.seq from messages m
			where m.conv = x.conv and m.bucket >= x.kept and m.seq <= x.seq and m.sender = x.me and m.kind <> 4
				and m.seq < coalesce((select i.seq from conv_days d cross join lateral (
						select seq from inbox where bucket = d.bucket and usr = x.peer and n > x.pos and conv = x.conv order by n limit 1) i
					where d.conv = x.conv and d.bucket >= greatest(x.kept, (select max(bucket) from user_days where usr = x.peer and first <= x.pos))
					order by d.bucket limit 1), x.seq + 1)
			order by m.seq desc limit 1), 0)
		from unnest($1::int[], $2::bigint[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[]) x (line, conv, kept, seq, pos, peer, me)`
	countUnread = `select x.line, (select count(*) from messages m
			where m.conv = x.conv and m.bucket >= x.bucket and m.seq > x.seq and m.kind <> 4 and m.sender <> $5)
		from unnest($1::int[], $2::bigint[], $3::int[], $4::bigint[]) x (line, conv, bucket, seq)`
)

// describe fills in the lines, and cuts them where there is too much content.
func (s *Store) describe(ctx context.Context, user string, lines []line) ([]line, error) {
	for i := range lines { // what waits here, before the tables are read
		l := &lines[i]
		l.Read = s.pending.get(posKey{kind: posRead, user: user, a: l.Conv})
		if l.kind == 'p' {
			l.PeerRead = s.pending.get(posKey{kind: posRead, user: l.Peer, a: l.Conv})
			s.pending.of(l.Peer, func(k posKey, v uint64) {
				if k.kind == posAck {
					l.peerAt = max(l.peerAt, v)
				}
			})
		}
	}
	b := &pgx.Batch{}
	last := 0
	s.queueLast(b, lines, &last)
	queueReads(b, lines)
	if err := s.reads.SendBatch(ctx, b).Close(); err != nil {
		return nil, s.failed("conversations", err)
	}
	if last == 0 {
		return nil, errGone
	}
	lines = lines[:last]
	for i := range lines {
		l := &lines[i]
		l.Read = min(max(l.Read, uint64(l.joined)), l.Head)
	}
	b = &pgx.Batch{}
	queueUnread(b, lines)
	queueDelivered(b, lines)
	if b.Len() == 0 {
		return lines, nil
	}
	return lines, s.failed("conversations", s.reads.SendBatch(ctx, b).Close())
}

// queueLast reads the newest messages; last is how many lines have theirs.
func (s *Store) queueLast(b *pgx.Batch, lines []line, last *int) {
	var p points
	for i := range lines {
		p.add(i, &lines[i], lines[i].lastBucket, lines[i].lastSeq)
	}
	b.Queue(lastMessages, p.line, p.conv, p.bucket, p.seq, pageBytes).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var n int64
			m := new(store.Message)
			if err := scanMessage(rows, &n, m); err != nil {
				return err
			}
			if int(n) != *last { // the day of the one before is gone
				*last = 0
				return errGone
			}
			lines[n].Last = m
			*last++
		}
		return rows.Err()
	})
}

// queueReads reads the positions of both sides.
func queueReads(b *pgx.Batch, lines []line) {
	var line32 []int32
	var usr, conv []int64
	var peerLine []int32
	var peers, peerConvs []int64
	for i := range lines {
		l := &lines[i]
		line32, usr, conv = append(line32, int32(i)), append(usr, l.me), append(conv, l.id)
		if l.kind != 'p' {
			continue
		}
		peerLine, peers, peerConvs = append(peerLine, int32(i)), append(peers, l.peer()), append(peerConvs, l.id)
	}
	var i int32
	var at *int64
	each(b, findReads, []any{line32, usr, conv}, []any{&i, &at}, func() error {
		lines[i].Read = max(lines[i].Read, uint64(*at))
		return nil
	})
	if len(peers) == 0 {
		return
	}
	each(b, findReads, []any{peerLine, peers, peerConvs}, []any{&i, &at}, func() error {
		lines[i].PeerRead = max(lines[i].PeerRead, uint64(*at))
		return nil
	})
	each(b, furthest, []any{peerLine, peers}, []any{&i, &at}, func() error {
		if at != nil {
			lines[i].peerAt = max(lines[i].peerAt, uint64(*at))
		}
		return nil
	})
}

// queueUnread counts the messages of others above the read position: where it can, as a difference of counters between the head and the read
// position (or the first message that is kept).
func queueUnread(b *pgx.Batch, lines []line) {
	var counted, scanned points
	me := int64(0)
	for i := range lines {
		l := &lines[i]
		me = l.me
		first := int64(l.box().First)
		read := int64(l.Read)
		switch {
		case read >= l.head || l.kind == 'p' && l.a == l.b:
		case l.kind == 'g':
			scanned.add(i, l, l.bucketOf(max(read, first)), read)
		default:
			at := max(read, first)
			counted.add(i, l, l.bucketOf(at), at)
		}
	}
	var i int32
	var events, fromA, sender, n int64
	var kind int16
	if len(counted.line) > 0 {
		each(b, readCounters, []any{counted.line, counted.conv, counted.bucket, counted.seq}, []any{&i, &events, &fromA, &kind, &sender}, func() error {
			l := &lines[i]
			first := int64(l.box().First)
			at := max(int64(l.Read), first)
			unread := l.others(l.head, l.events, l.fromA) - l.others(at, events, fromA)
			if int64(l.Read) < first && store.Kind(kind) != store.Recall && sender != l.me { // the first one kept is itself unread
				unread++
			}
			l.Unread = uint64(unread)
			return nil
		})
	}
	if len(scanned.line) > 0 {
		each(b, countUnread, []any{scanned.line, scanned.conv, scanned.bucket, scanned.seq, me}, []any{&i, &n}, func() error {
			lines[i].Unread = uint64(n)
			return nil
		})
	}
}

// others counts the messages of others up to a sequence.
func (l *line) others(seq, events, fromA int64) int64 {
	switch {
	case l.kind != 'p':
		return seq - events
	case l.me == l.a:
		return seq - events - fromA
	}
	return fromA
}

// queueDelivered finds the user's newest message that the peer's furthest terminal has passed.
func queueDelivered(b *pgx.Batch, lines []line) {
	var p points
	var at, peer, me []int64
	for i := range lines {
		if l := &lines[i]; l.kind == 'p' && l.peerAt > 0 && l.lastMine > 0 {
			p.add(i, l, l.kept, l.lastMine)
			at, peer, me = append(at, int64(l.peerAt)), append(peer, l.peer()), append(me, l.me)
		}
	}
	if len(at) == 0 {
		return
	}
	var i int32
	var seq int64
	each(b, lastDelivered, []any{p.line, p.conv, p.bucket, p.seq, at, peer, me}, []any{&i, &seq}, func() error {
		lines[i].PeerDelivered = uint64(seq)
		return nil
	})
}
