package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/store"
)

// pageBytes of content end a page, but never below one entry.
const pageBytes = 256 << 10

// dayFirst is the first number of a day.
type dayFirst struct {
	bucket int32
	first  int64
}

// view is an inbox or a conversation as one statement saw it.
type view struct {
	id, head int64
	kept     int32      // the first day that retention has left
	days     []dayFirst // from kept on, in order
}

func (v *view) box() store.Inbox {
	first := v.head + 1
	if len(v.days) > 0 {
		first = v.days[0].first
	}
	return store.Inbox{Head: uint64(v.head), First: uint64(first)}
}

// piece is the part of a page that is in one day.
type piece struct {
	bucket   int32
	from, to int64 // both included
}

// pieces cuts the numbers [from, to] by days, in order. Nothing of them is before the first day.
func (v *view) pieces(from, to int64) (list []piece) {
	for i, d := range v.days {
		last := to
		if i+1 < len(v.days) {
			last = min(last, v.days[i+1].first-1)
		}
		if first := max(from, d.first); first <= last {
			list = append(list, piece{d.bucket, first, last})
		}
	}
	return list
}

const (
	viewUser = `select u.id, u.head, m.first_bucket, d.buckets, d.firsts from meta m cross join users u
		left join lateral (select array_agg(bucket order by bucket) buckets, array_agg(first order by bucket) firsts
			from user_days where usr = u.id and bucket >= m.first_bucket) d on true
		where u.name = $1`
	viewConv = `select c.id, c.head, m.first_bucket, d.buckets, d.firsts from meta m cross join convs c
		left join lateral (select array_agg(bucket order by bucket) buckets, array_agg(first order by bucket) firsts
			from conv_days where conv = c.id and bucket >= m.first_bucket) d on true
		where c.name = $1`
)

// view reads one of them; of what does not exist it is empty.
func (s *Store) view(ctx context.Context, query, name string) (v view, err error) {
	return v, s.failed("read", v.scan(s.reads.QueryRow(ctx, query, name)))
}

func (v *view) scan(row pgx.Row) error {
	var buckets []int32
	var firsts []int64
	if err := row.Scan(&v.id, &v.head, &v.kept, &buckets, &firsts); err != nil {
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	}
	v.days = makeDayFirsts(buckets, firsts)
	return nil
}

func makeDayFirsts(buckets []int32, firsts []int64) []dayFirst {
	days := make([]dayFirst, len(buckets))
	for i := range days {
		days[i] = dayFirst{buckets[i], firsts[i]}
	}
	return days
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, user string) (store.Inbox, error) {
	return s.headOf(ctx, viewUser, user)
}

// Heads implements store.Store.
func (s *Store) Heads(ctx context.Context, users []string) ([]uint64, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	heads := make([]uint64, len(users))
	rows, err := s.reads.Query(ctx, `select x.i, u.head from unnest($1::text[]) with ordinality x (name, i) join users u on u.name = x.name`, users)
	if err != nil {
		return nil, s.failed("heads", err)
	}
	var i, head int64
	_, err = pgx.ForEachRow(rows, []any{&i, &head}, func() error {
		heads[i-1] = uint64(head)
		return nil
	})
	return heads, s.failed("heads", err)
}

// ConvHead implements store.Store.
func (s *Store) ConvHead(ctx context.Context, conv string) (store.Inbox, error) {
	return s.headOf(ctx, viewConv, conv)
}

func (s *Store) headOf(ctx context.Context, query, name string) (store.Inbox, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return store.Inbox{}, err
	}
	defer end()
	v, err := s.view(ctx, query, name)
	return v.box(), err
}

// messageColumns are what scanMessage reads; they need the joins below.
const messageColumns = `m.kind, m.msgid, c.name, m.seq, coalesce(f.name, ''), m.id, m.ts, m.type, m.content, m.target, m.large`

// The statements of pages. size is the content before an entry: a page ends where it is too much, on the server.
const (
	inboxPage = `select n, ` + messageColumns + ` from (
			select i.n, m.*, sum(octet_length(m.content)) over (order by i.n rows between unbounded preceding and 1 preceding) size
			from inbox i join messages m on m.bucket = $1 and m.conv = i.conv and m.seq = i.seq
			where i.bucket = $1 and i.usr = $2 and i.n between $3 and $4 order by i.n limit $5) m
		join convs c on c.id = m.conv left join users f on f.id = m.sender
		where coalesce(size, 0) < $6 order by n`
	historyUp = `select 0::bigint, ` + messageColumns + ` from (
			select *, sum(octet_length(content)) over (order by seq rows between unbounded preceding and 1 preceding) size
			from messages where bucket = $1 and conv = $2 and seq between $3 and $4 order by seq limit $5) m
		join convs c on c.id = m.conv left join users f on f.id = m.sender
		where coalesce(size, 0) < $6 order by seq`
	historyDown = `select 0::bigint, ` + messageColumns + ` from (
			select *, sum(octet_length(content)) over (order by seq desc rows between unbounded preceding and 1 preceding) size
			from messages where bucket = $1 and conv = $2 and seq between $3 and $4 order by seq desc limit $5) m
		join convs c on c.id = m.conv left join users f on f.id = m.sender
		where coalesce(size, 0) < $6 order by seq desc`
)

// page collects the entries of pieces, in their order, until it is full. complete is false when there are more.
func (s *Store) page(ctx context.Context, query string, v *view, pieces []piece, limit int) (list []store.InboxEntry, complete bool, err error) {
	left := pageBytes
	for _, p := range pieces {
		if limit == 0 || left <= 0 {
			return list, false, nil
		}
		rows, err := s.reads.Query(ctx, query, p.bucket, v.id, p.from, p.to, limit, left)
		if err != nil {
			return nil, false, s.failed("read", err)
		}
		got := int64(0)
		for rows.Next() {
			list = append(list, store.InboxEntry{})
			e := &list[len(list)-1]
			var n int64
			if err := scanMessage(rows, &n, &e.Message); err != nil {
				rows.Close()
				return nil, false, s.failed("read", err)
			}
			e.Inbox = uint64(n)
			left -= len(e.Content)
			limit--
			got++
		}
		if err := rows.Err(); err != nil {
			return nil, false, s.failed("read", err)
		}
		if got == 0 {
			return nil, false, errGone
		}
		if got < p.to-p.from+1 {
			return list, false, nil
		}
	}
	return list, true, nil
}

// errGone: retention took the day between two statements.
var errGone = errors.New("the day is gone")

// scanMessage reads a row of n and messageColumns.
func scanMessage(row pgx.Row, n *int64, m *store.Message, more ...any) error {
	var kind int16
	var seq, target int64
	var id []byte
	to := append([]any{n, &kind, &m.MsgID, &m.Conv, &seq, &m.From, &id, &m.TS, &m.Type, &m.Content, &target, &m.Large}, more...)
	if err := row.Scan(to...); err != nil {
		return err
	}
	m.Kind, m.Seq, m.ID = store.Kind(kind), uint64(seq), string(id)
	if m.Kind == store.Recall {
		m.Target = uint64(target)
	} else {
		m.Recalled = target > 0
	}
	return nil
}

// readAttempts: retention takes a day at a time.
const readAttempts = 5

// ReadInbox implements store.Store.
func (s *Store) ReadInbox(ctx context.Context, user string, after uint64, limit int) (list []store.InboxEntry, box store.Inbox, more bool, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, box, false, err
	}
	defer end()
	for range readAttempts {
		v, err := s.view(ctx, viewUser, user)
		if err != nil {
			return nil, box, false, err
		}
		box = v.box()
		from := max(after, box.First-1) + 1
		if from == 0 || from > box.Head {
			return nil, box, false, nil
		}
		to := min(box.Head, from+uint64(max(limit, 1))-1)
		list, complete, err := s.page(ctx, inboxPage, &v, v.pieces(int64(from), int64(to)), max(limit, 1))
		if errors.Is(err, errGone) {
			continue
		}
		return list, box, !complete || to < box.Head, err
	}
	return nil, box, false, s.failed("read", errGone)
}

// History implements store.Store.
func (s *Store) History(ctx context.Context, conv string, before, after *uint64, limit int) (list []store.Message, more bool, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, false, err
	}
	defer end()
	limit = max(limit, 1)
	for range readAttempts {
		v, err := s.view(ctx, viewConv, conv)
		if err != nil {
			return nil, false, err
		}
		from, to, query := v.historyRange(before, after, limit)
		if from > to {
			return nil, false, nil
		}
		pieces := v.pieces(from, to)
		box := v.box()
		more = to < v.head
		if after == nil {
			more = from > int64(box.First)
			for i, j := 0, len(pieces)-1; i < j; i, j = i+1, j-1 {
				pieces[i], pieces[j] = pieces[j], pieces[i]
			}
		}
		entries, complete, err := s.page(ctx, query, &v, pieces, limit)
		if errors.Is(err, errGone) {
			continue
		}
		for i := range entries {
			list = append(list, entries[i].Message)
		}
		return list, !complete || more, err
	}
	return nil, false, s.failed("read", errGone)
}

// historyRange is what a page of history would be if all fitted.
func (v *view) historyRange(before, after *uint64, limit int) (from, to int64, query string) {
	box := v.box()
	if after != nil {
		first := max(*after, box.First-1) + 1
		if first == 0 || first > box.Head {
			return 1, 0, historyUp
		}
		return int64(first), int64(min(box.Head, first+uint64(limit)-1)), historyUp
	}
	last := box.Head
	if before != nil {
		last = min(last, max(*before, 1)-1)
	}
	if last < box.First {
		return 1, 0, historyDown
	}
	return max(int64(box.First), int64(last)-int64(limit)+1), int64(last), historyDown
}
