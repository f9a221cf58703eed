package bench

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A run may be spread over several processes: a coordinator, which holds no connections, makes the groups and looks at the
// server, and workers, which share the units (pairs, groups, users) among them. All go through the same code and meet at
// the same points.

// team is a process's side of that. Its methods are for the goroutine that drives the run, but for tell.
type team interface {
	// leads reports whether this process does what is to be done once.
	leads() bool
	// share is which part of the units is this process's: number index of that many; of 0 = none.
	share() (index, of int)
	// meet waits until all have come to the point. The answer is the same for all; its Now is the present or, with several
	// processes, so soon after it that all know it before.
	meet(ctx context.Context, mine meeting) (all meeting, err error)
	// tell tells the scenes of the other processes, for concurrent use; f is called with what they tell, from a goroutine of
	// its own, and not any more when hear(nil) has returned.
	tell(n note)
	hear(f func(n note))
	// finish hands over this process's part, and returns those of the others to the one that leads.
	finish(ctx context.Context, mine *partial) ([]*partial, error)
	// counts is how far the others are.
	counts() []counts
	// clockError is how far the others' clocks may be off, in ns.
	clockError() int64
	close()
}

// solo is a team of one.
type solo struct{ epoch time.Time }

func (s solo) leads() bool       { return true }
func (s solo) share() (int, int) { return 0, 1 }
func (s solo) tell(note)         {}
func (s solo) hear(func(note))   {}
func (s solo) counts() []counts  { return nil }
func (s solo) clockError() int64 { return 0 }
func (s solo) close()            {}

func (s solo) meet(ctx context.Context, mine meeting) (meeting, error) {
	mine.Now = int64(time.Since(s.epoch))
	return mine, ctx.Err()
}

func (s solo) finish(ctx context.Context, _ *partial) ([]*partial, error) { return nil, ctx.Err() }

// member is a worker's side.
type member struct {
	link  *link
	job   *job
	epoch time.Time
	met   chan meeting // from the goroutine that reads the link

	mu    sync.Mutex
	heard func(n note) // nil = nobody listens; called with mu
}

func newMember(k *link, j *job) *member {
	return &member{link: k, job: j, epoch: epochAt(j.Epoch), met: make(chan meeting, 1)}
}

func (m *member) leads() bool       { return false }
func (m *member) share() (int, int) { return m.job.Index, m.job.Of }
func (m *member) counts() []counts  { return nil }
func (m *member) clockError() int64 { return 0 }
func (m *member) close()            {}

func (m *member) meet(ctx context.Context, mine meeting) (all meeting, err error) {
	if err := m.link.send(message{Meet: &mine}); err != nil {
		return all, err
	}
	select {
	case all = <-m.met:
	case <-ctx.Done():
		return all, ctx.Err()
	}
	if all.Point != mine.Point {
		return all, fmt.Errorf("bench: worker: at %q, the others at %q", mine.Point, all.Point)
	}
	return all, nil
}

func (m *member) hear(f func(n note)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = f
}

// takeNote gives a note to who listens.
func (m *member) takeNote(n note) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.heard != nil {
		m.heard(n)
	}
}

func (m *member) tell(n note) {
	n.From = m.job.Index
	_ = m.link.send(message{Note: &n}) // if the link is broken, the run ends with that
}

func (m *member) finish(_ context.Context, mine *partial) ([]*partial, error) {
	return nil, m.link.send(message{Result: mine})
}
