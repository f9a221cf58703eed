package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/meshtalk/meshtalk/store"
)

// partition is where this process believes a partition of the log to stand. mu is held by a whole commit.
type partition struct {
	mu      sync.Mutex
	loaded  bool
	fenced  bool  // another owner has moved it: nothing is committed until the caller has read Offset
	unsure  bool  // a commit of ours may or may not have been made, and the database could not be asked since
	next    int64 // as in table offsets, after our last commit
	commits int64
}

func (s *Store) partition(n int) *partition {
	s.partitions.Lock()
	defer s.partitions.Unlock()
	p := s.partitions.m[n]
	if p == nil {
		p = new(partition)
		s.partitions.m[n] = p
	}
	return p
}

// offset is a row of table offsets.
type offset struct {
	next, commits int64
	mine          bool // the last commit was this process's
}

func (s *Store) readOffset(ctx context.Context, n int) (o offset, err error) {
	var owner *[16]byte
	const query = `select next, commits, owner from offsets where part = $1`
	err = s.reads.QueryRow(ctx, query, n).Scan(&o.next, &o.commits, &owner)
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err = s.reads.Exec(ctx, `insert into offsets (part) values ($1) on conflict do nothing`, n); err == nil {
			err = s.reads.QueryRow(ctx, query, n).Scan(&o.next, &o.commits, &owner)
		}
	}
	o.mine = owner != nil && *owner == s.owner
	return o, err
}

// Offset implements store.Store. It is for who commits the partition, not for onlookers: the next Commit moves the partition from what was read here.
func (s *Store) Offset(ctx context.Context, n int) (int64, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	p := s.partition(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	o, err := s.readOffset(ctx, n)
	if err != nil {
		return 0, s.failed("offset", err)
	}
	p.take(o)
	return o.next, nil
}

func (p *partition) take(o offset) {
	p.loaded, p.fenced, p.unsure = true, false, false
	p.next, p.commits = o.next, o.commits
}

const (
	// maxAttempts of a transaction that loses against others.
	maxAttempts = 20
	// patience is for how long a commit whose connection broke asks what became of it, before it says that it does not know.
	patience = 2 * time.Second
)

// Commit implements store.Store: it returns when the transaction has ended. next = 0 means that there is no log: the partition's offset
// stays, and only that no other process commits is checked. A batch that does not move the offset forward was applied before: ErrFenced.
//
// A connection that breaks is replaced and the transaction made again; one that broke in its last round trip is looked for in the
// database first. When that does not answer, Wait gives ErrReadOnly and the outcome is open: with a log, nothing more is
// committed until Offset was read; without one, the same ids sent again are recognised.
func (s *Store) Commit(ctx context.Context, n int, next int64, drafts []*store.Draft) (store.Pending, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	p := s.partition(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(drafts) == 0 && next == 0 {
		return &pending{}, nil
	}
	if err := s.ready(ctx, p, n, next); err != nil {
		return nil, err
	}
	c := &commit{s: s, part: n, next: next, at: p, drafts: drafts, begun: time.Now()}
	err = c.run(ctx)
	switch {
	case errors.Is(err, errUnsure):
		p.unsure = true
		return &pending{err: s.failed("commit", err)}, nil
	case errors.Is(err, store.ErrFenced):
		p.fenced = true
		return nil, err
	case err != nil:
		return nil, s.failed("commit", err)
	}
	c.count()
	s.health.recovered(true)
	return &pending{results: c.results}, nil
}

// pending is a commit that has ended.
type pending struct {
	results []store.Result
	err     error
}

func (p *pending) Wait() ([]store.Result, error) { return p.results, p.err }
func (p *pending) Release()                      { p.results = nil }

// ready makes sure that the partition's place is known.
func (s *Store) ready(ctx context.Context, p *partition, n int, next int64) error {
	if p.fenced || p.unsure && next != 0 {
		return fmt.Errorf("%w: partition %d: its offset is to be read first", store.ErrFenced, n)
	}
	if !p.loaded || p.unsure {
		o, err := s.readOffset(ctx, n)
		if err != nil {
			return s.failed("offset", err)
		}
		if p.unsure && o.commits != p.commits && !o.mine {
			p.fenced = true
			return fmt.Errorf("%w: partition %d", store.ErrFenced, n)
		}
		p.take(o)
	}
	if next != 0 && next <= p.next {
		return fmt.Errorf("%w: partition %d stands at %d, the batch ends at %d", store.ErrFenced, n, p.next, next)
	}
	return nil
}

var (
	errUnsure  = errors.New("the connection broke during the commit")
	errStaleID = errors.New("an id belongs to another name: the database is not the one it was")
)

// run makes the transaction until it is made.
func (c *commit) run(ctx context.Context) error {
	unsure := false // an earlier attempt may have been made
	var lost time.Time
	for attempt := 1; ; attempt++ {
		last, err := c.attempt(ctx)
		switch {
		case last:
			c.spare = c.results // whatever was open before this attempt's fence is not any more
		case c.fenceMoved:
			unsure = false
		}
		switch {
		case err == nil:
			c.at.commits++
			if c.next != 0 {
				c.at.next = c.next
			}
			return nil
		case errors.Is(err, store.ErrFenced):
			if unsure {
				return c.resolveFenced(ctx, err)
			}
			return err
		case errors.Is(err, errStaleID):
			c.s.forgetIDs()
		case errors.Is(err, errNoDay):
			if err = c.s.makeDays(ctx, c.wantDays); err != nil {
				return err
			}
		default:
			switch causeOf(err) {
			case causeNoDay: // another node has dropped it, or made it under our hands
				if err = c.s.loadDays(ctx); err != nil {
					return err
				}
			case causeRetry:
			case causeLost:
				if lost.IsZero() {
					lost = time.Now()
				}
				unsure = unsure || last
				if !c.waitFor(ctx, lost) {
					if unsure {
						return fmt.Errorf("%w: %w", errUnsure, oneLine(err))
					}
					return err
				}
				if made, e := c.wasMade(ctx); unsure && (made || e != nil) {
					if made {
						return nil
					}
					return fmt.Errorf("%w: %w", errUnsure, oneLine(e))
				}
			default:
				return err
			}
		}
		if attempt >= maxAttempts {
			if unsure {
				return errUnsure
			}
			return err
		}
		if attempt > 2 {
			pause(ctx, time.Duration(rand.IntN(1<<min(attempt, 6)))*time.Millisecond)
		}
	}
}

// waitFor waits until the database answers; false when patience or ctx has ended.
func (c *commit) waitFor(ctx context.Context, since time.Time) bool {
	for time.Since(since) < patience && ctx.Err() == nil {
		if c.s.commits.Ping(ctx) == nil {
			return true
		}
		pause(ctx, 50*time.Millisecond)
	}
	return false
}

// wasMade asks whether the commit that broke off was made after all: the row of the partition tells, because the fence is the
// transaction's first statement and this process makes one commit at a time of a partition.
func (c *commit) wasMade(ctx context.Context) (bool, error) {
	o, err := c.s.readOffset(ctx, c.part)
	if err != nil || !o.mine || o.commits != c.at.commits+1 {
		return false, err
	}
	c.results = c.spare
	c.at.take(o)
	return true, nil
}

// resolveFenced: after a break the transaction was made again, but the first one was still on its way and has won.
func (c *commit) resolveFenced(ctx context.Context, fenced error) error {
	made, err := c.wasMade(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errUnsure, oneLine(err))
	case made:
		return nil
	}
	return fenced
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// commit is one batch on its way into the tables.
type commit struct {
	s      *Store
	part   int
	next   int64
	at     *partition
	drafts []*store.Draft
	begun  time.Time

	// By names, before the transaction: what cannot be made or found has no id.
	userIDs, convIDs map[string]int64
	groups           bool // some draft is of a group: its members are known in the transaction only

	// As the transaction found it, and as it leaves it.
	users       map[int64]*userHead
	convs       map[int64]*convHead
	repeats     map[[16]byte]repeat
	members     map[member]bool // senders who are members
	targets     map[target]*targetRow
	firstBucket int32
	serial      int64 // of this commit
	fenceMoved  bool

	results  []store.Result
	spare    []store.Result // of the attempt whose outcome was open
	entries  []store.Entry
	rows     rows
	wantDays []int32 // days without a partition
}

// attempt makes the transaction once. last tells that the commit itself was sent.
func (c *commit) attempt(ctx context.Context) (last bool, err error) {
	if err := c.identify(ctx); err != nil {
		return false, err
	}
	conn, err := c.s.commits.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release() // what is still in its transaction is closed
	c.reset()
	if err := c.lock(ctx, conn); err != nil {
		return false, c.rollback(ctx, conn, err)
	}
	if err := c.assign(); err != nil {
		return false, c.rollback(ctx, conn, err)
	}
	if c.wantDays = c.s.days.unknown(c.rows.bucket, c.wantDays[:0]); len(c.wantDays) > 0 {
		return false, c.rollback(ctx, conn, errNoDay)
	}
	sent := time.Now()
	// From here on the outcome counts, not whether the caller still waits.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if err := c.write(ctx, conn); err != nil {
		return true, c.rollback(ctx, conn, err)
	}
	c.s.stats.syncNanos.Store(int64(time.Since(sent)))
	return true, nil
}

// rollback ends a transaction and gives err.
func (c *commit) rollback(ctx context.Context, conn *pgxpool.Conn, err error) error {
	if conn.Conn().IsClosed() || conn.Conn().PgConn().TxStatus() == 'I' {
		return err
	}
	if _, e := conn.Exec(ctx, `rollback`); e != nil {
		c.s.opts.Logf("store: rollback: %v", e)
	}
	return err
}

func (c *commit) reset() {
	c.users, c.convs = make(map[int64]*userHead, len(c.userIDs)), make(map[int64]*convHead, len(c.convIDs))
	c.repeats, c.members, c.targets = nil, nil, nil
	c.fenceMoved = false
	c.results = make([]store.Result, len(c.drafts))
	c.entries = make([]store.Entry, 0, 2*len(c.drafts))
	c.rows.reset()
}

func (c *commit) count() {
	st := &c.s.stats
	entries, duplicates := int64(0), int64(0)
	for i := range c.results {
		entries += int64(len(c.results[i].Entries))
		if c.results[i].Outcome == store.Duplicate {
			duplicates++
		}
	}
	st.messages.Add(int64(len(c.rows.seq)))
	st.entries.Add(entries)
	st.duplicates.Add(duplicates)
	st.repeatHits.Add(int64(len(c.repeats)))
}
