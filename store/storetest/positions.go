package storetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/meshtalk/meshtalk/store"
)

func (b *box) attach(user, terminal string) store.Attachment {
	b.t.Helper()
	a, err := b.Attach(ctx, user, terminal)
	b.must(err)
	return a
}

func testPositions(t *testing.T, be Backend) {
	b := open(t, be)
	for range 5 {
		b.one(b.private("ann", "bob"))
	}
	b.attach("bob", "web")
	b.attach("bob", "phone")
	positions := func(want map[string]uint64) {
		t.Helper()
		p, err := b.Positions(ctx, "bob")
		b.must(err)
		same(t, "positions", p, want)
	}
	positions(map[string]uint64{"web": 0, "phone": 0})
	b.must(b.Ack("bob", "web", 3))
	b.must(b.Ack("bob", "web", 2))
	positions(map[string]uint64{"web": 3, "phone": 0})
	equal(t, "head", b.attach("bob", "web").Head, 5)
	b.reopen(be)
	positions(map[string]uint64{"web": 3, "phone": 0})
	b.must(b.Ack("bob", "web", 1))
	positions(map[string]uint64{"web": 3, "phone": 0})
	b.must(b.Ack("bob", "phone", 5))
	positions(map[string]uint64{"web": 3, "phone": 5})
	p, err := b.Positions(ctx, "bo")
	b.must(err)
	same(t, "of a name that begins alike", p, map[string]uint64{})
	b.attach("bo", "b")
	b.must(b.Ack("bo", "b", 0))
	positions(map[string]uint64{"web": 3, "phone": 5})
}

// Acknowledgements come from many loops at once, also late ones of a session that was replaced: the furthest counts.
func testAcksAtOnce(t *testing.T, be Backend) {
	b := open(t, be)
	const last = 40
	for range last {
		b.one(b.private("ann", "bob"))
	}
	b.attach("bob", "web")
	for range 2 { // what an earlier round wrote is behind what a later one brings, or before it
		var all sync.WaitGroup
		for w := range 4 {
			all.Go(func() {
				for i := range last / 4 {
					if err := b.Ack("bob", "web", uint64(i*4+w+1)); err != nil {
						t.Error(err)
					}
					b.Seen("bob", noon+int64(i*4+w+1))
				}
			})
		}
		all.Wait()
		p, err := b.Positions(ctx, "bob")
		b.must(err)
		same(t, "positions", p, map[string]uint64{"web": last})
		b.reopen(be)
	}
	b.must(b.Ack("bob", "web", 1)) // merged with what is on disk
	b.Seen("bob", noon)
	b.reopen(be)
	equal(t, "the furthest", b.attach("bob", "web").Acked, last)
	seen, err := b.LastSeen(ctx, "bob")
	b.must(err)
	equal(t, "last seen", seen, noon+last)
}

func testAttach(t *testing.T, be Backend) {
	b := open(t, be)
	same(t, "first of all", b.attach("bob", "web"), store.Attachment{Inbox: store.Inbox{Head: 0, First: 1}})
	for range 5 {
		b.one(b.private("ann", "bob"))
	}
	equal(t, "a known one stays", b.attach("bob", "web").Acked, 0)
	b.must(b.Ack("bob", "web", 2))
	b.must(b.Ack("bob", "web", 4))
	same(t, "a new one begins at the furthest", b.attach("bob", "phone"), store.Attachment{Inbox: store.Inbox{Head: 5, First: 1}, Acked: 4, Furthest: 4})
	b.must(b.Ack("bob", "web", 5))
	equal(t, "and stays there", b.attach("bob", "phone").Acked, 4)
	b.reopen(be)
	equal(t, "after opening again", b.attach("bob", "phone").Acked, 4)
	equal(t, "after opening again", b.attach("bob", "web").Acked, 5)
	equal(t, "a third", b.attach("bob", "tv").Acked, 5)
	equal(t, "one without terminals begins at 0", b.attach("ann", "web").Acked, 0)
	equal(t, "and has its inbox", b.attach("ann", "web").Head, 5)
}

func testAttachAtOnce(t *testing.T, be Backend) {
	b := open(t, be)
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			for i := range 20 {
				if _, err := b.Attach(ctx, fmt.Sprint("u", (w*20+i)%160), fmt.Sprint("t", w%3)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	b.reopen(be)
	n := 0
	for u := range 160 {
		p, err := b.Positions(ctx, fmt.Sprint("u", u))
		b.must(err)
		n += len(p)
	}
	if n < 160 {
		t.Fatalf("%d terminals", n)
	}
}

func testRevoke(t *testing.T, be Backend) {
	b := open(t, be)
	revoke := func(before, want int64) {
		t.Helper()
		got, err := b.Revoke(ctx, "bob", before)
		b.must(err)
		equal(t, "revoke", got, want)
	}
	check := func(want int64) {
		t.Helper()
		got, err := b.RevokedBefore(ctx, "bob")
		b.must(err)
		equal(t, "revoked before", got, want)
		equal(t, "at login", b.attach("bob", "web").RevokedBefore, want)
	}
	check(0)
	revoke(1000, 1000)
	revoke(500, 1000)
	check(1000)
	b.reopen(be)
	check(1000)
	revoke(2000, 2000)
	check(2000)
}

func testSeen(t *testing.T, be Backend) {
	b := open(t, be)
	check := func(want int64) {
		t.Helper()
		got, err := b.LastSeen(ctx, "bob")
		b.must(err)
		equal(t, "last seen", got, want)
	}
	check(0)
	b.Seen("bob", noon)
	check(noon)
	b.Seen("bob", noon-5)
	check(noon)
	b.reopen(be)
	check(noon)
	b.Seen("bob", noon+5)
	check(noon + 5)
}
