package pebble

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/meshtalk/meshtalk/store"
)

// A message row:
//
//	1   kind in the low 3 bits, flags above
//	16  msgID
//	    uvarint ts
//	    uvarint order, see commit.order
//	    uvarint recalls so far in the conversation, this one included
//	    private conversations: uvarint messages of a so far, inbox number of a, inbox number of b
//	1   who: system, a, b, or a name (uvarint length, bytes) follows
//	    uvarint length of the id, id
//	    varint type
//	    recall events: uvarint target; recalled messages: uvarint sequence of the event
//	    content to the end
//
// The counters make unread counts and "delivered up to" a binary search instead of a scan. Rows of one conversation
// are ordered by sequence, and every counter only grows with it.
const (
	recKindMask = 0x07
	recRecalled = 0x08
	recLarge    = 0x10 // no inbox entries
	recPrivate  = 0x20 // the conversation is of two users

	whoSystem = 0
	whoA      = 1
	whoB      = 2
	whoNamed  = 3
)

// record is a decoded message row. Its slices point into the row.
type record struct {
	flags   byte
	msgID   []byte
	ts      int64
	order   uint64 // over all conversations, for messages of the same ts
	recalls uint64
	fromA   uint64 // messages of a up to this one
	inboxA  uint64
	inboxB  uint64
	who     byte
	from    []byte // whoNamed
	id      []byte
	typ     int64
	target  uint64 // the recalled message (of an event), the event (of a recalled message)
	content []byte
}

func (r *record) kind() store.Kind { return store.Kind(r.flags & recKindMask) }

func (r *record) size() int {
	n := 1 + 16 + uvarintLen(uint64(r.ts)) + uvarintLen(r.order) + uvarintLen(r.recalls) + 1 + uvarintLen(uint64(len(r.id))) + len(r.id) +
		uvarintLen(zigzag(r.typ)) + len(r.content)
	if r.flags&recPrivate != 0 {
		n += uvarintLen(r.fromA) + uvarintLen(r.inboxA) + uvarintLen(r.inboxB)
	}
	if r.who == whoNamed {
		n += uvarintLen(uint64(len(r.from))) + len(r.from)
	}
	if r.hasTarget() {
		n += uvarintLen(r.target)
	}
	return n
}

func (r *record) hasTarget() bool { return r.flags&recRecalled != 0 || r.kind() == store.Recall }

func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

// encode writes the row into b, which has size() bytes.
func (r *record) encode(b []byte) {
	b[0] = r.flags
	copy(b[1:17], r.msgID)
	n := 17
	n += binary.PutUvarint(b[n:], uint64(r.ts))
	n += binary.PutUvarint(b[n:], r.order)
	n += binary.PutUvarint(b[n:], r.recalls)
	if r.flags&recPrivate != 0 {
		n += binary.PutUvarint(b[n:], r.fromA)
		n += binary.PutUvarint(b[n:], r.inboxA)
		n += binary.PutUvarint(b[n:], r.inboxB)
	}
	b[n] = r.who
	n++
	if r.who == whoNamed {
		n += binary.PutUvarint(b[n:], uint64(len(r.from)))
		n += copy(b[n:], r.from)
	}
	n += binary.PutUvarint(b[n:], uint64(len(r.id)))
	n += copy(b[n:], r.id)
	n += binary.PutUvarint(b[n:], zigzag(r.typ))
	if r.hasTarget() {
		n += binary.PutUvarint(b[n:], r.target)
	}
	copy(b[n:], r.content)
}

// decode reads a row; its slices point into b.
func (r *record) decode(b []byte) error {
	if len(b) < 17 {
		return errRow
	}
	*r = record{flags: b[0], msgID: b[1:17]}
	in := reader{b: b[17:]}
	r.ts = int64(in.uvarint())
	r.order = in.uvarint()
	r.recalls = in.uvarint()
	if r.flags&recPrivate != 0 {
		r.fromA, r.inboxA, r.inboxB = in.uvarint(), in.uvarint(), in.uvarint()
	}
	if r.who = in.byte(); r.who == whoNamed {
		r.from = in.bytes(in.uvarint())
	}
	r.id = in.bytes(in.uvarint())
	r.typ = in.varint()
	if r.hasTarget() {
		r.target = in.uvarint()
	}
	r.content = in.b
	if in.bad || r.kind() < store.Private || r.kind() > store.Recall || r.who > whoNamed {
		return errRow
	}
	return nil
}

// sender is the name behind who.
func (r *record) sender(conv string) string {
	switch r.who {
	case whoA, whoB:
		_, a, b := store.ConvKind(conv)
		if r.who == whoA {
			return a
		}
		return b
	case whoNamed:
		return string(r.from)
	}
	return ""
}

// isFrom tells whether user sent it, without making a string.
func (r *record) isFrom(user, conv string) bool {
	switch r.who {
	case whoNamed:
		return string(r.from) == user
	case whoSystem:
		return false
	}
	return r.sender(conv) == user
}

// message is the row for callers; it owns its bytes.
func (r *record) message(conv string, seq uint64, m *store.Message) {
	*m = store.Message{Kind: r.kind(), Conv: conv, Seq: seq, From: r.sender(conv), ID: string(r.id), TS: r.ts, Type: r.typ,
		Recalled: r.flags&recRecalled != 0, Large: r.flags&recLarge != 0}
	copy(m.MsgID[:], r.msgID)
	if m.Kind == store.Recall {
		m.Target = r.target
	} else if !m.Recalled {
		m.Content = append(make([]byte, 0, len(r.content)), r.content...)
	}
}

// repeat is what a repeat is recognised by and answered from: uvarint conv, seq, ts, then 8 bytes of fingerprint.
type repeat struct {
	conv, seq   uint64
	ts          int64
	fingerprint uint64
}

func (r *repeat) size() int {
	return uvarintLen(r.conv) + uvarintLen(r.seq) + uvarintLen(uint64(r.ts)) + 8
}

func (r *repeat) encode(b []byte) {
	n := binary.PutUvarint(b, r.conv)
	n += binary.PutUvarint(b[n:], r.seq)
	n += binary.PutUvarint(b[n:], uint64(r.ts))
	binary.LittleEndian.PutUint64(b[n:], r.fingerprint)
}

func (r *repeat) decode(b []byte) error {
	in := reader{b: b}
	*r = repeat{conv: in.uvarint(), seq: in.uvarint(), ts: int64(in.uvarint())}
	fp := in.bytes(8)
	if in.bad {
		return errRow
	}
	r.fingerprint = binary.LittleEndian.Uint64(fp)
	return nil
}

// fingerprint tells contents of the same id apart: 64 bits, and only a sender's own ids are ever compared.
func fingerprint(d *store.Draft) uint64 {
	var h xxhash.Digest
	var head [17]byte
	h.ResetWithSeed(uint64(d.Kind))
	binary.LittleEndian.PutUint64(head[:], uint64(d.Type))
	binary.LittleEndian.PutUint64(head[8:], d.Target)
	head[16] = byte(len(d.Conv))
	_, _ = h.Write(head[:])
	_, _ = h.WriteString(d.Conv)
	_, _ = h.Write(d.Content)
	return h.Sum64()
}

// day is one pair of an entity's row: the bucket and the first number that was given in it.
type day struct {
	bucket uint16
	first  uint64
}

// entity is the row of a user's inbox or of a conversation. It is written once per day in which the entity gets
// something: the head is the last row of the newest day. When retention has taken the last day, the row keeps what must
// never go back (base).
type entity struct {
	id   uint64
	base struct { // of the last message that retention removed; numbers go on after seq
		seq     uint64
		ts      int64
		recalls uint64
		fromA   uint64
	}
	days []day // ascending
}

func (e *entity) append(b []byte) []byte {
	b = binary.AppendUvarint(b, e.id)
	b = binary.AppendUvarint(b, e.base.seq)
	b = binary.AppendUvarint(b, uint64(e.base.ts))
	b = binary.AppendUvarint(b, e.base.recalls)
	b = binary.AppendUvarint(b, e.base.fromA)
	var bucket uint16
	var first uint64
	for _, d := range e.days {
		b = binary.AppendUvarint(b, uint64(d.bucket-bucket))
		b = binary.AppendUvarint(b, d.first-first)
		bucket, first = d.bucket, d.first
	}
	return b
}

func (e *entity) decode(b []byte) error {
	in := reader{b: b}
	e.id = in.uvarint()
	e.base.seq = in.uvarint()
	e.base.ts = int64(in.uvarint())
	e.base.recalls = in.uvarint()
	e.base.fromA = in.uvarint()
	e.days = e.days[:0]
	var d day
	for len(in.b) > 0 {
		d.bucket += uint16(in.uvarint())
		d.first += in.uvarint()
		e.days = append(e.days, d)
	}
	if in.bad {
		return errRow
	}
	return nil
}

// live drops the days before first from the view.
func (e *entity) live(first uint16) []day {
	for i, d := range e.days {
		if d.bucket >= first {
			return e.days[i:]
		}
	}
	return nil
}

// dayOf is the index in days of the day that holds number n, −1 if none does.
func dayOf(days []day, n uint64) int {
	for i := len(days) - 1; i >= 0; i-- {
		if days[i].first <= n {
			return i
		}
	}
	return -1
}
