package postgres

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/meshtalk/meshtalk/store"
)

const dayMillis = 24 * 60 * 60 * 1000

// bucketOf is the day of a time in ms.
func bucketOf(ts int64) int32 { return int32(ts / dayMillis) }

// unknownDay is no bucket.
const unknownDay = -1

// fingerprint tells contents of the same id apart: 64 bits, and only a sender's own ids are ever compared. It is kept in table repeats.
func fingerprint(d *store.Draft) int64 {
	var h xxhash.Digest
	var head [17]byte
	h.ResetWithSeed(uint64(d.Kind))
	binary.LittleEndian.PutUint64(head[:], uint64(d.Type))
	binary.LittleEndian.PutUint64(head[8:], d.Target)
	head[16] = byte(len(d.Conv))
	_, _ = h.Write(head[:])
	_, _ = h.WriteString(d.Conv)
	_, _ = h.Write(d.Content)
	return int64(h.Sum64())
}

// assign decides the drafts, in order, and gives the new ones their numbers: everything that it needs is locked and in memory.
func (c *commit) assign() {
	var batch map[[16]byte]int // drafts stored so far, by id: only looked at when an id is twice in the batch
	for i, d := range c.drafts {
		r := &c.results[i]
		fp := fingerprint(d)
		if known, ok := c.repeats[d.MsgID]; ok {
			answerRepeat(r, known.fingerprint == fp, known.seq, known.ts)
			continue
		}
		if batch == nil {
			batch = make(map[[16]byte]int, len(c.drafts))
		}
		if j, ok := batch[d.MsgID]; ok {
			first := &c.results[j]
			answerRepeat(r, fingerprint(c.drafts[j]) == fp, int64(first.Seq), first.TS)
			continue
		}
		c.decide(d, r, fp)
		if r.Outcome == store.Stored {
			batch[d.MsgID] = i
		}
	}
}

func answerRepeat(r *store.Result, same bool, seq, ts int64) {
	if !same {
		r.Outcome = store.Conflict
		return
	}
	r.Outcome, r.Seq, r.TS = store.Duplicate, uint64(seq), ts
}

func (c *commit) decide(d *store.Draft, r *store.Result, fp int64) {
	v := c.convs[c.convIDs[d.Conv]]
	kind, a, b := store.ConvKind(d.Conv)
	if d.Kind == store.Recall {
		c.recall(d, r, v, fp)
		return
	}
	switch {
	case kind == 0, kind == 'g' && !d.Promised && (v == nil || !v.exists):
		r.Outcome = store.NotFound
	case kind == 'p' && d.From != a && d.From != b,
		kind == 'g' && !d.Promised && d.From != "" && !c.members[member{v.id, d.From}]:
		r.Outcome = store.Forbidden
	default:
		c.store(d, r, v, fp, nil)
	}
}

// recall takes a message back: repeats were answered before; then existence, the sender, an earlier recall, the window.
func (c *commit) recall(d *store.Draft, r *store.Result, v *convHead, fp int64) {
	r.Outcome = store.NotFound
	if v == nil || v.kind == 'g' && !v.exists && d.From != "" && !d.Promised {
		return
	}
	t := c.target(v, int64(d.Target))
	if t == nil || t.kind == store.Recall {
		return
	}
	switch {
	case d.From != "" && (t.from != d.From || v.kind == 'g' && !d.Promised && !c.members[member{v.id, d.From}]):
		r.Outcome = store.Forbidden
	case t.event != 0:
		answerRepeat(r, true, t.event, t.eventTS)
		r.MsgID = t.eventID
	case d.RecallAfter != 0 && t.ts < d.RecallAfter:
		r.Outcome = store.Forbidden
	default:
		c.store(d, r, v, fp, t)
	}
}

// target finds the message that a recall is about, in the tables or in this batch.
func (c *commit) target(v *convHead, seq int64) *targetRow {
	key := target{v.id, seq}
	if t := c.targets[key]; t != nil {
		return t
	}
	w := &c.rows
	for i, n := range w.seq {
		if n == seq && w.conv[i] == v.id {
			t := &targetRow{kind: store.Kind(w.kind[i]), from: w.from[i], ts: w.ts[i], bucket: w.bucket[i], row: i, content: w.content[i]}
			if c.targets == nil {
				c.targets = make(map[target]*targetRow)
			}
			c.targets[key] = t
			return t
		}
	}
	return nil
}

// ordBits of a message's order are its place in the commit, above them is the number of the commit. More in one commit share the last place.
const ordBits = 14

// store gives a message its numbers. t is what a recall takes back.
func (c *commit) store(d *store.Draft, r *store.Result, v *convHead, fp int64, t *targetRow) {
	to := c.recipients(d, v)
	if v.isLarge(c.s.opts.InboxLimit) {
		r.Large = true
		c.noteLarge(d, v)
	}
	// Days never go back, in no inbox: an entry is in the day of its message.
	bucket := max(bucketOf(d.TS), c.firstBucket, v.bucket, c.floor)
	c.floor = bucket
	w := &c.rows
	v.head++
	v.ts = max(v.ts, d.TS)
	if v.bucket != bucket {
		w.convDays.add(v.id, bucket, v.head)
	}
	v.bucket, v.moved = bucket, true
	for _, u := range to {
		if u.entries++; u.entries == 1 {
			u.opens = bucket
		}
		u.bucket = bucket
		w.addEntry(u, v, bucket)
	}
	r.Outcome, r.Seq, r.TS = store.Stored, uint64(v.head), v.ts
	place := int64(min(len(w.seq), 1<<ordBits-1))
	if t != nil {
		v.events++
		r.TargetFrom = t.from
		c.takeBack(d, r, v, t)
	} else {
		v.lastSeq, v.lastTS, v.lastBucket, v.lastPlace = v.head, v.ts, bucket, place
		v.countPrivate(d.From)
	}
	w.addMessage(d, v, c.userIDs[d.From], place, len(to), r)
	w.addRepeat(d, fp)
	if c.s.opts.Outbox {
		w.addEvent(d, v)
	}
}

// number gives the entries their numbers, when the claim has told where the inboxes stand.
func (c *commit) number() {
	e := &c.rows.entry
	entries := make([]store.Entry, 0, len(e.usr))
	for _, u := range c.users {
		if u.entries > 0 && u.began {
			c.rows.userDays.add(u.id, u.opens, u.head+1)
		}
		u.bucket = u.opens
	}
	for i, u := range e.user {
		u.head++
		if e.n[i] = u.head; e.bucket[i] != u.bucket {
			u.bucket = e.bucket[i]
			c.rows.userDays.add(u.id, u.bucket, u.head)
		}
		entries = append(entries, store.Entry{User: u.name, Inbox: uint64(u.head)})
	}
	for i, r := range c.rows.result {
		n := c.rows.entries[i]
		r.Entries, entries = entries[:n:n], entries[n:]
	}
}

// countPrivate counts a message under its sender.
func (v *convHead) countPrivate(from string) {
	if v.kind != 'p' {
		return
	}
	if from == v.a.name {
		v.fromA++
		v.lastA = v.head
	}
	if from == v.b.name {
		v.lastB = v.head
	}
}

// takeBack marks the message that the event in v.head recalls.
func (c *commit) takeBack(d *store.Draft, r *store.Result, v *convHead, t *targetRow) {
	w := &c.rows
	t.event, t.eventTS, t.eventID = v.head, v.ts, d.MsgID
	if c.s.opts.Outbox {
		w.keep(v.id, int64(d.Target), t.content)
	}
	if t.row >= 0 {
		w.target[t.row], w.content[t.row] = v.head, nil
		return
	}
	w.addRecalled(v.id, int64(d.Target), t.bucket, int64(r.Seq))
}

// isLarge: messages go into no inbox.
func (v *convHead) isLarge(limit int) bool { return v.group != nil && v.exists && v.size > limit }

// recipients are the inboxes that a message goes to, if it is stored.
func (c *commit) recipients(d *store.Draft, v *convHead) []*userHead {
	switch v.kind {
	case 'p':
		if v.a == v.b {
			return []*userHead{v.a}
		}
		return []*userHead{v.a, v.b}
	case 'n':
		return []*userHead{v.a}
	}
	if v.isLarge(c.s.opts.InboxLimit) {
		return nil
	}
	if !d.Promised || d.From == "" || slices.ContainsFunc(v.members, func(u *userHead) bool { return u.name == d.From }) {
		return v.members
	}
	to := append(slices.Clone(v.members), c.user(d.From)) // he has left since it was promised, and gets his copy all the same
	slices.SortFunc(to, func(a, b *userHead) int { return strings.Compare(a.name, b.name) })
	return to
}

// noteLarge keeps from which sequence and until which day a group holds messages without inbox entries.
func (c *commit) noteLarge(d *store.Draft, v *convHead) {
	bucket := max(bucketOf(d.TS), c.firstBucket, v.bucket, c.floor)
	if v.largeFirst == 0 || v.largeBucket < c.firstBucket {
		v.largeFirst = v.head + 1
		v.noted = true
	}
	if v.largeBucket != bucket {
		v.largeBucket = bucket
		v.noted = true
	}
}
