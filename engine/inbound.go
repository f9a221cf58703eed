package engine

import (
	"errors"
	"math"
	"strings"

	"github.com/meshtalk/meshtalk/codec"
)

// keptBuffer is the capacity above which a buffer is left to the collector rather than given back to its pool.
const keptBuffer = 64 << 10

// receive takes what was read from the socket. data is the loop's read buffer and dies with the event.
func (c *Conn) receive(data []byte) {
	switch c.state {
	case stateUpgrade:
		c.upgrade(data)
	case stateOpen, stateClosing:
		c.input(data)
	}
}

// input cuts data, after what was kept, into frames.
func (c *Conn) input(data []byte) {
	held := c.has(flagPaused | flagReady)
	if x := c.x; x != nil && x.in != nil {
		c.keep(data, x.need)
		if held {
			c.interest(false)
		} else if len(x.in.B)-x.inOff >= x.need {
			c.inputKept(c.loop.engine.o.FramesPerEvent)
		}
		return
	}
	if held {
		c.keep(data, 0)
		return
	}
	n, need := c.frames(data, c.loop.engine.o.FramesPerEvent)
	c.keep(data[n:], need)
	c.afterInput()
}

// inputKept cuts what was kept into frames, at most limit.
func (c *Conn) inputKept(limit int) {
	x := c.x
	n, need := c.frames(x.in.B[x.inOff:], limit)
	x.inOff += n
	x.need = need
	c.afterInput()
}

// afterInput lets go of what has been used up and listens again when there is room.
func (c *Conn) afterInput() {
	if x := c.x; x != nil && x.in != nil && (x.inOff == len(x.in.B) || c.state >= stateLinger) {
		c.dropInput()
	}
	if !c.has(flagPaused | flagReady) {
		c.interest(true)
	}
	c.tidy()
}

// goOn is c's turn after it gave way to others or was resumed.
func (c *Conn) goOn() {
	c.flags &^= flagReady
	if c.state == stateDead || c.has(flagPaused) {
		return
	}
	if c.state == stateLinger || c.x == nil || c.x.in == nil {
		c.afterInput()
		return
	}
	c.inputKept(c.loop.engine.o.FramesPerEvent)
}

// keep copies bytes behind those that are kept. The room grows with what has arrived, not with need: a header alone
// must not cost its promise.
func (c *Conn) keep(data []byte, need int) {
	if len(data) == 0 || c.state > stateClosing {
		return
	}
	x := c.busy()
	if x.in == nil {
		x.in, x.inOff = c.loop.engine.inbound.Get(), 0
	}
	x.need = need
	b := x.in.B
	if x.inOff > 0 {
		b = b[:copy(b, b[x.inOff:])]
		x.inOff = 0
	}
	if least := len(b) + len(data); cap(b) < least {
		room := 2 * cap(b)
		if need >= least {
			room = min(room, need)
		}
		b = append(make([]byte, 0, max(room, least)), b...)
	}
	x.in.B = append(b, data...)
}

func (c *Conn) dropInput() {
	x := c.x
	if x == nil || x.in == nil {
		return
	}
	if cap(x.in.B) <= keptBuffer {
		c.loop.engine.inbound.Put(x.in)
	}
	x.in, x.inOff, x.need = nil, 0, 0
}

// frames cuts buf into frames and gives them to the handler until buf holds no whole one, limit is reached or c may not
// go on. It returns how many bytes are done with, and how many the rest must have before another look is of use.
func (c *Conn) frames(buf []byte, limit int) (taken, need int) {
	defer func() {
		if r := recover(); r != nil {
			c.panicked(r)
			taken = len(buf)
		}
	}()
	for i := 0; taken < len(buf); i++ {
		if c.state > stateClosing {
			return len(buf), 0
		}
		if c.has(flagPaused) {
			return taken, 0
		}
		if i == limit {
			c.queueReady()
			return taken, 0
		}
		msg, n, need, err := c.nextFrame(buf[taken:])
		if err != nil {
			c.violation(err)
			return len(buf), 0
		}
		taken += n
		switch {
		case msg.Op != 0:
			c.deliver(msg)
		case n == 0:
			return taken, need
		}
	}
	return taken, 0
}

func (c *Conn) nextFrame(buf []byte) (msg codec.Message, n, need int, err error) {
	if !c.has(flagWebSocket) {
		return c.loop.tcp.Next(buf)
	}
	x := c.busy()
	msg, n, need, err = x.ws.Next(buf)
	switch {
	case err != nil:
		// The framer is given up with the connection; it must not go back to the list.
		x.ws = codec.WSFramer{Max: c.loop.engine.o.MaxFrame}
		x.fragment = false
	case msg.Op == codec.OpText || msg.Op == codec.OpBinary:
		x.fragment = false
	case msg.Op == 0 && n > 0:
		x.fragment = true
	}
	return msg, n, need, err
}

// deliver gives one frame to whom it belongs.
func (c *Conn) deliver(msg codec.Message) {
	if c.state == stateClosing {
		if msg.Op == codec.OpClose {
			c.linger()
		}
		return
	}
	h := c.loop.handler
	switch msg.Op {
	case codec.OpText, codec.OpBinary:
		h.Message(c, msg.Op, msg.Payload)
	case codec.OpPing:
		c.send(codec.OpPong, msg.Payload, nil)
		h.Alive(c)
	case codec.OpPong:
		h.Alive(c)
	case codec.OpClose:
		c.peerClose(msg.Payload)
	}
}

// violation ends c because its bytes are no frames. It runs under the guard of frames.
func (c *Conn) violation(err error) {
	c.flags |= flagViolated
	if c.state == stateClosing {
		c.linger()
		return
	}
	var refused *codec.FrameError
	if !errors.As(err, &refused) {
		refused = &codec.FrameError{Close: closeProtocol, Reason: err.Error()}
	}
	c.loop.handler.Violation(c, refused)
	c.Close(ReasonProtocol, refused.Close, refused.Reason)
}

// statusOf is the status of an HTTP answer, such as "404 Not Found".
func statusOf(response []byte) string {
	line, _, _ := strings.Cut(string(response), "\r\n")
	_, status, _ := strings.Cut(line, " ")
	return status
}

// upgrade goes on with the request of a WebSocket connection.
func (c *Conn) upgrade(data []byte) {
	l := c.loop
	buf := data
	kept := c.x != nil && c.x.in != nil
	if kept {
		c.keep(data, 0)
		buf = c.x.in.B
	}
	h, response, n, ok := codec.Upgrade(buf, &l.engine.o.Upgrade)
	if response == nil {
		if !kept {
			c.keep(data, 0)
		}
		return
	}
	c.gatherRaw(response)
	if !ok {
		c.leave(ReasonHandshake, stateLinger, statusOf(response))
		c.afterInput()
		return
	}
	c.state = stateOpen
	l.table.setDue(c.slot, 0)
	c.opened(&h)
	if !kept {
		c.input(data[n:])
		return
	}
	c.x.inOff = n
	if n == len(buf) || c.has(flagPaused) {
		c.afterInput()
		return
	}
	c.inputKept(l.engine.o.FramesPerEvent)
}

// opened tells the handler of c.
func (c *Conn) opened(h *codec.Handshake) {
	defer func() {
		if r := recover(); r != nil {
			c.panicked(r)
		}
	}()
	c.loop.handler.Open(c, h)
}

// lastInput gives the handler the whole messages that had arrived before the peer ended its side and were kept because
// c had given way to others.
func (c *Conn) lastInput() {
	if c.state == stateOpen && !c.has(flagPaused) && c.x != nil && c.x.in != nil {
		c.inputKept(math.MaxInt)
	}
}
