package engine

import (
	"context"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/codec"
)

const (
	// A drain ends after so many operations or so long, and the sockets get their turn before the next. The time is that
	// of a few fan-outs to thousands of connections, which should meet in one write to each.
	opsPerDrain  = 1024
	timePerDrain = 20 * time.Millisecond
	opsPerCheck  = 4 // operations between two looks at the clock

	// settleRounds bounds how often one event flushes what handlers send from Drained and Closed; the rest goes on in
	// the next turn.
	settleRounds = 8

	keptOps = 4096 // operations of queue capacity that are kept after a burst
)

// Loop is one event loop.
type Loop struct {
	// Index in Engine.Loops.
	Index int
	// Data belongs to the Handler and is touched on the loop only.
	Data any

	// Static after Start.
	engine  *Engine
	el      gnet.EventLoop
	epoll   int // gnet's epoll descriptor, see interest
	wakeFD  int // our end of the loop's wake-up socket
	slim    slim
	tcp     codec.TCPFramer
	handler Handler

	stats    loopStats
	assigned atomic.Int64 // connections given to the loop, by the acceptors; taken back by the loop
	waiting  atomic.Int64 // operations posted and not run

	mu struct {
		sync.Mutex
		queue    []Op
		since    time.Time // when queue was empty for the last time
		writable []uint32  // slots whose socket takes bytes again
		pending  bool      // a drain is due or running
		ended    bool
	}

	// The rest belongs to the loop.
	table  table
	ms     int64 // Now
	uptime int64 // ms since the engine was made, by the monotonic clock
	work   work
	sweep  sweep

	batch []Op // operations taken from the queue; batch[next:] have not run
	next  int

	out     gather
	traffic []*traffic // free

	ready    []*Conn // connections whose kept bytes get their turn
	gone     []ended // Closed is due
	doomed   []*Conn // sockets to close
	yielded  bool    // the wake-up socket has been written to
	settling bool

	stopping bool
	ending   bool
	empty    chan struct{} // closed when stopping and no connection is left
	finished chan struct{} // closed after the last operation
}

// ended is a connection whose handler is to hear why.
type ended struct {
	c   *Conn
	why Reason
}

func newLoop(e *Engine, index int) *Loop {
	l := &Loop{
		Index:    index,
		engine:   e,
		wakeFD:   -1,
		tcp:      codec.TCPFramer{Max: e.o.MaxFrame},
		handler:  e.o.Handler,
		empty:    make(chan struct{}),
		finished: make(chan struct{}),
	}
	l.sweep.l = l
	l.out.reset()
	return l
}

// Post queues op: operations of one loop run in the order of their Posts, one Post wakes an idle loop, and what they
// sent is flushed once at the end of a drain. Safe from anywhere, including the loop itself (it then runs in the same or the next drain, never inline).
// It reports false after the loop has ended: op will never run.
func (l *Loop) Post(op Op) bool {
	l.mu.Lock()
	if l.mu.ended {
		l.mu.Unlock()
		return false
	}
	if len(l.mu.queue) == 0 {
		l.mu.since = time.Now()
	}
	l.mu.queue = append(l.mu.queue, op)
	l.waiting.Add(1)
	l.wakeLocked()
	return true
}

// wakeLocked sees to it that a drain is due and gives the lock back.
func (l *Loop) wakeLocked() {
	wake := !l.mu.pending
	l.mu.pending = true
	l.mu.Unlock()
	if !wake {
		return
	}
	if err := l.el.Execute(context.Background(), (*drainer)(l)); err != nil {
		l.engine.logf("engine: wake loop %d: %v", l.Index, err)
	}
}

// drainer is a Loop as gnet's Runnable.
type drainer Loop

func (d *drainer) Run(context.Context) error {
	l := (*Loop)(d)
	if l.begin() {
		defer l.end()
	}
	l.drain()
	return nil
}

// Backlog is how many operations wait; producers of unbounded work look at it and hold back.
func (l *Loop) Backlog() int { return int(l.waiting.Load()) }

// Conn is the live connection of h, or nil. On the loop only.
func (l *Loop) Conn(h Handle) *Conn {
	if h.Loop() != l.Index {
		return nil
	}
	c := l.table.conn(h.slot())
	if c == nil || c.state != stateOpen || l.table.generation(c.slot) != h.generation() {
		return nil
	}
	return c
}

// Now is the loop's clock, read once per event or drain: milliseconds since the Unix epoch. On the loop only.
func (l *Loop) Now() (ms int64) { return l.ms }

// Each calls f for every open connection (after its Open, before its Close) of the loop until f returns false. On the loop only; f may close the connection.
func (l *Loop) Each(f func(c *Conn) bool) {
	for _, k := range l.table.chunks {
		for _, c := range &k.conn {
			if c != nil && c.state == stateOpen && !f(c) {
				return
			}
		}
	}
}

// readClock sets the loop's clocks and returns the time since the engine was made; every event and drain begins with it.
func (l *Loop) readClock() time.Duration {
	now := time.Now()
	l.ms = now.UnixMilli()
	since := now.Sub(l.engine.started)
	l.uptime = since.Milliseconds()
	return since
}

// work is what a loop needs to know of its time to tell how busy it is. It belongs to the loop.
type work struct {
	inside       bool          // an event is being handled; gnet brings a close from inside another
	began, ended time.Duration // since the engine was made: of this event, and of the one before
}

// restless is the longest pause between two events that is taken for work: gnet polls and reads in it. A loop that
// sleeps is not back so soon.
const restless = 20 * time.Microsecond

// begin is the beginning of an event. outer is false inside another, and then it has no end of its own.
func (l *Loop) begin() (outer bool) {
	now := l.readClock()
	if l.work.inside {
		return false
	}
	l.work.inside, l.work.began = true, now
	if now-l.work.ended < restless {
		l.work.began = l.work.ended
	}
	return true
}

// end is the end of an outer event.
func (l *Loop) end() {
	l.work.inside = false
	l.work.ended = time.Since(l.engine.started)
	l.stats.busy.Add(int64(l.work.ended - l.work.began))
}

// waits is how long the oldest of the operations waits that no drain has taken yet. Safe from anywhere.
func (l *Loop) waits() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.queue) == 0 {
		return 0
	}
	return time.Since(l.mu.since)
}

// drain runs what was posted, flushes once, and leaves with either an empty queue or a wake-up on its way.
func (l *Loop) drain() {
	l.takeWritable()
	more := l.runOps()
	l.settle()
	l.rest(more)
}

// turn is the event of the wake-up socket: the loop comes back to what it left for the sake of other sockets. It comes
// by a socket and not by Execute, because gnet runs everything that was executed before it polls again.
func (l *Loop) turn() {
	l.yielded = false
	ready := l.ready
	l.ready = nil
	for i, c := range ready {
		ready[i] = nil
		c.goOn()
	}
	if l.ready == nil {
		l.ready = ready[:0]
	}
	l.drain()
}

// runOps runs operations until none waits or the drain has had its share; more tells the latter.
func (l *Loop) runOps() (more bool) {
	start := time.Now()
	for ran := 0; ran < opsPerDrain; {
		if l.next == len(l.batch) && !l.takeQueue() {
			return false
		}
		ran += l.runBatch(opsPerCheck)
		if time.Since(start) > timePerDrain {
			return true
		}
	}
	return true
}

// takeQueue swaps the queue for the empty batch. It reports false when nothing waits.
func (l *Loop) takeQueue() bool {
	spare := l.batch[:0]
	if cap(spare) > keptOps {
		spare = nil
	}
	l.mu.Lock()
	l.batch, l.mu.queue = l.mu.queue, spare
	since := l.mu.since
	l.mu.Unlock()
	l.next = 0
	if len(l.batch) == 0 {
		return false
	}
	lag := int64(time.Since(since))
	l.stats.lag.Store(lag)
	l.stats.lagPeak.note(l.uptime/1000, lag)
	l.stats.queuePeak.note(l.uptime/1000, int64(len(l.batch)))
	return true
}

// runBatch runs up to most operations. A panic costs the one that panicked.
func (l *Loop) runBatch(most int) (ran int) {
	defer func() {
		if r := recover(); r != nil {
			l.engine.panicked("operation", r)
		}
	}()
	for ran < most && l.next < len(l.batch) {
		op := l.batch[l.next]
		l.batch[l.next] = nil
		l.next++
		ran++
		l.waiting.Add(-1)
		op.Run(l)
	}
	return ran
}

// rest ends a drain. While more waits pending stays set, so that Posts do not wake the loop in front of its sockets.
func (l *Loop) rest(more bool) {
	l.mu.Lock()
	more = more || len(l.mu.queue) > 0 || len(l.mu.writable) > 0
	if !more {
		l.mu.pending = false
		if l.ending && !l.mu.ended {
			l.mu.ended = true
			close(l.finished)
		}
	}
	l.mu.Unlock()
	if more {
		l.yield()
	}
}

// yield asks for a turn after the sockets that are ready now.
func (l *Loop) yield() {
	if l.yielded {
		return
	}
	l.yielded = true
	if _, err := unix.Write(l.wakeFD, []byte{0}); err != nil {
		l.engine.logf("engine: wake loop %d: %v", l.Index, err)
	}
}

// settle ends every event and drain: Closed is called for whom it is due, what was gathered is written, sockets are
// closed. Nothing of that happens inside a Handler's call into Conn. Handlers called from here may send and close: it
// goes on until nothing is due.
func (l *Loop) settle() {
	if l.settling {
		return
	}
	l.settling = true
	for round := 0; ; {
		switch {
		case len(l.gone) > 0:
			l.tellGone()
		case len(l.out.dirty) > 0 && round < settleRounds:
			round++
			l.flush()
		case len(l.doomed) > 0:
			l.closeDoomed()
		default:
			l.settling = false
			if len(l.out.dirty) > 0 || len(l.ready) > 0 {
				l.yield()
			}
			return
		}
	}
}

func (l *Loop) tellGone() {
	gone := l.gone
	l.gone = nil
	for _, g := range gone {
		g.c.closed(g.why)
	}
	if l.gone == nil {
		clear(gone)
		l.gone = gone[:0]
	}
}

func (l *Loop) closeDoomed() {
	last := len(l.doomed) - 1
	c := l.doomed[last]
	l.doomed[last] = nil
	l.doomed = l.doomed[:last]
	if c.gc == nil {
		return
	}
	if err := l.el.Close(c.gc); err != nil {
		l.engine.logf("engine: %v", err)
	}
}

// panicked counts and logs a panic of the handler or of an operation. It is called by the deferred function that
// recovered, so that the stack is the panic's.
func (e *Engine) panicked(where string, r any) {
	e.panics.Add(1)
	e.logf("engine: panic in %s: %v\n%s", where, r, debug.Stack())
}
