package storetest

import (
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/store"
)

func (b *box) expire(now int64, want int) {
	b.t.Helper()
	n, err := b.Expire(ctx, time.UnixMilli(now))
	b.must(err)
	equal(b.t, "buckets dropped", n, want)
}

const retentionDays = int64(Retention / (24 * time.Hour))

func testExpire(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", "ann", "bob")
	conv := "p:ann:bob"
	for i := range 10 { // two a day
		d := b.private("ann", "bob")
		d.TS = noon + int64(i/2)*day
		if b.one(d); i == 1 {
			g := b.group("ann", "team")
			g.TS = d.TS
			b.one(g)
		}
	}
	check := func(first, groupFirst uint64) {
		t.Helper()
		h, err := b.ConvHead(ctx, conv)
		b.must(err)
		equal(t, "conversation", h, store.Inbox{Head: 10, First: first})
		h, err = b.ConvHead(ctx, "g:team")
		b.must(err)
		equal(t, "group", h, store.Inbox{Head: 1, First: groupFirst})
		equal(t, "history", len(b.history(conv)), int(10-first+1))
		box := b.attach("bob", "web").Inbox
		equal(t, "inbox head", box.Head, 11)
		equal(t, "inbox", len(b.inboxAfter("bob", box.First-1)), int(11-box.First+1))
		list := b.inbox("bob") // from the beginning: what is gone is no gap
		equal(t, "inbox from 0 begins at first", list[0].Inbox, box.First)
	}
	check(1, 1)
	b.expire(noon+retentionDays*day, 0) // the first day has not ended before the limit
	check(1, 1)
	b.expire(noon+(retentionDays+1)*day, 1)
	check(3, 2)
	b.expire(noon+(retentionDays+1)*day, 0)
	equal(t, "unread", b.conversation("bob", conv).Unread, 8)
	moved, err := b.Read(ctx, "bob", conv, 1) // below what is kept
	b.must(err)
	equal(t, "moved", moved, true)
	equal(t, "unread", b.conversation("bob", conv).Unread, 8)
	equal(t, "conversations", len(b.conversations("bob", 10)), 1)
	b.outcome(b.recall("ann", conv, 2), store.NotFound)
	b.reopen(be)
	check(3, 2)
	b.expire(noon+(retentionDays+3)*day, 2)
	check(7, 2)
	zero, one := uint64(0), uint64(8)
	list, more, err := b.History(ctx, conv, nil, &zero, 2)
	b.must(err)
	same(t, "history from 0", []any{list[0].Seq, len(list), more}, []any{7, 2, true})
	list, more, err = b.History(ctx, conv, &one, nil, 10)
	b.must(err)
	same(t, "history below 8", []any{list[0].Seq, len(list), more}, []any{7, 1, false})
	d := b.group("bob", "team")
	d.TS = noon + 10*day
	equal(t, "the group goes on", b.one(d).Seq, 2)
	h, err := b.ConvHead(ctx, "g:team")
	b.must(err)
	equal(t, "group", h, store.Inbox{Head: 2, First: 2})
}

// Sequences, times and positions outlive all messages.
func testExpireAll(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", append(users(InboxLimit), "ann")...)
	b.stored(b.private("ann", "bob"), b.private("bob", "ann"), b.group("ann", "team"), b.group("ann", "team"), b.system("bob"))
	b.one(b.recall("ann", "p:ann:bob", 1))
	b.attach("bob", "web")
	b.must(b.Ack("bob", "web", 3))
	info, err := b.Group(ctx, "team")
	b.must(err)
	equal(t, "large", info.Large, true)
	b.putGroup("team", "ann", "bob")
	b.expire(noon+(retentionDays+2)*day, 1)
	check := func() {
		t.Helper()
		a := b.attach("bob", "web")
		same(t, "bob", []any{a.Inbox, a.Acked, a.Large}, []any{store.Inbox{Head: 4, First: 5}, 3, []store.LargePosition{}})
		h, err := b.ConvHead(ctx, "p:ann:bob")
		b.must(err)
		equal(t, "conversation", h, store.Inbox{Head: 3, First: 4})
		equal(t, "conversations", len(b.conversations("bob", 10)), 0)
		equal(t, "inbox", len(b.inbox("bob")), 0)
		equal(t, "history", len(b.history("p:ann:bob")), 0)
		list, more, err := b.History(ctx, "p:ann:bob", nil, nil, 10)
		b.must(err)
		same(t, "history", []any{len(list), more}, []any{0, false})
		info, err := b.Group(ctx, "team")
		b.must(err)
		same(t, "the group holds none any more", info, store.GroupInfo{Group: "team", Size: 2, Head: 2})
	}
	check()
	b.reopen(be)
	check()
	r := b.stored(b.private("bob", "ann"), b.group("ann", "team"), b.system("bob"))
	same(t, "sequences go on", []any{r[0].Seq, r[0].Entries, r[1].Seq, r[2].Seq},
		[]any{4, []store.Entry{{User: "ann", Inbox: 4}, {User: "bob", Inbox: 5}}, 3, 2})
	c := b.conversation("ann", "p:ann:bob")
	same(t, "counts", []any{c.Unread, c.Head, c.PeerDelivered}, []any{1, 4, 0})
	h, err := b.Head(ctx, "bob")
	b.must(err)
	equal(t, "inbox", h, store.Inbox{Head: 7, First: 5})
	equal(t, "entries", len(b.inbox("bob")), 3)
	b.one(b.private("ann", "cid"))
	b.must(b.Ack("bob", "web", 7))
}
