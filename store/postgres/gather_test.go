package postgres

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/meshtalk/meshtalk/store"
)

// shareOf is the next batch of a partition of l, as Commit would make it. next is the offset behind it.
func shareOf(t *testing.T, s *Store, l *testLog, part int, from, next int64) *share {
	t.Helper()
	p := s.partition(part)
	if err := s.ready(t.Context(), p, next); err != nil {
		t.Fatal(err)
	}
	return &share{at: p, next: next, drafts: l.partitions[part][from:next], ctx: t.Context(), done: make(chan struct{})}
}

// twoOwners are two processes on one database, and a log for them with 20 messages in each partition.
func twoOwners(t *testing.T, partitions int) (s, other *Store, l *testLog) {
	t.Helper()
	all := nodes(t, testOptions(t), 2)
	l = newLog(partitions, 20, 5)
	l.makeGroup(t, all[0])
	return all[0], all[1], l
}

// commitShareOf commits one batch by the front door.
func commitShareOf(t *testing.T, s *Store, l *testLog, part int, from, next int64) {
	t.Helper()
	if err := l.commit(t.Context(), s, part, from, next); err != nil {
		t.Fatal(err)
	}
}

// Batches share a transaction; a fenced one and one that the database refuses keep only themselves out.
func TestShares(t *testing.T) {
	t.Parallel()
	s, other, l := twoOwners(t, 4)
	const fenced, refused = 1, 2
	bad := *l.partitions[refused][3]
	bad.From = "\xff" // what no client can be, and no text of the database
	bad.Conv = store.PrivateConv(bad.From, user(0))
	l.partitions[refused][3] = &bad
	shares := make([]*share, len(l.partitions))
	for i, part := range []int{3, 1, 0, 2} { // not in the order of the rows
		shares[i] = shareOf(t, s, l, part, 0, 10)
	}
	if _, err := other.Offset(t.Context(), fenced); err != nil {
		t.Fatal(err)
	}
	commitShareOf(t, other, l, fenced, 0, 5)

	s.commitTogether(new(commit), shares)
	for _, sh := range shares {
		switch part := sh.at.number; part {
		case fenced:
			if !errors.Is(sh.err, store.ErrFenced) {
				t.Errorf("the fenced partition: %v", sh.err)
			}
		case refused:
			if sh.err == nil || errors.Is(sh.err, store.ErrFenced) {
				t.Errorf("the refused partition: %v", sh.err)
			}
		default:
			if sh.err != nil || len(sh.results) != len(sh.drafts) {
				t.Fatalf("partition %d: %d results, %v", part, len(sh.results), sh.err)
			}
			for i, d := range sh.drafts {
				n := 0
				for _, e := range sh.drafts[:i+1] {
					if e.Conv == d.Conv {
						n++
					}
				}
				if r := sh.results[i]; r.Outcome != store.Stored || r.Seq != uint64(n) {
					t.Errorf("partition %d, draft %d: %+v, want sequence %d", part, i, r, n)
				}
			}
		}
		want := map[int]int64{0: 10, fenced: 5, refused: 0, 3: 10}[sh.at.number]
		if got, err := s.Offset(t.Context(), sh.at.number); err != nil || got != want {
			t.Errorf("partition %d stands at %d, %v, want %d", sh.at.number, got, err, want)
		}
	}
}

// The answer to a shared transaction is lost, and another process has moved one of its partitions since: the others tell that it was made.
func TestSharedOutcome(t *testing.T) {
	t.Parallel()
	s, other, l := twoOwners(t, 2)
	shares := []*share{shareOf(t, s, l, 0, 0, 10), shareOf(t, s, l, 1, 0, 10)}
	before := []offset{{next: shares[0].at.next, commits: shares[0].at.commits}, {next: shares[1].at.next, commits: shares[1].at.commits}}
	s.commitTogether(new(commit), shares)
	for i, sh := range shares {
		if sh.err != nil {
			t.Fatal(sh.err)
		}
		sh.at.next, sh.at.commits = before[i].next, before[i].commits // nothing was heard
	}
	if _, err := other.Offset(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	commitShareOf(t, other, l, 0, 10, 15)

	var c commit
	c.begin(s, shares)
	c.spare = slices.Concat(shares[0].results, shares[1].results)
	if made, err := c.wasMade(t.Context()); err != nil || !made {
		t.Fatal(made, err)
	}
	if len(c.results) != 20 {
		t.Fatalf("%d results", len(c.results))
	}
	if _, err := s.Commit(t.Context(), 0, 20, l.partitions[0][10:]); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("the partition that was moved: %v", err)
	}
	commitShareOf(t, s, l, 1, 10, 20)
	if _, err := other.Offset(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	commitShareOf(t, other, l, 0, 15, 20)
	l.check(t, other)
}

// Batches that come while a transaction is under way are one transaction, whose caller may give up before it begins.
func TestGathering(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	s := nodes(t, o, 1)[0]
	const parts = 6
	l := newLog(parts, 20, 8)
	l.makeGroup(t, s)
	for p := range parts {
		commitShareOf(t, s, l, p, 0, 10)
	}
	hold, err := s.commits.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{`begin`, `set local idle_in_transaction_session_timeout = 0`, `select 1 from offsets where part = 0 for update`} {
		if _, err := hold.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	var callers sync.WaitGroup
	commitOf := func(p int) { callers.Go(func() { commitShareOf(t, s, l, p, 10, 20) }) }
	waiting := func() int {
		s.gathering.mu.Lock()
		defer s.gathering.mu.Unlock()
		return len(s.gathering.waiting)
	}
	commitOf(0)
	await(t, "a transaction under way", func() bool {
		var blocked int
		return s.reads.QueryRow(t.Context(), `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`).Scan(&blocked) == nil && blocked == 1
	})
	for p := 1; p < parts; p++ {
		commitOf(p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := s.Commit(ctx, parts, 1, l.partitions[0][:1])
		gone <- err
	}()
	await(t, "the others behind it", func() bool { return waiting() == parts })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up: %v", err)
	}
	if _, err := hold.Exec(t.Context(), `commit`); err != nil {
		t.Fatal(err)
	}
	hold.Release()
	callers.Wait()
	l.check(t, s)
	var transactions int
	if err := s.reads.QueryRow(t.Context(), `select count(distinct ord >> 14) from messages where content = any($1)`, last(l)).Scan(&transactions); err != nil {
		t.Fatal(err)
	}
	if transactions != 2 {
		t.Errorf("%d transactions, want the one that was under way and the one that gathered", transactions)
	}
}

// last are the contents of the log's last messages, one of each partition.
func last(l *testLog) (list [][]byte) {
	for _, drafts := range l.partitions {
		list = append(list, drafts[len(drafts)-1].Content)
	}
	return list
}

// BenchmarkQueues: a node with 16 queues that get a message each at the same time, full durability.
func BenchmarkQueues(b *testing.B) {
	s := openTest(b, testOptions(b))
	defer func() { _ = s.Close() }()
	all := make([]*writer, 16)
	for i := range all {
		all[i] = newWriter(i, len(all), 2000)
		for all[i].n < 2*len(all[i].pairs) {
			if err := all[i].commit(b.Context(), s, all[i].batch(512)); err != nil {
				b.Fatal(err)
			}
		}
	}
	server := cpuOfServer(b)
	b.ResetTimer()
	var done sync.WaitGroup
	for _, w := range all {
		done.Go(func() {
			for range max(b.N/len(all), 1) {
				if err := w.commit(b.Context(), s, w.batch(1)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	done.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpuOfServer(b)-server).Microseconds())/float64(b.N), "server-µs/msg")
}
