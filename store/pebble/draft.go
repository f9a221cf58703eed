package pebble

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/meshtalk/meshtalk/store"
)

// add decides one draft. An error gives up the whole commit: the database could not be read.
func (c *commit) add(d *store.Draft, r *store.Result, i int) error {
	fp := fingerprint(d)
	if known, err := c.isRepeat(d, fp, r, i); known || err != nil {
		return err
	}
	kind, _, _ := store.ConvKind(d.Conv)
	if kind == 0 {
		r.Outcome = store.NotFound
		return nil
	}
	var grp *group
	if kind == 'g' {
		var err error
		if grp, err = c.g.group(d.Conv[2:]); err != nil {
			return err
		}
	}
	if d.Kind == store.Recall {
		return c.recall(d, r, grp, fp)
	}
	if grp != nil && !d.Promised {
		if !grp.exists {
			r.Outcome = store.NotFound
			return nil
		}
		if d.From != "" && !grp.has(d.From) {
			r.Outcome = store.Forbidden
			return nil
		}
	}
	v, err := c.g.conv(d.Conv)
	if err != nil {
		return err
	}
	who, ok := v.who(d.From)
	if !ok {
		r.Outcome = store.Forbidden
		return nil
	}
	c.rec = record{flags: byte(d.Kind), msgID: d.MsgID[:], who: who, id: d.ID, typ: d.Type, content: d.Content}
	if err := c.store(d, r, v, grp, fp); err != nil {
		return err
	}
	return c.index(v)
}

// who is how a sender stands in the rows of the conversation; false for a stranger in a private one.
func (v *convHead) who(from string) (byte, bool) {
	switch {
	case from == "":
		return whoSystem, v.kind != 'p'
	case v.kind != 'p':
		return whoNamed, true
	case from == v.users[0].name:
		return whoA, true
	case v.users[1] != nil && from == v.users[1].name:
		return whoB, true
	}
	return 0, false
}

// isRepeat answers a draft whose id was stored before. Nearly always the filter knows that it was not.
func (c *commit) isRepeat(d *store.Draft, fp uint64, r *store.Result, i int) (bool, error) {
	c.hits = c.g.s.filter.suspects(&d.MsgID, c.hits[:0])
	if len(c.hits) == 0 {
		return false, nil
	}
	for j, e := range c.drafts[:i] {
		if e.MsgID == d.MsgID && c.p.results[j].Outcome == store.Stored {
			first := &c.p.results[j]
			c.answerRepeat(r, fingerprint(e) == fp, first.Seq, first.TS)
			return true, nil
		}
	}
	c.g.s.stats.filterHits.Add(1)
	if m := c.findRepeat(&d.MsgID); m != nil {
		c.answerRepeat(r, m.fingerprint == fp, m.seq, m.ts)
		return true, nil
	}
	for _, bucket := range c.hits {
		rep, err := c.g.tableRepeat(bucket, &d.MsgID)
		if err != nil {
			return false, err
		}
		if rep != nil {
			c.answerRepeat(r, rep.fingerprint == fp, rep.seq, rep.ts)
			return true, nil
		}
	}
	return false, nil
}

// findRepeat finds the message of an id in the commits under way, then in the tails.
func (c *commit) findRepeat(id *[16]byte) *msg {
	for _, p := range c.g.inflight {
		for i := range p.items {
			if a := &p.items[i]; a.id == *id && !a.patch {
				return &a.msg
			}
		}
	}
	for _, t := range *c.g.tails.Load() {
		if m := t.findID(id); m != nil && m.bucket >= c.g.firstRepeat {
			return m
		}
	}
	return nil
}

// tableRepeat reads what the tables know of an id, nil for nothing.
func (g *generation) tableRepeat(bucket uint16, id *[16]byte) (*repeat, error) {
	var key [repeatKeyLen]byte
	putRepeat(key[:], bucket, *id)
	b, closer, err := g.db.Get(key[:])
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, g.readError("commit", err)
	}
	rep := new(repeat)
	err = rep.decode(b)
	if e := closer.Close(); e != nil {
		return nil, g.readError("commit", e)
	}
	if err != nil {
		return nil, g.rowError(key[:])
	}
	return rep, nil
}

func (c *commit) answerRepeat(r *store.Result, same bool, seq uint64, ts int64) {
	if !same {
		r.Outcome = store.Conflict
		return
	}
	r.Outcome, r.Seq, r.TS = store.Duplicate, seq, ts
	c.g.s.stats.duplicates.Add(1)
}

// store gives the message in c.rec its numbers and writes its rows. grp is nil outside groups.
func (c *commit) store(d *store.Draft, r *store.Result, v *convHead, grp *group, fp uint64) error {
	g := c.g
	c.touchConv(v)
	ts := max(d.TS, v.ts)
	g.bucket = max(g.bucket, bucketOf(ts))
	bucket, seq := g.bucket, v.head+1
	if c.p.stored == 0 {
		c.first = bucket
	}
	if v.bucket != bucket || v.fresh {
		if err := c.beginDay(v, kConv, v.name, v.id, v.fresh, bucket, seq); err != nil {
			return err
		}
		v.bucket, v.fresh = bucket, false
	}
	v.head, v.ts = seq, ts
	if d.Kind == store.Recall {
		v.recalls++
	}
	r.Outcome, r.Seq, r.TS = store.Stored, seq, ts
	begin := len(c.p.entries)
	c.ends = c.ends[:0]
	switch {
	case grp == nil:
		for _, u := range v.users {
			if u != nil {
				if err := c.deliver(u, bucket); err != nil {
					return err
				}
			}
		}
	case grp.exists && g.s.isLarge(len(grp.members)):
		r.Large = true
		c.rec.flags |= recLarge
		c.noteLarge(grp, bucket, seq)
	default:
		guest := ""
		if d.Promised && !grp.has(d.From) {
			guest = d.From
		}
		if err := c.deliverGroup(grp, guest, bucket); err != nil {
			return err
		}
	}
	r.Entries = c.p.entries[begin:len(c.p.entries):len(c.p.entries)]
	c.rec.ts, c.rec.order, c.rec.recalls = ts, c.order(), v.recalls
	if v.kind == 'p' {
		if c.rec.who == whoA && d.Kind != store.Recall {
			v.fromA++
		}
		c.rec.flags |= recPrivate
		c.rec.fromA, c.rec.inboxA = v.fromA, v.users[0].head
		if v.users[1] != nil {
			c.rec.inboxB = v.users[1].head
		} else {
			c.rec.inboxB = c.rec.inboxA
		}
	} else if c.rec.who == whoNamed {
		c.rec.from = c.named(d.From)
	}
	c.putMessage(d, v, bucket, seq, fp, len(c.p.entries)-begin)
	g.s.filter.add(bucket, &d.MsgID)
	c.p.stored++
	return nil
}

// order is the place of the message at hand among all: a millisecond holds many, and the list of conversations is in
// the order of their newest ones.
func (c *commit) order() uint64 {
	const bits = 10 // more messages in one commit share the last place
	return c.p.serial<<bits | uint64(min(c.p.stored, 1<<bits-1))
}

// named is a name as bytes that live until the row is encoded.
func (c *commit) named(name string) []byte {
	c.key = append(c.key[:0], name...)
	return c.key
}

// putMessage writes c.rec and the entries in c.ends into the blob.
func (c *commit) putMessage(d *store.Draft, v *convHead, bucket uint16, seq, fp uint64, entries int) {
	b := c.putItem(itemMessage, v.id, seq, bucket)
	b = binary.LittleEndian.AppendUint64(b, fp)
	b = binary.AppendUvarint(b, uint64(entries))
	c.putRow(append(b, c.ends...), itemAt{v: v, n: uint32(entries), msg: msg{id: d.MsgID, conv: v.id, seq: seq, ts: c.rec.ts,
		fingerprint: fp, bucket: bucket}})
}

// putPatch writes c.rec as what a message stored before has become.
func (c *commit) putPatch(v *convHead, bucket uint16, seq uint64) {
	b := c.putItem(itemPatch, v.id, seq, bucket)
	c.putRow(b, itemAt{v: v, patch: true, msg: msg{conv: v.id, seq: seq, bucket: bucket}})
}

func (c *commit) putItem(tag byte, conv, seq uint64, bucket uint16) []byte {
	b := binary.AppendUvarint(append(c.p.blob, tag), conv)
	b = binary.AppendUvarint(b, seq)
	return binary.AppendUvarint(b, uint64(bucket))
}

// putRow ends an item with c.rec.
func (c *commit) putRow(b []byte, at itemAt) {
	at.length = uint32(c.rec.size())
	b = binary.AppendUvarint(b, uint64(at.length))
	at.offset = uint32(len(b))
	b = slices.Grow(b, int(at.length))[:len(b)+int(at.length)]
	c.rec.encode(b[at.offset:])
	c.p.blob = b
	c.p.items = append(c.p.items, at)
}

// deliver gives the message the next number of a user's inbox.
func (c *commit) deliver(u *userHead, bucket uint16) error {
	c.touchUser(u)
	n := u.head + 1
	if u.bucket != bucket || u.fresh {
		if err := c.beginDay(u, kUser, u.name, u.id, u.fresh, bucket, n); err != nil {
			return err
		}
		u.bucket, u.fresh = bucket, false
	}
	u.head = n
	c.ends = binary.AppendUvarint(binary.AppendUvarint(c.ends, u.id), n)
	c.p.heads = append(c.p.heads, u)
	c.p.entries = append(c.p.entries, store.Entry{User: u.name, Inbox: n})
	return nil
}

// deliverGroup gives the message to the members and, in the order of names, to a guest who is none ("" for nobody).
func (c *commit) deliverGroup(grp *group, guest string, bucket uint16) error {
	if grp.heads == nil {
		grp.heads = make([]*userHead, len(grp.members))
	}
	for i, u := range grp.heads {
		if guest != "" && guest < grp.members[i] {
			if err := c.deliverGuest(guest, bucket); err != nil {
				return err
			}
			guest = ""
		}
		var err error
		if u == nil {
			u, err = c.g.user(grp.members[i])
		} else {
			u, err = c.g.keepUser(u)
		}
		if err != nil {
			return err
		}
		grp.heads[i] = u
		if err := c.deliver(u, bucket); err != nil {
			return err
		}
	}
	if guest == "" {
		return nil
	}
	return c.deliverGuest(guest, bucket)
}

func (c *commit) deliverGuest(name string, bucket uint16) error {
	u, err := c.g.user(name)
	if err != nil {
		return err
	}
	return c.deliver(u, bucket)
}

// noteLarge keeps in the group's row from where and until which day it holds messages without inbox entries.
func (c *commit) noteLarge(grp *group, bucket uint16, seq uint64) {
	last, first := grp.largeBucket.Load(), grp.largeFirst.Load()
	if last == uint32(bucket) && first != 0 {
		return
	}
	c.undo = append(c.undo, func() {
		grp.largeBucket.Store(last)
		grp.largeFirst.Store(first)
	})
	if first == 0 || last < uint32(c.g.firstBucket) {
		grp.largeFirst.Store(seq)
	}
	grp.largeBucket.Store(uint32(bucket))
	c.row = grp.append(c.row[:0])
	c.set(nameKey(kGroup, grp.name), c.row)
	c.noted = append(c.noted, grp)
}

// index lists a private conversation under both users once per day in which it has a message.
func (c *commit) index(v *convHead) error {
	if v.kind != 'p' || v.indexed == v.bucket {
		return nil
	}
	v.indexed = v.bucket
	for _, u := range v.users {
		if u != nil {
			op := c.b.SetDeferred(indexKeyLen, 0)
			putIndex(op.Key, v.bucket, u.id, v.id)
			_ = op.Finish()
		}
	}
	return nil
}

// recall takes a message back: repeats were answered before; then existence, an earlier recall, the sender, the window.
func (c *commit) recall(d *store.Draft, r *store.Result, grp *group, fp uint64) error {
	r.Outcome = store.NotFound
	if grp != nil && !grp.exists && d.From != "" {
		return nil
	}
	if last := c.g.last.Load(); last != nil {
		_ = last.settle() // the message may be on its way into the tail; a commit with a recall waits for it
	}
	v, err := c.g.conv(d.Conv)
	if err != nil || d.Target == 0 || d.Target > v.head {
		return err
	}
	bucket, row, err := c.findRow(v, d.Target)
	if err != nil || row == nil {
		return err
	}
	var target record
	if target.decode(row) != nil {
		return c.g.rowError(nameKey(kConv, d.Conv))
	}
	from := target.sender(d.Conv)
	switch {
	case target.kind() == store.Recall:
		return nil
	case d.From != "" && (from != d.From || grp != nil && !grp.has(d.From)):
		r.Outcome = store.Forbidden
		return nil
	case target.flags&recRecalled != 0:
		return c.answerRecalled(r, v, target.target)
	case d.RecallAfter != 0 && target.ts < d.RecallAfter:
		r.Outcome = store.Forbidden
		return nil
	}
	who, ok := v.who(d.From)
	if d.From == "" {
		who, ok = whoSystem, true
	}
	if !ok {
		r.Outcome = store.Forbidden
		return nil
	}
	c.rec = record{flags: byte(d.Kind), msgID: d.MsgID[:], who: who, id: d.ID, target: d.Target}
	if err := c.store(d, r, v, grp, fp); err != nil {
		return err
	}
	r.TargetFrom = from
	target.flags |= recRecalled
	target.target, target.content = r.Seq, nil
	c.rec = target
	c.putPatch(v, bucket, d.Target)
	return nil
}

// answerRecalled answers the recall of a recalled message with the first event.
func (c *commit) answerRecalled(r *store.Result, v *convHead, event uint64) error {
	_, row, err := c.findRow(v, event)
	if err != nil {
		return err
	}
	var e record
	if row == nil || e.decode(row) != nil {
		return c.g.rowError(nameKey(kConv, v.name))
	}
	c.answerRepeat(r, true, event, e.ts)
	copy(r.MsgID[:], e.msgID)
	return nil
}

// findRow is the row of a message as the batch will leave it, nil if there is none (any more). The bucket is where it stands.
func (c *commit) findRow(v *convHead, seq uint64) (uint16, []byte, error) {
	e := c.rows[v]
	if e == nil {
		e = new(entity)
		if _, err := c.g.getEntity(nameKey(kConv, v.name), e); err != nil {
			return 0, nil, err
		}
	}
	days := e.live(c.g.firstBucket)
	i := dayOf(days, seq)
	if i < 0 {
		return 0, nil, nil
	}
	bucket := days[i].bucket
	for j := len(c.p.items) - 1; j >= 0 && v.serial == c.p.serial; j-- {
		if a := &c.p.items[j]; a.v == v && a.seq == seq {
			return bucket, slices.Clone(c.p.blob[a.offset:][:a.length]), nil // the blob moves while it grows
		}
	}
	var row []byte
	_, err := c.g.messageRow(*c.g.tails.Load(), bucket, v.id, seq, func(r *record) error {
		row = make([]byte, r.size())
		r.encode(row)
		return nil
	})
	return bucket, row, err
}
