package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/codec"
)

const (
	// Pauses of an acceptor that finds no free descriptor: the first and the longest.
	firstBackOff = 50 * time.Millisecond
	lastBackOff  = time.Second

	// enrolling bounds how many sockets of one acceptor are on their way into a loop. A loop takes them in between two
	// rounds of its sockets; with one at a time a busy loop would let in a few dozen connections a second. Each is a goroutine of gnet with a stack.
	enrolling = 64
)

// listener accepts on one address. gnet's own acceptor is not used: it ends the engine on the first EMFILE.
type listener struct {
	// Static.
	e         *Engine
	ln        *net.TCPListener
	transport codec.Transport
	address   netip.AddrPort
	stop      chan struct{}

	exhausted atomic.Bool  // gnet's second descriptor was not to be had
	episode   atomic.Bool  // out of descriptors, and said so in the log
	last      atomic.Int64 // when that was last so, ns since the engine was made
	closing   sync.Once
	acceptors sync.WaitGroup
}

// arrival is a socket on its way into a loop.
type arrival struct {
	c      *Conn
	result <-chan gnet.RegisteredResult
}

// listen opens a listener. Go sets SO_REUSEADDR on it and TCP_NODELAY on what it accepts. Keep-alive probes are off:
// silence is the handler's business.
func (e *Engine) listen(t codec.Transport, address string) (*listener, error) {
	config := net.ListenConfig{KeepAlive: -1}
	opened, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	ln := opened.(*net.TCPListener)
	bound := ln.Addr().(*net.TCPAddr).AddrPort()
	l := &listener{
		e:         e,
		ln:        ln,
		transport: t,
		address:   netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port()),
		stop:      make(chan struct{}),
	}
	for range e.o.Acceptors {
		arrivals := make(chan arrival, enrolling)
		l.acceptors.Add(2)
		go l.accept(arrivals)
		go l.collect(arrivals)
	}
	return l, nil
}

func (l *listener) close() {
	l.closing.Do(func() {
		close(l.stop)
		if err := l.ln.Close(); err != nil {
			l.e.logf("engine: close listener %v: %v", l.address, err)
		}
	})
}

// wait returns when every socket that was accepted is in its loop or closed.
func (l *listener) wait() { l.acceptors.Wait() }

// accept takes sockets until the listener closes. Out of descriptors it waits, longer each time, and goes on when the
// two that a connection needs on its way in are to be had; those who connect wait in the kernel's backlog meanwhile.
func (l *listener) accept(arrivals chan<- arrival) {
	defer l.acceptors.Done()
	defer close(arrivals)
	for pause := time.Duration(0); ; {
		var err error
		if pause > 0 {
			err = l.probe()
		}
		if err == nil {
			var conn *net.TCPConn
			if conn, err = l.ln.AcceptTCP(); err == nil {
				l.take(conn, arrivals)
			}
		}
		if err == nil && !l.exhausted.Swap(false) {
			pause = 0
			continue
		}
		select {
		case <-l.stop:
			return
		default:
		}
		if err != nil {
			l.refused(err)
		}
		pause = min(max(firstBackOff, 2*pause), lastBackOff)
		select {
		case <-l.stop:
			return
		case <-time.After(pause):
		}
	}
}

// probe reports whether two descriptors are to be had.
func (l *listener) probe() error {
	raw, err := l.ln.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for range 2 {
			var one int
			if one, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); failed != nil {
				return
			}
			defer unix.Close(one) //nolint:errcheck // it was never used
		}
	})
	return errors.Join(err, failed)
}

// refused counts an error of accept, or of gnet's dup, and logs the first of an episode without descriptors.
func (l *listener) refused(err error) {
	if !outOf(err) {
		l.e.accepts[acceptError].Add(1)
		l.e.logf("engine: accept on %v: %v", l.address, err)
		return
	}
	l.e.accepts[outOfFiles].Add(1)
	l.last.Store(int64(time.Since(l.e.started)))
	if !l.episode.Swap(true) {
		l.e.logf("engine: accept on %v: %v; new connections wait until there is room", l.address, err)
	}
}

// outOf reports whether err tells of something that connections that close give back.
func outOf(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// take judges a socket and sends it on its way to the loop with the fewest connections.
func (l *listener) take(conn *net.TCPConn, arrivals chan<- arrival) {
	remote, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || remote == nil { // reset while it waited; gnet would panic
		l.e.accepts[acceptError].Add(1)
		reset(conn)
		return
	}
	address := remote.AddrPort()
	if result := l.e.admission.admit(address.Addr().Unmap().WithZone("")); result != accepted {
		l.e.accepts[result].Add(1)
		reset(conn)
		return
	}
	loop := l.e.leastLoaded()
	loop.assigned.Add(1)
	c := &Conn{loop: loop, addr: address.Addr().As16(), port: address.Port(), slot: noSlot, fd: -1, state: stateOpen}
	if l.transport == codec.WebSocket {
		c.state, c.flags = stateUpgrade, flagWebSocket
	}
	result, err := loop.el.Enroll(gnet.NewContext(context.Background(), c), conn)
	if err != nil {
		l.lost(c, err)
		reset(conn)
		return
	}
	arrivals <- arrival{c, result}
}

// collect hears how the arrivals fared, in their order.
func (l *listener) collect(arrivals <-chan arrival) {
	defer l.acceptors.Done()
	for a := range arrivals {
		r := <-a.result
		switch {
		case r.Err != nil:
			l.lost(a.c, r.Err)
		case a.c.slot == noSlot:
			l.lost(a.c, errors.New("the poller did not take the socket"))
		default:
			l.e.accepts[accepted].Add(1)
			// An episode is over when it went well for longer than the longest pause.
			if l.episode.Load() && int64(time.Since(l.e.started))-l.last.Load() > int64(2*lastBackOff) {
				l.episode.Store(false)
			}
		}
	}
}

// lost undoes the admission of a socket that no loop took. gnet has closed it.
func (l *listener) lost(c *Conn, err error) {
	c.loop.assigned.Add(-1)
	l.e.admission.release(c.Remote().Addr())
	if outOf(err) {
		l.exhausted.Store(true)
	}
	l.refused(err)
}

// reset closes a socket that is not let in, without the state that an orderly end would leave in the kernel.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// leastLoaded is the loop with the fewest connections, those on their way included.
func (e *Engine) leastLoaded() *Loop {
	best := e.loops[0]
	least := best.assigned.Load()
	for _, l := range e.loops[1:] {
		if n := l.assigned.Load(); n < least {
			best, least = l, n
		}
	}
	return best
}
