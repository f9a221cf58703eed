package postgres

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/meshtalk/meshtalk/store"
)

// share is one caller's part of a commit: a batch of one partition, which its caller holds.
type share struct {
	at     *partition
	next   int64
	drafts []*store.Draft
	ctx    context.Context

	moved   bool // its fence, in the attempt at hand
	results []store.Result
	err     error
	done    chan struct{} // closed when results or err is there
}

const (
	// worthwhile is how many drafts that wait are worth a transaction beside those that run. Fewer wait for the end of one: a transaction costs
	// about what 20 drafts cost (BenchmarkCommit).
	worthwhile = 256
	// maxGathered drafts end the gathering: a transaction keeps the inboxes of its users from others.
	maxGathered = 4096
)

// gathering brings the batches of several partitions into one transaction, as a group commit does: what comes while a transaction is under
// way is in the next one. So a node with many queues makes as few as the database is slow.
type gathering struct {
	most int       // transactions at once: as many as connections for them. Static
	work sync.Pool // *commit: the memory of one is a later one's

	mu      sync.Mutex
	waiting []*share
	drafts  int // of waiting
	running int
}

// commitShare returns when the share's transaction has ended, or its ctx before one has begun.
func (s *Store) commitShare(sh *share) {
	g := &s.gathering
	g.mu.Lock()
	g.waiting = append(g.waiting, sh)
	g.drafts += len(sh.drafts)
	if g.running == 0 || g.drafts >= worthwhile && g.running < g.most {
		g.running++
		go s.commitWaiting()
	}
	g.mu.Unlock()
	select {
	case <-sh.done:
		return
	case <-sh.ctx.Done():
	}
	if g.withdraw(sh) {
		sh.err = sh.ctx.Err()
		return
	}
	<-sh.done
}

// withdraw takes back a share with which nothing has begun.
func (g *gathering) withdraw(sh *share) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, sh)
	if i < 0 {
		return false
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	g.drafts -= len(sh.drafts)
	return true
}

// take gives the shares of the next transaction; none ends the goroutine that asks.
func (g *gathering) take() []*share {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, drafts := 0, 0
	for n < len(g.waiting) && (n == 0 || drafts+len(g.waiting[n].drafts) <= maxGathered) {
		drafts += len(g.waiting[n].drafts)
		n++
	}
	if n == 0 {
		g.running--
		return nil
	}
	shares := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	g.drafts -= drafts
	return shares
}

// commitWaiting makes transactions until nothing waits.
func (s *Store) commitWaiting() {
	c := s.gathering.work.Get().(*commit)
	defer s.gathering.work.Put(c)
	for {
		shares := s.gathering.take()
		if len(shares) == 0 {
			return
		}
		s.commitTogether(c, shares)
		for _, sh := range shares {
			close(sh.done)
		}
	}
}

// commitTogether commits the shares in one transaction. When the database refuses it, each is tried for itself: what it refuses is in one
// of them.
func (s *Store) commitTogether(c *commit, shares []*share) {
	ctx, cancel := whileOne(s.alive, shares)
	defer cancel()
	if err := c.commit(ctx, s, shares); err == nil || len(shares) == 1 || errors.Is(err, errUnsure) || causeOf(err) == causeLost {
		return
	}
	for i, sh := range shares {
		if sh.err != nil && !errors.Is(sh.err, store.ErrFenced) {
			_ = c.commit(ctx, s, shares[i:i+1])
		}
	}
}

// whileOne is a context that ends when those of all shares have.
func whileOne(parent context.Context, shares []*share) (context.Context, context.CancelFunc) {
	if len(shares) == 1 {
		return shares[0].ctx, func() {}
	}
	ctx, cancel := context.WithCancel(parent)
	var left atomic.Int32
	left.Store(int32(len(shares)))
	stops := make([]func() bool, len(shares))
	for i, sh := range shares {
		stops[i] = context.AfterFunc(sh.ctx, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
