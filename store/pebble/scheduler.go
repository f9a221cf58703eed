package pebble

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// scheduler grants Pebble its compactions, like Pebble's own, but none before the database is open: when an Open fails
// after it has replayed the log (out of descriptors, a failing disk), Pebble closes its files under the compaction that the
// replay set off, and that panics on a goroutine where nobody can catch it. A failed Open also leaves nothing running here.
//
// Lock order, as Pebble asks for: its locks before mu; nothing of Pebble but GetAllowedWithoutPermission is called with mu held.
type scheduler struct {
	mu       sync.Mutex
	turn     sync.Cond
	db       pebble.DBForCompaction // set by Register
	open     bool
	stopped  bool // the generation has failed: nothing new begins
	ended    bool
	granting bool // one goroutine at a time offers compactions
	running  int
	resume   time.Time // nothing begins before

	poke chan struct{}
	quit chan struct{}
	done chan struct{}
}

var (
	_ pebble.CompactionScheduler   = (*scheduler)(nil)
	_ pebble.CompactionGrantHandle = (*scheduler)(nil)
)

// grantInterval is how often the scheduler looks for more to do: what flushes add is told at once, but long compactions
// make the number that may run grow by time alone.
const grantInterval = 100 * time.Millisecond

// retryCompaction is the wait after a compaction that failed: Pebble itself would try again at once, and log it, until
// there is a descriptor or room on the disk again.
const retryCompaction = time.Second

func newScheduler() *scheduler {
	s := &scheduler{poke: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	s.turn.L = &s.mu
	return s
}

// opened lets compactions begin. It is called once, after a successful Open.
func (s *scheduler) opened() {
	s.mu.Lock()
	s.open = true
	s.mu.Unlock()
	s.UpdateGetAllowedWithoutPermission()
	go s.run()
}

// failed tells of a compaction that ended in an error.
func (s *scheduler) failed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resume = time.Now().Add(retryCompaction)
}

// stop keeps new compactions from beginning. What runs ends by itself.
func (s *scheduler) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
}

// mayBegin: mu is held.
func (s *scheduler) mayBegin() bool {
	return s.open && !s.stopped && !s.ended && s.running < s.db.GetAllowedWithoutPermission() && !time.Now().Before(s.resume)
}

func (s *scheduler) run() {
	defer close(s.done)
	tick := time.NewTicker(grantInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
		case <-s.poke:
		}
		s.grant()
	}
}

// grant starts what waits and may run.
func (s *scheduler) grant() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.granting {
		s.turn.Wait()
	}
	s.granting = true
	for s.mayBegin() {
		s.running++ // before Schedule: the compaction may be done before it returns
		s.mu.Unlock()
		waits, _ := s.db.GetWaitingCompaction()
		started := waits && s.db.Schedule(s)
		s.mu.Lock()
		if !started {
			s.running--
			break
		}
	}
	s.granting = false
	s.turn.Broadcast()
}

// Register implements pebble.CompactionScheduler.
func (s *scheduler) Register(_ int, db pebble.DBForCompaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db = db
}

// Unregister implements pebble.CompactionScheduler. Pebble calls it when it closes a database that was open.
func (s *scheduler) Unregister() {
	s.mu.Lock()
	s.ended = true
	for s.granting {
		s.turn.Wait()
	}
	open := s.open
	s.mu.Unlock()
	close(s.quit)
	if open {
		<-s.done
	}
}

// TrySchedule implements pebble.CompactionScheduler.
func (s *scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mayBegin() {
		return false, nil
	}
	s.running++
	return true, s
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler.
func (s *scheduler) UpdateGetAllowedWithoutPermission() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// Started implements pebble.CompactionGrantHandle.
func (s *scheduler) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (s *scheduler) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (s *scheduler) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done implements pebble.CompactionGrantHandle.
func (s *scheduler) Done() {
	s.mu.Lock()
	s.running--
	s.mu.Unlock()
	s.UpdateGetAllowedWithoutPermission()
}
