package storetest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meshtalk/meshtalk/store"
)

// Readers beside commits see contiguous inboxes and histories, only what is durable, and everything whose Wait has returned.
func testReaders(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", "u0", "u1", "u2")
	const commits, perCommit = 100, 8
	var promised [3]atomic.Uint64 // heads of the inboxes whose Wait has returned
	var given [3]atomic.Uint64    // heads that were given out
	var done atomic.Bool
	var readers sync.WaitGroup
	for u := range 3 {
		readers.Go(func() {
			if err := followInbox(b.Store, fmt.Sprint("u", u), &promised[u], &given[u], &done); err != nil {
				t.Error(err)
			}
		})
	}
	readers.Go(func() {
		if err := followHistory(b.Store, "g:team", &done); err != nil {
			t.Error(err)
		}
	})
	pendings := make(chan store.Pending, 2)
	var waiter sync.WaitGroup
	waiter.Go(func() {
		for p := range pendings {
			results, err := p.Wait()
			if err != nil {
				t.Error(err)
				continue
			}
			for _, r := range results {
				for _, e := range r.Entries {
					promised[e.User[1]-'0'].Store(e.Inbox)
				}
			}
			p.Release()
		}
	})
	for i := range commits {
		var drafts []*store.Draft
		var n [3]uint64
		for j := range perCommit {
			from, to := (i+j)%3, (i+2*j+1)%3
			if j%4 == 0 {
				drafts = append(drafts, b.group(fmt.Sprint("u", from), "team"))
				n[0], n[1], n[2] = n[0]+1, n[1]+1, n[2]+1
				continue
			}
			drafts = append(drafts, b.private(fmt.Sprint("u", from), fmt.Sprint("u", to)))
			if n[from]++; to != from {
				n[to]++
			}
		}
		for u := range n {
			given[u].Add(n[u])
		}
		p, err := b.Commit(ctx, 0, 0, drafts)
		if err != nil {
			t.Error(err)
			break
		}
		pendings <- p
	}
	close(pendings)
	waiter.Wait()
	done.Store(true)
	readers.Wait()
}

// followInbox reads an inbox to its end, until the writers are done.
func followInbox(s store.Store, user string, promised, given *atomic.Uint64, done *atomic.Bool) error {
	after := uint64(0)
	for last := false; ; {
		ended := done.Load()
		least := promised.Load()
		list, box, _, err := s.ReadInbox(ctx, user, after, 50)
		if err != nil {
			return err
		}
		if most := given.Load(); box.Head < least || box.Head > most {
			return fmt.Errorf("%s: head %d, promised %d, given %d", user, box.Head, least, most)
		}
		for _, e := range list {
			if after++; e.Inbox != after || after > box.Head || len(e.Content) == 0 {
				return fmt.Errorf("%s: entry %d of %d, want %d", user, e.Inbox, box.Head, after)
			}
		}
		if last = ended && len(list) == 0; last {
			if after != promised.Load() {
				return fmt.Errorf("%s: ends at %d of %d", user, after, promised.Load())
			}
			return nil
		}
	}
}

func followHistory(s store.Store, conv string, done *atomic.Bool) error {
	after := uint64(0)
	for {
		ended := done.Load()
		list, _, err := s.History(ctx, conv, nil, &after, 50)
		if err != nil {
			return err
		}
		for _, m := range list {
			if after++; m.Seq != after {
				return fmt.Errorf("%s: %d, want %d", conv, m.Seq, after)
			}
		}
		if ended && len(list) == 0 {
			return nil
		}
	}
}
