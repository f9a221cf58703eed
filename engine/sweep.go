package engine

import (
	"sync/atomic"
	"time"
)

// sweep is the operation that looks for deadlines that have passed. There is one per loop, and no timer per connection.
type sweep struct {
	l      *Loop
	queued atomic.Bool // one that has not run yet is enough
}

// tick is the engine's clock: a sweep of every loop each second.
func (e *Engine) tick() {
	defer e.background.Done()
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-e.stopClock:
			return
		case <-t.C:
		}
		for _, l := range e.loops {
			if !l.sweep.queued.Swap(true) {
				l.Post(&l.sweep)
			}
		}
		e.admission.nextSecond()
	}
}

// Run implements Op.
func (s *sweep) Run(l *Loop) {
	s.queued.Store(false)
	l.readClock()
	now := uint32(l.uptime / 1000)
	for _, k := range l.table.chunks {
		for i := range k.due { // by index: a handler may move the deadlines of others
			due := k.due[i]
			if due != 0 && due <= now && k.conn[i] != nil {
				k.due[i] = 0
				k.conn[i].timeout()
			}
		}
	}
	l.out.trim()
}
