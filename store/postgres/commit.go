package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/meshtalk/meshtalk/store"
)

const (
	// maxAttempts of a transaction that loses against others.
	maxAttempts = 20
	// patience is for how long a commit whose connection broke asks what became of it, before it says that it does not know.
	patience = 2 * time.Second
)

// Commit implements store.Store: it returns when the transaction has ended, which other partitions may share (gather.go). next = 0 means that
// there is no log: the partition's offset stays, and only that no other process commits is checked. A batch that does not move the offset
// forward was applied before: ErrFenced.
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
	if err := s.ready(ctx, p, next); err != nil {
		return nil, err
	}
	sh := &share{at: p, next: next, drafts: drafts, ctx: ctx, done: make(chan struct{})}
	s.commitShare(sh)
	switch err := sh.err; {
	case errors.Is(err, errUnsure):
		p.unsure = true
		return &pending{err: s.failed("commit", err)}, nil
	case errors.Is(err, store.ErrFenced):
		p.fenced = true
		return nil, err
	case err != nil:
		return nil, s.failed("commit", err)
	}
	s.health.recovered(true)
	return &pending{results: sh.results}, nil
}

// pending is a commit that has ended.
type pending struct {
	results []store.Result
	err     error
}

func (p *pending) Wait() ([]store.Result, error) { return p.results, p.err }
func (p *pending) Release()                      { p.results = nil }

var (
	errUnsure  = errors.New("the connection broke during the commit")
	errStaleID = errors.New("an id belongs to another name: the database is not the one it was")
)

// commit makes one transaction of the shares and leaves results or an error in each. Its error is that of all who were not fenced.
func (c *commit) commit(ctx context.Context, s *Store, shares []*share) error {
	c.begin(s, shares)
	defer c.end()
	err := c.run(ctx)
	for _, sh := range c.shares { // but for those that were left out
		sh.err = err
	}
	if err == nil {
		c.count()
		c.share(c.results)
	}
	return err
}

// share gives each its part of results.
func (c *commit) share(results []store.Result) {
	for _, sh := range c.shares {
		n := len(sh.drafts)
		sh.results, results = results[:n:n], results[n:]
	}
}

// run makes the transaction until it is made.
func (c *commit) run(ctx context.Context) error {
	unsure := false // an earlier attempt may have been made
	var lost time.Time
	for attempt := 1; len(c.shares) > 0; attempt++ {
		last, err := c.attempt(ctx)
		switch {
		case last:
			c.spare = c.results // whatever was open before this attempt's fences is not any more
		case c.moved > 0:
			unsure = false
		}
		switch {
		case err == nil:
			c.made()
			c.keepHeads()
			c.s.raiseFloor(c.floor)
			return nil
		case errors.Is(err, store.ErrFenced):
			if unsure { // the earlier attempt was still on its way, and has won
				made, err := c.wasMade(ctx)
				if made {
					return nil
				}
				if err != nil {
					return fmt.Errorf("%w: %w", errUnsure, oneLine(err))
				}
				unsure = false
			}
			c.leaveOutFenced()
			continue
		case errors.Is(err, errStaleID):
			c.s.forgetIDs()
			c.clearHeads()
		case errors.Is(err, errDoubt), errors.Is(err, errDayBehind):
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
				c.doubt = true
				if !isRepeat(err) {
					c.clearHeads() // if they were wrong, the key of table messages has told
				}
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
				if unsure {
					made, err := c.wasMade(ctx)
					if made {
						return nil
					}
					if err != nil {
						return fmt.Errorf("%w: %w", errUnsure, oneLine(err))
					}
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
	return nil
}

// leaveOutFenced answers the shares whose partitions another process has moved: the next attempt is without them.
func (c *commit) leaveOutFenced() {
	left := c.shares[:0]
	for _, sh := range c.shares {
		if sh.moved {
			left = append(left, sh)
		} else {
			sh.err = fmt.Errorf("%w: partition %d", store.ErrFenced, sh.at.number)
		}
	}
	clear(c.shares[len(left):])
	c.take(left)
}

// made notes where the partitions stand now.
func (c *commit) made() {
	for _, sh := range c.shares {
		sh.at.commits++
		if sh.next != 0 {
			sh.at.next = sh.next
		}
	}
}

func (c *commit) clearHeads() {
	for _, sh := range c.shares {
		sh.at.heads.clear()
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

// wasMade asks whether the commit that broke off was made after all: the rows of the partitions tell, because the fences are the
// transaction's first statement and this process makes one commit at a time of a partition. One row is enough: another process may have moved
// the others since.
func (c *commit) wasMade(ctx context.Context) (bool, error) {
	for _, sh := range c.shares {
		o, err := c.s.readOffset(ctx, sh.at.number)
		if err != nil {
			return false, err
		}
		if o.mine && o.commits == sh.at.commits+1 {
			c.results = c.spare
			c.made()
			c.clearHeads()
			return true, nil
		}
	}
	return false, nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// commit is batches of some partitions on their way into the tables, in one transaction.
type commit struct {
	s      *Store
	shares []*share
	drafts []*store.Draft // of all shares, one after the other

	// By names, before the transaction: what cannot be made or found has no id.
	userIDs, convIDs map[string]int64
	recalls          bool // some draft is one

	// As the transaction found it, and as it leaves it.
	users       map[int64]*userHead
	convs       map[int64]*convHead
	freeUsers   []userHead
	freeConvs   []convHead
	repeats     map[[16]byte]repeat
	members     map[member]bool // senders who are members
	targets     map[target]*targetRow
	firstBucket int32
	floor       int32 // the day of the message before
	moved       int   // fences
	doubt       bool  // look for repeats before anything is written
	unclaimed   int   // users whose heads did not move

	results  []store.Result
	spare    []store.Result // of the attempt whose outcome was open
	rows     rows
	wantDays []int32 // days without a partition
}

// attempt makes the transaction once. last tells that the commit itself was sent.
func (c *commit) attempt(ctx context.Context) (last bool, err error) {
	c.moved = 0 // also when it ends before its fences
	if err := c.identify(ctx); err != nil {
		return false, err
	}
	conn, err := c.s.commits.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release() // what is still in its transaction is closed
	if err := c.write(ctx, conn); err != nil {
		return false, c.rollback(ctx, conn, err)
	}
	c.number()
	b := &pgx.Batch{}
	c.queueInboxes(b)
	sent := time.Now()
	// From here on the outcome counts, not whether the caller still waits.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if err := c.send(ctx, conn, b); err != nil {
		return true, c.rollback(ctx, conn, err)
	}
	c.s.stats.syncNanos.Store(int64(time.Since(sent)))
	return true, nil
}

var (
	errDoubt     = errors.New("a batch that looked new has repeats in it, or a day has gone")
	errDayBehind = errors.New("a user is in a later day than the batch")
)

// write does everything but the inboxes and the end. When the heads are known and no draft is of a group or a recall, one round trip does: what is
// assumed (no repeats) is asked beside it, and if it was wrong the next attempt asks first.
func (c *commit) write(ctx context.Context, conn *pgxpool.Conn) error {
	c.reset()
	unknown, groups := c.knowConvs()
	kept := c.s.kept.Load()
	simple := len(unknown) == 0 && len(groups) == 0 && !c.doubt && !c.recalls && kept != unknownDay
	b := &pgx.Batch{}
	c.queueOpen(b)
	if simple {
		c.firstBucket = kept
	} else {
		if len(unknown) > 0 {
			c.queueHeadsOf(b, readConvs, unknown)
		}
		if len(groups) > 0 {
			c.queueHeadsOf(b, lockConvs, groups)
			c.queueGroups(b, groups)
		}
		c.queueTargets(b)
		if err := c.send(ctx, conn, b); err != nil {
			return err
		}
		if err := c.opened(); err != nil {
			return err
		}
		b = &pgx.Batch{}
	}
	assumed := c.firstBucket
	c.assign()
	if c.wantDays = c.s.days.unknown(c.rows.bucket, c.wantDays[:0]); len(c.wantDays) > 0 {
		return errNoDay
	}
	c.queueWrites(b)
	if b.Len() > 0 {
		if err := c.send(ctx, conn, b); err != nil {
			return err
		}
	}
	if err := c.opened(); err != nil {
		return err
	}
	if simple && (len(c.repeats) > 0 || c.firstBucket != assumed) {
		c.doubt = true
		return errDoubt
	}
	if c.unclaimed > 0 {
		return c.dayBehind(ctx, conn)
	}
	return nil
}

// dayBehind finds out why some users' heads were not moved: they are in a later day, so the batch goes there too; or they are not there.
func (c *commit) dayBehind(ctx context.Context, conn *pgxpool.Conn) error {
	var ids []int64
	for id := range c.users {
		ids = append(ids, id)
	}
	var latest int32
	var n int
	if err := conn.QueryRow(ctx, `select coalesce(max(bucket), 0), count(*) from users where id = any($1)`, ids).Scan(&latest, &n); err != nil {
		return err
	}
	if n < len(ids) {
		return errStaleID
	}
	c.s.raiseFloor(latest)
	return errDayBehind
}

// raiseFloor moves the day before which this process begins no message: days go forward only, in every inbox.
func (s *Store) raiseFloor(bucket int32) {
	for {
		now := s.floor.Load()
		if now >= bucket || s.floor.CompareAndSwap(now, bucket) {
			return
		}
	}
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

// keepHeads remembers the conversations as they are now.
func (c *commit) keepHeads() {
	c.s.kept.Store(c.firstBucket)
	for _, v := range c.convs {
		if v.kind != 'g' {
			v.at.heads.put(v)
		}
	}
}

// begin takes the shares.
func (c *commit) begin(s *Store, shares []*share) {
	c.s, c.doubt, c.spare = s, false, nil
	c.take(append(c.shares[:0], shares...))
	if c.userIDs == nil {
		c.userIDs, c.convIDs = make(map[string]int64), make(map[string]int64)
		c.users, c.convs = make(map[int64]*userHead), make(map[int64]*convHead)
	}
}

// take makes the shares those of the commit, in the order in which their rows of table offsets are locked.
func (c *commit) take(shares []*share) {
	slices.SortFunc(shares, func(a, b *share) int { return cmp.Compare(a.at.number, b.at.number) })
	c.shares = shares
	clear(c.drafts)
	c.drafts = c.drafts[:0]
	for _, sh := range shares {
		c.drafts = append(c.drafts, sh.drafts...)
	}
}

// end forgets them: nothing of the drafts is kept.
func (c *commit) end() {
	clear(c.shares)
	c.take(c.shares[:0])
	c.reset()
	c.results, c.spare = nil, nil
	clear(c.userIDs)
	clear(c.convIDs)
}

// reset is what every attempt begins with.
func (c *commit) reset() {
	clear(c.users)
	clear(c.convs)
	c.freeUsers, c.freeConvs = c.freeUsers[:0], c.freeConvs[:0]
	c.repeats, c.members, c.targets = nil, nil, nil
	c.unclaimed, c.floor = 0, c.s.floor.Load()
	c.results = make([]store.Result, len(c.drafts))
	c.rows.reset()
}

// newUser and newConv are pieces of one slice as long as it has room; pointers into an older one stay good.
func (c *commit) newUser() *userHead { return grow(&c.freeUsers) }
func (c *commit) newConv() *convHead { return grow(&c.freeConvs) }

func grow[T any](list *[]T) *T {
	if len(*list) == cap(*list) {
		*list = make([]T, 0, max(64, 2*cap(*list)))
	}
	*list = (*list)[:len(*list)+1]
	last := &(*list)[len(*list)-1]
	var zero T
	*last = zero
	return last
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
