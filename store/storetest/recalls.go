package storetest

import (
	"testing"

	"github.com/meshtalk/meshtalk/store"
)

func testRecall(t *testing.T, be Backend) {
	b := open(t, be)
	conv := "p:ann:bob"
	msg := b.one(b.private("ann", "bob"))
	b.one(b.private("bob", "ann"))
	within := b.recall("ann", conv, 1)
	within.RecallAfter = msg.TS
	late := b.recall("ann", conv, 1)
	late.RecallAfter = msg.TS + 1
	b.outcome(late, store.Forbidden)
	b.outcome(b.recall("bob", conv, 1), store.Forbidden)
	b.outcome(b.recall("cid", conv, 1), store.Forbidden)
	b.outcome(b.recall("ann", conv, 3), store.NotFound)
	b.outcome(b.recall("ann", conv, 0), store.NotFound)
	b.outcome(b.recall("ann", "p:ann:zoe", 1), store.NotFound)
	b.outcome(b.recall("", "g:none", 1), store.NotFound)

	r := b.one(within)
	same(t, "event", []any{r.Seq, r.Entries, r.TargetFrom}, []any{3, []store.Entry{{User: "ann", Inbox: 3}, {User: "bob", Inbox: 3}}, "ann"})
	check := func() {
		t.Helper()
		list := b.inbox("bob")
		same(t, "the message", []any{list[0].Recalled, list[0].Content == nil, list[0].From, list[0].Kind}, []any{true, true, "ann", store.Private})
		same(t, "the event", []any{list[2].Kind, list[2].Target, list[2].From, list[2].Recalled}, []any{store.Recall, 1, "ann", false})
		same(t, "the other message", []any{list[1].Recalled, list[1].Content != nil}, []any{false, true})
		same(t, "in history", b.history(conv)[0].Recalled, true)
		// Again: the same id first, then the first event's answer, also after the window, for the sender and the API.
		d := b.outcome(within, store.Duplicate)
		same(t, "same id", []any{d.Seq, d.TS}, []any{r.Seq, r.TS})
		d = b.outcome(late, store.Duplicate)
		same(t, "another id, after the window", []any{d.Seq, d.TS, d.MsgID}, []any{r.Seq, r.TS, within.MsgID})
		d = b.outcome(b.recall("", conv, 1), store.Duplicate)
		same(t, "by the API", []any{d.Seq, d.MsgID}, []any{r.Seq, within.MsgID})
		b.outcome(b.recall("bob", conv, 1), store.Forbidden)
		b.outcome(b.recall("ann", conv, 3), store.NotFound) // of the event
	}
	check()
	b.reopen(be)
	check()
	other := *within
	other.Target = 2
	b.outcome(&other, store.Conflict)
	equal(t, "by the API", b.one(b.recall("", conv, 2)).TargetFrom, "bob")
	equal(t, "event of the API", b.inbox("ann")[3].From, "")
	b.one(b.system("ann"))
	b.outcome(b.recall("ann", "n:ann", 1), store.Forbidden)
	same(t, "system message", b.one(b.recall("", "n:ann", 1)).Entries, []store.Entry{{User: "ann", Inbox: 6}})
	b.one(b.private("ann", "ann"))
	same(t, "to oneself", b.one(b.recall("ann", "p:ann:ann", 1)).Entries, []store.Entry{{User: "ann", Inbox: 8}})
}

// Messages and recalls of the same batch see each other.
func testRecallInBatch(t *testing.T, be Backend) {
	b := open(t, be)
	conv := "p:ann:bob"
	r := b.commit(b.private("ann", "bob"), b.recall("ann", conv, 1), b.recall("ann", conv, 1), b.private("ann", "bob"), b.recall("bob", conv, 3), b.recall("ann", conv, 2))
	var outcomes []store.Outcome
	for _, x := range r {
		outcomes = append(outcomes, x.Outcome)
	}
	same(t, "outcomes", outcomes, []store.Outcome{store.Stored, store.Stored, store.Duplicate, store.Stored, store.Forbidden, store.NotFound})
	same(t, "the duplicate", []any{r[2].Seq, r[2].TS}, []any{r[1].Seq, r[1].TS})
	history := b.history(conv)
	same(t, "history", []any{len(history), history[0].Recalled, history[0].Content == nil, history[2].Recalled}, []any{3, true, true, false})
	r = b.commit(b.recall("ann", conv, 3), b.recall("ann", conv, 3))
	same(t, "of an earlier batch, twice", []any{r[0].Outcome, r[1].Outcome, r[1].Seq}, []any{store.Stored, store.Duplicate, 4})
	equal(t, "entries", len(b.inbox("bob")), 4)
}

func testRecallGroup(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", "ann", "bob")
	b.one(b.group("ann", "team"))
	b.one(b.group("ann", "team"))
	b.one(b.group("", "team"))
	b.putGroup("team", "bob", "cid")
	b.outcome(b.recall("ann", "g:team", 1), store.Forbidden) // left
	b.outcome(b.recall("bob", "g:team", 1), store.Forbidden)
	b.outcome(b.recall("bob", "g:team", 3), store.Forbidden) // of the system
	b.putGroup("team", "ann", "bob", "cid")
	r := b.one(b.recall("ann", "g:team", 1))
	same(t, "to the members now", r.Entries, []store.Entry{{User: "ann", Inbox: 4}, {User: "bob", Inbox: 4}, {User: "cid", Inbox: 1}})
	same(t, "cid", b.inbox("cid")[0].Target, 1)
	b.putGroup("team", users(InboxLimit+1)...)
	r = b.one(b.recall("", "g:team", 2))
	same(t, "in a large group", []any{r.Large, len(r.Entries), r.Seq}, []any{true, 0, 5})
	_, err := b.DeleteGroup(ctx, "team")
	b.must(err)
	b.outcome(b.recall("ann", "g:team", 3), store.NotFound)
	same(t, "after delete, by the API", []any{b.one(b.recall("", "g:team", 3)).Entries, b.history("g:team")[2].Recalled}, []any{[]store.Entry{}, true})
}
