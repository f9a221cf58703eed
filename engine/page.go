package engine

import "github.com/meshtalk/meshtalk/codec"

// A page is a plain request on the WebSocket listener. The engine reads its head and writes the answer; what is in it is
// for Options.Pages. What else comes on the connection is thrown away.

// page gives a request to Options.Pages.
func (c *Conn) page(h codec.Handshake) {
	c.state = statePage
	c.dropInput()
	c.tidy()
	l := c.loop
	p := &page{handle: c.Handle()}
	l.engine.o.Pages(h, func(response []byte) {
		p.response = response
		l.Post(p)
	})
}

// page is the operation that answers a request.
type page struct {
	handle   Handle
	response []byte
}

// Run implements Op.
func (p *page) Run(l *Loop) {
	slot := p.handle.slot()
	c := l.table.conn(slot)
	if c == nil || c.state != statePage || l.table.generation(slot) != p.handle.generation() {
		return
	}
	c.put(p.response)
	if c.state != statePage { // the write failed
		return
	}
	c.leave(ReasonPage, stateLinger)
	c.setDue(l.engine.o.HandshakeTimeout.Milliseconds()) // a page is longer than what a closing connection has to say
	c.afterInput()
}
