package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/store"
)

// await polls until f is true: for what another process does within seconds.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testPatience); !f(); pause(t.Context(), 10*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, testPatience)
		}
	}
}

// Two terminals of one user come to two nodes at once: each is there, and begins where the furthest stood.
func TestAttachOnTwoNodes(t *testing.T) {
	t.Parallel()
	all := nodes(t, testOptions(t), 2)
	w := &sender{t: t, s: all[0]}
	for range 3 {
		w.send("ann", "bob", time.Now().UnixMilli())
	}
	if _, err := all[0].Attach(t.Context(), "bob", "first"); err != nil {
		t.Fatal(err)
	}
	if err := all[0].Ack("bob", "first", 2); err != nil {
		t.Fatal(err)
	}
	await(t, "the position on the other node", func() bool {
		p, err := all[1].Positions(t.Context(), "bob")
		return err == nil && p["first"] == 2
	})
	for round := range 20 {
		var both sync.WaitGroup
		for i, s := range all {
			for j := range 2 { // the same one twice, and another
				both.Go(func() {
					terminal := fmt.Sprint("t", round, "-", j*i)
					a, err := s.Attach(t.Context(), "bob", terminal)
					if err != nil || a.Acked != 2 || a.Furthest != 2 || a.Head != 3 {
						t.Errorf("%s: %+v, %v", terminal, a, err)
					}
				})
			}
		}
		both.Wait()
	}
	p, err := all[1].Positions(t.Context(), "bob")
	if err != nil || len(p) != 41 {
		t.Fatalf("%d terminals, %v", len(p), err)
	}
}

// Positions only move forward, whichever node writes them later.
func TestPositionsOfTwoNodes(t *testing.T) {
	t.Parallel()
	all := nodes(t, testOptions(t), 2)
	w := &sender{t: t, s: all[0]}
	for range 9 {
		w.send("ann", "bob", time.Now().UnixMilli())
	}
	attach := func(s *Store) store.Attachment {
		t.Helper()
		a, err := s.Attach(t.Context(), "bob", "web")
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	attach(all[0])
	for _, at := range []uint64{3, 7, 5} {
		if err := all[at%2].Ack("bob", "web", at); err != nil {
			t.Fatal(err)
		}
	}
	all[0].Seen("bob", 1000)
	all[1].Seen("bob", 900)
	if _, err := all[0].Read(t.Context(), "bob", "p:ann:bob", 4); err != nil {
		t.Fatal(err)
	}
	if moved, err := all[1].Read(t.Context(), "bob", "p:ann:bob", 6); err != nil || !moved {
		t.Fatal(moved, err)
	}
	for _, s := range all {
		await(t, "positions", func() bool {
			seen, err := s.LastSeen(t.Context(), "bob")
			if err != nil {
				t.Fatal(err)
			}
			list, _, err := s.Conversations(t.Context(), "bob", "", 10)
			if err != nil {
				t.Fatal(err)
			}
			return attach(s).Acked == 7 && seen == 1000 && list[0].Read == 6
		})
	}
	for i, before := range []int64{500, 2000, 1000} {
		want := max(before, int64(500)+min(int64(i), 1)*1500)
		if got, err := all[i%2].Revoke(t.Context(), "bob", before); err != nil || got != want {
			t.Fatalf("revoke %d: %d, %v, want %d", before, got, err, want)
		}
	}
}

// The same id to two conversations of two partitions at once: one is stored, the other is a conflict.
func TestOneIDInTwoPartitions(t *testing.T) {
	t.Parallel()
	all := nodes(t, testOptions(t), 2)
	for round := range 30 {
		outcomes := make([]store.Outcome, 2)
		var both sync.WaitGroup
		for i, s := range all {
			both.Go(func() {
				d := &store.Draft{Kind: store.Private, From: "ann", Conv: store.PrivateConv("ann", fmt.Sprint("bob", i)), ID: fmt.Append(nil, round),
					Content: []byte(`1`), TS: time.Now().UnixMilli()}
				copy(d.MsgID[:], fmt.Sprint("round ", round))
				p, err := s.Commit(t.Context(), i, 0, []*store.Draft{d})
				if err != nil {
					t.Error(err)
					return
				}
				r, err := p.Wait()
				if err != nil {
					t.Error(err)
					return
				}
				outcomes[i] = r[0].Outcome
			})
		}
		both.Wait()
		slices.Sort(outcomes)
		if !slices.Equal(outcomes, []store.Outcome{store.Stored, store.Conflict}) {
			t.Fatalf("round %d: %v", round, outcomes)
		}
	}
}

// What a node remembers of members ends with Forget, with its own changes, and by itself.
func TestMemberCache(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	o.MemberTTL = 300 * time.Millisecond
	all := nodes(t, o, 2)
	change := func(add, remove []string) {
		t.Helper()
		if _, _, _, err := all[0].ChangeGroup(t.Context(), "team", add, remove, 100); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, _, err := all[0].PutGroup(t.Context(), "team", []string{"ann"}, 100); err != nil {
		t.Fatal(err)
	}
	ask := func(s *Store, want bool) {
		t.Helper()
		if exists, member, err := s.IsMember(t.Context(), "team", "ann"); err != nil || !exists || member != want {
			t.Fatal(exists, member, err)
		}
	}
	ask(all[1], true)
	if exists, member, known := all[1].TryMember("team", "ann"); known && (!exists || !member) {
		t.Fatal("wrong")
	}
	change(nil, []string{"ann"})
	await(t, "an answer grows old", func() bool {
		_, _, known := all[1].TryMember("team", "ann")
		return !known
	})
	ask(all[1], false)
	change([]string{"ann"}, nil)
	all[1].Forget("team")
	if _, _, known := all[1].TryMember("team", "ann"); known {
		t.Fatal("not forgotten")
	}
	ask(all[1], true)
}

// A group of 100,000: a few statements, however many members.
func TestBigGroup(t *testing.T) {
	t.Parallel()
	s := nodes(t, testOptions(t), 1)[0]
	const n = 100_000
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("member-%06d", i)
	}
	info, added, removed, err := s.PutGroup(t.Context(), "all", list, n)
	if err != nil || info.Size != n || !info.Large || len(added) != n || len(removed) != 0 {
		t.Fatal(info, len(added), len(removed), err)
	}
	info, added, removed, err = s.PutGroup(t.Context(), "all", append(list[n/2:], "one more"), n)
	if err != nil || info.Size != n/2+1 || len(added) != 1 || len(removed) != n/2 {
		t.Fatal(info, len(added), len(removed), err)
	}
	info, added, removed, err = s.ChangeGroup(t.Context(), "all", list[:n/4], list[n/2:n/2+n/8], n)
	if err != nil || info.Size != n/2+1+n/4-n/8 || len(added) != n/4 || len(removed) != n/8 {
		t.Fatal(info, len(added), len(removed), err)
	}
	got, cursor := 0, ""
	for {
		page, next, err := s.Members(t.Context(), "all", cursor, 1000)
		if err != nil || !slices.IsSorted(page) {
			t.Fatal(err)
		}
		if got += len(page); next == "" {
			break
		}
		cursor = next
	}
	if got != info.Size {
		t.Fatalf("%d members in pages, want %d", got, info.Size)
	}
	gone, err := s.DeleteGroup(t.Context(), "all")
	if err != nil || len(gone) != info.Size {
		t.Fatal(len(gone), err)
	}
}

// A process that stands still in the middle of a commit does not hold its users for ever.
func TestStandingStill(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	s := nodes(t, o, 1)[0]
	w := &sender{t: t, s: s}
	w.send("ann", "bob", time.Now().UnixMilli())
	conn, err := pgx.Connect(t.Context(), o.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := prepareSession(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `begin`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `select 1 from users for update`); err != nil {
		t.Fatal(err)
	}
	if r := w.send("ann", "bob", time.Now().UnixMilli()); r.Seq != 2 {
		t.Fatal(r)
	}
	if _, err := conn.Exec(t.Context(), `commit`); err == nil {
		t.Fatal("the transaction that stood still was not ended")
	}
}

// A database that is not the one it was (a backup was restored, or a standby took over that lacked the last commits) has other ids: nothing
// goes to a wrong user.
func TestOtherIDs(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	s := nodes(t, o, 1)[0]
	w := &sender{t: t, s: s}
	w.send("ann", "bob", time.Now().UnixMilli())
	w.send("cid", "dan", time.Now().UnixMilli())
	onDatabase(t, o, `update users set name = case name when 'bob' then 'x' else name end`)
	onDatabase(t, o, `update users set name = case name when 'dan' then 'bob' when 'x' then 'dan' else name end where name in ('dan', 'x')`)
	before, err := s.Head(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	w.send("ann", "bob", time.Now().UnixMilli())
	after, err := s.Head(t.Context(), "bob")
	if err != nil || after.Head != before.Head+1 {
		t.Fatal(before, after, err)
	}
}

// Checkpoint says what to use instead; the epoch is the operator's to change.
func TestOperator(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	s := nodes(t, o, 1)[0]
	if err := s.Checkpoint(t.Context(), t.TempDir()); err == nil || errors.Is(err, store.ErrClosed) {
		t.Fatal(err)
	}
	epoch, err := s.NewEpoch(t.Context())
	if err != nil || epoch == "" || epoch == s.Epoch() {
		t.Fatal(epoch, err)
	}
	other := nodes(t, o, 1)[0]
	if other.Epoch() != epoch {
		t.Fatal(other.Epoch(), epoch)
	}
	await(t, "the size", func() bool { return s.Stats().SizeBytes > 1<<20 })
}
