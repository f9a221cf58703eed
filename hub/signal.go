package hub

import (
	"context"
	"fmt"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/store"
)

// What is here is kept nowhere and may be dropped under pressure: typing, receipts, ephemeral messages.

// tell sends a packet that may be dropped to sessions of this node, one operation per loop.
func (h *Hub) tell(refs []Ref, cmd codec.Cmd, packet []byte) {
	if len(refs) == 1 { // nearly always
		h.outlet(refs[0]).Tell(refs, cmd, packet)
		return
	}
	byLoop := make([][]Ref, len(h.outlets))
	for _, r := range refs {
		i := h.o.LoopOf(r)
		byLoop[i] = append(byLoop[i], r)
	}
	for i, rs := range byLoop {
		if len(rs) > 0 {
			h.outlets[i].Tell(rs, cmd, packet)
		}
	}
}

// Tell sends a packet that may be dropped to all sessions of a user but one (0 = none). The packet must not change.
func (h *Hub) Tell(user string, except Ref, cmd codec.Cmd, packet []byte) {
	h.tellHere(user, except, cmd, packet)
	if !h.alone {
		h.cluster.Send([]cluster.Signal{{User: user, Packet: packet}})
	}
}

// tellHere is Tell for the sessions of this node.
func (h *Hub) tellHere(user string, except Ref, cmd codec.Cmd, packet []byte) {
	refs := h.registry.refs(make([]Ref, 0, 2), user)
	for i, r := range refs {
		if r == except {
			refs = append(refs[:i], refs[i+1:]...)
			break
		}
	}
	if len(refs) > 0 {
		h.tell(refs, cmd, packet)
	}
}

// TellGroup sends a packet that may be dropped to the online members of a group but except. It blocks (members) and is called from the pool.
func (h *Hub) TellGroup(ctx context.Context, group, except string, cmd codec.Cmd, packet []byte) error {
	info, err := h.store.Group(ctx, group)
	if err != nil {
		return fail(err)
	}
	if info.Large { // every loop knows which of its sessions follow it
		for _, o := range h.outlets {
			o.TellGroup(group, except, packet)
		}
		if !h.alone {
			h.cluster.Send([]cluster.Signal{{Group: group, Except: except, Packet: packet}})
		}
		return nil
	}
	return h.members(ctx, group, func(user string) {
		if user != except {
			h.Tell(user, 0, cmd, packet)
		}
	})
}

// members calls f for every member of a group.
func (h *Hub) members(ctx context.Context, group string, f func(user string)) error {
	const page = 1000
	for cursor := ""; ; {
		users, next, err := h.store.Members(ctx, group, cursor, page)
		if err != nil {
			return fail(err)
		}
		for _, u := range users {
			f(u)
		}
		if next == "" {
			return nil
		}
		cursor = next
	}
}

// Member is nil when user is a member of group, else the refusal: NOT_FOUND or FORBIDDEN. It may block.
func (h *Hub) Member(ctx context.Context, group, user string) error {
	exists, member, err := h.store.IsMember(ctx, group, user)
	switch {
	case err != nil:
		return fail(err)
	case !exists:
		return outcomeError(store.Group, store.NotFound)
	case !member:
		return outcomeError(store.Group, store.Forbidden)
	}
	return nil
}

// SendEphemeral pushes a message to who is online in its conversation, the sender's terminals among them, and keeps it
// nowhere. It blocks (members) and is called from the pool.
func (h *Hub) SendEphemeral(ctx context.Context, m Outgoing) (Sent, error) {
	_, conv := m.place()
	c := codec.ConvMessage{
		MsgID: codec.MakeMsgID(m.From, []byte(m.ID)), Conv: conv, From: m.From, To: m.To, Group: m.Group,
		TS: h.now(), Type: m.Type, Content: m.Content, ID: m.ID,
	}
	switch {
	case m.From == "":
		c.Cmd = codec.SystemMessage
	case m.Group != "":
		c.Cmd = codec.GroupMessage
	default:
		c.Cmd = codec.PrivateMessage
	}
	packet := codec.AppendPushTail(codec.AppendPushHead(nil, c.Cmd, 0), &c)
	sent := Sent{MsgID: c.MsgID, Conv: conv, TS: c.TS}
	if m.Group == "" {
		h.Tell(m.To, 0, c.Cmd, packet)
		if m.From != "" && m.From != m.To {
			h.Tell(m.From, 0, c.Cmd, packet)
		}
	} else {
		if m.From != "" {
			if err := h.Member(ctx, m.Group, m.From); err != nil {
				return Sent{}, err
			}
		}
		if err := h.TellGroup(ctx, m.Group, "", c.Cmd, packet); err != nil {
			return Sent{}, err
		}
	}
	h.stats.accepted(0)
	return sent, nil
}

// Broadcast pushes an ephemeral system message to every session here and on other nodes; it returns to how many users here, and
// to how many sessions elsewhere.
func (h *Hub) Broadcast(ctx context.Context, typ int64, content []byte) (online int, err error) {
	id := fmt.Sprintf("%s/%d", h.cluster.Self().Incarnation, h.broadcasts.Add(1)) // unique: every broadcast is a message of its own
	m := &codec.ConvMessage{
		Cmd: codec.SystemMessage, MsgID: codec.MakeMsgID("", []byte(id)), TS: h.now(), Type: typ, Content: content,
	}
	h.broadcast(m)
	h.stats.accepted(0)
	online = h.registry.users()
	if h.alone {
		return online, nil
	}
	h.cluster.Send([]cluster.Signal{{Broadcast: m}})
	nodes, err := h.cluster.Nodes(ctx)
	if err != nil {
		return online, fail(err)
	}
	for _, n := range nodes[1:] {
		online += int(n.Load.Sessions)
	}
	return online, nil
}
