package hub

import (
	"context"
	"fmt"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/store"
)

// PutGroup creates a group or, with members, replaces its list.
func (h *Hub) PutGroup(ctx context.Context, group string, members []string) (store.GroupInfo, error) {
	before, _ := h.store.Group(ctx, group) // an unknown one was not large
	info, added, removed, err := h.store.PutGroup(ctx, group, members, h.o.MaxMembers)
	if err != nil {
		return info, fail(err)
	}
	return info, h.membersChanged(ctx, before, info, added, removed)
}

// ChangeMembers adds and removes members and returns the new size.
func (h *Hub) ChangeMembers(ctx context.Context, group string, add, remove []string) (size int, err error) {
	before, err := h.store.Group(ctx, group)
	if err != nil {
		return 0, fail(err)
	}
	info, added, removed, err := h.store.ChangeGroup(ctx, group, add, remove, h.o.MaxMembers)
	if err != nil {
		return 0, fail(err)
	}
	return info.Size, h.membersChanged(ctx, before, info, added, removed)
}

// membersChanged tells the sessions that now follow a large group, or no more, here and on other nodes. All of it is safe to
// tell twice, so that two changes at once need no lock.
func (h *Hub) membersChanged(ctx context.Context, before, info store.GroupInfo, added, removed []string) error {
	change := cluster.MembersChange{Group: info.Group, Large: info.Large, BecameLarge: info.Large && !before.Large}
	if before.Large || info.Large {
		change.Removed = removed
	}
	if before.Large && info.Large {
		change.Added = added
	}
	h.leaveGroup(info.Group, removed)
	for _, u := range change.Added {
		h.joinGroup(info.Group, u)
	}
	h.cluster.Members(change)
	if change.BecameLarge { // nobody follows it yet
		return h.members(ctx, info.Group, func(user string) { h.joinGroup(info.Group, user) })
	}
	return nil
}

// joinGroup makes the user's sessions here follow a large group; leaveGroup ends it.
func (h *Hub) joinGroup(group, user string) {
	for _, r := range h.registry.refs(nil, user) {
		h.outlet(r).Join(r, group)
	}
}

func (h *Hub) leaveGroup(group string, users []string) {
	for _, u := range users {
		for _, r := range h.registry.refs(nil, u) {
			h.outlet(r).Leave(r, group)
		}
	}
}

// DeleteGroup removes the group and its members; history stays.
func (h *Hub) DeleteGroup(ctx context.Context, group string) error {
	before, err := h.store.Group(ctx, group)
	if err != nil {
		return fail(err)
	}
	members, err := h.store.DeleteGroup(ctx, group)
	if err != nil {
		return fail(err)
	}
	return h.membersChanged(ctx, before, store.GroupInfo{Group: group}, nil, members)
}

// Group describes a group.
func (h *Hub) Group(ctx context.Context, group string) (store.GroupInfo, error) {
	info, err := h.store.Group(ctx, group)
	return info, fail(err)
}

// Members pages through a group in byte order.
func (h *Hub) Members(ctx context.Context, group, cursor string, limit int) (members []string, next string, err error) {
	members, next, err = h.store.Members(ctx, group, cursor, limit)
	return members, next, fail(err)
}

// AckGroup keeps a terminal's position in a large group; in another group it does nothing. FORBIDDEN if the user is no
// member, BAD_PACKET above the head.
func (h *Hub) AckGroup(ctx context.Context, user, terminal, group string, seq uint64) error {
	if err := h.Member(ctx, group, user); err != nil {
		return err
	}
	info, err := h.store.Group(ctx, group)
	if err != nil || !info.Large {
		return fail(err)
	}
	if seq > info.Head {
		return fail(fmt.Errorf("%w: %d above %d", store.ErrPosition, seq, info.Head))
	}
	return fail(h.store.AckGroup(user, terminal, group, seq))
}
