package hub

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/store"
)

// Outgoing is a message for Send. From "" is the system. Exactly one of To and Group is set.
type Outgoing struct {
	From, To, Group string
	ID              string
	Type            int64
	Content         []byte // raw JSON, proven valid by the caller
	Ephemeral       bool
}

// Sent is Send's answer, after the message is durable. Seq is 0 for an ephemeral one.
type Sent struct {
	MsgID     codec.MsgID
	Conv      string
	Seq       uint64
	TS        int64
	Duplicate bool
}

// TerminalInfo is one logged-in terminal.
type TerminalInfo struct {
	Terminal, SessionID, Node, Transport, IP string
	Since                                    int64 // ms
	Acked                                    uint64
	Lagging                                  bool
}

// UserInfo is what GET /v1/users/{user} shows.
type UserInfo struct {
	User      string
	Online    bool
	LastSeen  int64
	Inbox     store.Inbox
	Terminals []TerminalInfo
	Positions map[string]uint64 // in the inbox, of all terminals ever seen
}

// NodeInfo is one node of the cluster.
type NodeInfo struct {
	Node, Incarnation, Address string
	Since                      int64 // ms
	Connections, Sessions      int64
	Queues                     []int         // partitions of the log that it consumes
	Lag                        map[int]int64 // bodies behind, by partition
}

// The methods below serve the HTTP API. They are safe for concurrent use, block until ctx ends at most, and give an
// *Error for what the caller did wrong and for UNAVAILABLE; any other error is INTERNAL.

// Send commits m and returns when it is durable. Membership is judged at the commit.
func (h *Hub) Send(ctx context.Context, m Outgoing) (Sent, error) {
	if m.Ephemeral {
		return h.SendEphemeral(ctx, m)
	}
	s := h.NewSubmission([]byte(m.ID), m.Content)
	s.Draft.From, s.Draft.Type = m.From, m.Type
	s.Draft.Kind, s.Draft.Conv = m.place()
	if err := h.Admit(ctx, &s.Draft); err != nil {
		h.Free(s)
		return Sent{}, err
	}
	return h.submitAndWait(ctx, s)
}

// place is the kind and the conversation of a message.
func (m *Outgoing) place() (store.Kind, string) {
	switch {
	case m.Group != "" && m.From != "":
		return store.Group, store.GroupConv(m.Group)
	case m.Group != "":
		return store.System, store.GroupConv(m.Group)
	case m.From != "":
		return store.Private, store.PrivateConv(m.From, m.To)
	}
	return store.System, store.SystemConv(m.To)
}

// submitAndWait submits s, which it owns, and waits for its answer. When ctx ends first the message may still be stored.
func (h *Hub) submitAndWait(ctx context.Context, s *Submission) (Sent, error) {
	type answer struct {
		sent Sent
		err  *Error
	}
	done := make(chan answer, 1)
	s.Done = func(s *Submission) {
		done <- answer{Sent{codec.MsgID(s.Draft.MsgID), s.Draft.Conv, s.Seq, s.TS, s.Duplicate}, s.Err}
		h.Free(s)
	}
	if err := h.Submit(s); err != nil {
		h.Free(s)
		return Sent{}, err
	}
	select {
	case a := <-done:
		if a.err != nil {
			return Sent{}, a.err
		}
		return a.sent, nil
	case <-ctx.Done():
		return Sent{}, fail(ctx.Err())
	}
}

// recaller stands for the API's recalls where the sender of a message id does: no user can have this name, so no id that
// a back-end chooses meets theirs.
const recaller = "/"

// RecallMessage takes a message back without a window and returns the event's sequence.
func (h *Hub) RecallMessage(ctx context.Context, conv string, seq uint64) (uint64, error) {
	if kind, _, _ := store.ConvKind(conv); kind == 0 {
		return 0, refuse(codec.CodeNotFound, "no such conversation")
	}
	s := h.NewSubmission(fmt.Appendf(nil, "recall/%s/%d", conv, seq), nil)
	s.Draft.Kind, s.Draft.Conv, s.Draft.Target = store.Recall, conv, seq
	s.Draft.MsgID = codec.MakeMsgID(recaller, s.Draft.ID)
	sent, err := h.submitAndWait(ctx, s)
	return sent.Seq, err
}

// User is what is known of a user, here and on other nodes.
func (h *Hub) User(ctx context.Context, user string) (UserInfo, error) {
	info := UserInfo{User: user}
	var err error
	if info.Inbox, err = h.store.Head(ctx, user); err != nil {
		return info, fail(err)
	}
	if info.Positions, err = h.store.Positions(ctx, user); err != nil {
		return info, fail(err)
	}
	info.Terminals = h.terminalsHere(ctx, user)
	if err := ctx.Err(); err != nil {
		return info, fail(err)
	}
	elsewhere, err := h.terminalsElsewhere(ctx, user)
	if err != nil {
		return info, err
	}
	info.Terminals = append(info.Terminals, elsewhere...)
	slices.SortFunc(info.Terminals, func(a, b TerminalInfo) int { return strings.Compare(a.Terminal, b.Terminal) })
	state, err := h.presence(ctx, user)
	info.Online, info.LastSeen = state.Online, state.LastSeen
	return info, err
}

// terminalsHere are the user's terminals on this node, as far as their loops answer before ctx ends; never nil.
func (h *Hub) terminalsHere(ctx context.Context, user string) []TerminalInfo {
	terminals := h.registry.terminals(user)
	answers := make(chan *TerminalInfo, len(terminals))
	for _, t := range terminals {
		h.outlet(t.ref).Inspect(t.ref, func(i TerminalInfo, found bool) {
			if !found {
				answers <- nil
				return
			}
			answers <- &i
		})
	}
	list := make([]TerminalInfo, 0, len(terminals))
	for range terminals {
		select {
		case i := <-answers:
			if i != nil {
				i.Node = h.NodeID()
				list = append(list, *i)
			}
		case <-ctx.Done():
			return list
		}
	}
	return list
}

// Kick closes the user's sessions (terminal "" = all) with KICKED and returns how many.
func (h *Hub) Kick(ctx context.Context, user, terminal, reason string) (closed int, err error) {
	if reason == "" {
		reason = "closed by an administrator"
	}
	closed = h.closeSessions(user, terminal, codec.CodeKicked, reason, 0)
	h.cluster.Order(user, terminal, codec.CodeKicked, reason, 0)
	routes, err := h.cluster.Routes(ctx, []string{user})
	for _, r := range routes {
		if terminal == "" || r.Terminal == terminal {
			closed++
		}
	}
	return closed, fail(err)
}

// Revoke refuses tokens issued before (ms; 0 or a later time = now) and closes their sessions; it returns the time that stands.
func (h *Hub) Revoke(ctx context.Context, user string, before int64) (int64, error) {
	if now := h.now(); before <= 0 || before > now {
		before = now
	}
	before, err := h.store.Revoke(ctx, user, before)
	if err != nil {
		return 0, fail(err)
	}
	h.closeSessions(user, "", codec.CodeRevoked, "token revoked", before)
	h.cluster.Order(user, "", codec.CodeRevoked, "token revoked", before)
	return before, nil
}

// closeSessions ends the sessions of a user on this node.
func (h *Hub) closeSessions(user, name string, code codec.Code, reason string, before int64) (n int) {
	for _, t := range h.registry.terminals(user) {
		if name == "" || t.name.Value() == name {
			h.outlet(t.ref).Close(t.ref, code, reason, before)
			n++
		}
	}
	return n
}

// Messages is a conversation's history (before, after nil = absent).
func (h *Hub) Messages(ctx context.Context, conv string, before, after *uint64, limit int) (messages []codec.ConvMessage, more bool, err error) {
	if kind, _, _ := store.ConvKind(conv); kind == 0 {
		return nil, false, refuse(codec.CodeNotFound, "no such conversation")
	}
	stored, more, err := h.store.History(ctx, conv, before, after, limit)
	if err != nil {
		return nil, false, fail(err)
	}
	messages = make([]codec.ConvMessage, len(stored))
	for i := range stored {
		messages[i] = StoredMessage(&stored[i])
	}
	return messages, more, nil
}

// Inbox is what a client would pull.
func (h *Hub) Inbox(ctx context.Context, user string, after uint64, limit int) (entries []codec.InboxEntry, box store.Inbox, more bool, err error) {
	stored, box, more, err := h.store.ReadInbox(ctx, user, after, limit)
	if err != nil {
		return nil, box, false, fail(err)
	}
	entries = make([]codec.InboxEntry, len(stored))
	for i := range stored {
		entries[i] = codec.InboxEntry{Inbox: stored[i].Inbox, ConvMessage: StoredMessage(&stored[i].Message)}
	}
	h.stats.pulled.Add(int64(len(entries)))
	return entries, box, more, nil
}

// Backup writes a checkpoint of the embedded store to dir.
func (h *Hub) Backup(ctx context.Context, dir string) error {
	if err := h.store.Checkpoint(ctx, dir); err != nil {
		return fail(err)
	}
	return nil
}

// Nodes are the live nodes, this one first.
func (h *Hub) Nodes(ctx context.Context) ([]NodeInfo, error) {
	nodes, err := h.cluster.Nodes(ctx)
	if err != nil {
		return nil, fail(err)
	}
	list := make([]NodeInfo, len(nodes))
	for i, n := range nodes {
		list[i] = NodeInfo{
			Node: n.ID, Incarnation: n.Incarnation, Address: n.Address, Since: n.Since,
			Connections: n.Load.Connections, Sessions: n.Load.Sessions, Queues: n.Load.Queues, Lag: n.Load.Lag,
		}
	}
	return list, nil
}
