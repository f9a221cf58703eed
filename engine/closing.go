package engine

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/codec"
)

// How a connection ends. The handler's part ends with leave: it hears nothing more but Closed, which follows at the end
// of the event or drain. The socket's part goes on without it: what is gathered leaves, WebSocket waits for the peer's
// close frame, then our side is shut and what still comes in is thrown away until the peer has shut its own, because
// closing a socket with unread bytes makes the kernel send a reset, which destroys our last packet on its way. All of
// that has CloseTimeout.

// Close flushes what is gathered, on WebSocket sends a close frame with code and reason and waits for the peer's up to
// CloseTimeout, and ends the connection. It is the handler's last word: Closed follows at the end of the event or
// drain, never from inside Close itself, and nothing else is called for c in between.
func (c *Conn) Close(why Reason, code uint16, reason string) {
	if c.state != stateOpen {
		return
	}
	to := stateLinger
	if c.has(flagWebSocket) {
		c.gatherClose(code, reason)
		if !c.has(flagViolated | flagSlow) {
			to = stateClosing
		}
	}
	c.leave(why, to, reason)
}

// leave takes c from the handler. to is how far it is then.
func (c *Conn) leave(why Reason, to connState, detail string) {
	l := c.loop
	l.stats.closes[why].Add(1)
	if f := l.engine.o.OnClosed; f != nil {
		c.tellClosed(f, why, detail)
	}
	if c.state == stateOpen {
		l.gone = append(l.gone, ended{c, why})
	}
	c.state = to
	c.flags &^= flagPaused
	if to == stateDead {
		return
	}
	c.setDue(l.engine.o.CloseTimeout.Milliseconds())
	if to == stateClosing && c.x != nil && c.x.in != nil {
		c.queueReady() // the peer's close frame may be among what was kept
	}
	c.interest(true)
	c.touch()
}

// linger goes from waiting for the peer's close frame to the end of our side.
func (c *Conn) linger() {
	c.state = stateLinger
	c.touch()
}

// closed is the handler's last call.
func (c *Conn) closed(why Reason) {
	defer func() {
		if r := recover(); r != nil {
			c.loop.engine.panicked("handler", r)
		}
	}()
	defer c.loop.table.retire(c.slot)
	c.loop.handler.Closed(c, why)
}

// peerClose answers the peer's close frame, which the framer has checked.
func (c *Conn) peerClose(payload []byte) {
	code, err := codec.CloseCode(payload)
	if err != nil {
		c.violation(err)
		return
	}
	c.gatherClose(code, "")
	c.leave(ReasonPeer, stateLinger, closeText(code))
}

// tooSlow ends c because the peer reads too little: what it has not taken is dropped at the end of the event.
func (c *Conn) tooSlow() {
	c.flags |= flagSlow
	if f := c.loop.engine.o.OnTooSlow; f != nil {
		c.tellTooSlow(f)
	}
	c.Close(ReasonTooSlow, closePolicy, "too slow")
}

func (c *Conn) tellClosed(f func(*Conn, Reason, string), why Reason, detail string) {
	defer func() {
		if r := recover(); r != nil {
			c.loop.engine.panicked("handler", r)
		}
	}()
	f(c, why, detail)
}

func (c *Conn) tellTooSlow(f func(*Conn)) {
	defer func() {
		if r := recover(); r != nil {
			c.panicked(r)
		}
	}()
	f(c)
}

// panicked ends c after a panic in its handler. It is called by the deferred function that recovered.
func (c *Conn) panicked(r any) {
	c.loop.engine.panicked("handler", r)
	c.flags |= flagViolated
	c.Close(ReasonPanic, closeInternal, "internal error")
	if c.state == stateClosing {
		c.linger()
	}
}

// fail ends c after an error of its socket, or for want of patience. It may be called from inside Send.
func (c *Conn) fail(why Reason) {
	if c.state == stateDead {
		return
	}
	if c.state <= stateOpen {
		c.leave(why, stateDead, "")
	}
	c.state = stateDead
	c.loop.doomed = append(c.loop.doomed, c)
}

// timeout is c's deadline, the handler's or the engine's own.
func (c *Conn) timeout() {
	switch c.state {
	case stateUpgrade:
		c.fail(ReasonHandshake)
	case stateOpen:
		c.expired()
	default:
		c.fail(ReasonPeer)
	}
}

func (c *Conn) expired() {
	defer func() {
		if r := recover(); r != nil {
			c.panicked(r)
		}
	}()
	c.loop.handler.Expired(c)
}

// socketClosed is gnet's word that c's socket is at its end; the descriptor is closed after it returns.
func (c *Conn) socketClosed(err error) {
	l := c.loop
	if c.state != stateDead {
		if errors.Is(err, io.EOF) {
			c.lastInput()
		}
		l.writeOne(c)
	}
	if c.state <= stateOpen {
		c.leave(reasonOf(err), stateDead, errorText(err))
	}
	c.state = stateDead
	l.tellGone()
	c.release()
}

// release gives back everything that c holds.
func (c *Conn) release() {
	l := c.loop
	l.out.forget(c)
	c.dropInput()
	c.dropOutput()
	c.x = nil // its framer may hold a part of a message
	l.table.remove(c.slot)
	l.stats.connections[c.Transport()].Add(-1)
	c.gc = nil
	c.fd = -1
	l.assigned.Add(-1)
	l.engine.admission.release(c.Remote().Addr())
	if l.stopping && l.table.count == 0 {
		l.signalEmpty()
	}
}

// closeText is what a peer's close frame said, in words that cost nothing: many connections may end at once.
func closeText(code uint16) string {
	switch code {
	case 1000:
		return "closed normally"
	case closeGoingAway:
		return "going away"
	case 1005:
		return "closed without a code"
	case closeProtocol:
		return "told of a protocol error"
	}
	return "closed with another code"
}

// errorText is what a socket's end is called, "" when the peer just closed.
func errorText(err error) string {
	if err == nil || errors.Is(err, io.EOF) {
		return ""
	}
	return err.Error()
}

// reasonOf tells a peer that went from a socket that failed.
func reasonOf(err error) Reason {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return ReasonPeer
	}
	return ReasonError
}

// closeAll is the operation that begins the end of a loop.
type closeAll struct{}

func (closeAll) Run(l *Loop) {
	l.stopping = true
	for _, k := range l.table.chunks {
		for _, c := range &k.conn {
			switch {
			case c == nil:
			case c.state == stateUpgrade:
				c.fail(ReasonShutdown)
			case c.state == stateOpen:
				c.Close(ReasonShutdown, closeGoingAway, "going away")
			}
		}
	}
	if l.table.count == 0 {
		l.signalEmpty()
	}
}

func (l *Loop) signalEmpty() {
	select {
	case <-l.empty:
	default:
		close(l.empty)
	}
}

// finish is the operation that ends a loop: it cuts off who is left, and when what else was posted has run the loop
// takes no more.
type finish struct{}

func (finish) Run(l *Loop) {
	l.ending = true
	for _, k := range l.table.chunks {
		for _, c := range &k.conn {
			if c != nil {
				c.fail(ReasonShutdown)
			}
		}
	}
}
