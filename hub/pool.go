package hub

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Pool runs what may block (store reads, key look-ups, hooks) away from the event loops, on at most a fixed number of
// goroutines that come with the work and go when there is none.
type Pool struct {
	limit  int
	logf   func(format string, args ...any)
	panics atomic.Int64

	mu      sync.Mutex
	queue   []func()
	head    int // queue[:head] are taken
	workers int
	closed  bool
	idle    sync.Cond // signalled when workers reaches 0
}

// NewPool makes a pool of at most limit goroutines. A panic of a call is counted and given to logf.
func NewPool(limit int, logf func(format string, args ...any)) *Pool {
	p := &Pool{limit: limit, logf: logf}
	p.idle.L = &p.mu
	return p
}

// Go queues f. It never blocks: each connection has at most a few requests in the pool, so what waits is bounded by
// the connections. After Close f is dropped.
func (p *Pool) Go(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.queue = append(p.queue, f)
	if p.workers < p.limit {
		p.workers++
		go p.work()
	}
}

func (p *Pool) work() {
	for {
		p.mu.Lock()
		if p.head == len(p.queue) {
			p.queue, p.head = p.queue[:0], 0
			p.workers--
			if p.workers == 0 {
				p.idle.Broadcast()
			}
			p.mu.Unlock()
			return
		}
		f := p.queue[p.head]
		p.queue[p.head] = nil
		p.head++
		p.mu.Unlock()
		p.call(f)
	}
}

func (p *Pool) call(f func()) {
	defer func() {
		if r := recover(); r != nil {
			p.Panicked(r)
		}
	}()
	f()
}

// Panicked counts and logs a panic. It is called by the deferred function that recovered, so that the stack is the panic's.
func (p *Pool) Panicked(r any) {
	p.panics.Add(1)
	p.logf("panic: %v\n%s", r, debug.Stack())
}

// Panics is how many calls have panicked.
func (p *Pool) Panics() int64 { return p.panics.Load() }

// Waiting is how many calls have not begun.
func (p *Pool) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) - p.head
}

// Close refuses new work and returns when the last call has ended.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for p.workers > 0 {
		p.idle.Wait()
	}
}
