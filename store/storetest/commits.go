package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/store"
)

func testSequences(t *testing.T, be Backend) {
	b := open(t, be)
	for i := uint64(1); i <= 5; i++ {
		r := b.one(b.private("ann", "bob"))
		equal(t, "seq", r.Seq, i)
		same(t, "entries", r.Entries, []store.Entry{{User: "ann", Inbox: i}, {User: "bob", Inbox: i}})
	}
	r := b.one(b.private("cid", "bob"))
	equal(t, "seq of another conversation", r.Seq, 1)
	same(t, "entries", r.Entries, []store.Entry{{User: "bob", Inbox: 6}, {User: "cid", Inbox: 1}})
	r = b.one(b.private("bob", "bob"))
	same(t, "a message to oneself is one entry", r.Entries, []store.Entry{{User: "bob", Inbox: 7}})
	head, err := b.Head(ctx, "bob")
	b.must(err)
	equal(t, "inbox of bob", head, store.Inbox{Head: 7, First: 1})
	head, err = b.ConvHead(ctx, "p:ann:bob")
	b.must(err)
	equal(t, "conversation", head, store.Inbox{Head: 5, First: 1})
	head, err = b.ConvHead(ctx, "p:no:one")
	b.must(err)
	equal(t, "no conversation", head, store.Inbox{Head: 0, First: 1})
	head, err = b.Head(ctx, "nobody")
	b.must(err)
	equal(t, "no inbox", head, store.Inbox{Head: 0, First: 1})
	heads, err := b.Heads(ctx, []string{"bob", "nobody", "ann", "bob"})
	b.must(err)
	same(t, "heads", heads, []uint64{7, 0, 5, 7})
	heads, err = b.Heads(ctx, nil)
	b.must(err)
	same(t, "heads of nobody", heads, []uint64{})
	equal(t, "messages of bob", len(b.inbox("bob")), 7)
	equal(t, "messages of nobody", len(b.inbox("nobody")), 0)
	stats := b.Stats()
	equal(t, "messages counted", stats.Messages, 7)
	equal(t, "entries counted", stats.Entries, 13)
	b.must(b.State())
}

// A stored message is found as it was sent.
func testKinds(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", "ann", "bob")
	drafts := []*store.Draft{
		b.draft(store.Draft{Kind: store.Private, From: "ann", Conv: "p:ann:bob", Type: -7, Content: []byte(`{"a":  [1,2]}`)}),
		b.draft(store.Draft{Kind: store.Private, From: "bob", Conv: "p:ann:bob", Type: 1 << 60, Content: []byte(`null`)}),
		b.draft(store.Draft{Kind: store.Group, From: "ann", Conv: "g:team", ID: []byte("an-id/with/slashes"), Content: []byte(`""`)}),
		b.draft(store.Draft{Kind: store.System, Conv: "g:team", Content: []byte(`3`)}),
		b.draft(store.Draft{Kind: store.System, Conv: "n:ann", Content: []byte(`true`)}),
	}
	results := b.stored(drafts...)
	list := b.inbox("ann")
	equal(t, "messages", len(list), len(drafts))
	for i, e := range list {
		d, r := drafts[i], results[i]
		want := store.Message{Kind: d.Kind, MsgID: d.MsgID, Conv: d.Conv, Seq: r.Seq, From: d.From, ID: string(d.ID), TS: r.TS, Type: d.Type, Content: d.Content}
		same(t, "inbox entry", e, store.InboxEntry{Inbox: uint64(i + 1), Message: want})
		same(t, "in history", b.history(d.Conv)[r.Seq-1], want)
	}
	equal(t, "entries of bob", len(b.inbox("bob")), 4)
	b.reopen(be)
	same(t, "after opening again", b.inbox("ann"), list)
}

func testBatchOrder(t *testing.T, be Backend) {
	b := open(t, be)
	var drafts []*store.Draft
	for i := range 200 {
		drafts = append(drafts, b.private(fmt.Sprint("u", i%3), fmt.Sprint("u", (i+1)%3)))
	}
	next := map[string]uint64{}
	results := b.stored(drafts...)
	for i, r := range results {
		next[drafts[i].Conv]++
		equal(t, "seq", r.Seq, next[drafts[i].Conv])
		for _, e := range r.Entries {
			next[e.User]++
			equal(t, "inbox", e.Inbox, next[e.User])
		}
	}
	for u := range 3 {
		list := b.inbox(fmt.Sprint("u", u))
		for i := 1; i < len(list); i++ {
			if list[i].TS <= list[i-1].TS {
				t.Fatalf("inbox order: %d before %d", list[i-1].TS, list[i].TS)
			}
		}
	}
	if p, err := b.Commit(ctx, 0, 0, nil); err != nil {
		t.Fatal(err)
	} else {
		equal(t, "results of an empty commit", len(b.wait(p)), 0)
	}
}

// A second commit may come before the first one's Wait; nothing is seen before it is waited for.
func testOverlap(t *testing.T, be Backend) {
	b := open(t, be)
	b.one(b.private("ann", "bob"))
	twice := b.private("ann", "bob")
	var all []store.Pending
	for i := range 10 {
		drafts := []*store.Draft{b.private("ann", "bob"), b.private("cid", "ann")}
		if i == 3 || i == 4 {
			drafts = append(drafts, twice)
		}
		p, err := b.Commit(ctx, 0, 0, drafts)
		b.must(err)
		all = append(all, p)
	}
	seq := uint64(1)
	for i := len(all) - 1; i > 6; i-- { // in any order
		_ = b.wait(all[i])
	}
	for i, p := range all[:7] {
		r := b.wait(p)
		seq++
		equal(t, "seq", r[0].Seq, seq)
		switch i {
		case 3:
			seq++
			equal(t, "first", r[2].Outcome, store.Stored)
		case 4:
			equal(t, "repeat of a commit that is under way", r[2].Outcome, store.Duplicate)
			equal(t, "its seq", r[2].Seq, seq-1)
		}
	}
	equal(t, "entries", len(b.inbox("ann")), 22)
}

// The time of a conversation never goes back.
func testTime(t *testing.T, be Backend) {
	b := open(t, be)
	at := func(from, to string, ts int64) int64 {
		d := b.private(from, to)
		d.TS = ts
		return b.one(d).TS
	}
	equal(t, "first", at("ann", "bob", noon+1000), noon+1000)
	equal(t, "clock set back", at("bob", "ann", noon+10), noon+1000)
	equal(t, "another conversation", at("ann", "cid", noon+20), noon+20)
	equal(t, "forward", at("ann", "bob", noon+2000), noon+2000)
	b.reopen(be)
	equal(t, "back after opening again", at("ann", "bob", noon+5), noon+2000)
	equal(t, "day before", at("ann", "bob", noon-3*day), noon+2000)
	equal(t, "days later", at("ann", "bob", noon+3*day), noon+3*day)
	equal(t, "inbox", len(b.inbox("ann")), 7)
}

func testRepeats(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", "ann", "bob")
	first := b.private("ann", "bob")
	again := *first
	again.TS += 10
	other := again
	other.Content = []byte(`"other"`)
	elsewhere := again
	elsewhere.Conv = "p:ann:cid"
	typed := again
	typed.Type = 1
	grouped := again
	grouped.Kind, grouped.Conv = store.Group, "g:team"
	r := b.commit(first, &again, &other)
	equal(t, "first", r[0].Outcome, store.Stored)
	equal(t, "in the batch", r[1].Outcome, store.Duplicate)
	equal(t, "conflict in the batch", r[2].Outcome, store.Conflict)
	check := func() {
		t.Helper()
		d := b.outcome(&again, store.Duplicate)
		equal(t, "seq", d.Seq, r[0].Seq)
		equal(t, "ts", d.TS, r[0].TS)
		b.outcome(&other, store.Conflict)
		b.outcome(&elsewhere, store.Conflict)
		b.outcome(&typed, store.Conflict)
		b.outcome(&grouped, store.Conflict)
	}
	check()
	same2 := b.draft(store.Draft{Kind: store.Private, From: "bob", Conv: "p:ann:bob", ID: first.ID})
	b.outcome(same2, store.Stored) // another sender's
	b.reopen(be)
	check()
	equal(t, "entries", len(b.inbox("bob")), 2)
	if b.Stats().Duplicates < 1 {
		t.Fatal("no duplicates counted")
	}
	// A refused draft is not remembered.
	late := b.group("cid", "team")
	b.outcome(late, store.Forbidden)
	b.putGroup("team", "ann", "bob", "cid")
	b.outcome(late, store.Stored)
	b.putGroup("team", "ann", "bob")
	b.outcome(late, store.Duplicate) // although it could not send it now
}

func testRepeatsExpire(t *testing.T, be Backend) {
	b := open(t, be)
	d := b.private("ann", "bob")
	r := b.one(d)
	for i := 1; i <= 6; i++ {
		_, err := b.Expire(ctx, time.UnixMilli(noon+int64(i)*day))
		b.must(err)
		equal(t, "seq within the window", b.outcome(d, store.Duplicate).Seq, r.Seq)
		b.one(b.draft(store.Draft{Kind: store.Private, From: "ann", Conv: "p:ann:cid", TS: noon + int64(i)*day}))
	}
	_, err := b.Expire(ctx, time.UnixMilli(noon+9*day))
	b.must(err)
	d.TS = noon + 9*day
	equal(t, "after the window it is new", b.outcome(d, store.Stored).Seq, r.Seq+1)
	b.reopen(be)
	equal(t, "and remembered", b.outcome(d, store.Duplicate).Seq, r.Seq+1)
}

func testRefusals(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", "ann")
	b.outcome(b.group("ann", "nogroup"), store.NotFound)
	b.outcome(b.group("", "nogroup"), store.NotFound)
	b.outcome(b.group("bob", "team"), store.Forbidden)
	b.outcome(b.draft(store.Draft{Kind: store.Private, From: "cid", Conv: "p:ann:bob"}), store.Forbidden)
	b.outcome(b.recall("ann", "p:ann:bob", 1), store.NotFound)
	equal(t, "seq", b.one(b.group("ann", "team")).Seq, 1)
	r := b.commit(b.group("bob", "team"), b.group("ann", "team"), b.group("ann", "nogroup"), b.group("", "team"))
	same(t, "outcomes", []any{r[0].Outcome, r[1].Seq, r[2].Outcome, r[3].Seq}, []any{store.Forbidden, 2, store.NotFound, 3})
	equal(t, "entries of ann", len(b.inbox("ann")), 3)
	equal(t, "entries of bob", len(b.inbox("bob")), 0)
}

// What was promised is stored, whatever became of its group.
func testPromised(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", "ann", "cid")
	promised := func(from string) *store.Draft {
		d := b.group(from, "team")
		d.Promised = true
		return d
	}
	first := promised("ann")
	same(t, "of a member", b.one(first).Entries, []store.Entry{{User: "ann", Inbox: 1}, {User: "cid", Inbox: 1}})
	left := promised("bob")
	r := b.one(left)
	same(t, "of who has left", []any{r.Seq, r.Entries}, []any{2, []store.Entry{{User: "ann", Inbox: 2}, {User: "bob", Inbox: 1}, {User: "cid", Inbox: 2}}})
	same(t, "its sender finds it", []any{b.inbox("bob")[0].Seq, b.inbox("bob")[0].From}, []any{2, "bob"})
	b.outcome(b.group("bob", "team"), store.Forbidden) // not promised
	b.outcome(left, store.Duplicate)
	other := *left
	other.Content = []byte(`"other"`)
	b.outcome(&other, store.Conflict)
	other = *left
	other.Promised = false
	b.outcome(&other, store.Duplicate)
	_, member, err := b.IsMember(ctx, "team", "bob")
	b.must(err)
	equal(t, "no member all the same", member, false)
	equal(t, "nothing is listed", len(b.conversations("bob", 10)), 0)

	_, err = b.DeleteGroup(ctx, "team")
	b.must(err)
	b.outcome(b.group("ann", "team"), store.NotFound)
	r = b.one(promised("ann"))
	same(t, "to a deleted group", []any{r.Seq, r.Large, r.Entries}, []any{3, false, []store.Entry{{User: "ann", Inbox: 3}}})
	r = b.one(promised(""))
	same(t, "of the system", []any{r.Seq, r.Entries}, []any{4, []store.Entry{}})
	_, err = b.Group(ctx, "team")
	wantErr(t, "Group", err, store.ErrNotFound)
	b.reopen(be)
	b.outcome(first, store.Duplicate)
	equal(t, "in history", len(b.history("g:team")), 4)

	d := b.group("dan", "unheard")
	d.Promised = true
	same(t, "to a group that is unknown", b.one(d).Entries, []store.Entry{{User: "dan", Inbox: 1}})
	same(t, "which begins later", b.putGroup("unheard", "eve"), store.GroupInfo{Group: "unheard", Size: 1, Head: 1})
	b.putGroup("team", users(InboxLimit+1)...)
	r = b.one(promised("ann"))
	same(t, "to a large group", []any{r.Seq, r.Large, r.Entries}, []any{5, true, []store.Entry{}})
	b.putGroup("team", users(InboxLimit)...)
	r = b.one(promised("ann"))
	same(t, "the members decide what is large", []any{r.Seq, r.Large, len(r.Entries), r.Entries[0]}, []any{6, false, InboxLimit + 1, store.Entry{User: "ann", Inbox: 4}})
	r = b.commit(promised("u000"), b.group("ann", "team"), promised("ann"), b.group("u000", "team"))[2]
	same(t, "in a batch", []any{r.Outcome, r.Seq, r.Entries[0]}, []any{store.Stored, 8, store.Entry{User: "ann", Inbox: 5}})
}

// A partition's offset is the next of its last commit, also of one that stored nothing.
func testOffset(t *testing.T, be Backend) {
	b := open(t, be)
	check := func(next int64) {
		t.Helper()
		if !be.Offsets {
			next = 0
		}
		at, err := b.Offset(ctx, 0)
		b.must(err)
		equal(t, "offset", at, next)
	}
	commit := func(next int64, drafts ...*store.Draft) {
		t.Helper()
		p, err := b.Commit(ctx, 0, next, drafts)
		b.must(err)
		b.wait(p)
		check(next)
	}
	check(0)
	d := b.private("ann", "bob")
	commit(1, d)
	commit(5, b.private("ann", "bob"), b.private("ann", "bob"))
	commit(6, d)
	commit(9)
	b.reopen(be)
	check(9)
	commit(10, b.group("ann", "nogroup"))
	if be.Offsets {
		at, err := b.Offset(ctx, 1)
		b.must(err)
		equal(t, "offset of another partition", at, 0)
	}
}

func testClosed(t *testing.T, be Backend) {
	b := open(t, be)
	d := b.private("ann", "bob")
	b.one(d)
	b.must(b.Close())
	_, err := b.Commit(ctx, 0, 0, []*store.Draft{d})
	errs := map[string]error{"Commit": err, "Ack": b.Ack("ann", "web", 1), "State": b.State(), "Close": b.Close()}
	_, errs["Attach"] = b.Attach(ctx, "ann", "web")
	_, errs["Heads"] = b.Heads(ctx, []string{"ann"})
	_, errs["Head"] = b.Head(ctx, "ann")
	_, _, _, errs["ReadInbox"] = b.ReadInbox(ctx, "ann", 0, 10)
	_, _, errs["History"] = b.History(ctx, "p:ann:bob", nil, nil, 10)
	_, _, errs["Conversations"] = b.Conversations(ctx, "ann", "", 10)
	_, errs["Read"] = b.Read(ctx, "ann", "p:ann:bob", 1)
	_, errs["Positions"] = b.Positions(ctx, "ann")
	_, errs["LastSeen"] = b.LastSeen(ctx, "ann")
	_, errs["Revoke"] = b.Revoke(ctx, "ann", 1)
	_, errs["RevokedBefore"] = b.RevokedBefore(ctx, "ann")
	_, _, _, errs["PutGroup"] = b.PutGroup(ctx, "team", nil, 10)
	_, _, _, errs["ChangeGroup"] = b.ChangeGroup(ctx, "team", nil, nil, 10)
	_, errs["DeleteGroup"] = b.DeleteGroup(ctx, "team")
	_, errs["Group"] = b.Group(ctx, "team")
	_, _, errs["Members"] = b.Members(ctx, "team", "", 10)
	_, _, errs["IsMember"] = b.IsMember(ctx, "team", "ann")
	_, errs["GroupsOf"] = b.GroupsOf(ctx, "ann")
	_, errs["Expire"] = b.Expire(ctx, time.UnixMilli(noon))
	_, errs["ConvHead"] = b.ConvHead(ctx, "p:ann:bob")
	_, errs["AttachGroup"] = b.AttachGroup(ctx, "ann", "web", "team")
	errs["AckGroup"] = b.AckGroup("ann", "web", "team", 1)
	_, errs["Offset"] = b.Offset(ctx, 0)
	_, errs["Outbox"] = b.Outbox(ctx, 0, 10)
	errs["Published"] = b.Published(ctx, 0, []uint64{1})
	errs["Checkpoint"] = b.Checkpoint(ctx, t.TempDir()+"/copy")
	for name, err := range errs {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", name, err)
		}
	}
	if _, _, known := b.TryMember("team", "ann"); known {
		t.Error("TryMember knows something")
	}
	b.Seen("ann", 1)
	b.Delivered("ann", "p:ann:bob", 1)
	b.Forget("team")
	_ = b.Stats()
}

func testReopen(t *testing.T, be Backend) {
	b := open(t, be)
	epoch := b.Epoch()
	if epoch == "" {
		t.Fatal("no epoch")
	}
	b.putGroup("team", "ann", "bob")
	b.stored(b.private("ann", "bob"), b.group("ann", "team"))
	_, err := b.Attach(ctx, "bob", "web")
	b.must(err)
	b.must(b.Ack("bob", "web", 2))
	moved, err := b.Read(ctx, "bob", "g:team", 1)
	b.must(err)
	equal(t, "moved", moved, true)
	b.Seen("bob", noon)
	for range 3 {
		b.reopen(be)
		equal(t, "epoch", b.Epoch(), epoch)
		p, err := b.Positions(ctx, "bob")
		b.must(err)
		same(t, "positions", p, map[string]uint64{"web": 2})
		equal(t, "read", b.conversation("bob", "g:team").Read, 1)
		seen, err := b.LastSeen(ctx, "bob")
		b.must(err)
		equal(t, "seen", seen, noon)
	}
	equal(t, "sequences go on", b.one(b.private("bob", "ann")).Seq, 2)
	equal(t, "in the group too", b.one(b.group("bob", "team")).Seq, 2)
	equal(t, "inbox", len(b.inbox("ann")), 4)
}

func testCheckpoint(t *testing.T, be Backend) {
	if be.OpenCopy == nil {
		return
	}
	b := open(t, be)
	for range 20 {
		b.one(b.private("ann", "bob"))
	}
	_, err := b.Attach(ctx, "bob", "web")
	b.must(err)
	b.must(b.Ack("bob", "web", 7))
	dir := t.TempDir() + "/copy"
	b.must(b.Checkpoint(ctx, dir))
	if b.Checkpoint(ctx, dir) == nil {
		t.Fatal("a checkpoint over another")
	}
	b.one(b.private("ann", "bob"))
	c := &box{Store: be.OpenCopy(dir), t: t, ts: b.ts, n: 1000}
	if c.Epoch() == b.Epoch() {
		t.Fatal("the copy has the epoch of the original")
	}
	equal(t, "messages in the copy", len(c.inbox("bob")), 20)
	p, err := c.Positions(ctx, "bob")
	b.must(err)
	same(t, "positions in the copy", p, map[string]uint64{"web": 7})
	equal(t, "the copy goes on", c.one(c.private("ann", "bob")).Seq, 21)
	epoch := c.Epoch()
	b.must(c.Close())
	c.Store = be.OpenCopy(dir)
	equal(t, "epoch of the copy, opened again", c.Epoch(), epoch)
	b.must(c.Close())
	equal(t, "messages in the original", len(b.inbox("bob")), 21)
}
