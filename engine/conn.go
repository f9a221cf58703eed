package engine

import (
	"net/netip"

	"github.com/panjf2000/gnet/v2"
	"github.com/valyala/bytebufferpool"
	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/codec"
)

// connState is where a connection stands. It only grows.
type connState uint8

const (
	stateUpgrade connState = iota // WebSocket: the request is not whole yet; the handler knows nothing
	statePage                     // a plain request is with Options.Pages; the handler knows nothing
	stateOpen                     // the handler's
	stateClosing                  // WebSocket: our close frame is gathered or sent, the peer's is awaited
	stateLinger                   // what is gathered leaves, then our side ends; what comes in is thrown away until the peer ends its side
	stateDead                     // nothing leaves any more; the socket is closed at the end of the event, or is
)

// connFlags are the yes-or-no parts of a connection's state.
type connFlags uint8

const (
	flagWebSocket connFlags = 1 << iota
	flagPaused              // the handler's Pause
	flagReady               // in Loop.ready: kept bytes wait for their turn
	flagDeaf                // gnet does not poll for reading
	flagViolated            // what comes in can no longer be cut into frames
	flagSlow                // over the hard limit
	flagFin                 // our side has ended: shutdown(SHUT_WR)
	flagSent                // something was sent since the last Drained
)

// Conn is one connection. All methods on its loop only.
//
// An idle connection is this one object of 80 bytes, 16 bytes in the loop's table, and what gnet keeps.
type Conn struct {
	// State belongs to the Handler.
	State any

	// Static once open.
	gc   gnet.Conn // nil before gnet opened it and after it closed it
	loop *Loop

	x *traffic // nil when nothing is under way

	addr  [16]byte // of the peer, as in netip.Addr.As16
	slot  uint32
	dirty uint32 // index + 1 in gather.dirty, 0 = not there
	fd    int32
	port  uint16 // of the peer
	state connState
	flags connFlags
}

// noSlot is the slot of a connection that gnet never opened.
const noSlot = ^uint32(0)

// traffic is what a connection needs only while something is under way: bytes that are no whole frame yet, a message in
// fragments, bytes that the kernel did not take. It comes from the loop's list and goes back when all are gone.
type traffic struct {
	in       *bytebufferpool.ByteBuffer // kept inbound bytes in.B[inOff:], nil = none
	inOff    int
	need     int                        // bytes that in must hold before the framer is asked again
	out      *bytebufferpool.ByteBuffer // out.B[outOff:] waits for the socket, nil = none
	outOff   int
	ws       codec.WSFramer
	fragment bool // ws holds a part of a message
}

// keptTraffic bounds the loop's list of free traffic (120 bytes each).
const keptTraffic = 1024

// busy is c's traffic, made when there is none.
func (c *Conn) busy() *traffic {
	if c.x != nil {
		return c.x
	}
	l := c.loop
	if n := len(l.traffic); n > 0 {
		c.x = l.traffic[n-1]
		l.traffic = l.traffic[:n-1]
		return c.x
	}
	c.x = &traffic{ws: codec.WSFramer{Max: l.engine.o.MaxFrame}}
	return c.x
}

// tidy gives c's traffic back when nothing is under way. Not while a framer or a handler is at work on c.
func (c *Conn) tidy() {
	x := c.x
	if x == nil || x.in != nil || x.out != nil || x.fragment {
		return
	}
	c.x = nil
	if l := c.loop; len(l.traffic) < keptTraffic {
		l.traffic = append(l.traffic, x)
	}
}

func (c *Conn) has(f connFlags) bool { return c.flags&f != 0 }

// Handle names c off its loop.
func (c *Conn) Handle() Handle {
	return makeHandle(c.loop.Index, c.loop.table.generation(c.slot), c.slot)
}

// Loop is the event loop that owns c.
func (c *Conn) Loop() *Loop { return c.loop }

// Transport is how c frames its messages.
func (c *Conn) Transport() codec.Transport {
	if c.has(flagWebSocket) {
		return codec.WebSocket
	}
	return codec.TCP
}

// Remote is the peer's address; an IPv4 peer has an IPv4 address, whatever the listener. Zones are not kept.
func (c *Conn) Remote() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(c.addr).Unmap(), c.port)
}

// SetDeadline asks for Expired at or after the time (ms since the Unix epoch, resolution 1 s, never early); 0 = none.
// The time that is left is measured by the monotonic clock: setting the host's clock expires nothing.
func (c *Conn) SetDeadline(ms int64) {
	if c.state != stateOpen {
		return
	}
	if ms == 0 {
		c.loop.table.setDue(c.slot, 0)
		return
	}
	c.setDue(ms - c.loop.ms)
}

// setDue sets the deadline to left milliseconds from now, rounded up to what the sweep can tell.
func (c *Conn) setDue(left int64) {
	l := c.loop
	// One more millisecond, because both clocks were cut to milliseconds.
	second := (l.uptime + max(left, 0) + 1 + 999) / 1000
	l.table.setDue(c.slot, uint32(min(second, int64(^uint32(0)))))
}

// Pause stops the reading of further messages from c until Resume: the bytes stay where they are. For a handler with
// one request in flight. It takes effect before the next Message call, and ends by itself when the connection does.
//
// What has been read already is kept; when more arrives the loop no longer polls the socket for reading, so a paused
// connection holds at most one incomplete message and two reads of 64 KiB, and the peer meets TCP's own back-pressure.
// A reset is still noticed, the end of the peer's side only after Resume.
func (c *Conn) Pause() {
	if c.state == stateOpen {
		c.flags |= flagPaused
	}
}

// Resume undoes Pause. Messages that wait are delivered in one of the loop's next turns, never from inside Resume.
func (c *Conn) Resume() {
	if !c.has(flagPaused) {
		return
	}
	c.flags &^= flagPaused
	// Nothing may be kept and the socket unpolled all the same: the last kept message was what paused it again.
	if c.state == stateOpen && (c.x != nil && c.x.in != nil || c.has(flagDeaf)) {
		c.queueReady()
	}
}

// queueReady gives c's kept bytes a turn after the other sockets.
func (c *Conn) queueReady() {
	if c.has(flagReady) {
		return
	}
	c.flags |= flagReady
	c.loop.ready = append(c.loop.ready, c)
}

// interest makes gnet's poller ask for reading, or for nothing but errors. gnet has no call for that; it is sound
// because gnet itself changes the interest of a connection only together with its outbound buffer, which stays empty.
func (c *Conn) interest(read bool) {
	if c.has(flagDeaf) != read || c.gc == nil {
		return
	}
	event := unix.EpollEvent{Fd: c.fd}
	if read {
		event.Events = unix.EPOLLIN | unix.EPOLLPRI
	}
	if err := unix.EpollCtl(c.loop.epoll, unix.EPOLL_CTL_MOD, int(c.fd), &event); err != nil {
		c.loop.engine.logf("engine: change interest: %v", err)
		return
	}
	c.flags ^= flagDeaf
}
