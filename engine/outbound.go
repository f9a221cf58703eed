package engine

import (
	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/codec"
)

// How bytes leave. Send only notes a message: the head's bytes in the loop's arena, a reference to the tail, 16 bytes
// that chain it to the others of its connection. At the end of the event or drain each connection's messages are put
// together in one scratch buffer, which stays in the processor's cache, and written with one write(2). So a fan-out
// costs little memory however many connections it reaches, and no buffer per connection. Only what the kernel does not
// take is copied into a buffer of the connection's own; the watcher tells when the socket takes bytes again.

const (
	// largeMessage is the size from which a message is written at once from where it lies instead of being gathered:
	// copying costs more than the system call then.
	largeMessage = 32 << 10

	// gatherLimit is how many bytes of heads and chain a loop gathers before it writes everything out in between. It
	// bounds memory, and with it how many messages to one connection may meet in one write of a wide fan-out: with heads
	// of 32 bytes 16 MiB are 64 messages to 5,400 connections. In the benchmark of 64 outstanding messages to 8,000
	// connections 8 MiB gave 12 times the speed of single writes, 16 MiB 20 times.
	gatherLimit = 16 << 20

	// holdStep is by how many bytes, at least, the room grows for what the kernel does not take.
	holdStep = 8 << 10

	// scratchSize is the largest single write of gathered messages.
	scratchSize = 64 << 10
)

// Opcodes that are none: the head is bytes for the socket as they are.
const opRaw codec.Op = 0xFF

// gather is what a loop is to write at the end of the event or drain.
type gather struct {
	records []record // from 1; 0 ends a chain
	heads   []byte
	tails   [][]byte // from 1; neighbours in a fan-out share one
	dirty   []dirty
	spare   []dirty // the list that flush is not reading
	scratch []byte
	live    int // records that have not been written
	peak    int // the most bytes since the last trim
}

// record is one message of a chain.
type record struct {
	next uint32
	head uint32 // where in heads
	tail uint32 // index in tails, 0 = none
	n    uint16 // length of the head
	op   codec.Op
}

const recordBytes = 16

// dirty is a connection that is to be looked at.
type dirty struct {
	c           *Conn
	first, last uint32 // its chain, 0 = empty
	bytes       uint32 // of its chain, headers included
}

func (g *gather) reset() {
	if g.records == nil {
		g.records = make([]record, 1, 256)
		g.tails = make([][]byte, 1, 16)
	}
	g.records = g.records[:1]
	g.heads = g.heads[:0]
	clear(g.tails)
	g.tails = g.tails[:1]
	g.live = 0
}

func (g *gather) size() int { return len(g.records)*recordBytes + len(g.heads) }

// tail is the index of b, which often is the same as last time.
func (g *gather) tail(b []byte) uint32 {
	if len(b) == 0 {
		return 0
	}
	last := len(g.tails) - 1
	if t := g.tails[last]; len(t) != len(b) || &t[0] != &b[0] {
		g.tails = append(g.tails, b)
		last++
	}
	return uint32(last)
}

// forget drops what is gathered for c.
func (g *gather) forget(c *Conn) {
	if c.dirty != 0 {
		g.dirty[c.dirty-1] = dirty{}
		c.dirty = 0
	}
}

// trim gives memory back that a burst needed and the last second did not.
func (g *gather) trim() {
	const kept = 256 << 10
	if held := cap(g.records)*recordBytes + cap(g.heads); held > kept && g.peak < held/4 && len(g.dirty) == 0 {
		g.records, g.heads, g.tails, g.dirty, g.spare = nil, nil, nil, nil, nil
		g.reset()
	}
	g.peak = 0
}

// Send gathers one text message made of head followed by tail. head is copied; tail is referenced until it is written
// or copied, at the latest at the end of the event or drain, so it must never change. All messages of a drain leave in
// one write, but for messages from 32 KiB, which are written at once, and for what goes beyond the soft limit.
// Nothing is sent after Close.
func (c *Conn) Send(head, tail []byte) { c.send(codec.OpText, head, tail) }

// SendOp is Send with an opcode of WebSocket (text, binary, ping). payload is copied.
func (c *Conn) SendOp(op codec.Op, payload []byte) { c.send(op, payload, nil) }

// Room is how many bytes may be sent until the soft limit, 0 when it is reached. Pushes stop at 0; answers to the
// client's own packets may go beyond, up to the hard limit.
func (c *Conn) Room() int {
	if c.state != stateOpen {
		return 0
	}
	return max(0, c.loop.engine.o.SoftLimit-c.Outbound())
}

// Outbound is how many bytes have been sent and not yet handed to the kernel.
func (c *Conn) Outbound() int {
	n := 0
	if x := c.x; x != nil && x.out != nil {
		n = len(x.out.B) - x.outOff
	}
	if c.dirty != 0 {
		n += int(c.loop.out.dirty[c.dirty-1].bytes)
	}
	return n
}

func (c *Conn) send(op codec.Op, head, tail []byte) {
	if c.state != stateOpen {
		return
	}
	l := c.loop
	c.flags |= flagSent
	if len(head)+len(tail) >= largeMessage {
		c.sendLarge(op, head, tail)
	} else {
		c.gather(op, head, l.out.tail(tail), len(tail))
		if l.out.size() > gatherLimit {
			l.writeOut()
		}
	}
	if out := c.Outbound(); out > l.engine.o.SoftLimit {
		c.overSoft()
	}
}

// overSoft writes what is gathered for c, so that only what the kernel refuses counts, and judges that.
func (c *Conn) overSoft() {
	c.loop.writeOne(c)
	if c.state == stateOpen && !c.has(flagSlow) && c.Outbound() > c.loop.engine.o.HardLimit {
		c.tooSlow()
	}
}

// gather notes one message.
func (c *Conn) gather(op codec.Op, head []byte, tail uint32, tailLen int) {
	g := &c.loop.out
	d := c.touch()
	i := uint32(len(g.records))
	g.records = append(g.records, record{head: uint32(len(g.heads)), tail: tail, n: uint16(len(head)), op: op})
	g.heads = append(g.heads, head...)
	g.live++
	if d.first == 0 {
		d.first = i
	} else {
		g.records[d.last].next = i
	}
	d.last = i
	d.bytes += uint32(len(head) + tailLen + headerRoom)
}

// headerRoom is what a frame's header is counted with: 4 bytes in most cases on both transports.
const headerRoom = 4

// gatherRaw notes bytes that are sent as they are: an HTTP answer or a close frame.
func (c *Conn) gatherRaw(b []byte) { c.gather(opRaw, b, 0, 0) }

func (c *Conn) gatherClose(code uint16, reason string) {
	var room [128]byte
	c.gatherRaw(codec.AppendCloseFrame(room[:0], code, reason))
}

// touch puts c on the list of those that are looked at when the event or drain ends.
func (c *Conn) touch() *dirty {
	g := &c.loop.out
	if c.dirty == 0 {
		g.dirty = append(g.dirty, dirty{c: c})
		c.dirty = uint32(len(g.dirty))
	}
	return &g.dirty[c.dirty-1]
}

// sendLarge writes a message from where it lies, after what was gathered.
func (c *Conn) sendLarge(op codec.Op, head, tail []byte) {
	l := c.loop
	c.touch()
	l.writeOne(c)
	header := codec.AppendHeader(l.out.scratch[:0], c.Transport(), op, len(head)+len(tail))
	l.out.scratch = header[:0]
	if c.blocked() || c.state == stateDead {
		c.hold(header, len(head)+len(tail))
		c.hold(head, 0)
		c.hold(tail, 0)
		return
	}
	parts := [3][]byte{header, head, tail}
	n, err := unix.Writev(int(c.fd), parts[:])
	n = c.wrote(n, err)
	left := len(header) + len(head) + len(tail) - n
	for _, p := range parts {
		skip := min(n, len(p))
		c.hold(p[skip:], left)
		n -= skip
	}
}

func (c *Conn) blocked() bool { return c.x != nil && c.x.out != nil }

// writeOne writes what is gathered for c alone.
func (l *Loop) writeOne(c *Conn) {
	if c.dirty != 0 {
		l.writeChain(&l.out.dirty[c.dirty-1])
	}
}

// writeOut writes all that is gathered. The connections stay on the list.
func (l *Loop) writeOut() {
	g := &l.out
	for i := range g.dirty {
		l.writeChain(&g.dirty[i])
	}
	g.peak = max(g.peak, g.size())
	g.reset()
}

// writeChain writes what is gathered for d's connection and empties its chain. No handler is called.
func (l *Loop) writeChain(d *dirty) {
	c := d.c
	if d.first == 0 || c.state == stateDead {
		d.first = 0
		return
	}
	g := &l.out
	t := c.Transport()
	b := g.scratch[:0]
	for i := d.first; i != 0; i = g.records[i].next {
		r := &g.records[i]
		head, tail := g.heads[r.head:r.head+uint32(r.n)], g.tails[r.tail]
		if len(b)+len(head)+len(tail) > scratchSize {
			c.put(b)
			b = b[:0]
		}
		if r.op != opRaw {
			b = codec.AppendHeader(b, t, r.op, len(head)+len(tail))
		}
		b = append(append(b, head...), tail...)
		g.live--
	}
	c.put(b)
	g.scratch = b[:0]
	d.first, d.last, d.bytes = 0, 0, 0
	if g.live == 0 {
		g.peak = max(g.peak, g.size())
		g.reset()
	}
}

// put writes b, or keeps what the kernel does not take.
func (c *Conn) put(b []byte) {
	if len(b) == 0 {
		return
	}
	if c.blocked() || c.state == stateDead {
		c.hold(b, len(b))
		return
	}
	n, err := unix.Write(int(c.fd), b)
	n = c.wrote(n, err)
	c.hold(b[n:], len(b)-n)
}

// wrote judges the outcome of a write: how many bytes it took.
func (c *Conn) wrote(n int, err error) int {
	switch err {
	case nil:
		c.loop.stats.bytesOut.Add(int64(n))
		return n
	case unix.EAGAIN, unix.EINTR:
	default:
		c.fail(reasonOf(err))
	}
	return 0
}

// hold keeps bytes until the socket takes them. room is how many are coming.
func (c *Conn) hold(b []byte, room int) {
	if len(b) == 0 || c.state == stateDead {
		return
	}
	l := c.loop
	x := c.busy()
	fresh := x.out == nil
	if fresh {
		x.out, x.outOff = l.engine.outbound.Get(), 0
	}
	if x.outOff > 0 && x.outOff >= len(x.out.B)/2 {
		x.out.B = x.out.B[:copy(x.out.B, x.out.B[x.outOff:])]
		x.outOff = 0
	}
	if least := len(x.out.B) + max(room, len(b)); cap(x.out.B) < least {
		// In small steps: a slow receiver is held to the soft limit, and there may be thousands of them.
		grown := cap(x.out.B) + max(holdStep, cap(x.out.B)/4)
		x.out.B = append(make([]byte, 0, max(least, grown)), x.out.B...)
	}
	x.out.B = append(x.out.B, b...)
	l.stats.outbound.Add(int64(len(b)))
	if fresh {
		c.watch()
	}
}

// watch asks for word when the socket takes bytes again.
func (c *Conn) watch() {
	if err := c.loop.engine.watcher.watch(c); err != nil {
		c.loop.engine.logf("engine: %v", err)
		c.fail(ReasonError)
	}
}

// dropOutput throws away what the kernel did not take.
func (c *Conn) dropOutput() {
	x := c.x
	if x == nil || x.out == nil {
		return
	}
	c.loop.stats.outbound.Add(int64(x.outOff - len(x.out.B)))
	if cap(x.out.B) <= keptBuffer {
		c.loop.engine.outbound.Put(x.out)
	}
	x.out, x.outOff = nil, 0
}

// writable goes on with what the kernel did not take.
func (c *Conn) writable() {
	if !c.blocked() || c.state == stateDead {
		return
	}
	x := c.x
	n, err := unix.Write(int(c.fd), x.out.B[x.outOff:])
	n = c.wrote(n, err)
	x.outOff += n
	c.loop.stats.outbound.Add(int64(-n))
	switch {
	case c.state == stateDead:
	case x.outOff < len(x.out.B):
		c.watch()
	default:
		c.dropOutput()
		c.touch()
	}
}

// flush writes what is gathered and then tells each connection's side of it.
func (l *Loop) flush() {
	l.writeOut()
	g := &l.out
	list := g.dirty
	g.dirty, g.spare = g.spare[:0], nil
	for i := range list {
		if c := list[i].c; c != nil {
			c.dirty = 0
		}
	}
	for i := range list {
		if c := list[i].c; c != nil {
			c.flushed()
		}
	}
	clear(list)
	g.spare = list[:0]
}

// flushed is where c stands after a flush.
func (c *Conn) flushed() {
	switch {
	case c.state == stateDead:
		c.dropOutput()
		return
	case c.blocked():
		if c.has(flagSlow) {
			c.fail(ReasonTooSlow)
			c.dropOutput()
		}
		return
	case c.state == stateOpen:
		if c.has(flagSent) {
			c.flags &^= flagSent
			c.drained()
		}
	case c.state == stateLinger:
		c.afterInput()
		c.endOurSide()
	}
	c.tidy()
}

// endOurSide tells the peer that nothing more comes. What it then still sends is thrown away.
func (c *Conn) endOurSide() {
	if c.has(flagFin) {
		return
	}
	c.flags |= flagFin
	if err := unix.Shutdown(int(c.fd), unix.SHUT_WR); err != nil {
		c.fail(ReasonPeer)
	}
}

func (c *Conn) drained() {
	defer func() {
		if r := recover(); r != nil {
			c.panicked(r)
		}
	}()
	c.loop.handler.Drained(c)
}
