package hub

import (
	"context"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/store"
)

// MayRead is nil when the conversation is the user's, else the refusal: NOT_FOUND for what is no conversation or no
// group, FORBIDDEN. It may block.
func (h *Hub) MayRead(ctx context.Context, user, conv string) error {
	kind, name, _ := store.ConvKind(conv)
	mine := false
	switch kind {
	case 0:
		return refuse(codec.CodeNotFound, "no such conversation")
	case 'g':
		return h.Member(ctx, name, user)
	case 'p':
		_, mine = store.Peer(conv, user)
	case 'n':
		mine = name == user
	}
	if !mine {
		return refuse(codec.CodeForbidden, "not a member of this conversation")
	}
	return nil
}

// MarkRead moves the user's read position and tells it to the other side of a private conversation and to the user's
// own sessions but ref. It may block.
func (h *Hub) MarkRead(ctx context.Context, user, conv string, seq uint64, ref Ref) error {
	if err := h.MayRead(ctx, user, conv); err != nil {
		return err
	}
	moved, err := h.store.Read(ctx, user, conv, seq)
	if err != nil || !moved {
		return fail(err)
	}
	packet := codec.AppendReceipt(nil, conv, user, 0, seq)
	h.Tell(user, ref, codec.Receipt, packet)
	if peer, ok := store.Peer(conv, user); ok && peer != user {
		h.Tell(peer, 0, codec.Receipt, packet)
	}
	return nil
}

// Conversations pages through the user's conversations, newest activity first.
func (h *Hub) Conversations(ctx context.Context, user, cursor string, limit int) (list []store.Conversation, next string, err error) {
	list, next, err = h.store.Conversations(ctx, user, cursor, limit)
	return list, next, fail(err)
}

// ConversationStates are conversations of the store as clients see them.
func ConversationStates(list []store.Conversation) []codec.ConversationState {
	states := make([]codec.ConversationState, len(list))
	for i := range list {
		c := &list[i]
		states[i] = codec.ConversationState{
			Conv: c.Conv, Kind: c.Kind, Peer: c.Peer, Group: c.Group,
			Head: c.Head, Read: c.Read, Unread: c.Unread,
			PeerDelivered: c.PeerDelivered, PeerRead: c.PeerRead,
		}
		if c.Last != nil {
			last := StoredMessage(c.Last)
			states[i].Last = &last
		}
	}
	return states
}

// Online pages through the users with a session on this node whose name begins with prefix, in byte order after a name.
func (h *Hub) Online(prefix, after string, limit int) (users []string, more bool) {
	return h.registry.prefixed(prefix, after, limit)
}
