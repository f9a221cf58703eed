package api

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
	"github.com/meshtalk/meshtalk/store"
)

var _ Hub = (*hub.Hub)(nil)

// fake is a hub that writes down what it is asked and gives fixed answers, so that refusals and the form of every answer
// can be seen. The real hub behind the API is tested in real_test.go.
type fake struct {
	send func(ctx context.Context, m hub.Outgoing) (hub.Sent, error) // set before use; nil = fine

	mu    sync.Mutex
	err   error // every call's
	calls []string
}

func (f *fake) call(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.err
}

// took gives the calls since the last time.
func (f *fake) took() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.calls, "; ")
	f.calls = nil
	return s
}

func (f *fake) fail(err error) {
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
}

const fakeTime = 1700000000000 // ms

// sent is what the fake makes of m.
func sent(m hub.Outgoing) hub.Sent {
	s := hub.Sent{MsgID: codec.MakeMsgID(m.From, []byte(m.ID)), Seq: 7, TS: fakeTime}
	switch {
	case m.Group != "":
		s.Conv = store.GroupConv(m.Group)
	case m.From != "":
		s.Conv = store.PrivateConv(m.From, m.To)
	default:
		s.Conv = store.SystemConv(m.To)
	}
	if m.Ephemeral {
		s.Seq = 0
	}
	return s
}

func (f *fake) Send(ctx context.Context, m hub.Outgoing) (hub.Sent, error) {
	err := f.call("send from=%q to=%q group=%q id=%q type=%d ephemeral=%v %s", m.From, m.To, m.Group, m.ID, m.Type, m.Ephemeral, m.Content)
	if err != nil {
		return hub.Sent{}, err
	}
	if f.send != nil {
		return f.send(ctx, m)
	}
	return sent(m), nil
}

func (f *fake) Broadcast(_ context.Context, typ int64, content []byte) (int, error) {
	return 3, f.call("broadcast type=%d %s", typ, content)
}

func (f *fake) User(_ context.Context, user string) (hub.UserInfo, error) {
	info := hub.UserInfo{User: user, Inbox: store.Inbox{First: 1}}
	if user == "alice" {
		info = hub.UserInfo{User: user, Online: true, LastSeen: fakeTime, Inbox: store.Inbox{Head: 9, First: 2}, Terminals: []hub.TerminalInfo{{
			Terminal: "web", SessionID: "s-1", Node: "n1", Transport: "websocket", IP: "127.0.0.1", Since: fakeTime, Acked: 8, Lagging: true,
		}}, Positions: map[string]uint64{"web": 8, "ios": 3}}
	}
	return info, f.call("user %q", user)
}

func (f *fake) Online(prefix, after string, limit int) ([]string, bool) {
	_ = f.call("online prefix=%q after=%q limit=%d", prefix, after, limit)
	if prefix == "nobody" {
		return nil, false
	}
	return []string{"alice", "bob"}, true
}

func (f *fake) Conversations(_ context.Context, user, cursor string, limit int) ([]store.Conversation, string, error) {
	list := []store.Conversation{{Conv: "p:alice:bob", Kind: "private", Peer: "bob", Head: 4, Read: 2, Unread: 1, PeerDelivered: 4, PeerRead: 3}}
	return list, "next", f.call("conversations user=%q cursor=%q limit=%d", user, cursor, limit)
}

func (f *fake) PresenceOf(_ context.Context, users []string) ([]codec.PresenceState, error) {
	states := make([]codec.PresenceState, len(users))
	for i, u := range users {
		states[i] = codec.PresenceState{User: u, Online: i == 0}
		if i == 0 {
			states[i].Terminals, states[i].LastSeen = []string{"web"}, fakeTime
		}
	}
	return states, f.call("presence %q", users)
}

func (f *fake) Kick(_ context.Context, user, terminal, reason string) (int, error) {
	return 2, f.call("kick %q %q %q", user, terminal, reason)
}

func (f *fake) Revoke(_ context.Context, user string, before int64) (int64, error) {
	return fakeTime, f.call("revoke %q %d", user, before)
}

func (f *fake) info(group string) store.GroupInfo {
	return store.GroupInfo{Group: group, Size: 2, Large: group == "crowd", Head: 5}
}

func (f *fake) PutGroup(_ context.Context, group string, members []string) (store.GroupInfo, error) {
	if members == nil {
		return f.info(group), f.call("put %q as it is", group)
	}
	return f.info(group), f.call("put %q %q", group, members)
}

func (f *fake) Group(_ context.Context, group string) (store.GroupInfo, error) {
	return f.info(group), f.call("group %q", group)
}

func (f *fake) DeleteGroup(_ context.Context, group string) error { return f.call("delete %q", group) }

func (f *fake) Members(_ context.Context, group, cursor string, limit int) ([]string, string, error) {
	err := f.call("members %q %q %d", group, cursor, limit)
	if group == "empty" {
		return nil, "", err
	}
	return []string{"alice", "bob"}, "bob", err
}

func (f *fake) ChangeMembers(_ context.Context, group string, add, remove []string) (int, error) {
	return 4, f.call("change %q %q %q", group, add, remove)
}

// oddContent is JSON that encoding/json would write otherwise.
const oddContent = `{ "a" : "<b>&\u00e9\/", "n":1.50E+2 , "big":123456789012345678901234567890 }`

func message(conv string) codec.ConvMessage {
	return codec.ConvMessage{
		Cmd: codec.PrivateMessage, MsgID: codec.MakeMsgID("alice", []byte("c-1")), Conv: conv, Seq: 1,
		From: "alice", To: "bob", TS: fakeTime, Type: 3, Content: []byte(oddContent), ID: "c-1",
	}
}

func (f *fake) Messages(_ context.Context, conv string, before, after *uint64, limit int) ([]codec.ConvMessage, bool, error) {
	show := func(n *uint64) string {
		if n == nil {
			return "-"
		}
		return fmt.Sprint(*n)
	}
	err := f.call("messages %q %s %s %d", conv, show(before), show(after), limit)
	if conv == "n:nobody" {
		return nil, false, err
	}
	recalled := message(conv)
	recalled.Seq, recalled.Recalled = 2, true
	event := codec.ConvMessage{Cmd: codec.Recall, Conv: conv, Seq: 3, Target: 2, From: "alice", TS: fakeTime}
	return []codec.ConvMessage{message(conv), recalled, event}, true, err
}

func (f *fake) RecallMessage(_ context.Context, conv string, seq uint64) (uint64, error) {
	return 12, f.call("recall %q %d", conv, seq)
}

func (f *fake) Inbox(_ context.Context, user string, after uint64, limit int) ([]codec.InboxEntry, store.Inbox, bool, error) {
	entries := []codec.InboxEntry{
		{Inbox: 4, ConvMessage: message("p:alice:bob")},
		{Inbox: 5, ConvMessage: codec.ConvMessage{Cmd: codec.Recall, Conv: "p:alice:bob", Seq: 2, Target: 1, TS: fakeTime}},
	}
	return entries, store.Inbox{Head: 5, First: 1}, false, f.call("inbox %q %d %d", user, after, limit)
}

func (f *fake) Backup(_ context.Context, dir string) error { return f.call("backup %s", dir) }

func (f *fake) Nodes(context.Context) ([]hub.NodeInfo, error) {
	return []hub.NodeInfo{{Node: "n1", Incarnation: "x", Address: "127.0.0.1", Since: fakeTime, Connections: 2, Sessions: 1}, {Node: "n2", Queues: []int{3}, Lag: map[int]int64{3: 5}}}, f.call("nodes")
}

func (f *fake) Stats() hub.Stats {
	return hub.Stats{
		UsersOnline: 1, Accepted: map[string]int64{"private": 4},
		CommitSeconds: hub.HistogramSnapshot{Bounds: []float64{.01}, Counts: []uint64{3, 1}, Sum: .5},
	}
}
