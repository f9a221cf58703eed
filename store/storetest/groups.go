package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/meshtalk/meshtalk/store"
)

func users(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("u%03d", i)
	}
	return list
}

func testGroups(t *testing.T, be Backend) {
	b := open(t, be)
	_, err := b.Group(ctx, "team")
	wantErr(t, "Group of none", err, store.ErrNotFound)
	_, _, _, err = b.ChangeGroup(ctx, "team", []string{"ann"}, nil, 10)
	wantErr(t, "ChangeGroup of none", err, store.ErrNotFound)
	_, err = b.DeleteGroup(ctx, "team")
	wantErr(t, "DeleteGroup of none", err, store.ErrNotFound)

	info, added, removed, err := b.PutGroup(ctx, "team", []string{"cid", "ann", "bob", "ann"}, 10)
	b.must(err)
	same(t, "put", []any{info, added, removed}, []any{store.GroupInfo{Group: "team", Size: 3}, []string{"ann", "bob", "cid"}, []string{}})
	info, added, removed, err = b.PutGroup(ctx, "team", nil, 10)
	b.must(err)
	same(t, "put without members", []any{info.Size, added, removed}, []any{3, []string{}, []string{}})
	b.one(b.group("ann", "team"))
	info, added, removed, err = b.PutGroup(ctx, "team", []string{"dan", "bob"}, 10)
	b.must(err)
	same(t, "put of others", []any{info, added, removed}, []any{store.GroupInfo{Group: "team", Size: 2, Head: 1}, []string{"dan"}, []string{"ann", "cid"}})
	info, added, removed, err = b.ChangeGroup(ctx, "team", []string{"ann", "bob", "eve"}, []string{"dan", "zoe"}, 10)
	b.must(err)
	same(t, "change", []any{info.Size, added, removed}, []any{3, []string{"ann", "eve"}, []string{"dan"}})
	check := func() {
		t.Helper()
		list, next, err := b.Members(ctx, "team", "", 10)
		b.must(err)
		same(t, "members", []any{list, next}, []any{[]string{"ann", "bob", "eve"}, ""})
		of, err := b.GroupsOf(ctx, "ann")
		b.must(err)
		same(t, "groups of ann", of, []string{"team"})
		of, err = b.GroupsOf(ctx, "dan")
		b.must(err)
		same(t, "groups of dan", of, []string{})
	}
	check()
	b.reopen(be)
	check()
	b.putGroup("zoo", "ann")
	b.putGroup("alpha", "ann")
	of, err := b.GroupsOf(ctx, "ann")
	b.must(err)
	same(t, "groups of ann", of, []string{"alpha", "team", "zoo"})

	members, err := b.DeleteGroup(ctx, "team")
	b.must(err)
	same(t, "deleted", members, []string{"ann", "bob", "eve"})
	_, err = b.Group(ctx, "team")
	wantErr(t, "Group after delete", err, store.ErrNotFound)
	_, _, err = b.Members(ctx, "team", "", 10)
	wantErr(t, "Members after delete", err, store.ErrNotFound)
	_, err = b.DeleteGroup(ctx, "team")
	wantErr(t, "DeleteGroup twice", err, store.ErrNotFound)
	exists, member, err := b.IsMember(ctx, "team", "ann")
	b.must(err)
	same(t, "member of a deleted group", []bool{exists, member}, []bool{false, false})
	b.outcome(b.group("", "team"), store.NotFound)
	equal(t, "history stays", len(b.history("g:team")), 1)
	b.reopen(be)
	info = b.putGroup("team", "fay")
	same(t, "revived", info, store.GroupInfo{Group: "team", Size: 1, Head: 1})
	equal(t, "seq goes on", b.one(b.group("fay", "team")).Seq, 2)
	info, _, _, err = b.PutGroup(ctx, "empty", nil, 10)
	b.must(err)
	same(t, "a group without members", info, store.GroupInfo{Group: "empty"})
	equal(t, "a message to nobody", b.one(b.group("", "empty")).Seq, 1)
}

func testGroupLimits(t *testing.T, be Backend) {
	b := open(t, be)
	_, _, _, err := b.PutGroup(ctx, "team", users(11), 10)
	wantErr(t, "PutGroup above the limit", err, store.ErrTooMany)
	_, err = b.Group(ctx, "team")
	wantErr(t, "nothing was made", err, store.ErrNotFound)
	_, _, _, err = b.PutGroup(ctx, "team", users(10), 10)
	b.must(err)
	_, _, _, err = b.ChangeGroup(ctx, "team", []string{"one", "more"}, []string{"u000"}, 10)
	wantErr(t, "ChangeGroup above the limit", err, store.ErrTooMany)
	_, member, err := b.IsMember(ctx, "team", "u000")
	b.must(err)
	equal(t, "nothing was changed", member, true)
	_, _, _, err = b.ChangeGroup(ctx, "team", []string{"one"}, []string{"u000"}, 10)
	b.must(err)
}

func testMembers(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", users(25)...)
	var all []string
	cursor := ""
	for pages := 0; ; pages++ {
		list, next, err := b.Members(ctx, "team", cursor, 10)
		b.must(err)
		all = append(all, list...)
		if cursor = next; next == "" {
			equal(t, "pages", pages, 2)
			break
		}
	}
	same(t, "members", all, users(25))
	list, next, err := b.Members(ctx, "team", "u0105", 3) // a cursor that is no member
	b.must(err)
	same(t, "from between", []any{list, next}, []any{[]string{"u011", "u012", "u013"}, "u013"})
	if _, _, known := b.TryMember("nogroup", "u001"); known {
		t.Fatal("TryMember knows a group that does not exist")
	}
	_, _, err = b.IsMember(ctx, "team", "u001")
	b.must(err)
	exists, member, known := b.TryMember("team", "u001")
	if known {
		same(t, "TryMember", []bool{exists, member}, []bool{true, true})
	}
	_, _, _, err = b.ChangeGroup(ctx, "team", nil, []string{"u001"}, 100)
	b.must(err)
	if _, member, known := b.TryMember("team", "u001"); known && member {
		t.Fatal("TryMember is behind")
	}
	b.Forget("team")
	_, member, err = b.IsMember(ctx, "team", "u002")
	b.must(err)
	equal(t, "a member after Forget", member, true)
	exists, member, err = b.IsMember(ctx, "nogroup", "ann")
	b.must(err)
	same(t, "of no group", []bool{exists, member}, []bool{false, false})
}

// A message goes to those who are members at its commit.
func testMembership(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", "ann", "bob")
	same(t, "entries", b.one(b.group("ann", "team")).Entries, []store.Entry{{User: "ann", Inbox: 1}, {User: "bob", Inbox: 1}})
	b.putGroup("team", "ann", "cid")
	same(t, "entries", b.one(b.group("ann", "team")).Entries, []store.Entry{{User: "ann", Inbox: 2}, {User: "cid", Inbox: 1}})
	b.outcome(b.group("bob", "team"), store.Forbidden)
	equal(t, "bob keeps what he got", len(b.inbox("bob")), 1)
	equal(t, "cid", b.inbox("cid")[0].Seq, 2)
	equal(t, "history is whole", len(b.history("g:team")), 2)
}

func testLarge(t *testing.T, be Backend) {
	b := open(t, be)
	info := b.putGroup("team", users(InboxLimit)...)
	equal(t, "at the limit", info.Large, false)
	r := b.one(b.group("u000", "team"))
	same(t, "at the limit", []any{r.Large, len(r.Entries)}, []any{false, InboxLimit})
	info = b.putGroup("team", users(InboxLimit+1)...)
	equal(t, "above the limit", info.Large, true)
	r = b.one(b.group("u005", "team"))
	same(t, "above the limit", []any{r.Large, len(r.Entries), r.Seq}, []any{true, 0, 2})
	b.outcome(b.group("stranger", "team"), store.Forbidden)
	history := b.history("g:team")
	same(t, "large in history", []bool{history[0].Large, history[1].Large}, []bool{false, true})
	info = b.putGroup("team", users(InboxLimit)...)
	same(t, "below again, but holding", info, store.GroupInfo{Group: "team", Size: InboxLimit, Large: true, Head: 2})
	b.reopen(be)
	info, err := b.Group(ctx, "team")
	b.must(err)
	equal(t, "after opening again", info.Large, true)
	r = b.one(b.group("u000", "team"))
	same(t, "one count over both kinds", []any{r.Large, r.Seq, len(r.Entries)}, []any{false, 3, InboxLimit})
	equal(t, "inbox", len(b.inbox("u001")), 2)
}

func testLargePositions(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", users(InboxLimit)...)
	b.one(b.group("u000", "team"))
	b.one(b.group("u000", "team")) // 2, in the inboxes
	a, err := b.Attach(ctx, "u001", "old")
	b.must(err)
	same(t, "no large group", a.Large, []store.LargePosition{})
	b.putGroup("team", users(InboxLimit+2)...) // u005 and u006 join at 2
	at := func(user, terminal string, want ...store.LargePosition) {
		t.Helper()
		a, err := b.Attach(ctx, user, terminal)
		b.must(err)
		same(t, "position of "+user+" "+terminal, a.Large, want)
	}
	at("u005", "web", store.LargePosition{Group: "team", Acked: 2, Head: 2, First: 1})
	for range 3 {
		b.one(b.group("u000", "team")) // 3, 4, 5
	}
	at("u005", "web", store.LargePosition{Group: "team", Acked: 2, Head: 5, First: 1})
	at("u001", "old", store.LargePosition{Group: "team", Acked: 2, Head: 5, First: 1})
	b.putGroup("team", users(InboxLimit+3)...) // u007 joins at 5
	at("u007", "web", store.LargePosition{Group: "team", Acked: 5, Head: 5, First: 1})
	b.must(b.AckGroup("u001", "old", "team", 4))
	b.must(b.AckGroup("u001", "old", "team", 3))
	at("u001", "new", store.LargePosition{Group: "team", Acked: 4, Head: 5, First: 1}) // where the furthest stands
	b.must(b.AckGroup("u001", "old", "team", 5))
	b.reopen(be)
	at("u001", "old", store.LargePosition{Group: "team", Acked: 5, Head: 5, First: 1})
	at("u001", "new", store.LargePosition{Group: "team", Acked: 4, Head: 5, First: 1})
	p, err := b.AttachGroup(ctx, "u006", "web", "team")
	b.must(err)
	equal(t, "AttachGroup", p, store.LargePosition{Group: "team", Acked: 2, Head: 5, First: 1})
	_, err = b.AttachGroup(ctx, "stranger", "web", "team")
	wantErr(t, "AttachGroup of a stranger", err, store.ErrForbidden)
	_, err = b.AttachGroup(ctx, "u001", "web", "nogroup")
	wantErr(t, "AttachGroup of no group", err, store.ErrForbidden)
}

// Who leaves a large group and comes back begins where the group stands then, whatever its terminals acknowledged before, or while
// the change was on its way to them.
func testLargeReturn(t *testing.T, be Backend) {
	b := open(t, be)
	b.putGroup("team", users(InboxLimit+2)...)
	change := func(add, remove []string) {
		t.Helper()
		_, _, _, err := b.ChangeGroup(ctx, "team", add, remove, 100)
		b.must(err)
	}
	head := uint64(0)
	say := func() { head = b.one(b.group("u000", "team")).Seq }
	at := func(user, terminal string, acked uint64) {
		t.Helper()
		a, err := b.Attach(ctx, user, terminal)
		b.must(err)
		same(t, "position of "+user+" "+terminal, a.Large, []store.LargePosition{{Group: "team", Acked: acked, Head: head, First: 1}})
		p, err := b.AttachGroup(ctx, user, terminal, "team")
		b.must(err)
		equal(t, "AttachGroup", p, a.Large[0])
	}
	say()
	say()
	at("u005", "web", 0)
	for _, reopen := range []bool{false, true} {
		again := func() {
			if reopen {
				b.reopen(be)
			}
		}
		b.must(b.AckGroup("u005", "web", "team", head))
		at("u005", "web", head)
		again()
		change(nil, []string{"u005"})
		a, err := b.Attach(ctx, "u005", "web")
		b.must(err)
		same(t, "of who has left", a.Large, []store.LargePosition{})
		_, err = b.AttachGroup(ctx, "u005", "web", "team")
		wantErr(t, "AttachGroup of who has left", err, store.ErrForbidden)
		say()
		b.must(b.AckGroup("u005", "web", "team", head)) // it has not heard yet
		b.must(b.AckGroup("stranger", "web", "team", head))
		again()
		say()
		joined := head
		change([]string{"u005"}, nil)
		at("u005", "web", joined)
		at("u005", fmt.Sprint("new", reopen), joined)
		again()
		say()
		at("u005", "web", joined)
		at("u005", fmt.Sprint("newer", reopen), joined)
		b.must(b.AckGroup("u005", "web", "team", head))
		at("u005", "web", head)
	}
	change([]string{"stranger"}, nil)
	at("stranger", "web", head)
	// The same when the group was deleted meanwhile.
	_, err := b.DeleteGroup(ctx, "team")
	b.must(err)
	b.must(b.AckGroup("u005", "web", "team", head))
	b.putGroup("team", users(InboxLimit+2)...)
	joined := head
	say()
	at("u005", "web", joined)
}

func wantErr(t tb, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}
