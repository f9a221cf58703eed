package pebble

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/meshtalk/meshtalk/store"
)

// cursor is where a page ended. Conversations are ordered by their activity as it was when the first page was made
// (asOf), so that new traffic moves none of them: newest day first, in it newest message first, then by name.
type cursor struct {
	asOf   int64
	bucket uint16
	ts     int64
	order  uint64
	conv   string
}

func (c *cursor) encode() string {
	b := binary.AppendUvarint(nil, uint64(c.asOf))
	b = binary.AppendUvarint(b, uint64(c.bucket))
	b = binary.AppendUvarint(b, uint64(c.ts))
	b = binary.AppendUvarint(b, c.order)
	return base64.RawURLEncoding.EncodeToString(append(b, c.conv...))
}

func parseCursor(text string) (*cursor, error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	in := reader{b: b}
	c := &cursor{asOf: int64(in.uvarint()), bucket: uint16(in.uvarint()), ts: int64(in.uvarint()), order: in.uvarint()}
	c.conv = string(in.b)
	if kind, _, _ := store.ConvKind(c.conv); err != nil || in.bad || kind == 0 {
		return nil, fmt.Errorf("%w: cursor", store.ErrNotFound)
	}
	return c, nil
}

// activity is a conversation at its newest message, events aside.
type activity struct {
	conv   string
	kind   byte
	view   view
	floor  uint64 // where the user's read position begins
	seq    uint64
	bucket uint16
	ts     int64
	order  uint64 // among the messages of the same ts
}

func compareActivity(a, b *activity) int {
	return cmp.Or(cmp.Compare(b.bucket, a.bucket), cmp.Compare(b.ts, a.ts), cmp.Compare(b.order, a.order),
		cmp.Compare(a.conv, b.conv))
}

func (c *cursor) passed(a *activity) bool {
	return compareActivity(a, &activity{conv: c.conv, bucket: c.bucket, ts: c.ts, order: c.order}) <= 0
}

// Conversations implements store.Store.
func (s *Store) Conversations(ctx context.Context, user, text string, limit int) (list []store.Conversation, next string, err error) {
	var from *cursor
	if text != "" {
		if from, err = parseCursor(text); err != nil {
			return nil, "", err
		}
	}
	g, err := s.acquire()
	if err != nil {
		return nil, "", err
	}
	defer g.release()
	g.groups.change.RLock()
	defer g.groups.change.RUnlock()
	asOf := int64(math.MaxInt64)
	if from != nil {
		asOf = from.asOf
	}
	limit = max(limit, 1)
	found, err := g.activities(ctx, user, from, asOf, limit+1)
	if err != nil {
		return nil, "", err
	}
	size := 0
	for i, a := range found {
		if i == limit || size >= pageBytes {
			last := found[i-1]
			if from == nil {
				asOf = found[0].ts
			}
			c := cursor{asOf: asOf, bucket: last.bucket, ts: last.ts, order: last.order, conv: last.conv}
			return list, c.encode(), nil
		}
		c, err := g.describe(ctx, user, a)
		if err != nil {
			return nil, "", err
		}
		size += len(c.Last.Content)
		list = append(list, c)
	}
	return list, "", nil
}

// activities finds at least n conversations after the cursor, if there are so many, in order.
func (g *generation) activities(ctx context.Context, user string, from *cursor, asOf int64, n int) ([]*activity, error) {
	me, err := g.userView(user)
	if err != nil {
		return nil, err
	}
	rest, err := g.memberActivities(user, asOf)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(rest, compareActivity)
	var found []*activity
	take := func(a *activity) {
		if from == nil || !from.passed(a) {
			found = append(found, a)
		}
	}
	for i := len(me.days) - 1; i >= 0 && len(found) < n; i-- {
		bucket := me.days[i].bucket
		if from != nil && bucket > from.bucket {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		day, err := g.dayActivities(me.id, bucket, asOf)
		if err != nil {
			return nil, err
		}
		for len(rest) > 0 && rest[0].bucket >= bucket {
			day, rest = append(day, rest[0]), rest[1:]
		}
		slices.SortFunc(day, compareActivity)
		for _, a := range day {
			take(a)
		}
	}
	if len(found) < n {
		for _, a := range rest {
			take(a)
		}
	}
	return found, nil
}

// dayActivities are the private conversations whose newest message is of that day.
func (g *generation) dayActivities(user uint64, bucket uint16, asOf int64) ([]*activity, error) {
	var lower, upper [indexKeyLen]byte
	putIndex(lower[:], bucket, user, 0)
	putIndex(upper[:], bucket, user, maxID)
	it, err := g.iter(lower[:], upper[:])
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var list []*activity
	for ok := it.First(); ok; ok = it.Next() {
		name, err := g.convName(get40(it.Key()[8:]))
		if err != nil {
			return nil, err
		}
		a, err := g.activity(name, 'p', 0, asOf)
		if err != nil {
			return nil, err
		}
		if a != nil && a.bucket == bucket { // else it is listed under a newer day, or nothing is left of it
			list = append(list, a)
		}
	}
	return list, g.readError("conversations", it.Error())
}

// memberActivities are the user's groups and its system conversation.
func (g *generation) memberActivities(user string, asOf int64) ([]*activity, error) {
	names, err := g.groupsOf(user)
	if err != nil {
		return nil, err
	}
	var list []*activity
	add := func(conv string, kind byte, floor uint64) error {
		a, err := g.activity(conv, kind, floor, asOf)
		if a != nil {
			list = append(list, a)
		}
		return err
	}
	for _, name := range names {
		joined, _, err := g.joinedAt(name, user)
		if err != nil {
			return nil, err
		}
		if err := add(store.GroupConv(name), 'g', joined); err != nil {
			return nil, err
		}
	}
	return list, add(store.SystemConv(user), 'n', 0)
}

// activity is nil for a conversation without a message up to a time.
func (g *generation) activity(conv string, kind byte, floor uint64, asOf int64) (*activity, error) {
	v, err := g.convView(conv)
	if err != nil || v.box.Head < v.box.First {
		return nil, err
	}
	a := &activity{conv: conv, kind: kind, view: v, floor: floor, seq: v.box.Head}
	r, err := g.counters(v, a.seq)
	if err != nil {
		return nil, err
	}
	if r.ts > asOf {
		a.seq, r, err = g.lastWhere(v, v.box.Head-1, func(r *counters) bool { return r.ts <= asOf })
		if err != nil || a.seq == 0 {
			return nil, err
		}
	}
	if r.event {
		messages := a.seq - r.recalls
		a.seq, r, err = g.firstWhere(v, a.seq, func(seq uint64, r *counters) bool { return seq-r.recalls >= messages })
		if err != nil || r.event {
			return nil, err
		}
	}
	a.ts, a.order, a.bucket = r.ts, r.order, v.days[dayOf(v.days, a.seq)].bucket
	return a, nil
}

// counters is what a message's row tells without its content.
type counters struct {
	ts      int64
	order   uint64
	event   bool
	who     byte
	recalls uint64
	fromA   uint64
	inboxA  uint64
	inboxB  uint64
}

func (g *generation) counters(v view, seq uint64) (c counters, err error) {
	i := dayOf(v.days, seq)
	if i < 0 {
		return c, fmt.Errorf("store: conversation %d, message %d: %w", v.id, seq, errRow)
	}
	found, err := g.messageRow(v.tails, v.days[i].bucket, v.id, seq, func(r *record) error {
		c = counters{ts: r.ts, order: r.order, event: r.kind() == store.Recall, who: r.who, recalls: r.recalls, fromA: r.fromA,
			inboxA: r.inboxA, inboxB: r.inboxB}
		return nil
	})
	if err == nil && !found {
		key := bulkKey(kMessage, v.days[i].bucket, v.id, seq)
		err = g.rowError(key[:])
	}
	return c, err
}

// firstWhere is the first sequence up to last at which f holds; f holds at last, and from somewhere on without end.
func (g *generation) firstWhere(v view, last uint64, f func(uint64, *counters) bool) (uint64, counters, error) {
	low, high := v.box.First, last // f holds at high
	for low < high {
		mid := low + (high-low)/2
		c, err := g.counters(v, mid)
		if err != nil {
			return 0, c, err
		}
		if f(mid, &c) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	c, err := g.counters(v, low)
	return low, c, err
}

// lastWhere is the last sequence up to last at which f holds, 0 if there is none; f holds up to somewhere.
func (g *generation) lastWhere(v view, last uint64, f func(*counters) bool) (uint64, counters, error) {
	low, high := v.box.First, last+1 // f holds below low, not at high
	for low < high {
		mid := low + (high-low)/2
		c, err := g.counters(v, mid)
		if err != nil {
			return 0, c, err
		}
		if f(&c) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == v.box.First {
		return 0, counters{}, nil
	}
	c, err := g.counters(v, low-1)
	return low - 1, c, err
}

// describe makes the line of a conversation.
func (g *generation) describe(ctx context.Context, user string, a *activity) (c store.Conversation, err error) {
	now, err := g.activity(a.conv, a.kind, a.floor, math.MaxInt64)
	if err != nil {
		return c, err
	}
	if now != nil {
		a = now
	}
	c = store.Conversation{Conv: a.conv, Head: a.view.box.Head, Last: new(store.Message)}
	if err := g.message(a.view.tails, a.bucket, a.view.id, a.seq, c.Last); err != nil {
		return c, err
	}
	if c.Read, err = g.readPosition(user, a.conv, a.floor); err != nil {
		return c, err
	}
	c.Read = min(c.Read, c.Head)
	switch a.kind {
	case 'n':
		c.Kind = "system"
		all := func(seq uint64, n *counters) uint64 { return seq - n.recalls }
		c.Unread, err = g.unreadCounted(a.view, c.Read, all, func(byte) bool { return true })
	case 'g':
		c.Kind, c.Group = "group", a.conv[2:]
		c.Unread, err = g.unreadScanned(ctx, user, a.conv, a.view, c.Read)
	default:
		c.Kind = "private"
		c.Peer, _ = store.Peer(a.conv, user)
		err = g.describePrivate(user, a, &c)
	}
	return c, err
}

func (g *generation) describePrivate(user string, a *activity, c *store.Conversation) (err error) {
	_, first, _ := store.ConvKind(a.conv)
	isA := first == user
	if c.Peer != user {
		other := byte(whoA)
		others := func(_ uint64, n *counters) uint64 { return n.fromA }
		if isA {
			other = whoB
			others = func(seq uint64, n *counters) uint64 { return seq - n.recalls - n.fromA }
		}
		if c.Unread, err = g.unreadCounted(a.view, c.Read, others, func(who byte) bool { return who == other }); err != nil {
			return err
		}
	}
	if c.PeerRead, err = g.readPosition(c.Peer, a.conv, 0); err != nil {
		return err
	}
	c.PeerDelivered, err = g.peerDelivered(a.view, c.Peer, isA)
	return err
}

// unreadCounted is the difference of a counter of others' messages between the head and the read position. counts
// tells whether a sender's messages are in the counter.
func (g *generation) unreadCounted(v view, read uint64, others func(uint64, *counters) uint64, counts func(who byte) bool) (uint64, error) {
	if read >= v.box.Head {
		return 0, nil
	}
	head, err := g.counters(v, v.box.Head)
	if err != nil {
		return 0, err
	}
	from := max(read, v.box.First)
	at, err := g.counters(v, from)
	if err != nil {
		return 0, err
	}
	n := others(v.box.Head, &head) - others(from, &at)
	if read < from && !at.event && counts(at.who) { // the first one kept is itself unread
		n++
	}
	return n, nil
}

// unreadScanned counts the messages of others above the read position in a group.
func (g *generation) unreadScanned(ctx context.Context, user, conv string, v view, read uint64) (n uint64, err error) {
	from := max(read+1, v.box.First)
	if from > v.box.Head {
		return 0, nil
	}
	err = g.scan(ctx, v, from, func(_ uint64, r *record) bool {
		if r.kind() != store.Recall && !r.isFrom(user, conv) {
			n++
		}
		return true
	})
	return n, err
}

// peerDelivered is the user's newest message whose number in the peer's inbox the peer's furthest terminal has passed.
func (g *generation) peerDelivered(v view, peer string, isA bool) (uint64, error) {
	at, err := g.furthest(peer)
	if err != nil || at == 0 {
		return 0, err
	}
	last, c, err := g.lastWhere(v, v.box.Head, func(c *counters) bool {
		if isA {
			return c.inboxB <= at
		}
		return c.inboxA <= at
	})
	if err != nil || last == 0 {
		return 0, err
	}
	mine := func(seq uint64, c *counters) uint64 {
		if isA {
			return c.fromA
		}
		return seq - c.recalls - c.fromA
	}
	count := mine(last, &c)
	seq, c, err := g.firstWhere(v, last, func(seq uint64, c *counters) bool { return mine(seq, c) >= count })
	who := byte(whoB)
	if isA {
		who = whoA
	}
	if err != nil || c.event || c.who != who {
		return 0, err
	}
	return seq, nil
}
