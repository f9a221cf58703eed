package pebble

import (
	"context"
	"errors"

	"github.com/meshtalk/meshtalk/store"
)

// pageBytes of content end a page, but never below one entry.
const pageBytes = 256 << 10

// view is a user's inbox or a conversation as a reader may see it: up to head everything is in the tails or in tables.
type view struct {
	id    uint64
	inbox bool
	days  []day
	tails tails // loaded after head was read and before any table is: what leaves them is in tables by then
	box   store.Inbox
}

// userView reads a user's inbox.
func (g *generation) userView(name string) (view, error) {
	return g.view(nameKey(kUser, name), true, func() (uint64, bool) { return g.heads.durableUser(name) })
}

// convView reads a conversation.
func (g *generation) convView(name string) (view, error) {
	return g.view(nameKey(kConv, name), false, func() (uint64, bool) { return g.heads.durableConv(name) })
}

func (g *generation) view(key []byte, inbox bool, durable func() (uint64, bool)) (view, error) {
	head, known := durable() // before the row: days that are there only since do no harm
	var e entity
	if _, err := g.getEntity(key, &e); err != nil {
		return view{}, err
	}
	v := view{id: e.id, inbox: inbox, days: e.live(g.firstBucket), tails: *g.tails.Load()}
	if !known {
		var err error
		if head, err = g.durableHead(key, &v, &e); err != nil {
			return view{}, err
		}
	}
	v.box = store.Inbox{Head: head, First: head + 1}
	if len(v.days) > 0 {
		v.box.First = min(v.days[0].first, head+1)
	}
	return v, nil
}

// durableHead finds the head of what no commit has used lately. A day may have been begun by a commit that is not durable yet: then the
// head is before it.
func (g *generation) durableHead(key []byte, v *view, e *entity) (uint64, error) {
	if n, ok := v.tails.last(v.id, v.inbox); ok {
		return n, nil
	}
	kind := byte(kMessage)
	if v.inbox {
		kind = kInbox
	}
	for i := len(v.days) - 1; i >= 0; i-- {
		lower, upper := bulkKey(kind, v.days[i].bucket, v.id, 0), bulkKey(kind, v.days[i].bucket, v.id, maxSeq)
		it, err := g.iter(lower[:], upper[:])
		if err != nil {
			return 0, err
		}
		found, n := it.Last(), uint64(0)
		if found {
			n = bulkSeq(it.Key())
		}
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			return 0, g.readError("read", err)
		}
		if found {
			return n, nil
		}
		if first := v.days[i].first; first > 1 && i == 0 {
			return first - 1, nil
		}
	}
	return e.base.seq, nil
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

// Heads implements store.Store.
func (s *Store) Heads(_ context.Context, users []string) ([]uint64, error) {
	g, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer g.release()
	heads := make([]uint64, len(users))
	for i, u := range users {
		v, err := g.userView(u)
		if err != nil {
			return nil, err
		}
		heads[i] = v.box.Head
	}
	return heads, nil
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
	p := inboxPage{g: g, v: v, next: next, limit: max(limit, 1)}
	p.list = make([]store.InboxEntry, 0, min(uint64(p.limit), v.box.Head-next+1, 512))
	if err := p.read(ctx); err != nil {
		return nil, box, false, err
	}
	return p.list, v.box, p.next <= v.box.Head, nil
}

// inboxPage collects inbox entries in order.
type inboxPage struct {
	g     *generation
	v     view
	next  uint64
	limit int
	size  int
	list  []store.InboxEntry
}

func (p *inboxPage) full() bool {
	return p.next > p.v.box.Head || len(p.list) >= p.limit || p.size >= pageBytes
}

func (p *inboxPage) read(ctx context.Context) error {
	inTails := p.v.tails.first(p.v.id, true, p.v.box.Head+1)
	for i := dayOf(p.v.days, p.next); i >= 0 && i < len(p.v.days) && p.next < inTails && !p.full(); i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.readDay(p.v.days[i].bucket, inTails); err != nil {
			return err
		}
	}
	for i := len(p.v.tails) - 1; i >= 0 && !p.full(); i-- {
		if err := p.readTail(p.v.tails[i]); err != nil {
			return err
		}
	}
	if len(p.list) == 0 {
		return p.g.rowError(bulkRow(kInbox, p.v.id, p.next))
	}
	return nil
}

// readDay reads the tables of one bucket, up to a number.
func (p *inboxPage) readDay(bucket uint16, before uint64) error {
	lower, upper := bulkKey(kInbox, bucket, p.v.id, p.next), bulkKey(kInbox, bucket, p.v.id, maxSeq)
	it, err := p.g.iter(lower[:], upper[:])
	if err != nil {
		return err
	}
	defer it.Close()
	messages := messageSeeker{g: p.g, ts: p.v.tails, bucket: bucket}
	defer messages.close()
	for ok := it.First(); ok && p.next < before && !p.full(); ok = it.Next() {
		row, err := it.ValueAndErr()
		if err != nil {
			return p.g.readError("inbox", err)
		}
		var failed error
		err = unpackInbox(row, bulkSeq(it.Key()), func(number, conv, seq uint64) bool {
			if number < p.next {
				return true
			}
			if number != p.next || number >= before {
				return false
			}
			failed = p.addStored(&messages, conv, seq)
			return failed == nil && !p.full()
		})
		if failed != nil {
			return failed
		}
		if err != nil {
			return p.g.rowError(it.Key())
		}
	}
	return p.g.readError("inbox", it.Error())
}

func (p *inboxPage) addStored(messages *messageSeeker, conv, seq uint64) error {
	var rec record
	if err := messages.find(conv, seq, &rec); err != nil {
		return err
	}
	return p.add(conv, seq, &rec)
}

// add makes a record the next entry.
func (p *inboxPage) add(conv, seq uint64, rec *record) error {
	name, err := p.g.convName(conv)
	if err != nil {
		return err
	}
	p.list = append(p.list, store.InboxEntry{Inbox: p.next})
	m := &p.list[len(p.list)-1].Message
	rec.message(name, seq, m)
	p.size += len(m.Content)
	p.next++
	return nil
}

// readTail reads what a tail has of the inbox.
func (p *inboxPage) readTail(t *tail) error {
	var rec record
	for _, i := range t.list(p.v.id, true).from(p.next) {
		if p.full() {
			break
		}
		m := t.msg(i)
		row := p.v.tails.patch(m.conv, m.seq)
		if row == nil {
			row = t.row(m)
		}
		if err := rec.decode(row); err != nil {
			return err
		}
		if err := p.add(m.conv, m.seq, &rec); err != nil {
			return err
		}
	}
	return nil
}

// message reads one message that must be there.
func (g *generation) message(ts tails, bucket uint16, conv, seq uint64, m *store.Message) error {
	name, err := g.convName(conv)
	if err != nil {
		return err
	}
	found, err := g.messageRow(ts, bucket, conv, seq, func(r *record) error {
		r.message(name, seq, m)
		return nil
	})
	if err == nil && !found {
		key := bulkKey(kMessage, bucket, conv, seq)
		return g.rowError(key[:])
	}
	return err
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
	p := page{conv: conv, limit: max(limit, 1)}
	if after != nil {
		if *after >= v.box.Head {
			return nil, false, nil
		}
		from := max(*after+1, v.box.First)
		if err := g.scan(ctx, v, from, p.add); err != nil {
			return nil, false, err
		}
		return p.list, p.list[len(p.list)-1].Seq < v.box.Head, nil
	}
	from := v.box.Head
	if before != nil {
		if *before <= v.box.First {
			return nil, false, nil
		}
		from = min(from, *before-1)
	}
	if err := g.scanBack(ctx, v, from, p.add); err != nil {
		return nil, false, err
	}
	return p.list, p.list[len(p.list)-1].Seq > v.box.First, nil
}

// page collects messages.
type page struct {
	conv  string
	limit int
	size  int
	list  []store.Message
}

func (p *page) add(seq uint64, r *record) (goOn bool) {
	p.list = append(p.list, store.Message{})
	m := &p.list[len(p.list)-1]
	r.message(p.conv, seq, m)
	p.size += len(m.Content)
	return len(p.list) < p.limit && p.size < pageBytes
}

// scan gives f the messages of a conversation from one that is kept to the head, until f ends it. None is missing.
func (g *generation) scan(ctx context.Context, v view, from uint64, f func(seq uint64, r *record) bool) error {
	inTails := v.tails.first(v.id, false, v.box.Head+1)
	w := walk{g: g, v: v, next: from, step: 1, f: f}
	for i := dayOf(v.days, from); i >= 0 && i < len(v.days) && w.next < inTails && !w.ended; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.table(v.days[i].bucket, w.next, inTails); err != nil {
			return err
		}
	}
	return w.memory(v.box.Head)
}

// scanBack is scan from one that is kept down to the first.
func (g *generation) scanBack(ctx context.Context, v view, from uint64, f func(seq uint64, r *record) bool) error {
	inTails := v.tails.first(v.id, false, v.box.Head+1)
	w := walk{g: g, v: v, next: from, step: ^uint64(0), f: f}
	if from >= inTails {
		if err := w.memory(inTails); err != nil {
			return err
		}
	}
	for i := dayOf(v.days, w.next); i >= 0 && !w.ended; i-- {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.table(v.days[i].bucket, 0, w.next+1); err != nil {
			return err
		}
	}
	if !w.ended && w.next != v.box.First-1 {
		return g.rowError(bulkRow(kMessage, v.id, w.next))
	}
	return nil
}

// walk is a scan under way.
type walk struct {
	g     *generation
	v     view
	next  uint64
	step  uint64 // 1, or −1
	f     func(seq uint64, r *record) bool
	ended bool
}

// table walks through one bucket in the tables, between two sequences.
func (w *walk) table(bucket uint16, from, to uint64) error {
	lower, upper := bulkKey(kMessage, bucket, w.v.id, from), bulkKey(kMessage, bucket, w.v.id, to)
	it, err := w.g.iter(lower[:], upper[:])
	if err != nil {
		return err
	}
	defer it.Close()
	first, move := it.First, it.Next
	if w.step != 1 {
		first, move = it.Last, it.Prev
	}
	for ok := first(); ok && !w.ended; ok = move() {
		if bulkSeq(it.Key()) != w.next {
			return w.g.rowError(it.Key())
		}
		row, err := it.ValueAndErr()
		if err != nil {
			return w.g.readError("history", err)
		}
		if err := w.row(row); err != nil {
			return err
		}
	}
	return w.g.readError("history", it.Error())
}

func (w *walk) row(row []byte) error {
	if patch := w.v.tails.patch(w.v.id, w.next); patch != nil {
		row = patch
	}
	var r record
	if r.decode(row) != nil {
		return w.g.rowError(bulkRow(kMessage, w.v.id, w.next))
	}
	w.ended = !w.f(w.next, &r)
	w.next += w.step
	return nil
}

// memory walks through the tails up to (down to) a sequence.
func (w *walk) memory(to uint64) error {
	for !w.ended && w.next != to+w.step {
		row := w.v.tails.row(w.v.id, w.next)
		if row == nil {
			return w.g.rowError(bulkRow(kMessage, w.v.id, w.next))
		}
		if err := w.row(row); err != nil {
			return err
		}
	}
	return nil
}

// bulkRow names a row in an error.
func bulkRow(kind byte, id, number uint64) []byte {
	key := bulkKey(kind, 0, id, number)
	return key[:]
}
