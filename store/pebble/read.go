package pebble

import (
	"context"
	"fmt"

	"github.com/meshtalk/meshtalk/store"
)

// pageBytes of content end a page, but never below one entry.
const pageBytes = 256 << 10

// view is a user's inbox or a conversation as a reader may see it: nothing above head is durable.
type view struct {
	id   uint64
	days []day
	box  store.Inbox
}

// userView reads a user's inbox.
func (g *generation) userView(name string) (view, error) {
	return g.view(nameKey(kUser, name), kInbox, func() (uint64, bool) { return g.heads.durableUser(name) })
}

// convView reads a conversation.
func (g *generation) convView(name string) (view, error) {
	return g.view(nameKey(kConv, name), kMessage, func() (uint64, bool) { return g.heads.durableConv(name) })
}

// view asks durable after the database: see heads.durableUser.
func (g *generation) view(key []byte, kind byte, durable func() (uint64, bool)) (view, error) {
	var e entity
	if _, err := g.getEntity(key, &e); err != nil {
		return view{}, err
	}
	v := view{id: e.id, days: e.live(g.firstBucket)}
	head, known := durable()
	if !known && len(v.days) > 0 {
		found, err := g.lastRow(kind, v.days[len(v.days)-1].bucket, e.id, func(n uint64, _ []byte) error {
			head = n
			return nil
		})
		if err != nil {
			return view{}, err
		}
		if !found {
			return view{}, g.rowError(key)
		}
		if h, known := durable(); known {
			head = min(head, h)
		}
	} else if !known {
		head = e.base.seq
	}
	v.box = store.Inbox{Head: head, First: head + 1}
	if len(v.days) > 0 {
		v.box.First = min(v.days[0].first, head+1)
	}
	return v, nil
}

func (g *generation) convBox(conv string) (store.Inbox, error) {
	v, err := g.convView(conv)
	return v.box, err
}

// Head implements store.Store.
func (s *Store) Head(_ context.Context, user string) (store.Inbox, error) {
	g, err := s.acquire()
	if err != nil {
		return store.Inbox{}, err
	}
	defer g.release()
	v, err := g.userView(user)
	return v.box, err
}

// ConvHead implements store.Store.
func (s *Store) ConvHead(_ context.Context, conv string) (store.Inbox, error) {
	g, err := s.acquire()
	if err != nil {
		return store.Inbox{}, err
	}
	defer g.release()
	return g.convBox(conv)
}

// ReadInbox implements store.Store.
func (s *Store) ReadInbox(ctx context.Context, user string, after uint64, limit int) (list []store.InboxEntry, box store.Inbox, more bool, err error) {
	g, err := s.acquire()
	if err != nil {
		return nil, box, false, err
	}
	defer g.release()
	v, err := g.userView(user)
	if err != nil {
		return nil, box, false, err
	}
	next := max(after, v.box.First-1) + 1
	if next == 0 || next > v.box.Head {
		return nil, v.box, false, nil
	}
	size := 0
	limit = max(limit, 1)
	list = make([]store.InboxEntry, 0, min(uint64(limit), v.box.Head-next+1, 512))
	for i := dayOf(v.days, next); i >= 0 && i < len(v.days) && next <= v.box.Head && len(list) < limit && size < pageBytes; i++ {
		if err := ctx.Err(); err != nil {
			return nil, box, false, err
		}
		if list, err = g.readDay(v, v.days[i].bucket, next, limit, &size, list); err != nil {
			return nil, box, false, err
		}
		if n := len(list); n > 0 {
			next = list[n-1].Inbox + 1
		}
	}
	return list, v.box, next <= v.box.Head, nil
}

// readDay appends the entries of one bucket from number next on.
func (g *generation) readDay(v view, bucket uint16, next uint64, limit int, size *int, list []store.InboxEntry) ([]store.InboxEntry, error) {
	lower, upper := bulkKey(kInbox, bucket, v.id, next), bulkKey(kInbox, bucket, v.id, v.box.Head+1)
	it, err := g.iter(lower[:], upper[:])
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for ok := it.First(); ok && len(list) < limit && (*size < pageBytes || len(list) == 0); ok = it.Next() {
		row, err := it.ValueAndErr()
		if err != nil {
			return nil, g.readError("inbox", err)
		}
		in := reader{b: row}
		conv, seq := in.uvarint(), in.uvarint()
		if in.bad || bulkSeq(it.Key()) != next {
			return nil, g.rowError(it.Key())
		}
		list = append(list, store.InboxEntry{Inbox: next})
		m := &list[len(list)-1].Message
		if err := g.message(bucket, conv, seq, m); err != nil {
			return nil, err
		}
		*size += len(m.Content)
		next++
	}
	return list, g.readError("inbox", it.Error())
}

// message reads one message that must be there.
func (g *generation) message(bucket uint16, conv, seq uint64, m *store.Message) error {
	name, err := g.convName(conv)
	if err != nil {
		return err
	}
	found, err := g.messageRow(bucket, conv, seq, func(r *record) error {
		r.message(name, seq, m)
		return g.settled(name, r)
	})
	if err == nil && !found {
		key := bulkKey(kMessage, bucket, conv, seq)
		return g.rowError(key[:])
	}
	return err
}

// settled waits for the commit of a recall that the row shows already: the event has its number, and readers see only
// what is durable.
func (g *generation) settled(conv string, r *record) error {
	if r.flags&recRecalled == 0 {
		return nil
	}
	if durable, known := g.heads.durableConv(conv); !known || r.target <= durable {
		return nil
	}
	if p := g.last.Load(); p != nil {
		return p.settle()
	}
	return nil
}

// History implements store.Store.
func (s *Store) History(ctx context.Context, conv string, before, after *uint64, limit int) (list []store.Message, more bool, err error) {
	g, err := s.acquire()
	if err != nil {
		return nil, false, err
	}
	defer g.release()
	v, err := g.convView(conv)
	if err != nil || v.box.Head < v.box.First {
		return nil, false, err
	}
	limit = max(limit, 1)
	if after != nil {
		if *after >= v.box.Head {
			return nil, false, nil
		}
		list, err = g.forward(ctx, conv, v, max(*after+1, v.box.First), limit)
		return list, err == nil && list[len(list)-1].Seq < v.box.Head, err
	}
	from := v.box.Head
	if before != nil {
		if *before <= v.box.First {
			return nil, false, nil
		}
		from = min(from, *before-1)
	}
	list, err = g.backward(ctx, conv, v, from, limit)
	return list, err == nil && list[len(list)-1].Seq > v.box.First, err
}

// page collects messages in order and checks that none is missing.
type page struct {
	g     *generation
	conv  string
	limit int
	size  int
	list  []store.Message
}

func (p *page) full() bool { return len(p.list) >= p.limit || p.size >= pageBytes }

func (p *page) add(seq uint64, key, row []byte) error {
	var r record
	if bulkSeq(key) != seq || r.decode(row) != nil {
		return p.g.rowError(key)
	}
	p.list = append(p.list, store.Message{})
	m := &p.list[len(p.list)-1]
	r.message(p.conv, seq, m)
	p.size += len(m.Content)
	return p.g.settled(p.conv, &r)
}

// forward reads from a sequence that is kept to the head at most.
func (g *generation) forward(ctx context.Context, conv string, v view, from uint64, limit int) ([]store.Message, error) {
	p := page{g: g, conv: conv, limit: limit}
	next := from
	for i := dayOf(v.days, from); i >= 0 && i < len(v.days) && next <= v.box.Head && !p.full(); i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		lower, upper := bulkKey(kMessage, v.days[i].bucket, v.id, next), bulkKey(kMessage, v.days[i].bucket, v.id, v.box.Head+1)
		it, err := g.iter(lower[:], upper[:])
		if err != nil {
			return nil, err
		}
		for ok := it.First(); ok && err == nil && !p.full(); ok = it.Next() {
			var row []byte
			if row, err = it.ValueAndErr(); err == nil {
				err = p.add(next, it.Key(), row)
			}
			next++
		}
		if err == nil {
			err = it.Error()
		}
		_ = it.Close()
		if err != nil {
			return nil, g.readError("history", err)
		}
	}
	return p.done(from)
}

// backward reads from a sequence that is kept to the first at most.
func (g *generation) backward(ctx context.Context, conv string, v view, from uint64, limit int) ([]store.Message, error) {
	p := page{g: g, conv: conv, limit: limit}
	next := from
	for i := dayOf(v.days, from); i >= 0 && !p.full(); i-- {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		lower, upper := bulkKey(kMessage, v.days[i].bucket, v.id, 0), bulkKey(kMessage, v.days[i].bucket, v.id, next+1)
		it, err := g.iter(lower[:], upper[:])
		if err != nil {
			return nil, err
		}
		for ok := it.Last(); ok && err == nil && !p.full(); ok = it.Prev() {
			var row []byte
			if row, err = it.ValueAndErr(); err == nil {
				err = p.add(next, it.Key(), row)
			}
			next--
		}
		if err == nil {
			err = it.Error()
		}
		_ = it.Close()
		if err != nil {
			return nil, g.readError("history", err)
		}
	}
	return p.done(from)
}

// done refuses a page without its first message.
func (p *page) done(from uint64) ([]store.Message, error) {
	if len(p.list) == 0 {
		return nil, fmt.Errorf("store: history: %s %d: %w", p.conv, from, errRow)
	}
	return p.list, nil
}
