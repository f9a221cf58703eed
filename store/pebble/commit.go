package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/meshtalk/meshtalk/store"
)

// pending implements store.Pending. One is made per commit and never reused; its big parts go back to spares.
type pending struct {
	g      *generation
	serial uint64
	tail   *tail  // which it enters when it is durable
	blob   []byte // never changed once it is written; the tail keeps it
	stored int

	// pendingParts go back to the spares when nobody reads them any more: neither who waits for the results nor, while
	// the commit is in flight, the commits after it, which look for repeats.
	pendingParts
	holders  atomic.Int32
	released bool // Release's

	mu      sync.Mutex // held while waiting for the sync
	prev    *pending   // the commit before, until it is known to be done
	batch   *pebble.Batch
	done    bool
	err     error
	entered atomic.Bool // it is in the tail, or has failed
}

// pendingParts are the slices of a commit that later commits use again.
type pendingParts struct {
	results []store.Result
	entries []store.Entry
	heads   []*userHead // of entries
	items   []itemAt
	users   []userTouch
	convs   []convTouch
}

// itemAt is an item of the blob: a message of v with n entries, or a patch of v's message. The slab is filled in when it enters.
type itemAt struct {
	msg
	v     *convHead
	n     uint32
	patch bool
}

// userTouch remembers a head that a commit moved: where it was, for a commit that is given up, and where it is to be published.
type userTouch struct {
	u            *userHead
	before, head uint64
	bucket       uint16 // before
	fresh        bool   // before
}

type convTouch struct {
	c               *convHead
	before, head    uint64
	ts              int64 // all these: before
	recalls, fromA  uint64
	bucket, indexed uint16
	fresh           bool
}

// spares keeps the slices of released commits for the next ones.
type spares struct {
	mu    sync.Mutex
	parts []pendingParts
}

const (
	maxSpares       = 8
	maxSpareEntries = 1 << 16 // a commit of big groups has more: its memory is let go
)

func (s *spares) take(n int) pendingParts {
	s.mu.Lock()
	defer s.mu.Unlock()
	var p pendingParts
	if k := len(s.parts); k > 0 {
		p, s.parts = s.parts[k-1], s.parts[:k-1]
	}
	if cap(p.results) < n {
		p.results = make([]store.Result, max(n, 64))
	}
	p.results = p.results[:n]
	clear(p.results)
	return p
}

func (s *spares) give(p pendingParts) {
	if cap(p.entries) > maxSpareEntries || cap(p.users) > maxSpareEntries {
		return
	}
	clear(p.entries) // no names are kept alive
	clear(p.heads)
	clear(p.items)
	clear(p.users)
	clear(p.convs)
	p.entries, p.heads, p.items, p.users, p.convs = p.entries[:0], p.heads[:0], p.items[:0], p.users[:0], p.convs[:0]
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.parts) < maxSpares {
		s.parts = append(s.parts, p)
	}
}

// commit is one Commit being built. It is owned by commitMu.
type commit struct {
	g      *generation
	p      *pending
	b      *pebble.Batch
	drafts []*store.Draft
	rows   map[any]*entity // rows of users and conversations that the batch has written, by head
	undo   []func()        // what is neither a head nor in the batch
	noted  []*group        // whose rows are in the batch
	bucket uint16          // before
	first  uint16          // of the first message stored
	hits   []uint16
	key    []byte
	row    []byte
	ends   []byte // the entries of the item being written
	rec    record
}

// Commit implements store.Store. Only partition 0 exists; next is ignored.
func (s *Store) Commit(ctx context.Context, partition int, _ int64, drafts []*store.Draft) (_ store.Pending, err error) {
	if partition != 0 {
		return nil, fmt.Errorf("store: partition %d: the embedded store has only partition 0", partition)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g, err := s.acquireWritable()
	if err != nil {
		return nil, err
	}
	defer g.release()
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	p, err := g.commit(drafts)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (g *generation) commit(drafts []*store.Draft) (_ *pending, err error) {
	s := g.s
	defer g.recovered(&err)
	if err := g.waitRoom(); err != nil {
		return nil, err
	}
	s.filter.takeOver()
	s.stats.filterBytes.Store(s.filter.bytes)
	prev := g.last.Load()
	g.heads.turn(g.serial, g.durableSerial.Load())
	size := blobHeader
	for _, d := range drafts {
		size += len(d.Content) + len(d.ID) + 96
	}
	g.inflight = slices.DeleteFunc(g.inflight, (*pending).landed)
	p := &pending{g: g, serial: g.serial + 1, tail: (*g.tails.Load())[0], prev: prev, pendingParts: s.spare.take(len(drafts)),
		blob: putSerial(make([]byte, 0, size), g.serial+1)}
	p.holders.Store(1)
	c := &s.building
	*c = commit{g: g, p: p, b: g.db.NewBatchWithSize(size+64, retainBatches), drafts: drafts, bucket: g.bucket,
		rows: c.rows, hits: c.hits[:0], key: c.key[:0], row: c.row[:0], ends: c.ends[:0]}
	c.row = logMark{s.identity.epoch, g.durableSerial.Load()}.append(c.row)
	_ = c.b.LogData(c.row, nil)
	for i, d := range drafts {
		if err := c.add(d, &p.results[i], i); err != nil {
			c.giveUp()
			return nil, err
		}
	}
	if err := c.write(); err != nil {
		return nil, err
	}
	g.last.Store(p)
	s.stats.messages.Add(int64(p.stored))
	s.stats.entries.Add(int64(len(p.entries)))
	return p, nil
}

// waitRoom waits while the tails are far beyond their size: the disk does not take tables as fast as messages come. When it takes none
// at all, there is nothing to wait for. commitMu is held, but not while waiting.
func (g *generation) waitRoom() error {
	for {
		if g.s.closed.Load() {
			return store.ErrClosed
		}
		if err := g.fs.failed(); err != nil {
			return readOnly(err)
		}
		if (*g.tails.Load())[0].given.Load() >= g.s.sizes.tail {
			g.s.wakeFlush()
		}
		if !g.crowded() {
			return nil
		}
		if err := g.stuck.Load(); err != nil {
			return readOnly(*err)
		}
		g.room.Wait()
	}
}

// crowded tells that a tail waits to become tables while the next one has grown far beyond its size.
func (g *generation) crowded() bool {
	ts := *g.tails.Load()
	return len(ts) > 1 && ts[0].given.Load() >= tailStall*g.s.sizes.tail
}

// retainBatches lets Pebble keep the memory of usual batches for the next ones.
var retainBatches = pebble.WithMaxRetainedSizeBytes(4 << 20)

// write hands the batch to the log.
func (c *commit) write() error {
	g, p := c.g, c.p
	for i := range p.users {
		p.users[i].head = p.users[i].u.head
	}
	for i := range p.convs {
		p.convs[i].head = p.convs[i].c.head
	}
	if len(c.rows) > 1024 {
		c.rows = nil
	}
	clear(c.rows)
	c.drafts = nil
	if p.stored == 0 {
		p.serial = g.serial
		return c.b.Close()
	}
	g.serial++
	g.fs.logs.given.Store(g.serial)
	_ = c.b.LogData(p.blob, nil)
	c.setNumber(keyCommit, p.serial)
	if g.nextID != g.savedID {
		c.setNumber([]byte(rowNextID), g.nextID)
		g.savedID = g.nextID
	}
	var err error
	if g.s.opts.AckBeforeSync {
		err = g.db.Apply(c.b, pebble.NoSync)
	} else {
		err = g.db.ApplyNoSyncWait(c.b, pebble.Sync)
	}
	if err != nil {
		g.fs.fail(err)
		return readOnly(err)
	}
	p.batch = c.b
	p.tail.gave(len(p.blob), c.first)
	p.holders.Add(1)
	g.inflight = append(g.inflight, p)
	for _, grp := range c.noted { // the cache may have let go of them while their rows were old
		g.groups.put(grp)
	}
	return nil
}

// giveUp takes back what the batch assigned.
func (c *commit) giveUp() {
	for i := range c.p.users {
		t := &c.p.users[i]
		t.u.head, t.u.bucket, t.u.fresh, t.u.serial = t.before, t.bucket, t.fresh, 0
	}
	for i := range c.p.convs {
		t := &c.p.convs[i]
		t.c.head, t.c.ts, t.c.recalls, t.c.fromA, t.c.fresh = t.before, t.ts, t.recalls, t.fromA, t.fresh
		t.c.bucket, t.c.indexed, t.c.serial = t.bucket, t.indexed, 0
	}
	for i := len(c.undo) - 1; i >= 0; i-- {
		c.undo[i]()
	}
	c.g.bucket = c.bucket
	clear(c.rows)
	_ = c.b.Close()
}

// synced counts a sync.
func (s *Store) synced(took time.Duration) {
	s.stats.syncMu.Lock()
	s.stats.syncs.Observe(took)
	s.stats.lastNanos = int64(took)
	s.stats.syncMu.Unlock()
}

// settle waits until the commit is durable or has failed, after those before it. Any number may call it.
func (p *pending) settle() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return p.err
	}
	g := p.g
	var err error
	if p.prev != nil {
		err = p.prev.settle()
		p.prev = nil
	}
	if p.batch != nil && !g.s.opts.AckBeforeSync {
		began := time.Now()
		if e := p.batch.SyncWait(); e != nil {
			g.fs.fail(e)
		}
		g.s.synced(time.Since(began))
	}
	if err == nil {
		err = g.fs.failed()
	}
	p.done = true
	defer p.entered.Store(true)
	if err != nil {
		if p.err = err; !errors.Is(err, store.ErrReadOnly) {
			p.err = readOnly(err)
		}
		return p.err
	}
	if p.batch != nil {
		p.enter()
		_ = p.batch.Close()
		p.batch = nil
	}
	for i := range p.users {
		p.users[i].u.durable.Store(p.users[i].head)
	}
	for i := range p.convs {
		p.convs[i].c.durable.Store(p.convs[i].head)
	}
	g.durableSerial.Store(p.serial)
	return nil
}

// enter puts the commit into its tail, before the heads tell readers of it.
func (p *pending) enter() {
	t := p.tail
	slab := t.addSlab(p.serial, p.blob)
	t.mu.Lock()
	next := t.count
	for i := range p.items {
		it := &p.items[i]
		if it.patch {
			t.addPatch(it.conv, it.seq, patch{it.bucket, p.blob[it.offset:][:it.length:it.length]})
			continue
		}
		it.slab = slab
		t.addID(&it.id, t.addMsg(&it.msg))
	}
	t.mu.Unlock()
	heads, entries := p.heads, p.entries
	for i := range p.items {
		it := &p.items[i]
		if it.patch {
			continue
		}
		t.pushConv(it.conv, it.seq, next)
		for j, u := range heads[:it.n] {
			t.pushBox(u.id, entries[j].Inbox, next)
		}
		heads, entries = heads[it.n:], entries[it.n:]
		next++
	}
}

// Wait implements store.Pending.
func (p *pending) Wait() ([]store.Result, error) {
	if err := p.settle(); err != nil {
		return nil, err
	}
	return p.results, nil
}

// Release implements store.Pending.
func (p *pending) Release() {
	if p.settle() != nil || p.released {
		return
	}
	p.released = true
	p.drop()
}

// landed reports whether p is no longer in flight, and lets go of it then.
func (p *pending) landed() bool {
	if !p.entered.Load() {
		return false
	}
	p.drop()
	return true
}

// drop is one holder fewer.
func (p *pending) drop() {
	if p.holders.Add(-1) == 0 {
		p.g.s.spare.give(p.pendingParts)
		p.pendingParts = pendingParts{}
	}
}

// touchUser and touchConv remember a head before its first move in this commit.
func (c *commit) touchUser(u *userHead) {
	if u.serial != c.p.serial {
		u.serial = c.p.serial
		c.p.users = append(c.p.users, userTouch{u: u, before: u.head, bucket: u.bucket, fresh: u.fresh})
	}
}

func (c *commit) touchConv(v *convHead) {
	if v.serial != c.p.serial {
		v.serial = c.p.serial
		c.p.convs = append(c.p.convs, convTouch{c: v, before: v.head, ts: v.ts, recalls: v.recalls, fromA: v.fromA,
			bucket: v.bucket, indexed: v.indexed, fresh: v.fresh})
	}
}

// set copies a row into the batch.
func (c *commit) set(key, value []byte) { _ = c.b.Set(key, value, nil) }

func (c *commit) setNumber(key []byte, v uint64) {
	c.row = binary.AppendUvarint(c.row[:0], v)
	c.set(key, c.row)
}

// beginDay writes the row of a user or conversation whose first number of a bucket is to be given.
func (c *commit) beginDay(head any, kind byte, name string, id uint64, fresh bool, bucket uint16, first uint64) error {
	e := c.rows[head]
	c.key = append(append(c.key[:0], kind), name...)
	if e == nil {
		e = new(entity)
		if !fresh {
			found, err := c.g.getEntity(c.key, e)
			if err != nil {
				return err
			}
			if !found {
				return c.g.rowError(c.key)
			}
		}
		e.id = id
		if c.rows == nil {
			c.rows = make(map[any]*entity)
		}
		c.rows[head] = e
	}
	e.days = append(e.live(c.g.firstBucket), day{bucket, first})
	c.row = e.append(c.row[:0])
	c.set(c.key, c.row)
	if kind == kConv && fresh {
		c.set(convNameKey(id), []byte(name))
	}
	return nil
}
