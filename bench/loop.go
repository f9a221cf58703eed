package bench

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readSize = 256 << 10 // of a loop's read buffer: what one read(2) may return
	// bufferSize is the first capacity of a connection's buffers; keepBuffers of them wait for the next use, and one that
	// has grown beyond keepSize goes back to the collector.
	bufferSize  = 4 << 10
	keepBuffers = 1 << 10
	keepSize    = 256 << 10
	// defaultHandshakes is how many connections a loop has between connect and the LOGIN answer: enough to hide the round
	// trips, and below the server's listen backlog.
	defaultHandshakes = 256
	// minSleep in ns keeps an open loop from waking for every single message; it adds at most this to a latency.
	minSleep = 100_000
	// idleTick in ns is the longest sleep of a loop.
	idleTick = 50_000_000
	// maxEvidence is how many failures are told in full.
	maxEvidence = 20
)

// scene is what a scenario does on one loop, in the loop's goroutine.
type scene interface {
	// due does what is to be done by now and returns when there is more to do, in ns of the run's clock.
	due(l *loop, now int64) (next int64)
	// message gets every message once, as the client's rule takes it. l.now is its time of arrival.
	message(l *loop, c *conn, p push)
	// accepted gets every SEND_ACK of this run.
	accepted(l *loop, c *conn, m mark)
	// beat gets every answer to a HEART_BEAT.
	beat(l *loop, c *conn, packet []byte)
	// loggedIn is told of every login.
	loggedIn(l *loop, c *conn)
	// answered gets the answers of HISTORY.
	answered(l *loop, c *conn, id, data []byte)
	// largeConv is the conversation of c's large group.
	largeConv(c *conn) string
	// sentAll is told that due will not be called again to send.
	sentAll(l *loop)
	// open is how many messages are on their way; finish records those that never came.
	open() int
	finish(l *loop)
}

// loop drives a share of the connections. Everything is owned by the goroutine that runs it, but for live.
type loop struct {
	o     *plan
	scene scene
	poll  *poller
	seed  uint64

	conns      []conn
	nextDial   int
	handshakes int // between connect and the LOGIN answer
	lives      int
	deads      int
	nextBeat   int   // index of the connection whose heartbeat is next
	beatAt     int64 // when
	closing    bool
	epoch      string // of the server's store; it is in every LOGIN answer

	now     int64 // ns of the run's clock, at the last wake-up or read
	rbuf    []byte
	scratch []byte
	repeats *repeats // of a large group, nil = none
	taken   push     // the newest of a large group
	dirty   []*conn
	acks    fifo[ackTime]
	buffers [][]byte // free ones

	stats    stats
	tally    tally
	evidence []string
	failures map[string]int

	progress progress
}

// progress is what a loop tells while it runs; safe for concurrent use.
type progress struct {
	lives, sent, delivered, failures, waited atomic.Int64
}

func newLoop(o *plan, seed uint64, conns int) (*loop, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	l := &loop{o: o, poll: p, seed: seed, conns: make([]conn, conns), rbuf: make([]byte, readSize),
		scratch: make([]byte, 0, 128<<10), stats: newStats(), failures: map[string]int{}, tally: tally{to: o.series}}
	for i := range l.conns {
		l.conns[i].index = int32(i)
	}
	return l, nil
}

// clock is the run's clock: monotonic, ns.
func (l *loop) clock() int64 { return int64(time.Since(l.o.epoch)) }

// fail records that the server, or the network, did not do what it promised.
func (l *loop) fail(kind, format string, args ...any) {
	l.failures[kind]++
	if l.failures[kind] <= 3 && len(l.evidence) < maxEvidence {
		l.evidence = append(l.evidence, fmt.Sprintf("%8.3f s  %s: %s", float64(l.now)/1e9, kind, fmt.Sprintf(format, args...)))
	}
}

// spin runs the loop until done says so or the run is stopped. dials lets it open connections up to that index.
func (l *loop) spin(dials int, done func() bool) error {
	l.now = l.clock()
	for !done() && !l.o.stopped.Load() {
		next := min(l.now+idleTick, l.dialMore(dials), l.beat(), l.dueAcks(), l.scene.due(l, l.now))
		l.flush()
		before := l.clock()
		events, err := l.poll.wait(max(next-before, minSleep))
		if err != nil {
			return err
		}
		woke := l.clock()
		l.now = woke
		l.stats.waited += woke - before
		l.tally.tick(woke, l.lives)
		for i := range events {
			if events[i].Fd == wakeIndex {
				l.poll.awake()
				continue
			}
			l.event(&l.conns[events[i].Fd], events[i].Events)
		}
		l.flush()
		l.stats.stall = max(l.stats.stall, l.clock()-woke)
		l.publish()
	}
	return nil
}

func (l *loop) publish() {
	failures := 0
	for _, n := range l.failures {
		failures += n
	}
	l.progress.lives.Store(int64(l.lives))
	l.progress.sent.Store(l.stats.sent)
	l.progress.delivered.Store(l.stats.delivered)
	l.progress.waited.Store(l.stats.waited)
	l.progress.failures.Store(int64(failures))
}

// event handles what epoll says of c.
func (l *loop) event(c *conn, events uint32) {
	if c.phase == dead || c.phase == unborn {
		return
	}
	if c.phase == connecting {
		l.connected(c)
		return
	}
	if events&unix.EPOLLOUT != 0 && c.armed {
		l.write(c)
	}
	if c.phase == dead || events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		return
	}
	n, errno := sysRead(c.fd, l.rbuf)
	l.stats.reads++
	switch {
	case errno == unix.EAGAIN:
	case errno != 0:
		l.drop(c, "read: "+errno.Error())
	case n == 0:
		l.drop(c, "closed by the server")
	default:
		l.now = l.clock()
		l.received(c, l.rbuf[:n])
	}
}

// dialMore opens connections up to index limit, Handshakes at a time, and returns when it has more to do.
func (l *loop) dialMore(limit int) int64 {
	for l.nextDial < limit && l.handshakes < l.o.Handshakes {
		if at := l.o.dialTime(l.conns[l.nextDial].number); at > l.now {
			return at
		}
		l.nextDial++
		l.open(&l.conns[l.nextDial-1])
	}
	return math.MaxInt64
}

// open begins to connect c.
func (l *loop) open(c *conn) {
	l.handshakes++
	if err := l.dial(c); err != nil {
		l.handshakes--
		c.phase = dead
		l.deads++
		l.fail("login failed", "user %s: %v", l.o.user(c.number), err)
	}
}

// beat sends heartbeats, spread evenly over the interval, and returns when the next is due.
func (l *loop) beat() int64 {
	if l.lives == 0 {
		l.beatAt = l.now
		return math.MaxInt64
	}
	step := max(int64(l.o.HeartBeat)/int64(len(l.conns)), 1)
	for ; l.beatAt <= l.now; l.beatAt += step {
		if c := &l.conns[l.nextBeat]; c.phase == live {
			if c.largeDue {
				l.acknowledge(c)
			}
			l.send(c, heartBeat)
		}
		l.nextBeat = (l.nextBeat + 1) % len(l.conns)
	}
	return max(l.beatAt, l.now+5_000_000) // gather some
}

var heartBeat = []byte(`{"cmd":1,"data":{}}`)

// buffer is an empty buffer for a connection.
func (l *loop) buffer() []byte {
	if n := len(l.buffers); n > 0 {
		b := l.buffers[n-1]
		l.buffers = l.buffers[:n-1]
		return b
	}
	return make([]byte, 0, bufferSize)
}

// free takes a buffer back.
func (l *loop) free(b []byte) {
	if cap(b) > 0 && cap(b) <= keepSize && len(l.buffers) < keepBuffers {
		l.buffers = append(l.buffers, b[:0])
	}
}

// grow appends to a buffer that may be nil.
func (l *loop) grow(b, more []byte) []byte {
	if b == nil {
		b = l.buffer()
	}
	return append(b, more...)
}

// close ends all connections.
func (l *loop) close() {
	l.closing = true
	for i := range l.conns {
		if c := &l.conns[i]; c.phase != unborn {
			l.drop(c, "")
		}
	}
	l.poll.close()
}
