package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/store"
)

// Several processes start at once on an empty database, and later on one with a newer schema.
func TestOpenAtOnce(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	var all sync.WaitGroup
	epochs := make([]string, 4)
	for i := range epochs {
		all.Go(func() {
			s, err := Open(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			epochs[i] = s.Epoch()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, e := range epochs {
		if e == "" || e != epochs[0] {
			t.Fatalf("epochs %v", epochs)
		}
	}
	onDatabase(t, o, `insert into schema_version (version_id, is_applied) values (99999, true)`)
	if s, err := Open(t.Context(), o); err == nil {
		_ = s.Close()
		t.Fatal("a newer schema was opened")
	} else {
		t.Log(err)
	}
}

// An Open that fails says why in one line, without the password.
func TestOpenErrors(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"postgres://", "nonsense", "postgres://u:secret@127.0.0.1:1/db", shared.Postgres.URL + "&x=%zz"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		s, err := Open(ctx, Options{URL: url})
		cancel()
		if err == nil {
			_ = s.Close()
			t.Fatalf("%s was opened", url)
		}
		text := err.Error()
		for _, bad := range []string{"\n", "secret"} {
			if strings.Contains(text, bad) {
				t.Errorf("%q", text)
			}
		}
		t.Log(text)
	}
}

// onDatabase runs a statement on a test's database.
func onDatabase(t testing.TB, o Options, statement string, args ...any) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, o.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement, args...); err != nil {
		t.Fatal(err)
	}
}

// sender commits single private messages.
type sender struct {
	t    *testing.T
	s    *Store
	part int
	n    int
}

func (w *sender) send(from, to string, ts int64) store.Result {
	w.t.Helper()
	w.n++
	d := &store.Draft{Kind: store.Private, From: from, Conv: store.PrivateConv(from, to), ID: fmt.Appendf(nil, "%d-%d", w.part, w.n), Content: []byte(`1`), TS: ts}
	copy(d.MsgID[:], fmt.Sprintf("%s %d %d", from, w.part, w.n))
	p, err := w.s.Commit(w.t.Context(), w.part, 0, []*store.Draft{d})
	if err != nil {
		w.t.Fatal(err)
	}
	defer p.Release()
	r, err := p.Wait()
	if err != nil {
		w.t.Fatal(err)
	}
	return r[0]
}

// Around midnight one process is a day ahead of another: inboxes stay in the order of their days, without a hole, and retention takes whole days.
func TestMidnight(t *testing.T) {
	t.Parallel()
	const day = int64(dayMillis)
	o := testOptions(t)
	all := nodes(t, o, 2)
	a, b := &sender{t: t, s: all[0]}, &sender{t: t, s: all[1], part: 1}
	noon := time.Now().UnixMilli()/day*day + day/2
	a.send("ann", "bob", noon)
	b.send("bob", "cid", noon+1)
	b.send("bob", "cid", noon+day) // bob is in tomorrow
	for i := range int64(3) {
		a.send("ann", "bob", noon+2+i) // a's day
		a.send("ann", "dan", noon+2+i)
	}
	b.send("bob", "eve", noon+day+1)
	now := time.UnixMilli(noon + day + int64(defaultRetention(o)/time.Millisecond))
	read := func(user string, want int) {
		t.Helper()
		list, box, _, err := all[1].ReadInbox(t.Context(), user, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != want || int(box.Head+1-box.First) != want {
			t.Fatalf("%s has %d entries of %+v, want %d", user, len(list), box, want)
		}
		for i, e := range list {
			if e.Inbox != box.First+uint64(i) || e.Content == nil {
				t.Fatalf("%s: entry %+v", user, e)
			}
		}
	}
	read("bob", 7)
	read("ann", 7)
	if n, err := all[0].Expire(t.Context(), now); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	read("bob", 5) // what followed tomorrow's first is in tomorrow
	read("ann", 6)
	read("dan", 3)
	a.send("ann", "bob", noon) // its day is gone: it is kept in a later one
	read("bob", 6)
}

func defaultRetention(o Options) time.Duration {
	o.setDefaults()
	return o.Retention
}

// Retention beside traffic and readers, by two processes at once; a detaching that was broken off is ended by the next.
func TestExpireBesideTraffic(t *testing.T) {
	t.Parallel()
	const day = int64(dayMillis)
	o := testOptions(t)
	o.Retention = 48 * time.Hour
	o.DedupeWindow = 48 * time.Hour
	all := nodes(t, o, 2)
	ctx, stop := context.WithCancel(t.Context())
	start := time.Now().UnixMilli() / day * day
	var readers sync.WaitGroup
	for i := range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				list, box, _, err := all[i].ReadInbox(t.Context(), "bob", 0, 50)
				if err != nil {
					t.Error(err)
					return
				}
				for j, e := range list {
					if e.Inbox < box.First || j > 0 && e.Inbox != list[j-1].Inbox+1 {
						t.Errorf("entry %d after %d, first %d", e.Inbox, list[max(j-1, 0)].Inbox, box.First)
						return
					}
				}
				if _, _, err := all[i].Conversations(t.Context(), "bob", "", 10); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var writers sync.WaitGroup
	dropped := make([]int, 2)
	for i := range 2 {
		writers.Go(func() {
			w := &sender{t: t, s: all[i], part: i}
			for d := range int64(8) {
				for j := range int64(20) {
					w.send(fmt.Sprint("ann", i), "bob", start+d*day+j)
				}
				n, err := all[i].Expire(t.Context(), time.UnixMilli(start+d*day))
				if err != nil {
					t.Error(err)
				}
				dropped[i] += n
			}
		})
	}
	writers.Wait()
	stop()
	readers.Wait()
	if dropped[0]+dropped[1] == 0 {
		t.Error("nothing was dropped")
	}
	var pending, left int
	conn, err := pgx.Connect(t.Context(), o.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	// As a process that ended in the middle leaves it.
	name := "messages_" + bucketName(bucketOf(start+6*day))
	if _, err := conn.Exec(t.Context(), `create table messages_19700105 (like messages)`); err != nil {
		t.Fatal(err)
	}
	detachHalf(t, o, conn, name)
	if n, err := all[0].Expire(t.Context(), time.UnixMilli(start+20*day)); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	list, err := listPartitions(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.days.to <= bucketOf(start+18*day) {
			left++
		}
		if p.pending {
			pending++
		}
	}
	if left+pending > 0 {
		t.Errorf("%d old tables, %d half detached: %+v", left, pending, list)
	}
}

// detachHalf begins to detach a partition and is cut off while it waits for a reader.
func detachHalf(t *testing.T, o Options, reader *pgx.Conn, name string) {
	t.Helper()
	tx, err := reader.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `select count(*) from messages`); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), o.URL)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	pid := conn.PgConn().PID()
	go func() {
		_, err := conn.Exec(context.Background(), `alter table messages detach partition `+name+` concurrently`)
		done <- err
	}()
	for deadline := time.Now().Add(testPatience); ; pause(t.Context(), 5*time.Millisecond) {
		var waiting bool
		if err := tx.QueryRow(t.Context(), `select exists (select 1 from pg_inherits where inhdetachpending)`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		if waiting {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the detaching does not wait")
		}
	}
	if _, err := tx.Exec(t.Context(), `select pg_terminate_backend($1)`, pid); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Fatal("the detaching was not cut off")
	}
	_ = conn.Close(context.Background())
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}
