package storetest

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meshtalk/meshtalk/store"
)

// model is the store in a few maps: what it says is what a backend must say.
type model struct {
	now    int64
	first  int64 // day of the oldest message kept
	firstD int64 // day of the oldest repeat remembered
	stored int   // messages
	convs  map[string][]*mmsg
	inbox  map[string][]*mmsg
	groups map[string]map[string]uint64 // members and where they joined
	large  map[string]int64             // day of the newest message without inbox entries
	ids    map[[16]byte]*mmsg
	read   map[[2]string]uint64
	acked  map[string]map[string]uint64
}

type mmsg struct {
	draft    *store.Draft
	seq      uint64
	ts       int64
	day      int64
	order    int // over all conversations
	recalled *mmsg
	large    bool
	inbox    map[string]uint64
}

func newModel() *model {
	return &model{now: noon, convs: map[string][]*mmsg{}, inbox: map[string][]*mmsg{}, groups: map[string]map[string]uint64{},
		large: map[string]int64{}, ids: map[[16]byte]*mmsg{}, read: map[[2]string]uint64{}, acked: map[string]map[string]uint64{}}
}

// commit is store.Store.Commit for one draft.
func (m *model) commit(d *store.Draft) store.Result {
	if old := m.ids[d.MsgID]; old != nil && old.day >= m.firstD {
		o := old.draft
		if o.Kind != d.Kind || o.Conv != d.Conv || o.Type != d.Type || o.Target != d.Target || string(o.Content) != string(d.Content) {
			return store.Result{Outcome: store.Conflict}
		}
		return store.Result{Outcome: store.Duplicate, Seq: old.seq, TS: old.ts}
	}
	kind, a, b := store.ConvKind(d.Conv)
	members, exists := m.groups[a]
	msg := &mmsg{draft: d, inbox: map[string]uint64{}}
	r := store.Result{}
	if kind == 'g' && !exists && !d.Promised && (d.Kind != store.Recall || d.From != "") {
		return store.Result{Outcome: store.NotFound}
	}
	_, member := members[d.From]
	if d.Kind == store.Recall {
		target := m.message(d.Conv, d.Target)
		switch {
		case target == nil || target.draft.Kind == store.Recall:
			return store.Result{Outcome: store.NotFound}
		case d.From != "" && (target.draft.From != d.From || kind == 'g' && !member):
			return store.Result{Outcome: store.Forbidden}
		case target.recalled != nil:
			first := target.recalled
			return store.Result{Outcome: store.Duplicate, Seq: first.seq, TS: first.ts, MsgID: first.draft.MsgID}
		case d.RecallAfter != 0 && target.ts < d.RecallAfter:
			return store.Result{Outcome: store.Forbidden}
		}
		target.recalled = msg
		r.TargetFrom = target.draft.From
	} else if kind == 'g' && d.From != "" && !member && !d.Promised {
		return store.Result{Outcome: store.Forbidden}
	}
	var to []string
	switch kind {
	case 'p':
		to = slices.Compact([]string{a, b})
	case 'n':
		to = []string{a}
	case 'g':
		if msg.large = len(members) > InboxLimit; !msg.large {
			to = slices.Collect(maps.Keys(members))
			if d.Promised && d.From != "" && !member {
				to = append(to, d.From)
			}
			slices.Sort(to)
		}
	}
	conv := m.convs[d.Conv]
	msg.seq, msg.ts = uint64(len(conv)+1), d.TS
	if n := len(conv); n > 0 {
		msg.ts = max(d.TS, conv[n-1].ts)
	}
	msg.day = msg.ts / day
	m.stored++
	msg.order = m.stored
	if m.convs[d.Conv] = append(conv, msg); msg.large {
		m.large[a] = msg.day
	}
	m.ids[d.MsgID] = msg
	for _, u := range to {
		m.inbox[u] = append(m.inbox[u], msg)
		msg.inbox[u] = uint64(len(m.inbox[u]))
		r.Entries = append(r.Entries, store.Entry{User: u, Inbox: msg.inbox[u]})
	}
	r.Seq, r.TS, r.Large = msg.seq, msg.ts, msg.large
	return r
}

func (m *model) message(conv string, seq uint64) *mmsg {
	if seq == 0 || seq > uint64(len(m.convs[conv])) {
		return nil
	}
	if msg := m.convs[conv][seq-1]; msg.day >= m.first {
		return msg
	}
	return nil
}

// box is the head and the first kept of a list of messages.
func (m *model) box(list []*mmsg) store.Inbox {
	b := store.Inbox{Head: uint64(len(list)), First: uint64(len(list) + 1)}
	for i, msg := range list {
		if msg.day >= m.first {
			b.First = uint64(i + 1)
			break
		}
	}
	return b
}

func (m *mmsg) want() store.Message {
	d := m.draft
	w := store.Message{Kind: d.Kind, MsgID: d.MsgID, Conv: d.Conv, Seq: m.seq, From: d.From, ID: string(d.ID), TS: m.ts, Type: d.Type,
		Content: d.Content, Target: d.Target, Large: m.large}
	if w.Recalled = m.recalled != nil; w.Recalled || d.Kind == store.Recall {
		w.Content = nil
	}
	return w
}

// conversations is what a user's list must say.
func (m *model) conversations(user string) (list []store.Conversation) {
	for conv, msgs := range m.convs {
		kind, a, b := store.ConvKind(conv)
		joined, member := m.groups[a][user]
		var last *mmsg
		for _, msg := range msgs {
			if msg.draft.Kind != store.Recall && msg.day >= m.first {
				last = msg
			}
		}
		if last == nil || !(kind == 'g' && member || kind == 'n' && a == user || kind == 'p' && (a == user || b == user)) {
			continue
		}
		want := last.want()
		c := store.Conversation{Conv: conv, Head: uint64(len(msgs)), Last: &want, Read: m.read[[2]string{user, conv}]}
		switch kind {
		case 'g':
			c.Kind, c.Group, c.Read = "group", a, max(c.Read, joined)
		case 'n':
			c.Kind = "system"
		default:
			c.Kind = "private"
			c.Peer, _ = store.Peer(conv, user)
			c.PeerRead = m.read[[2]string{c.Peer, conv}]
		}
		furthest := uint64(0)
		for _, at := range m.acked[c.Peer] {
			furthest = max(furthest, at)
		}
		for _, msg := range msgs {
			if msg.day < m.first || msg.draft.Kind == store.Recall {
				continue
			}
			if msg.seq > c.Read && msg.draft.From != user {
				c.Unread++
			}
			if kind == 'p' && msg.draft.From == user && msg.inbox[c.Peer] <= furthest {
				c.PeerDelivered = msg.seq
			}
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b store.Conversation) int {
		return cmp.Or(cmp.Compare(b.Last.TS, a.Last.TS), cmp.Compare(m.last(b).order, m.last(a).order))
	})
	return list
}

// last is the newest message of a conversation.
func (m *model) last(c store.Conversation) *mmsg { return m.convs[c.Conv][c.Last.Seq-1] }

var modelUsers = []string{"a", "ab", "b", "c", "d", "e", "f", "g"}

// run is one walk through a store and the model beside it.
type run struct {
	*box
	m  *model
	rt *rapid.T
	be Backend
}

func (r *run) user() string { return rapid.SampledFrom(modelUsers).Draw(r.rt, "user") }
func (r *run) name() string { return rapid.SampledFrom([]string{"team", "a"}).Draw(r.rt, "group") }

func (r *run) anyConv() string {
	switch rapid.IntRange(0, 3).Draw(r.rt, "conv") {
	case 0:
		return store.GroupConv(r.name())
	case 1:
		return store.SystemConv(r.user())
	}
	return store.PrivateConv(r.user(), r.user())
}

func (r *run) draftAny(old []*store.Draft) *store.Draft {
	r.m.now += rapid.SampledFrom([]int64{0, 0, 1, 1, 1, day / 3}).Draw(r.rt, "later")
	d := store.Draft{TS: r.m.now}
	switch rapid.IntRange(0, 9).Draw(r.rt, "draft") {
	case 0, 1, 2:
		d.Kind, d.From = store.Private, r.user()
		d.Conv = store.PrivateConv(d.From, r.user())
	case 3, 4:
		d.Kind, d.From, d.Conv = store.Group, r.user(), store.GroupConv(r.name())
		d.Promised = rapid.IntRange(0, 3).Draw(r.rt, "promised") == 0
	case 5:
		d.Kind, d.Conv = store.System, rapid.SampledFrom([]string{store.SystemConv(r.user()), store.GroupConv(r.name())}).Draw(r.rt, "to")
		d.Promised = rapid.IntRange(0, 3).Draw(r.rt, "promised") == 0
	case 6, 7:
		d.Kind, d.From, d.Conv = store.Recall, rapid.SampledFrom(append(modelUsers[:3:3], "")).Draw(r.rt, "from"), r.anyConv()
		d.Target = uint64(rapid.IntRange(0, 4).Draw(r.rt, "target"))
		if rapid.Bool().Draw(r.rt, "window") {
			d.RecallAfter = r.m.now - day/2
		}
		if n := len(r.m.convs[d.Conv]); n > 4 {
			d.Target = uint64(n) - d.Target
		}
	default:
		if len(old) > 0 { // a repeat, sometimes with other content
			d = *rapid.SampledFrom(old).Draw(r.rt, "again")
			if d.TS = r.m.now; rapid.IntRange(0, 3).Draw(r.rt, "other") == 0 {
				d.Type++
			}
			return &d
		}
		d.Kind, d.From, d.Conv = store.Private, "a", "p:a:b"
	}
	return r.draft(d)
}

func testModel(t *testing.T, New func(t *testing.T) Backend) {
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() == f.DefValue {
		if err := f.Value.Set(modelChecks); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		be := New(t)
		r := &run{box: &box{Store: be.Open(), t: rt}, m: newModel(), rt: rt, be: be}
		defer func() { _ = r.Close() }()
		r.change("team", modelUsers[:3], nil)
		rt.Repeat(map[string]func(*rapid.T){
			"commit":  r.doCommit,
			"commit2": r.doCommit,
			"commit3": r.doCommit,
			"group":   r.doGroup,
			"ack":     r.doAck,
			"read":    r.doRead,
			"reopen":  func(*rapid.T) { r.reopen(be) },
			"expire":  r.doExpire,
			"check":   r.check,
			"":        func(*rapid.T) {},
		})
		r.check(rt)
	})
}

// modelChecks walks are made unless the command line says otherwise (-rapid.checks): each opens stores and syncs dozens of times.
const modelChecks = "6"

func (r *run) doCommit(rt *rapid.T) {
	r.rt = rt
	var old []*store.Draft
	for _, m := range r.m.ids {
		old = append(old, m.draft)
	}
	slices.SortFunc(old, func(a, b *store.Draft) int { return slices.Compare(a.MsgID[:], b.MsgID[:]) })
	var drafts []*store.Draft
	for range rapid.IntRange(1, 6).Draw(rt, "drafts") {
		d := r.draftAny(old)
		drafts = append(drafts, d)
		if old = append(old, d); d.Kind == store.Recall && d.RecallAfter != 0 {
			old = old[:len(old)-1]
		}
	}
	results := r.commit(drafts...)
	for i, d := range drafts {
		want := r.m.commit(d)
		want.Entries = slices.Clone(want.Entries)
		same(rt, fmt.Sprintf("draft %d: %+v", i, d), results[i], want)
	}
}

func (r *run) change(group string, add, remove []string) {
	members := r.m.groups[group]
	if members == nil {
		r.putGroup(group)
		members = map[string]uint64{}
		r.m.groups[group] = members
	}
	_, _, _, err := r.ChangeGroup(ctx, group, add, remove, 100)
	r.must(err)
	for _, u := range add {
		if _, in := members[u]; !in {
			members[u] = uint64(len(r.m.convs[store.GroupConv(group)]))
		}
	}
	for _, u := range remove {
		delete(members, u)
	}
}

func (r *run) doGroup(rt *rapid.T) {
	r.rt = rt
	group := r.name()
	if rapid.IntRange(0, 9).Draw(rt, "delete") == 0 {
		if _, err := r.DeleteGroup(ctx, group); r.m.groups[group] == nil {
			wantErr(rt, "delete", err, store.ErrNotFound)
		} else {
			r.must(err)
		}
		delete(r.m.groups, group)
		return
	}
	pick := rapid.SliceOfNDistinct(rapid.SampledFrom(modelUsers), 0, len(modelUsers), rapid.ID[string])
	r.change(group, pick.Draw(rt, "add"), pick.Draw(rt, "remove"))
}

func (r *run) doAck(rt *rapid.T) {
	r.rt = rt
	user, terminal := r.user(), rapid.SampledFrom([]string{"web", "tv"}).Draw(rt, "terminal")
	at := r.m.acked[user]
	if at == nil {
		at = map[string]uint64{}
		r.m.acked[user] = at
	}
	if _, known := at[terminal]; !known {
		for _, p := range at {
			at[terminal] = max(at[terminal], p)
		}
		at[terminal] += 0
	}
	a, err := r.Attach(ctx, user, terminal)
	r.must(err)
	head := uint64(len(r.m.inbox[user]))
	same(rt, "attachment of "+user, []any{a.Inbox, a.Acked}, []any{r.m.box(r.m.inbox[user]), at[terminal]})
	n := uint64(rapid.IntRange(0, int(head)).Draw(rt, "inbox"))
	r.must(r.Ack(user, terminal, n))
	at[terminal] = max(at[terminal], n)
}

func (r *run) doRead(rt *rapid.T) {
	r.rt = rt
	user, conv := r.user(), r.anyConv()
	kind, a, b := store.ConvKind(conv)
	var joined uint64 // users and groups have the same names here: only a group's conversation asks for its members
	member := false
	if kind == 'g' {
		joined, member = r.m.groups[a][user]
	}
	head := uint64(len(r.m.convs[conv]))
	n := uint64(rapid.IntRange(0, int(head)+1).Draw(rt, "seq"))
	key := [2]string{user, conv}
	moved, err := r.Read(ctx, user, conv, n)
	switch {
	case !(member || kind == 'n' && a == user || kind == 'p' && (a == user || b == user)):
		wantErr(rt, "Read", err, store.ErrForbidden)
	case n > head:
		wantErr(rt, "Read", err, store.ErrPosition)
	default:
		r.must(err)
		equal(rt, "moved", moved, n > max(joined, r.m.read[key]))
		if moved {
			r.m.read[key] = n
		}
	}
}

func (r *run) doExpire(rt *rapid.T) {
	r.m.now += int64(rapid.IntRange(0, 12).Draw(rt, "days")) * day
	_, err := r.Expire(ctx, time.UnixMilli(r.m.now))
	r.must(err)
	r.m.first = max(r.m.first, (r.m.now-Retention.Milliseconds())/day)
	r.m.firstD = max(r.m.firstD, (r.m.now-DedupeWindow.Milliseconds())/day)
	for group, d := range r.m.large {
		if d < r.m.first {
			delete(r.m.large, group)
		}
	}
}

// check compares everything.
func (r *run) check(rt *rapid.T) {
	for _, u := range modelUsers {
		box, list := r.m.box(r.m.inbox[u]), r.inbox(u)
		got, err := r.Head(ctx, u)
		r.must(err)
		equal(rt, "inbox of "+u, got, box)
		equal(rt, "entries of "+u, uint64(len(list)), box.Head+1-box.First)
		for i, e := range list {
			same(rt, "entry of "+u, e.Message, r.m.inbox[u][box.First-1+uint64(i)].want())
		}
		positions, err := r.Positions(ctx, u)
		r.must(err)
		same(rt, "positions of "+u, positions, r.m.acked[u])
		lines, want := r.conversations(u, 3), r.m.conversations(u)
		equal(rt, "conversations of "+u, len(lines), len(want))
		for i := range want {
			same(rt, "conversation of "+u, []any{lines[i], *lines[i].Last}, []any{withLast(want[i], lines[i].Last), *want[i].Last})
		}
	}
	for conv, msgs := range r.m.convs {
		box, list := r.m.box(msgs), r.history(conv)
		got, err := r.ConvHead(ctx, conv)
		r.must(err)
		equal(rt, conv, got, box)
		equal(rt, "messages of "+conv, uint64(len(list)), box.Head+1-box.First)
		for i, m := range list {
			same(rt, "message of "+conv, m, msgs[box.First-1+uint64(i)].want())
		}
	}
	r.checkGroups(rt)
}

// withLast makes two lines comparable as text: the pointer is the same.
func withLast(c store.Conversation, last *store.Message) store.Conversation {
	c.Last = last
	return c
}

func (r *run) checkGroups(rt *rapid.T) {
	for _, group := range []string{"team", "a"} {
		members, exists := r.m.groups[group]
		info, err := r.Group(ctx, group)
		if !exists {
			wantErr(rt, "group", err, store.ErrNotFound)
			continue
		}
		r.must(err)
		_, holds := r.m.large[group]
		want := store.GroupInfo{Group: group, Size: len(members), Large: holds || len(members) > InboxLimit, Head: uint64(len(r.m.convs[store.GroupConv(group)]))}
		equal(rt, "group", info, want)
		list, _, err := r.Members(ctx, group, "", 100)
		r.must(err)
		same(rt, "members", list, slices.Sorted(maps.Keys(members)))
	}
}
