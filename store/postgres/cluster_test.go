package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/internal/services"
	"github.com/meshtalk/meshtalk/store"
)

// nodes are processes on one database.
func nodes(t *testing.T, o Options, n int) []*Store {
	t.Helper()
	list := make([]*Store, n)
	for i := range list {
		s := openTest(t, o)
		t.Cleanup(func() {
			if err := s.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
				t.Errorf("Close: %v", err)
			}
		})
		list[i] = s
	}
	return list
}

// apply lets the nodes own the partitions in turn and ends when all is applied.
func (l *testLog) apply(t *testing.T, stores []*Store, failed func(error)) {
	t.Helper()
	var owners sync.WaitGroup
	for p := range l.partitions {
		owners.Go(func() {
			if err := l.own(t.Context(), stores[p%len(stores)], p, failed); err != nil {
				t.Error(err)
			}
		})
	}
	owners.Wait()
}

// Ten writers in two processes share the users: inboxes are without holes and nobody waits for ever.
func TestWriters(t *testing.T) {
	t.Parallel()
	all := nodes(t, testOptions(t), 2)
	l := newLog(10, 600, 20)
	l.makeGroup(t, all[0])
	var inboxes sync.WaitGroup
	var done atomic.Bool
	for n := range 4 { // what becomes visible does so in order
		inboxes.Go(func() {
			for after, last := uint64(0), false; !last; {
				last = done.Load()
				list, _, _, err := all[n%2].ReadInbox(t.Context(), user(n), after, 100)
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range list {
					if after++; e.Inbox != after {
						t.Errorf("inbox of %s: %d, want %d", user(n), e.Inbox, after)
						return
					}
				}
			}
		})
	}
	l.apply(t, all, func(err error) { t.Errorf("an owner failed: %v", err) })
	done.Store(true)
	inboxes.Wait()
	for _, s := range all {
		l.check(t, s)
	}
}

// Two processes own a partition: what one has moved, the other does not move.
func TestFence(t *testing.T) {
	t.Parallel()
	all := nodes(t, testOptions(t), 2)
	a, b := all[0], all[1]
	l := newLog(1, 100, 5)
	commit := func(s *Store, from, next int64) error { return l.commit(t.Context(), s, 0, from, next) }
	offset := func(s *Store, want int64) {
		t.Helper()
		if got, err := s.Offset(t.Context(), 0); err != nil || got != want {
			t.Fatalf("offset %d, %v, want %d", got, err, want)
		}
	}
	must := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
	}
	l.makeGroup(t, a)
	offset(a, 0)
	must(commit(a, 0, 10), nil)
	offset(b, 10)
	must(commit(b, 10, 20), nil)
	must(commit(a, 10, 20), store.ErrFenced)
	must(commit(a, 20, 30), store.ErrFenced) // not before it has looked
	offset(a, 20)
	must(commit(a, 10, 20), store.ErrFenced) // not forward
	offset(a, 20)
	must(commit(a, 20, 40), nil)
	must(commit(b, 20, 40), store.ErrFenced)
	offset(b, 40)
	must(commit(b, 40, 100), nil)
	l.check(t, a)

	// Without a log.
	note := func(s *Store, id string) error {
		d := *l.partitions[0][0]
		d.Kind, d.Conv = store.Private, store.PrivateConv(d.From, "note")
		d.ID, d.MsgID = []byte(id), [16]byte([]byte(fmt.Sprintf("%016s", id)))
		p, err := s.Commit(t.Context(), 1, 0, []*store.Draft{&d})
		if err == nil {
			_, err = p.Wait()
		}
		return err
	}
	must(note(a, "1"), nil)
	must(note(a, "2"), nil)
	must(note(b, "3"), nil)
	must(note(a, "4"), store.ErrFenced)
	if got, err := a.Offset(t.Context(), 1); err != nil || got != 0 {
		t.Fatal(got, err)
	}
	must(note(a, "4"), nil)
	must(note(b, "5"), store.ErrFenced)
}

// Two processes that both believe to own all partitions, all the time.
func TestOwnersAtOnce(t *testing.T) {
	t.Parallel()
	all := nodes(t, testOptions(t), 2)
	l := newLog(6, 130, 10)
	l.makeGroup(t, all[0])
	var fenced atomic.Int64
	var owners sync.WaitGroup
	for _, s := range all {
		for p := range l.partitions {
			owners.Go(func() {
				if err := l.own(t.Context(), s, p, func(error) { fenced.Add(1) }); err != nil {
					t.Error(err)
				}
			})
		}
	}
	owners.Wait()
	if fenced.Load() == 0 {
		t.Error("nobody was fenced: the owners did not meet")
	}
	l.check(t, all[0])
}

// Connections are cut at random, between any two statements. What is applied twice or lost shows in the numbers.
func TestConnectionsCut(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	all := nodes(t, o, 2)
	l := newLog(10, 280, 12)
	l.makeGroup(t, all[0])
	ctx, stop := context.WithCancel(t.Context())
	var cutter sync.WaitGroup
	cut := 0
	cutter.Go(func() {
		conn, err := pgx.Connect(ctx, o.URL)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close(context.Background()) }()
		for ctx.Err() == nil {
			var gone bool
			err := conn.QueryRow(ctx, `select pg_terminate_backend(pid) from pg_stat_activity
				where datname = current_database() and application_name = 'meshtalk' and state <> 'idle' order by random() limit 1`).Scan(&gone)
			if err == nil && gone {
				cut++
			}
			pause(ctx, time.Duration(rand.IntN(20))*time.Millisecond)
		}
	})
	var failures atomic.Int64
	l.apply(t, all, func(error) { failures.Add(1) })
	stop()
	cutter.Wait()
	t.Logf("%d connections cut, %d failures seen by the owners", cut, failures.Load())
	if cut < 10 {
		t.Error("too few")
	}
	l.check(t, all[1])
}

// The server crashes under load and comes back on its files: what was committed is there once, and the stores go on by themselves.
func TestServerCrash(t *testing.T) {
	t.Parallel()
	server := services.Start(t, services.Postgres).Postgres
	o := Options{URL: server.URL, Logf: t.Logf}
	all := nodes(t, o, 2)
	l := newLog(10, 480, 12)
	l.makeGroup(t, all[0])
	ctx, stop := context.WithCancel(t.Context())
	var crasher sync.WaitGroup
	crashes := 0
	crasher.Go(func() {
		for ctx.Err() == nil && crashes < 5 {
			before := all[0].Stats().Messages + all[1].Stats().Messages
			for ctx.Err() == nil && all[0].Stats().Messages+all[1].Stats().Messages < before+300 { // there is load
				pause(ctx, time.Millisecond)
			}
			if err := server.Kill(); err != nil {
				t.Error(err)
			}
			if err := server.Start(); err != nil {
				t.Error(err)
				return
			}
			crashes++
		}
	})
	l.apply(t, all, func(error) {})
	stop()
	crasher.Wait()
	if crashes < 3 {
		t.Errorf("%d crashes", crashes)
	}
	for _, s := range all {
		l.check(t, s)
	}
}

// While the server is away everything says so, and afterwards goes on; positions wait.
func TestServerAway(t *testing.T) {
	t.Parallel()
	server := services.Start(t, services.Postgres).Postgres
	s := nodes(t, Options{URL: server.URL, Logf: t.Logf}, 1)[0]
	l := newLog(1, 20, 3)
	l.makeGroup(t, s)
	drafts := l.partitions[0]
	commit := func(drafts ...*store.Draft) error {
		p, err := s.Commit(t.Context(), 0, 0, drafts)
		if err == nil {
			_, err = p.Wait()
		}
		return err
	}
	if err := commit(drafts[:10]...); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Attach(t.Context(), user(0), "web"); err != nil {
		t.Fatal(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := commit(drafts[10:]...); !errors.Is(err, store.ErrReadOnly) {
		t.Fatalf("commit: %v", err)
	}
	if err := s.State(); !errors.Is(err, store.ErrReadOnly) {
		t.Fatalf("state: %v", err)
	}
	if _, err := s.Head(t.Context(), user(0)); !errors.Is(err, store.ErrReadOnly) {
		t.Fatalf("head: %v", err)
	}
	if err := s.Ack(user(0), "web", 1); err != nil {
		t.Fatalf("ack: %v", err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(testPatience); s.State() != nil; pause(t.Context(), 10*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("state: %v", s.State())
		}
	}
	if err := commit(drafts[10:]...); err != nil {
		t.Fatal(err)
	}
	l.check(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = nodes(t, Options{URL: server.URL, Logf: t.Logf}, 1)[0]
	if at, err := s.Positions(t.Context(), user(0)); err != nil || at["web"] != 1 {
		t.Fatal(at, err)
	}
}
