package rocketmq

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	dialTimeout  = 2 * time.Second
	writeTimeout = 3 * time.Second // for one frame; a peer that takes nothing for so long is gone
	// A peer with requests in it that has said nothing for quietBefore is asked for a sign of life, and given up when it is silent
	// for stalledAfter. Only a host that vanished without a word needs the second: a reset comes by itself.
	quietBefore  = time.Second
	stalledAfter = 5 * time.Second
)

var (
	errStalled = errors.New("rocketmq: the peer has said nothing for 5 s")
	errClosed  = errors.New("rocketmq: closed")
)

// answer is what a request waits for.
type answer struct {
	c   *command
	err error
}

// conn is one TCP connection with any number of requests under way. When it breaks, all of them fail at once. Safe for concurrent
// use.
type conn struct {
	net.Conn
	ping func() *command // a cheap request, nil = none

	heard atomic.Int64 // when the peer last said something, Unix ns

	write struct {
		sync.Mutex
		head []byte // reused
	}

	mu struct {
		sync.Mutex
		opaque  int32
		pending map[int32]chan<- answer // each with room for one
		err     error                   // why it has ended
	}
	ended chan struct{} // closed with mu.err
}

// serve reads answers until the connection ends; the caller runs it, and watch, in goroutines of their own.
func newConn(c net.Conn, ping func() *command) *conn {
	n := &conn{Conn: c, ping: ping, ended: make(chan struct{})}
	n.mu.pending = map[int32]chan<- answer{}
	n.heard.Store(time.Now().UnixNano())
	return n
}

func (n *conn) serve() {
	r := bufio.NewReaderSize(n, 64<<10)
	for {
		c, err := readCommand(r)
		if err != nil {
			n.fail(fmt.Errorf("rocketmq: connection to %s: %w", n.RemoteAddr(), err))
			return
		}
		n.heard.Store(time.Now().UnixNano())
		if c.flag&flagResponse == 0 {
			continue // brokers have requests for consumers that have registered; we have not
		}
		n.mu.Lock()
		waiting := n.mu.pending[c.opaque]
		delete(n.mu.pending, c.opaque)
		n.mu.Unlock()
		if waiting != nil {
			waiting <- answer{c: c}
		}
	}
}

// watch keeps asking a silent peer whether it lives, as long as somebody waits for it.
func (n *conn) watch() {
	t := time.NewTicker(quietBefore / 2)
	defer t.Stop()
	var asked int32 // the ping under way
	for {
		select {
		case <-n.ended:
			return
		case <-t.C:
		}
		silent := time.Since(time.Unix(0, n.heard.Load()))
		n.mu.Lock()
		busy := len(n.mu.pending) > 0
		_, pinging := n.mu.pending[asked]
		n.mu.Unlock()
		switch {
		case !busy || n.ping == nil || silent < quietBefore:
		case pinging && silent > stalledAfter:
			n.fail(errStalled)
			return
		case !pinging:
			asked, _ = n.send(n.ping(), make(chan answer, 1))
		}
	}
}

// fail ends the connection and everything that waits for it.
func (n *conn) fail(err error) {
	n.mu.Lock()
	if n.mu.err != nil {
		n.mu.Unlock()
		return
	}
	n.mu.err = err
	pending := n.mu.pending
	n.mu.pending = nil
	close(n.ended)
	n.mu.Unlock()
	_ = n.Close()
	for _, waiting := range pending {
		waiting <- answer{err: err}
	}
}

// send writes a request whose answer goes to waiting.
func (n *conn) send(c *command, waiting chan<- answer) (opaque int32, err error) {
	n.mu.Lock()
	if n.mu.err != nil {
		n.mu.Unlock()
		return 0, n.mu.err
	}
	n.mu.opaque++
	opaque = n.mu.opaque
	n.mu.pending[opaque] = waiting
	n.mu.Unlock()

	c.opaque = opaque
	n.write.Lock()
	n.write.head = c.appendHead(n.write.head[:0])
	_ = n.SetWriteDeadline(time.Now().Add(writeTimeout))
	frame := net.Buffers{n.write.head, c.body}
	if len(c.body) == 0 {
		frame = frame[:1]
	}
	_, err = frame.WriteTo(n.Conn)
	n.write.Unlock()
	if err != nil { // half a frame may be out
		n.fail(fmt.Errorf("rocketmq: connection to %s: %w", n.RemoteAddr(), err))
	}
	return opaque, nil // a failure is answered to all that wait
}

// call sends a request and waits for its answer. After an error the peer may have got it or not.
func (n *conn) call(ctx context.Context, c *command) (*command, error) {
	waiting := make(chan answer, 1)
	opaque, err := n.send(c, waiting)
	if err != nil {
		return nil, err
	}
	select {
	case a := <-waiting:
		return a.c, a.err
	case <-ctx.Done():
		n.mu.Lock()
		delete(n.mu.pending, opaque)
		n.mu.Unlock()
		return nil, context.Cause(ctx)
	}
}

// link is the connection to one address, made when it is needed and again when it has broken. Safe for concurrent use.
type link struct {
	addr string
	ping func() *command
	sign func(*command) // nil = no ACL
	wg   *sync.WaitGroup

	mu      sync.Mutex
	current *conn
	dial    *dial // under way, or nil
	closed  bool
}

// dial is one attempt to connect.
type dial struct {
	done chan struct{} // closed when conn or err is there
	conn *conn
	err  error
}

// call sends a request and waits for its answer.
func (l *link) call(ctx context.Context, c *command) (*command, error) {
	n, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	if l.sign != nil {
		l.sign(c)
	}
	return n.call(ctx, c)
}

func (l *link) get(ctx context.Context) (*conn, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, errClosed
	}
	if n := l.current; n != nil {
		select {
		case <-n.ended:
			l.current = nil
		default:
			l.mu.Unlock()
			return n, nil
		}
	}
	d := l.dial
	if d == nil {
		d = &dial{done: make(chan struct{})}
		l.dial = d
		l.wg.Go(func() { l.connect(d) })
	}
	l.mu.Unlock()
	select {
	case <-d.done:
		return d.conn, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *link) connect(d *dial) {
	c, err := net.DialTimeout("tcp", l.addr, dialTimeout)
	l.mu.Lock()
	defer l.mu.Unlock()
	defer close(d.done)
	l.dial = nil
	switch {
	case err != nil:
		d.err = fmt.Errorf("rocketmq: %w", err)
		return
	case l.closed:
		_ = c.Close()
		d.err = errClosed
		return
	}
	n := newConn(c, l.ping)
	l.wg.Go(n.serve)
	l.wg.Go(n.watch)
	d.conn, l.current = n, n
}

func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	n := l.current
	l.mu.Unlock()
	if n != nil {
		n.fail(errClosed)
	}
}
