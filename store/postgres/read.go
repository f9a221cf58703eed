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

// bucketOf is the day of a number; of one before the first, the first day.
func (v *view) bucketOf(n int64) (bucket int32) {
	for i, d := range v.days {
		if i == 0 || d.first <= n {
			bucket = d.bucket
		}
	}
	return bucket
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

// The statements of pages: the numbers $4 to $5 of inbox or conversation $3, which are in the days $1 to $2. size is the content before an entry:
// a page ends where it is too much, on the server.
const (
	inboxPage = `select n, ` + messageColumns + ` from (
			select i.n, m.*, sum(octet_length(m.content)) over (order by i.n rows between unbounded preceding and 1 preceding) size
			from inbox i join messages m on m.bucket = i.bucket and m.conv = i.conv and m.seq = i.seq
			where i.bucket between $1 and $2 and i.usr = $3 and i.n between $4 and $5) m
		join convs c on c.id = m.conv left join users f on f.id = m.sender
		where coalesce(size, 0) < $6 order by n`
	historyUp = `select seq, ` + messageColumns + ` from (
			select *, sum(octet_length(content)) over (order by seq rows between unbounded preceding and 1 preceding) size
			from messages where bucket between $1 and $2 and conv = $3 and seq between $4 and $5) m
		join convs c on c.id = m.conv left join users f on f.id = m.sender
		where coalesce(size, 0) < $6 order by seq`
	historyDown = `select seq, ` + messageColumns + ` from (
			select *, sum(octet_length(content)) over (order by seq desc rows between unbounded preceding and 1 preceding) size
			from messages where bucket between $1 and $2 and conv = $3 and seq between $4 and $5) m
		join convs c on c.id = m.conv left join users f on f.id = m.sender
		where coalesce(size, 0) < $6 order by seq desc`
)

// page reads the numbers from first towards last, as many as there is room for.
func (s *Store) page(ctx context.Context, query string, v *view, first, last int64) (list []store.InboxEntry, err error) {
	from, to, step := first, last, int64(1)
	if first > last {
		from, to, step = last, first, -1
	}
	rows, err := s.reads.Query(ctx, query, v.bucketOf(from), v.bucketOf(to), v.id, from, to, pageBytes)
	if err != nil {
		return nil, s.failed("read", err)
	}
	defer rows.Close()
	list = make([]store.InboxEntry, 0, to-from+1)
	for next := first; rows.Next(); next += step {
		list = append(list, store.InboxEntry{})
		e := &list[len(list)-1]
		var n int64
		if err := scanMessage(rows, &n, &e.Message); err != nil {
			return nil, s.failed("read", err)
		}
		if e.Inbox = uint64(n); n != next {
			return nil, errGone
		}
	}
	if err := rows.Err(); err != nil {
		return nil, s.failed("read", err)
	}
	if len(list) == 0 {
		return nil, errGone
	}
	return list, nil
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
		list, err := s.page(ctx, inboxPage, &v, int64(from), int64(to))
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return nil, box, false, err
		}
		return list, box, list[len(list)-1].Inbox < box.Head, nil
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
		first, last, some := v.historyRange(before, after, limit)
		if !some {
			return nil, false, nil
		}
		query, end := historyUp, v.head
		if after == nil {
			query, end = historyDown, int64(v.box().First)
		}
		entries, err := s.page(ctx, query, &v, first, last)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		for i := range entries {
			list = append(list, entries[i].Message)
		}
		return list, int64(list[len(list)-1].Seq) != end, nil
	}
	return nil, false, s.failed("read", errGone)
}

// historyRange is what a page of history would be if all fitted, in the order in which it is read.
func (v *view) historyRange(before, after *uint64, limit int) (first, last int64, some bool) {
	box := v.box()
	if after != nil {
		from := max(*after, box.First-1) + 1
		if from == 0 || from > box.Head {
			return 0, 0, false
		}
		return int64(from), int64(min(box.Head, from+uint64(limit)-1)), true
	}
	from := box.Head
	if before != nil {
		from = min(from, max(*before, 1)-1)
	}
	if from < box.First {
		return 0, 0, false
	}
	return int64(from), max(int64(box.First), int64(from)-int64(limit)+1), true
}
