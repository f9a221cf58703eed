package hub

import (
	"context"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/store"
)

// Login makes ref the session of (user, terminal): the older one, wherever it is, is closed with REPLACED. issuedAt is
// the token's, for revocation. It blocks (store) and is called from the pool.
//
// The session is registered before its positions are read: whatever is committed from then on reaches its loop, whatever was
// committed before is below the head that is returned. The loop keeps the heads that overtake the answer.
//
// order is NextLogin's of when the LOGIN came. Logins of one terminal may overtake each other on their way to here, for one a key has to be
// fetched: the later LOGIN is the newer login all the same, and the earlier one is refused with REPLACED.
func (h *Hub) Login(ctx context.Context, user, name string, ref Ref, issuedAt int64, order uint64) (a store.Attachment, err error) {
	revoked, err := h.store.RevokedBefore(ctx, user)
	if err != nil {
		return a, fail(err)
	}
	if issuedAt < revoked {
		return a, refuse(codec.CodeUnauthorized, "token revoked")
	}
	old, alone, late := h.registry.add(user, name, ref, order)
	if late {
		return a, refuse(codec.CodeReplaced, "logged in elsewhere")
	}
	if old != 0 {
		h.outlet(old).Close(old, codec.CodeReplaced, "logged in elsewhere", 0)
	}
	elsewhere, err := h.join(ctx, user, name, ref)
	if err == nil {
		a, err = h.attach(ctx, user, name, alone)
	}
	if err != nil {
		h.Logout(user, name, ref)
		return a, fail(err)
	}
	if issuedAt < a.RevokedBefore { // revoked since the first look
		h.Logout(user, name, ref)
		return a, refuse(codec.CodeUnauthorized, "token revoked")
	}
	if old == 0 && !elsewhere { // for who watches, a session that is replaced was never away
		h.presenceChanged(ctx, user)
	}
	return a, nil
}

// NextLogin numbers LOGINs in the order in which they came to this node.
func (h *Hub) NextLogin() uint64 { return h.logins.Add(1) }

// join publishes the route of ref. Between the registry and the route the session may have ended, or a newer login of the terminal may
// have published its own: the route is then put right, so that it is that of whoever the registry holds.
func (h *Hub) join(ctx context.Context, user, name string, ref Ref) (elsewhere bool, err error) {
	elsewhere, err = h.cluster.Join(ctx, user, name, uint64(ref))
	if h.alone { // nobody reads routes: no look at the registry for them
		return elsewhere, err
	}
	for now := h.registry.current(user, name); err == nil && now != ref; now = h.registry.current(user, name) {
		if now == 0 {
			h.cluster.Leave(user, name, uint64(ref))
			break
		}
		ref = now
		_, err = h.cluster.Join(ctx, user, name, uint64(ref))
	}
	return elsewhere, err
}

// attach makes the terminal known to the store, and the furthest position of the user to the registry.
func (h *Hub) attach(ctx context.Context, user, name string, alone bool) (store.Attachment, error) {
	a, err := h.store.Attach(ctx, user, name)
	if err == nil && alone {
		h.registry.advance(user, a.Furthest)
	}
	return a, err
}

// Logout ends the session of (user, terminal) if it still is ref's. It does not block.
func (h *Hub) Logout(user, name string, ref Ref) {
	if !h.registry.remove(user, name, ref) {
		return
	}
	h.store.Seen(user, h.now())
	h.cluster.Leave(user, name, uint64(ref))
	if !h.alone || h.watchers.any(user) {
		h.pool.Go(func() { h.presenceChanged(context.Background(), user) })
	}
}

// Acked keeps a terminal's inbox position. from and furthest tell how far that moved the user's furthest terminal:
// over the entries from+1 … inbox. It does not block.
func (h *Hub) Acked(user, name string, inbox uint64) (from uint64, furthest bool, err error) {
	if err := h.store.Ack(user, name, inbox); err != nil {
		return 0, false, fail(err)
	}
	from, furthest = h.registry.advance(user, inbox)
	return from, furthest, nil
}
