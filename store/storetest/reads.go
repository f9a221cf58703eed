package storetest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/meshtalk/meshtalk/store"
)

func testInboxPages(t *testing.T, be Backend) {
	b := open(t, be)
	for i := range 10 {
		b.one(b.private(fmt.Sprint("u", i%3), "bob"))
	}
	read := func(after uint64, limit int, wantMore bool, want ...uint64) {
		t.Helper()
		list, box, more, err := b.ReadInbox(ctx, "bob", after, limit)
		b.must(err)
		var got []uint64
		for _, e := range list {
			got = append(got, e.Inbox)
		}
		same(t, fmt.Sprintf("after %d, limit %d", after, limit), []any{got, more, box}, []any{want, wantMore, store.Inbox{Head: 10, First: 1}})
	}
	read(0, 3, true, 1, 2, 3)
	read(7, 3, false, 8, 9, 10)
	read(7, 2, true, 8, 9)
	read(9, 500, false, 10)
	read(10, 5, false)
	read(11, 5, false)
	read(1<<53, 5, false)
	read(^uint64(0), 5, false)
}

func testHistory(t *testing.T, be Backend) {
	b := open(t, be)
	conv := "p:ann:bob"
	for i := range 10 {
		d := b.private("ann", "bob")
		d.TS = noon + int64(i/4)*day // over three days
		b.one(d)
	}
	num := func(n uint64) *uint64 { return &n }
	read := func(before, after *uint64, limit int, wantMore bool, want ...uint64) {
		t.Helper()
		list, more, err := b.History(ctx, conv, before, after, limit)
		b.must(err)
		var got []uint64
		for _, m := range list {
			got = append(got, m.Seq)
		}
		same(t, "history", []any{got, more}, []any{want, wantMore})
	}
	read(nil, nil, 3, true, 10, 9, 8)
	read(nil, nil, 10, false, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1)
	read(num(8), nil, 3, true, 7, 6, 5)
	read(num(4), nil, 3, false, 3, 2, 1)
	read(num(1), nil, 3, false)
	read(num(0), nil, 3, false)
	read(num(1<<53), nil, 2, true, 10, 9)
	read(nil, num(0), 3, true, 1, 2, 3)
	read(nil, num(2), 4, true, 3, 4, 5, 6)
	read(nil, num(7), 3, false, 8, 9, 10)
	read(nil, num(10), 3, false)
	read(nil, num(1<<53), 3, false)
	conv = "p:no:one"
	read(nil, nil, 3, false)
	read(nil, num(0), 3, false)
	read(num(5), nil, 3, false)
}

// Pages end at about 256 KiB, but never below one entry.
func testByteLimits(t *testing.T, be Backend) {
	b := open(t, be)
	for range 6 {
		b.one(b.draft(store.Draft{Kind: store.Private, From: "ann", Conv: "p:ann:bob", Content: bytes.Repeat([]byte("1"), 100<<10)}))
	}
	b.one(b.draft(store.Draft{Kind: store.Private, From: "ann", Conv: "p:ann:bob", Content: bytes.Repeat([]byte("2"), 600<<10)}))
	list, _, more, err := b.ReadInbox(ctx, "bob", 0, 500)
	b.must(err)
	if n := len(list); !more || n < 2 || n > 3 {
		t.Fatalf("inbox page of %d, more %v", n, more)
	}
	list, _, more, err = b.ReadInbox(ctx, "bob", 6, 500)
	b.must(err)
	same(t, "a big one", []any{len(list), more, len(list[0].Content)}, []any{1, false, 600 << 10})
	history, more, err := b.History(ctx, "p:ann:bob", nil, nil, 200)
	b.must(err)
	same(t, "history", []any{len(history), more}, []any{1, true})
	equal(t, "inbox", len(b.inbox("bob")), 7)
	equal(t, "all of history", len(b.history("p:ann:bob")), 7)
	for i := range 6 {
		b.one(b.draft(store.Draft{Kind: store.Private, From: fmt.Sprint("z", i), Conv: store.PrivateConv("cid", fmt.Sprint("z", i)), Content: bytes.Repeat([]byte("1"), 100<<10)}))
	}
	page, next, err := b.Conversations(ctx, "cid", "", 200)
	b.must(err)
	if n := len(page); next == "" || n < 1 || n > 3 {
		t.Fatalf("page of %d conversations, next %q", n, next)
	}
	equal(t, "conversations", len(b.conversations("cid", 200)), 6)
}

func testUnread(t *testing.T, be Backend) {
	b := open(t, be)
	conv := "p:ann:bob"
	check := func(user string, head, read, unread uint64) {
		t.Helper()
		c := b.conversation(user, conv)
		same(t, user, []uint64{c.Head, c.Read, c.Unread}, []uint64{head, read, unread})
	}
	for i := range 8 { // 1, 3, 5, 7 by ann, over days
		from, to := "ann", "bob"
		if i%2 == 1 {
			from, to = to, from
		}
		d := b.private(from, to)
		d.TS = noon + int64(i/3)*day
		b.one(d)
	}
	check("bob", 8, 0, 4)
	check("ann", 8, 0, 4)
	read := func(user string, seq uint64, wantMoved bool) {
		t.Helper()
		moved, err := b.Read(ctx, user, conv, seq)
		b.must(err)
		equal(t, "moved", moved, wantMoved)
	}
	read("bob", 4, true)
	check("bob", 8, 4, 2)
	read("bob", 3, false)
	read("bob", 4, false)
	read("bob", 5, true)
	check("bob", 8, 5, 1)
	_, err := b.Read(ctx, "bob", conv, 9)
	wantErr(t, "above the head", err, store.ErrPosition)
	_, err = b.Read(ctx, "cid", conv, 1)
	wantErr(t, "not yours", err, store.ErrForbidden)
	_, err = b.Read(ctx, "bob", "n:ann", 0)
	wantErr(t, "not yours", err, store.ErrForbidden)
	_, err = b.Read(ctx, "bob", "g:none", 0)
	wantErr(t, "no group", err, store.ErrForbidden)
	moved, err := b.Read(ctx, "bob", "p:bob:zoe", 0)
	same(t, "empty and yours", []any{moved, err}, []any{false, nil})
	b.one(b.recall("ann", conv, 7)) // the event is 9
	check("bob", 9, 5, 1)           // a recalled message still counts, the event does not
	check("ann", 9, 0, 4)
	read("bob", 9, true)
	check("bob", 9, 9, 0)
	b.reopen(be)
	check("bob", 9, 9, 0)
	check("ann", 9, 0, 4)
	b.one(b.private("ann", "ann"))
	conv = "p:ann:ann"
	check("ann", 1, 0, 0)
	b.stored(b.system("ann"), b.system("ann"))
	b.one(b.recall("", "n:ann", 1))
	conv = "n:ann"
	check("ann", 3, 0, 2)
	read("ann", 1, true)
	check("ann", 3, 1, 1)
}

func testUnreadGroup(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", "ann", "bob")
	b.stored(b.group("ann", "team"), b.group("ann", "team"), b.group("bob", "team"))
	check := func(user string, read, unread uint64) {
		t.Helper()
		c := b.conversation(user, "g:team")
		same(t, user, []any{c.Read, c.Unread, c.Kind, c.Group, c.Peer}, []any{read, unread, "group", "team", ""})
	}
	check("ann", 0, 1)
	check("bob", 0, 2)
	b.putGroup("team", "ann", "bob", "cid") // cid joins at 3
	b.stored(b.group("cid", "team"), b.group("bob", "team"), b.group("", "team"))
	check("cid", 3, 2)
	check("ann", 0, 4)
	moved, err := b.Read(ctx, "cid", "g:team", 2)
	b.must(err)
	equal(t, "below the join", moved, false)
	moved, err = b.Read(ctx, "cid", "g:team", 5)
	b.must(err)
	equal(t, "moved", moved, true)
	check("cid", 5, 1)
	b.putGroup("team", "ann", "bob")
	_, err = b.Read(ctx, "cid", "g:team", 5)
	wantErr(t, "after leaving", err, store.ErrForbidden)
	equal(t, "listed after leaving", len(b.conversations("cid", 10)), 0)
	b.putGroup("team", append(users(InboxLimit+1), "ann", "bob")...)
	b.stored(b.group("u000", "team"), b.group("ann", "team"))
	check("ann", 0, 5)
	check("u000", 6, 1)
}

func testPeer(t *testing.T, be Backend) {
	b := open(t, be)
	for _, terminal := range []string{"web", "phone"} {
		_, err := b.Attach(ctx, "bob", terminal)
		b.must(err)
	}
	b.one(b.private("cid", "bob"))                             // bob's inbox 1
	b.stored(b.private("ann", "bob"), b.private("ann", "bob")) // 2, 3
	b.one(b.private("bob", "ann"))                             // 4: seq 3
	b.one(b.private("ann", "bob"))                             // 5: seq 4
	b.one(b.private("cid", "bob"))                             // 6
	check := func(delivered, read uint64) {
		t.Helper()
		c := b.conversation("ann", "p:ann:bob")
		same(t, "peer", []any{c.Peer, c.PeerDelivered, c.PeerRead}, []any{"bob", delivered, read})
	}
	ack := func(terminal string, at uint64) {
		t.Helper()
		b.must(b.Ack("bob", terminal, at))
	}
	check(0, 0)
	ack("web", 1)
	check(0, 0)
	ack("web", 2)
	check(1, 0)
	ack("phone", 4)
	check(2, 0) // his own message in between is not ours
	ack("web", 3)
	check(2, 0)
	ack("web", 5)
	check(4, 0)
	moved, err := b.Read(ctx, "bob", "p:ann:bob", 2)
	b.must(err)
	equal(t, "moved", moved, true)
	check(4, 2)
	ack("web", 6)
	b.one(b.recall("ann", "p:ann:bob", 4)) // bob's inbox 7, seq 5
	ack("web", 7)
	check(4, 2) // events are not delivered messages
	b.reopen(be)
	check(4, 2)
	c := b.conversation("bob", "p:ann:bob")
	same(t, "the other side", []any{c.Peer, c.PeerDelivered, c.PeerRead}, []any{"ann", 0, 0})
}

func testConversations(t *testing.T, be Backend) {
	b := open(t, be)
	equal(t, "of nobody", len(b.conversations("ann", 10)), 0)
	b.putGroup("quiet", "ann")
	b.putGroup("team", "ann", "bob")
	b.putGroup("big", append(users(InboxLimit), "ann")...)
	at := func(d *store.Draft, ts int64) {
		t.Helper()
		d.TS = ts
		b.one(d)
	}
	at(b.private("ann", "bob"), noon)
	at(b.private("cid", "ann"), noon+1*day)
	at(b.group("bob", "team"), noon+1*day+5)
	at(b.system("ann"), noon+2*day)
	at(b.group("u001", "big"), noon+2*day+7)
	at(b.private("ann", "bob"), noon+2*day+8)
	at(b.private("ann", "dan"), noon+2*day+8)
	check := func(user string, want ...string) {
		t.Helper()
		for _, limit := range []int{1, 2, 10} {
			var got []string
			for _, c := range b.conversations(user, limit) {
				got = append(got, c.Conv)
			}
			same(t, user, got, want)
		}
	}
	check("ann", "p:ann:dan", "p:ann:bob", "g:big", "n:ann", "g:team", "p:ann:cid")
	check("bob", "p:ann:bob", "g:team")
	check("u001", "g:big")
	b.one(b.recall("", "p:ann:cid", 1)) // an event is no activity
	check("ann", "p:ann:dan", "p:ann:bob", "g:big", "n:ann", "g:team", "p:ann:cid")
	c := b.conversation("ann", "p:ann:cid")
	same(t, "last is the message", []any{c.Last.Seq, c.Last.Recalled, c.Head, c.Kind, c.Peer}, []any{1, true, 2, "private", "cid"})
	c = b.conversation("ann", "n:ann")
	same(t, "system", []any{c.Kind, c.Peer, c.Group, c.Unread, c.Last.From}, []any{"system", "", "", 1, ""})
	at(b.private("cid", "ann"), noon+3*day)
	check("ann", "p:ann:cid", "p:ann:dan", "p:ann:bob", "g:big", "n:ann", "g:team")
	_, err := b.DeleteGroup(ctx, "big")
	b.must(err)
	check("ann", "p:ann:cid", "p:ann:dan", "p:ann:bob", "n:ann", "g:team")
	b.reopen(be)
	check("ann", "p:ann:cid", "p:ann:dan", "p:ann:bob", "n:ann", "g:team")
	for _, bad := range []string{"x", "AAAA", "///", "cA", c.Conv} {
		_, _, err := b.Conversations(ctx, "ann", bad, 10)
		wantErr(t, "cursor "+bad, err, store.ErrNotFound)
	}
}

// New traffic between pages neither hides nor repeats a conversation that was there when the first page was made.
func testConversationPages(t *testing.T, be Backend) {
	b := open(t, be)
	want := map[string]bool{}
	for i := range 20 {
		d := b.private("ann", fmt.Sprintf("u%02d", i))
		d.TS = noon + int64(i/6)*day + int64(i)
		b.one(d)
		want[d.Conv] = true
	}
	cursor := ""
	for i := 0; ; i++ {
		list, next, err := b.Conversations(ctx, "ann", cursor, 3)
		b.must(err)
		for _, c := range list {
			if !want[c.Conv] {
				t.Fatalf("%s twice, or new", c.Conv)
			}
			delete(want, c.Conv)
		}
		if cursor = next; next == "" {
			break
		}
		d := b.private(fmt.Sprintf("u%02d", i), "ann") // moves an old one up
		d.TS = noon + 5*day + int64(i)
		b.one(d)
		d = b.private(fmt.Sprintf("new%02d", i), "ann")
		d.TS = noon + 5*day + int64(i)
		b.one(d)
	}
	equal(t, "conversations missed", len(want), 0)
}
