package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/meshtalk/meshtalk/store"
)

// pending implements store.Pending. One is made per commit and never reused; its big parts go back to spares.
type pending struct {
	g      *generation
	serial uint64

	results []store.Result
	entries []store.Entry
	users   []userTouch
	convs   []convTouch
	stored  int

	mu    sync.Mutex // held while waiting for the sync
	prev  *pending   // the commit before, until it is known to be done
	batch *pebble.Batch
	done  bool
	err   error
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

type pendingParts struct {
	results []store.Result
	entries []store.Entry
	users   []userTouch
	convs   []convTouch
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
	clear(p.users)
	clear(p.convs)
	p.entries, p.users, p.convs = p.entries[:0], p.users[:0], p.convs[:0]
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
	hits   []uint16
	key    []byte
	row    []byte
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
	s.filter.takeOver()
	prev := g.last.Load()
	g.heads.turn(g.serial, g.durableSerial.Load())
	g.serial++
	parts := s.spare.take(len(drafts))
	p := &pending{g: g, serial: g.serial, prev: prev, results: parts.results, entries: parts.entries, users: parts.users, convs: parts.convs}
	c := &s.building
	size := 0
	for _, d := range drafts {
		size += len(d.Content) + 256
	}
	*c = commit{g: g, p: p, b: g.db.NewBatchWithSize(size, retainBatches), drafts: drafts, bucket: g.bucket,
		rows: c.rows, hits: c.hits[:0], key: c.key[:0], row: c.row[:0]}
	defer g.recovered(&err)
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
	if c.b.Empty() {
		return c.b.Close()
	}
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
		g.s.stats.syncNanos.Store(int64(time.Since(began)))
	}
	if err == nil {
		err = g.fs.failed()
	}
	p.done = true
	if err != nil {
		if p.err = err; !errors.Is(err, store.ErrReadOnly) {
			p.err = readOnly(err)
		}
		return p.err
	}
	for i := range p.users {
		p.users[i].u.durable.Store(p.users[i].head)
	}
	for i := range p.convs {
		p.convs[i].c.durable.Store(p.convs[i].head)
	}
	g.durableSerial.Store(p.serial)
	if p.batch != nil {
		_ = p.batch.Close()
		p.batch = nil
	}
	return nil
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
	if p.settle() != nil || p.results == nil {
		return
	}
	p.g.s.spare.give(pendingParts{p.results, p.entries, p.users, p.convs})
	p.results, p.entries, p.users, p.convs = nil, nil, nil, nil
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
