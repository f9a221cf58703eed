package hub

import (
	"context"
	"time"
)

// Wake-ups between nodes may be lost: with Redis, with a subscription, or because a node was too slow. So a node compares the
// heads of its users with the store, at once when it knows of a gap and every headInterval in any case.

const (
	headInterval = 30 * time.Second
	// headPage is how many users one read of heads is for.
	headPage = 500
)

// Resync implements cluster.Receiver.
func (h *Hub) Resync() {
	select {
	case h.resync <- struct{}{}:
	default: // one is due already
	}
}

// watchHeads compares until ctx ends. What the store cannot answer is tried again at the next turn, the first after a second.
func (h *Hub) watchHeads(ctx context.Context) {
	t := time.NewTicker(headInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-h.resync:
		}
		for h.compareHeads(ctx) != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}
}

// compareHeads tells every session its user's head, and every loop to look at its large groups.
func (h *Hub) compareHeads(ctx context.Context) error {
	for _, o := range h.outlets {
		o.Recheck()
	}
	for i := range h.registry.shards {
		users := h.registry.shardUsers(i)
		for len(users) > 0 {
			page := users[:min(headPage, len(users))]
			users = users[len(page):]
			heads, err := h.store.Heads(ctx, page)
			if err != nil {
				return err
			}
			h.tellHeads(page, heads)
		}
	}
	return nil
}

func (h *Hub) tellHeads(users []string, heads []uint64) {
	byLoop := make([][]Head, len(h.outlets))
	var refs []Ref
	for i, u := range users {
		if heads[i] == 0 {
			continue
		}
		refs = h.registry.refs(refs[:0], u)
		for _, r := range refs {
			loop := h.o.LoopOf(r)
			byLoop[loop] = append(byLoop[loop], Head{r, heads[i]})
		}
	}
	for i, list := range byLoop {
		if len(list) > 0 {
			h.outlets[i].Heads(list)
		}
	}
}
