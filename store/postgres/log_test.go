package postgres

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/store"
)

// testLog is a log as RocketMQ is one: for each partition the messages that were promised, in order. Offsets are their places.
type testLog struct {
	users      int
	group      string // of some of them; the messages to it are in partition 0
	partitions [][]*store.Draft
	answered   [][]uint64 // the sequences that the commits gave; 0 = a commit whose answer was lost. Of the partition's owner
}

// testPatience is reached by tests that fail only.
const testPatience = time.Minute

// newLog fills a log with private and group messages; a conversation is always in the same partition, a user in all.
func newLog(partitions, perPartition, users int) *testLog {
	l := &testLog{users: users, group: "team", partitions: make([][]*store.Draft, partitions), answered: make([][]uint64, partitions)}
	rnd := rand.New(rand.NewPCG(1, uint64(partitions)))
	for p := range l.partitions {
		for len(l.partitions[p]) < perPartition {
			from, to := rnd.IntN(users), rnd.IntN(users)
			if (from+to)%partitions != p {
				continue
			}
			d := &store.Draft{Kind: store.Private, From: user(from), Conv: store.PrivateConv(user(from), user(to)), Promised: true}
			if p == 0 && rnd.IntN(5) == 0 {
				d.Kind, d.Conv = store.Group, store.GroupConv(l.group)
			}
			d.ID = fmt.Appendf(nil, "%d/%d", p, len(l.partitions[p]))
			d.Content = fmt.Appendf(nil, `"%s"`, d.ID)
			d.TS = time.Now().UnixMilli()
			sum := sha256.Sum256(append([]byte(d.From+"\x00"), d.ID...))
			copy(d.MsgID[:], sum[:])
			l.partitions[p] = append(l.partitions[p], d)
		}
		l.answered[p] = make([]uint64, perPartition)
	}
	return l
}

func user(n int) string { return fmt.Sprint("user-", n) }

// membersOf the group: half of the users.
func (l *testLog) membersOf() (list []string) {
	for n := range l.users / 2 {
		list = append(list, user(n))
	}
	return list
}

func (l *testLog) makeGroup(t *testing.T, s *Store) {
	t.Helper()
	if _, _, _, err := s.PutGroup(t.Context(), l.group, l.membersOf(), 1000); err != nil {
		t.Fatal(err)
	}
}

// commit commits the messages of a partition from one offset to another, and waits.
func (l *testLog) commit(ctx context.Context, s *Store, p int, from, next int64) error {
	pending, err := s.Commit(ctx, p, next, l.partitions[p][from:next])
	if err == nil {
		_, err = pending.Wait()
	}
	return err
}

// own commits a partition from where it stands to its end, as its owner does: after an error it reads the offset again.
func (l *testLog) own(ctx context.Context, s *Store, p int, failed func(error)) error {
	rnd := rand.New(rand.NewPCG(2, uint64(p)))
	for {
		next, err := s.Offset(ctx, p)
		for err == nil && int(next) < len(l.partitions[p]) {
			batch := l.partitions[p][next:min(int(next)+1+rnd.IntN(20), len(l.partitions[p]))]
			next += int64(len(batch))
			var pending store.Pending
			if pending, err = s.Commit(ctx, p, next, batch); err != nil {
				break
			}
			var results []store.Result
			results, err = pending.Wait()
			for i := range results {
				if results[i].Outcome != store.Stored {
					return fmt.Errorf("partition %d: %s: outcome %d", p, batch[i].ID, results[i].Outcome)
				}
				l.answered[p][int(next)-len(batch)+i] = results[i].Seq
			}
			pending.Release()
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return err
		case errors.Is(err, store.ErrFenced), errors.Is(err, store.ErrReadOnly):
			failed(err)
		default:
			return err
		}
	}
}

// check compares the store with the log: each message once, in the order of its conversation, in the inbox of everyone concerned, and inboxes
// and histories without a hole.
func (l *testLog) check(t *testing.T, s *Store) {
	t.Helper()
	want := make(map[string][]string) // of each conversation, the ids
	for p, list := range l.partitions {
		for i, d := range list {
			want[d.Conv] = append(want[d.Conv], string(d.ID))
			if seq := l.answered[p][i]; seq != 0 && seq != uint64(len(want[d.Conv])) {
				t.Fatalf("%s in %s: the commit gave %d, want %d", d.ID, d.Conv, seq, len(want[d.Conv]))
			}
		}
	}
	for conv, ids := range want {
		var got []string
		for after, more := uint64(0), true; more; {
			var list []store.Message
			var err error
			if list, more, err = s.History(t.Context(), conv, nil, &after, 200); err != nil {
				t.Fatal(err)
			}
			for _, m := range list {
				if after++; m.Seq != after {
					t.Fatalf("%s: %d, want %d", conv, m.Seq, after)
				}
				got = append(got, m.ID)
			}
		}
		if !slices.Equal(got, ids) {
			t.Fatalf("%s:\n%v, want\n%v", conv, got, ids)
		}
	}
	for n := range l.users {
		l.checkInbox(t, s, user(n), want)
	}
}

func (l *testLog) checkInbox(t *testing.T, s *Store, name string, convs map[string][]string) {
	t.Helper()
	got := make(map[string][]string)
	for after, more := uint64(0), true; more; {
		var list []store.InboxEntry
		var err error
		if list, _, more, err = s.ReadInbox(t.Context(), name, after, 500); err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if after++; e.Inbox != after {
				t.Fatalf("inbox of %s: %d, want %d", name, e.Inbox, after)
			}
			got[e.Conv] = append(got[e.Conv], e.ID)
		}
	}
	for conv, ids := range convs {
		_, private := store.Peer(conv, name)
		member := conv == store.GroupConv(l.group) && slices.Contains(l.membersOf(), name)
		mine := got[conv]
		delete(got, conv)
		switch {
		case private || member:
			if !slices.Equal(mine, ids) {
				t.Fatalf("%s in the inbox of %s:\n%v, want\n%v", conv, name, mine, ids)
			}
		case kindOf(conv) == 'g': // his own promised ones
			for _, d := range l.partitions[0] {
				if d.Conv == conv && d.From == name {
					if len(mine) == 0 || mine[0] != string(d.ID) {
						t.Fatalf("%s in the inbox of %s: %v lacks %s", conv, name, mine, d.ID)
					}
					mine = mine[1:]
				}
			}
			if len(mine) > 0 {
				t.Fatalf("%s in the inbox of %s: %v", conv, name, mine)
			}
		case len(mine) > 0:
			t.Fatalf("%s in the inbox of %s", conv, name)
		}
	}
	if len(got) > 0 {
		t.Fatalf("the inbox of %s has %v", name, got)
	}
}

func kindOf(conv string) byte {
	kind, _, _ := store.ConvKind(conv)
	return kind
}
