package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// errNoDay: a commit needs the partitions of a day that does not have them yet.
var errNoDay = errors.New("no partition for the day")

// advisory locks of the database.
const (
	lockDays   = 0x6d7400_01 // making partitions
	lockExpire = 0x6d7400_02 // dropping them
)

// span is the days [from, to).
type span struct{ from, to int32 }

// days are the partitions that exist, as far as this process knows.
type days struct {
	mu      sync.Mutex
	buckets map[int32]bool // tables messages and inbox
	repeats []span         // sorted
}

// unknown appends to dst the days among buckets that have no partitions, each once.
func (d *days) unknown(buckets []int32, dst []int32) []int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := int32(-1)
	for _, b := range buckets {
		if b == last {
			continue
		}
		if last = b; (!d.buckets[b] || !covers(d.repeats, b)) && !slices.Contains(dst, b) {
			dst = append(dst, b)
		}
	}
	return dst
}

func covers(spans []span, bucket int32) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return s.from <= bucket && bucket < s.to })
}

const dateFormat = "20060102"

func bucketName(bucket int32) string {
	return time.UnixMilli(int64(bucket) * dayMillis).UTC().Format(dateFormat)
}

func parseBucket(name string) (int32, error) {
	t, err := time.Parse(dateFormat, name)
	return bucketOf(t.UnixMilli()), err
}

// partitionTable is a partition, or what is left of one that was being dropped.
type partitionTable struct {
	name     string
	parent   string // messages, inbox, repeats
	days     span
	attached bool
	pending  bool // its detaching was begun and not ended
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// listPartitions reads them from the catalogue: <parent>_<day>, repeats_<day>_<day>.
func listPartitions(ctx context.Context, q querier) (list []partitionTable, err error) {
	rows, err := q.Query(ctx, `select c.relname, i.inhrelid is not null, coalesce(i.inhdetachpending, false)
		from pg_class c left join pg_inherits i on i.inhrelid = c.oid
		where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r' and c.relname ~ '^(messages|inbox|repeats)_[0-9_]+$'`)
	if err != nil {
		return nil, err
	}
	var p partitionTable
	_, err = pgx.ForEachRow(rows, []any{&p.name, &p.attached, &p.pending}, func() error {
		parent, date, _ := strings.Cut(p.name, "_")
		from, to, long := strings.Cut(date, "_")
		var err error
		p.parent = parent
		if p.days.from, err = parseBucket(from); err != nil {
			return nil // somebody else's
		}
		p.days.to = p.days.from + 1
		if long {
			if p.days.to, err = parseBucket(to); err != nil {
				return nil
			}
		}
		list = append(list, p)
		return nil
	})
	return list, err
}

func (s *Store) loadDays(ctx context.Context) error {
	list, err := listPartitions(ctx, s.reads)
	if err == nil {
		s.days.set(list)
	}
	return err
}

func (d *days) set(list []partitionTable) {
	buckets, count := make(map[int32]bool), make(map[int32]int)
	var repeats []span
	for _, p := range list {
		switch {
		case !p.attached || p.pending:
		case p.parent == "repeats":
			repeats = append(repeats, p.days)
		default:
			if count[p.days.from]++; count[p.days.from] == 2 {
				buckets[p.days.from] = true
			}
		}
	}
	slices.SortFunc(repeats, func(a, b span) int { return int(a.from - b.from) })
	d.mu.Lock()
	defer d.mu.Unlock()
	d.buckets, d.repeats = buckets, repeats
}

// daysAhead are made before they are needed, so that a commit at midnight finds them.
const daysAhead = 2

// prepareDays makes the partitions of today and of the next days.
func (s *Store) prepareDays(ctx context.Context, now time.Time) error {
	var want []int32
	for i := range int32(daysAhead + 1) {
		want = append(want, bucketOf(now.UnixMilli())+i)
	}
	if want = s.days.unknown(want, nil); len(want) == 0 {
		return nil
	}
	return s.makeDays(ctx, want)
}

// makeDays makes the partitions of some days. They are made as tables and then attached, which keeps nobody from reading or writing.
func (s *Store) makeDays(ctx context.Context, buckets []int32) error {
	err := pgx.BeginFunc(ctx, s.reads, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1)`, lockDays); err != nil {
			return err
		}
		list, err := listPartitions(ctx, tx)
		if err != nil {
			return err
		}
		for _, bucket := range buckets {
			day := span{bucket, bucket + 1}
			for _, parent := range []string{"messages", "inbox", "repeats"} {
				if parent == "repeats" {
					day = s.repeatSpan(list, bucket)
				}
				made := slices.ContainsFunc(list, func(p partitionTable) bool {
					return p.parent == parent && p.days.from <= bucket && bucket < p.days.to
				})
				if made {
					continue
				}
				p := partitionTable{parent: parent, days: day, attached: true}
				if err := makePartition(ctx, tx, &p); err != nil {
					return err
				}
				list = append(list, p)
			}
		}
		return nil
	})
	if err != nil {
		return s.failed("partitions", err)
	}
	return s.failed("partitions", s.loadDays(ctx))
}

// repeatSpan is the partition of table repeats that a day falls into: half of the dedupe window, so that a look-up meets three of them, cut where others are.
func (s *Store) repeatSpan(list []partitionTable, bucket int32) span {
	days := max(int32(s.opts.DedupeWindow/(2*24*time.Hour)), 1)
	r := span{bucket - bucket%days, bucket - bucket%days + days}
	for _, p := range list {
		if p.parent != "repeats" {
			continue
		}
		if p.days.to <= bucket {
			r.from = max(r.from, p.days.to)
		} else if p.days.from > bucket {
			r.to = min(r.to, p.days.from)
		}
	}
	return r
}

func makePartition(ctx context.Context, tx pgx.Tx, p *partitionTable) error {
	p.name = p.parent + "_" + bucketName(p.days.from)
	if p.parent == "repeats" {
		p.name += "_" + bucketName(p.days.to)
	}
	for _, statement := range []string{
		fmt.Sprintf(`create table %s (like %s including all)`, p.name, p.parent),
		fmt.Sprintf(`alter table %s attach partition %s for values from (%d) to (%d)`, p.parent, p.name, p.days.from, p.days.to),
	} {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// Expire implements store.Store. One node at a time does the work; the others return at once. A day is first forgotten (no reader sees it any
// more), then its partitions are detached beside the traffic and dropped. What an Expire leaves behind, the next one takes.
func (s *Store) Expire(ctx context.Context, now time.Time) (dropped int, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	conn, err := s.reads.Acquire(ctx)
	if err != nil {
		return 0, s.failed("expire", err)
	}
	defer conn.Release()
	var locked bool
	if err := conn.QueryRow(ctx, `select pg_try_advisory_lock($1)`, lockExpire).Scan(&locked); err != nil || !locked {
		return 0, s.failed("expire", err)
	}
	defer func() {
		if _, e := conn.Exec(context.WithoutCancel(ctx), `select pg_advisory_unlock($1)`, lockExpire); e != nil {
			_ = conn.Conn().Close(context.WithoutCancel(ctx)) // with it the lock goes
		}
	}()
	var messages, repeats int32
	err = conn.QueryRow(ctx, `update meta set first_bucket = greatest(first_bucket, $1), first_repeat = greatest(first_repeat, $2) returning first_bucket, first_repeat`,
		bucketOf(now.Add(-s.opts.Retention).UnixMilli()), bucketOf(now.Add(-s.opts.DedupeWindow).UnixMilli())).Scan(&messages, &repeats)
	if err != nil {
		return 0, s.failed("expire", err)
	}
	list, err := listPartitions(ctx, conn)
	if err != nil {
		return 0, s.failed("expire", err)
	}
	slices.SortStableFunc(list, func(a, b partitionTable) int { return cmp.Compare(rank(a), rank(b)) })
	for _, p := range list {
		first := messages
		if p.parent == "repeats" {
			first = repeats
		}
		if p.days.to > first && !p.pending {
			continue
		}
		if err := dropPartition(ctx, conn.Conn(), p); err != nil {
			return dropped, s.failed("expire", err)
		}
		if p.parent == "messages" {
			dropped++
		}
	}
	return dropped, s.failed("expire", s.loadDays(ctx))
}

// rank: nothing else is detached from a table before a detaching that was broken off is ended.
func rank(p partitionTable) int {
	if p.pending {
		return 0
	}
	return 1
}

func dropPartition(ctx context.Context, conn *pgx.Conn, p partitionTable) error {
	if p.attached {
		how := "concurrently"
		if p.pending {
			how = "finalize"
		}
		if _, err := conn.Exec(ctx, fmt.Sprintf(`alter table %s detach partition %s %s`, p.parent, p.name, how)); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if _, err := conn.Exec(ctx, `drop table `+p.name); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}
