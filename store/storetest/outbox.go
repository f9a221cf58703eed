package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/store"
)

// openOutbox opens the backend's store with an outbox; be is the backend that opens it so again.
func openOutbox(t *testing.T, be *Backend) *box {
	be.Open = be.OpenOutbox
	return open(t, *be)
}

// outbox reads a page and checks what holds for every page.
func (b *box) outbox(limit int) []store.Event {
	b.t.Helper()
	list, err := b.Outbox(ctx, 0, limit)
	b.must(err)
	if len(list) > limit {
		b.t.Fatalf("%d events, limit %d", len(list), limit)
	}
	for i, e := range list {
		if i > 0 && list[i-1].ID >= e.ID {
			b.t.Fatalf("id %d before %d", list[i-1].ID, e.ID)
		}
		if e.TS <= 0 || e.Conv == "" || e.Seq == 0 {
			b.t.Fatalf("event %+v", e)
		}
		if m := e.Message; m != nil && (m.Conv != e.Conv || m.Seq != e.Seq || m.TS != e.TS) {
			b.t.Fatalf("event %+v of %+v", e, *m)
		}
	}
	return list
}

func (b *box) published(events ...store.Event) {
	b.t.Helper()
	var ids []uint64
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	b.must(b.Published(ctx, 0, ids))
}

// told is an event as text: kind, conversation, seq, user.
func told(list []store.Event) []string {
	text := []string{}
	for _, e := range list {
		text = append(text, fmt.Sprint(e.Kind, " ", e.Conv, " ", e.Seq, " ", e.User))
	}
	return text
}

// awaitEvents reads until there are n events: positions are there within seconds.
func (b *box) awaitEvents(n int) []store.Event {
	b.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		list := b.outbox(100)
		if len(list) >= n {
			return list
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%d events, want %d: %v", len(list), n, told(list))
		}
	}
}

func testOutbox(t *testing.T, be Backend) {
	b := openOutbox(t, &be)
	same(t, "empty", b.outbox(10), []store.Event{})
	b.putGroup("team", "ann", "bob")
	typed := b.draft(store.Draft{Kind: store.Private, From: "ann", Conv: "p:ann:bob", Type: -3, Content: []byte(`{"a":  [1,2]}`)})
	r := b.commit(typed, b.group("bob", "team"), typed, b.group("cid", "team"), b.system("ann"), b.private("bob", "ann"))
	equal(t, "duplicate", r[2].Outcome, store.Duplicate)
	b.outcome(typed, store.Duplicate)
	b.one(b.group("", "team"))
	want := []string{"1 p:ann:bob 1 ", "1 g:team 1 ", "1 n:ann 1 ", "1 p:ann:bob 2 ", "1 g:team 2 "}
	check := func() {
		t.Helper()
		list := b.outbox(10)
		same(t, "events", told(list), want)
		for _, e := range list {
			same(t, "the message", *e.Message, b.history(e.Conv)[e.Seq-1])
		}
	}
	check()
	b.reopen(be)
	check()
	same(t, "a page", told(b.outbox(2)), want[:2])
	b.published()
	check()
	list := b.outbox(10)
	b.published(list[1], list[4])
	want = []string{want[0], want[2], want[3]}
	check()
	b.published(list[1], list[0]) // again, and another
	want = want[1:]
	check()
	b.reopen(be)
	check()
	same(t, "a page", told(b.outbox(1)), want[:1])
	b.one(b.private("ann", "bob"))
	want = append(want, "1 p:ann:bob 3 ")
	check()
	b.published(b.outbox(10)...)
	same(t, "all is published", b.outbox(10), []store.Event{})
	b.reopen(be)
	same(t, "all is published", b.outbox(10), []store.Event{})
	b.one(b.private("ann", "bob"))
	same(t, "and it goes on", told(b.outbox(10)), []string{"1 p:ann:bob 4 "})
}

// An event tells of a message as it was stored, though it was recalled since.
func testOutboxRecall(t *testing.T, be Backend) {
	b := openOutbox(t, &be)
	conv := "p:ann:bob"
	first := b.private("ann", "bob")
	second := b.private("ann", "bob")
	b.stored(first, b.recall("ann", conv, 1), second)
	b.one(b.recall("", conv, 3))
	check := func() {
		t.Helper()
		list := b.outbox(10)
		same(t, "events", told(list), []string{"1 p:ann:bob 1 ", "2 p:ann:bob 2 ", "1 p:ann:bob 3 ", "2 p:ann:bob 4 "})
		for i, content := range map[int]string{0: string(first.Content), 2: string(second.Content)} {
			m := list[i].Message
			same(t, "the message", []any{m.Kind, string(m.Content), m.Recalled, m.From, m.ID}, []any{store.Private, content, false, "ann", b.history(conv)[i].ID})
		}
		same(t, "the recall", []any{list[1].Message.Kind, list[1].Message.Target, list[1].Message.From}, []any{store.Recall, 1, "ann"})
		same(t, "by the API", []any{list[3].Message.Kind, list[3].Message.Target, list[3].Message.From}, []any{store.Recall, 3, ""})
		equal(t, "in history", b.history(conv)[0].Recalled, true)
	}
	check()
	b.reopen(be)
	check()
	b.published(b.outbox(1)...)
	same(t, "the recall is left", told(b.outbox(1)), []string{"2 p:ann:bob 2 "})
	b.published(b.outbox(10)...)
	same(t, "all is published", b.outbox(10), []store.Event{})
}

// Positions are told behind the messages that they tell of. Those of one position that are close together may be one event, the furthest.
func testOutboxPositions(t *testing.T, be Backend) {
	b := openOutbox(t, &be)
	b.putGroup("team", "ann", "bob")
	b.stored(b.private("ann", "bob"), b.private("ann", "bob"), b.private("bob", "ann"), b.group("ann", "team"))
	b.Delivered("bob", "p:ann:bob", 2)
	list := b.awaitEvents(5)
	same(t, "delivered", told(list), []string{"1 p:ann:bob 1 ", "1 p:ann:bob 2 ", "1 p:ann:bob 3 ", "1 g:team 1 ", "3 p:ann:bob 2 bob"})
	b.published(list[:4]...)
	read := func(user, conv string, seq uint64, want bool) {
		t.Helper()
		moved, err := b.Read(ctx, user, conv, seq)
		b.must(err)
		equal(t, "moved", moved, want)
	}
	read("bob", "p:ann:bob", 2, true)
	list = b.awaitEvents(2)
	same(t, "read", told(list), []string{"3 p:ann:bob 2 bob", "4 p:ann:bob 2 bob"})
	equal(t, "no message", list[1].Message == nil, true)
	b.published(list[1])
	read("bob", "p:ann:bob", 1, false)
	read("ann", "g:team", 1, true)
	read("bob", "g:team", 1, true)
	b.reopen(be)
	list = b.outbox(10)
	same(t, "the first", told(list[:1]), []string{"3 p:ann:bob 2 bob"})
	rest := told(list[1:])
	slices.Sort(rest)
	same(t, "after opening again", rest, []string{"4 g:team 1 ann", "4 g:team 1 bob"})
	b.one(b.private("ann", "bob"))
	b.reopen(be)
	list = b.outbox(10)
	equal(t, "events", len(list), 4)
	same(t, "the newest", told(list[3:]), []string{"1 p:ann:bob 4 "})
	b.published(list...)
	b.Delivered("ann", "p:ann:bob", 3)
	b.Delivered("ann", "p:ann:bob", 4)
	read("ann", "p:ann:bob", 3, true)
	b.reopen(be)
	furthest := map[string]uint64{}
	for _, e := range b.outbox(10) {
		key := fmt.Sprint(e.Kind, e.User, e.Conv)
		if e.Seq <= furthest[key] {
			t.Fatalf("%s goes back to %d", key, e.Seq)
		}
		furthest[key] = e.Seq
	}
	same(t, "the furthest", furthest, map[string]uint64{"3annp:ann:bob": 4, "4annp:ann:bob": 3})
	b.published(b.outbox(10)...)
	same(t, "all is published", b.outbox(10), []store.Event{})
}

// Without an outbox there is nothing.
func testNoOutbox(t *testing.T, be Backend) {
	b := open(t, be)
	b.stored(b.private("ann", "bob"))
	_, err := b.Read(ctx, "bob", "p:ann:bob", 1)
	b.must(err)
	b.Delivered("bob", "p:ann:bob", 1)
	b.reopen(be)
	same(t, "events", b.outbox(10), []store.Event{})
	b.must(b.Published(ctx, 0, []uint64{1, 2}))
}

// What retention removed is told of with its content, or without a message; it goes like all others.
func testOutboxExpire(t *testing.T, be Backend) {
	b := openOutbox(t, &be)
	b.one(b.private("ann", "bob"))
	late := b.private("ann", "bob")
	late.TS = noon + retentionDays*day
	b.one(late)
	b.expire(noon+(retentionDays+2)*day, 1)
	for range 2 {
		list := b.outbox(10)
		same(t, "events", told(list), []string{"1 p:ann:bob 1 ", "1 p:ann:bob 2 "})
		if m := list[0].Message; m != nil && string(m.Content) != `"content of id-1"` {
			t.Fatalf("the first: %+v", *m)
		}
		same(t, "the second", string(list[1].Message.Content), string(late.Content))
		b.reopen(be)
	}
	b.published(b.outbox(1)...)
	same(t, "events", told(b.outbox(10)), []string{"1 p:ann:bob 2 "})
	b.published(b.outbox(10)...)
	same(t, "events", b.outbox(10), []store.Event{})
}

// Pages are cut by bytes too, and what is large is published all the same.
func testOutboxBytes(t *testing.T, be Backend) {
	b := openOutbox(t, &be)
	const n = 20
	for i := range n {
		d := b.private("ann", "bob")
		d.Content = fmt.Appendf(nil, `"%0*d"`, 60_000, i)
		b.one(d)
	}
	pages, seq := 0, uint64(0)
	for list := b.outbox(100); len(list) > 0; list = b.outbox(100) {
		size := 0
		for _, e := range list {
			seq++
			equal(t, "seq", e.Seq, seq)
			size += len(e.Message.Content)
		}
		if size > 400_000 {
			t.Fatalf("a page of %d bytes", size)
		}
		pages++
		b.published(list...)
	}
	equal(t, "events", seq, n)
	if pages < 4 {
		t.Fatalf("%d pages", pages)
	}
}

// A publisher beside commits that fails now and then, and a store that is closed under it: every message is published, a
// conversation's first times in its order, and nothing comes again that was published.
func testOutboxPublisher(t *testing.T, be Backend) {
	b := openOutbox(t, &be)
	const rounds, commits, perCommit = 3, 20, 6
	convs := []string{"p:ann:bob", "p:ann:cid", "n:ann"}
	seen := map[string]uint64{}
	dropped := map[uint64]bool{}
	publish := func(n int, keep func(i int) bool) int {
		list := b.outbox(n)
		var gone []store.Event
		for i, e := range list {
			if dropped[e.ID] {
				t.Fatalf("event %d again: %s", e.ID, told([]store.Event{e}))
			}
			if e.Seq > seen[e.Conv] {
				seen[e.Conv]++
				equal(t, "seq of "+e.Conv, e.Seq, seen[e.Conv])
			}
			if !keep(i) {
				gone = append(gone, e)
			}
		}
		b.published(gone...)
		for _, e := range gone {
			dropped[e.ID] = true
		}
		return len(list)
	}
	sent := 0
	for round := range rounds {
		var writer sync.WaitGroup
		var batches [][]*store.Draft
		for i := range commits {
			var drafts []*store.Draft
			for j := range perCommit {
				switch conv := convs[(i+j)%3]; conv {
				case "n:ann":
					drafts = append(drafts, b.system("ann"))
				default:
					drafts = append(drafts, b.private("ann", conv[6:]))
				}
			}
			batches = append(batches, drafts)
		}
		writer.Go(func() {
			for _, drafts := range batches {
				p, err := b.Commit(ctx, 0, 0, drafts)
				if err == nil {
					_, err = p.Wait()
				}
				if err != nil {
					t.Error(err)
					return
				}
				p.Release()
			}
		})
		for i := range 30 {
			publish(1+(i*7)%11, func(j int) bool { return (i+j)%3 == 0 })
		}
		writer.Wait()
		sent += commits * perCommit
		if round < rounds-1 {
			b.reopen(be)
		}
	}
	for publish(17, func(int) bool { return false }) > 0 {
	}
	equal(t, "published", len(dropped), sent)
	for _, conv := range convs {
		equal(t, "messages of "+conv, seen[conv], uint64(sent/3))
	}
	b.reopen(be)
	same(t, "all is published", b.outbox(10), []store.Event{})
}
