package bench

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/codec"
)

// ackTime is when a connection acknowledges.
type ackTime struct {
	c  *conn
	at int64
}

// dueAcks acknowledges for the connections whose time has come, and returns when the next one is due. All wait equally
// long, so that a queue keeps the order.
func (l *loop) dueAcks() int64 {
	for l.acks.len() > 0 {
		a := l.acks.front()
		if a.at > l.now {
			return a.at
		}
		l.acks.pop()
		a.c.ackQueued = false
		if a.c.ackDue {
			l.acknowledge(a.c)
		}
	}
	return math.MaxInt64
}

// fifo is a queue that reuses its memory.
type fifo[T any] struct {
	items []T
	first int
}

func (q *fifo[T]) len() int  { return len(q.items) - q.first }
func (q *fifo[T]) front() *T { return &q.items[q.first] }

func (q *fifo[T]) push(v T) {
	if q.first > 0 && len(q.items) == cap(q.items) {
		q.items = q.items[:copy(q.items, q.items[q.first:])]
		q.first = 0
	}
	q.items = append(q.items, v)
}

func (q *fifo[T]) pop() {
	q.first++
	if q.first == len(q.items) {
		q.items, q.first = q.items[:0], 0
	}
}

// acknowledge says how far c has come.
func (l *loop) acknowledge(c *conn) {
	large := c.largeDue
	c.ackDue, c.largeDue, c.unacked = false, false, 0
	if l.o.Ack != "client" || c.phase != live {
		return
	}
	b := l.scratch[:0]
	if c.inbox > 0 {
		b = strconv.AppendUint(append(b, `{"cmd":7,"data":{"inbox":`...), c.inbox, 10)
		l.send(c, append(b, "}}"...))
	}
	if large {
		b = codec.AppendString(append(b[:0], `{"cmd":7,"data":{"conv":`...), l.scene.largeConv(c))
		b = strconv.AppendUint(append(b, `,"seq":`...), c.seq, 10)
		l.send(c, append(b, "}}"...))
	}
}

// send queues one packet. It may stand in l.scratch; it is copied.
func (l *loop) send(c *conn, packet []byte) {
	if c.phase == dead {
		return
	}
	l.stats.packetsOut++
	if len(c.out) == 0 {
		c.out = l.buffer()
	}
	if c.transport == codec.TCP {
		c.out = codec.AppendHeader(c.out, codec.TCP, codec.OpText, len(packet))
		c.out = append(c.out, packet...)
	} else {
		var mask [4]byte
		binary.LittleEndian.PutUint32(mask[:], rand.Uint32())
		c.out = codec.AppendMaskedFrame(c.out, codec.OpText, packet, mask)
	}
	l.touch(c)
}

// append queues raw bytes.
func (l *loop) append(c *conn, b []byte) {
	if len(c.out) == 0 {
		c.out = l.buffer()
	}
	c.out = append(c.out, b...)
	l.touch(c)
}

func (l *loop) touch(c *conn) {
	if !c.dirty {
		c.dirty = true
		l.dirty = append(l.dirty, c)
	}
}

// flush writes what was queued since the last flush, once per connection.
func (l *loop) flush() {
	for _, c := range l.dirty {
		c.dirty = false
		if !c.armed && len(c.out) > 0 {
			l.write(c)
		}
	}
	l.dirty = l.dirty[:0]
}

func (l *loop) write(c *conn) {
	n, errno := sysWrite(c.fd, c.out)
	l.stats.writes++
	if errno == unix.EAGAIN {
		n, errno = 0, 0
	}
	if errno != 0 {
		l.drop(c, "write: "+errno.Error())
		return
	}
	if n == len(c.out) {
		l.free(c.out)
		c.out = nil
		l.arm(c, false)
		return
	}
	c.out = c.out[:copy(c.out, c.out[n:])]
	l.arm(c, true)
}

// arm asks for EPOLLOUT, or no more.
func (l *loop) arm(c *conn, on bool) {
	if c.armed != on {
		c.armed = on
		l.watch(c)
	}
}

// stall makes c stop reading, or go on.
func (l *loop) stall(c *conn, on bool) {
	c.stalled = on
	if c.phase == live {
		l.watch(c)
	}
}

// watch tells epoll what c waits for.
func (l *loop) watch(c *conn) {
	var events uint32
	if !c.stalled {
		events |= unix.EPOLLIN
	}
	if c.armed {
		events |= unix.EPOLLOUT
	}
	if err := l.poll.set(unix.EPOLL_CTL_MOD, c.fd, c.index, events); err != nil {
		l.drop(c, err.Error())
	}
}

// drop closes c and records why, unless the run is over.
func (l *loop) drop(c *conn, why string) {
	if c.phase == dead {
		return
	}
	switch {
	case l.closing:
	case c.phase == live:
		l.fail("connection lost", "user %s: %s", l.o.user(c.number), why)
	default:
		l.fail("login failed", "user %s: %s", l.o.user(c.number), why)
	}
	l.disconnect(c)
	c.phase = dead
	l.deads++
}

// lose resets c, as if its network had gone, and leaves it ready to be dialled again. What it knows of its inbox stays.
func (l *loop) lose(c *conn) {
	if c.phase == dead || c.phase == unborn {
		return
	}
	l.disconnect(c)
	c.phase, c.resumes = unborn, c.phase == live || c.resumes
}

// disconnect closes c's socket with a reset.
func (l *loop) disconnect(c *conn) {
	if c.phase == live {
		l.lives--
	} else {
		l.handshakes--
	}
	resetOnClose(c.fd)
	_ = unix.Close(int(c.fd))
	l.free(c.in)
	l.free(c.out)
	c.in, c.out = nil, nil
	c.ackDue, c.largeDue, c.pulling, c.armed, c.unacked = false, false, false, false, 0
}
