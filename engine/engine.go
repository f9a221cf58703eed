// Package engine is the reactor: sockets, event loops, admission and back-pressure. It is the only package that
// imports gnet, and no type of gnet leaves it. It knows frames (package codec) and nothing of what they mean.
//
// Everything of a connection happens on its event loop: Handler's methods and all methods of Conn run there and
// nowhere else. From outside there is one way onto a loop: Loop.Post.
//
// gnet polls, reads and closes; writing is the engine's own (outbound.go), because gnet's outbound buffer has no bound,
// no callback when it empties, and closes the connection from inside a failed write.
package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/valyala/bytebufferpool"

	"github.com/meshtalk/meshtalk/codec"
)

// Handler is the protocol above the frames. Its methods run on the connection's loop, one at a time per loop; they must
// not block. A panic in one of them closes that connection with ReasonPanic, is counted and logged, and nothing else.
type Handler interface {
	// Open: the connection exists; on WebSocket after the upgrade, with its request; on TCP h is nil.
	Open(c *Conn, h *codec.Handshake)
	// Message: one whole text or binary message. payload is valid until it returns. Pings, pongs and the close
	// handshake never get here, but Alive tells of them.
	Message(c *Conn, op codec.Op, payload []byte)
	// Alive: a ping or pong arrived (a sign of life that is no packet).
	Alive(c *Conn)
	// Violation: the framer refused the bytes (codec.FrameError). The handler may send a last packet; the engine then
	// closes with the error's code.
	Violation(c *Conn, err *codec.FrameError)
	// Expired: the deadline set by SetDeadline has passed. It is cleared; the handler closes or sets a new one.
	Expired(c *Conn)
	// Drained: everything sent so far has been handed to the kernel (after a flush or when a full socket had room again).
	Drained(c *Conn)
	// Closed is the last call for c. c.Send does nothing in it.
	Closed(c *Conn, why Reason)
}

// Op is an operation to run on a loop. Implementations are pooled by their owners; Run may recycle the receiver.
type Op interface{ Run(l *Loop) }

// Engine runs the loops and listeners.
type Engine struct {
	// Static after New.
	o       Options
	started time.Time // the base of the loops' monotonic clock

	// Static after Start.
	loops   []*Loop
	client  *gnet.Client
	watcher *watcher

	inbound  bytebufferpool.Pool // bytes that are no whole frame yet
	outbound bytebufferpool.Pool // bytes that the kernel did not take

	admission admission
	accepts   [acceptResults]atomic.Int64
	panics    atomic.Int64

	mu struct {
		sync.Mutex
		running   bool // between Start and Stop
		stopped   bool
		listeners []*listener
	}
	background sync.WaitGroup // the clock
	stopClock  chan struct{}
	stopOnce   sync.Once
	ended      chan struct{} // closed when every goroutine of the engine has ended
}

// New checks o and makes an engine; nothing runs yet. Fields of o that are zero and must not be get their default.
func New(o Options) (*Engine, error) {
	o, err := o.complete()
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	e := &Engine{o: o, started: time.Now(), stopClock: make(chan struct{}), ended: make(chan struct{})}
	e.admission.init(&e.o)
	return e, nil
}

// Start starts the loops. It returns once every loop runs.
func (e *Engine) Start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.running || e.mu.stopped {
		return errors.New("engine: started twice")
	}
	for i := range e.o.Loops {
		e.loops = append(e.loops, newLoop(e, i))
	}
	if err := e.startLoops(); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	e.background.Add(1)
	go e.tick()
	e.mu.running = true
	return nil
}

// Loops are the event loops, indexed by Handle.Loop.
func (e *Engine) Loops() []*Loop { return e.loops }

// Listen opens a listener (address as in net.Listen, port 0 = any) and accepts on it. It returns the bound address.
func (e *Engine) Listen(t codec.Transport, address string) (netip.AddrPort, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.mu.running {
		return netip.AddrPort{}, errors.New("engine: listen before start or after stop")
	}
	ln, err := e.listen(t, address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	e.mu.listeners = append(e.mu.listeners, ln)
	return ln.address, nil
}

// StopAccepting closes the listeners; connections live on.
func (e *Engine) StopAccepting() {
	e.mu.Lock()
	listeners := e.mu.listeners
	e.mu.listeners = nil
	e.mu.Unlock()
	for _, ln := range listeners {
		ln.close()
	}
	for _, ln := range listeners {
		ln.wait()
	}
}

// Stop closes all connections with ReasonShutdown after flushing what is gathered, ends the loops and returns when
// every goroutine of the engine has ended or ctx is done. Peers have CloseTimeout to end their side. When ctx is done
// the rest is cut off and ends in the background; Stop then returns ctx's error.
func (e *Engine) Stop(ctx context.Context) error {
	e.mu.Lock()
	running := e.mu.running
	e.mu.running, e.mu.stopped = false, true
	e.mu.Unlock()
	e.stopOnce.Do(func() {
		if !running {
			close(e.ended)
			return
		}
		go e.end(ctx.Done())
	})
	select {
	case <-e.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end is the whole way down. cut being closed means not to wait for peers any longer.
func (e *Engine) end(cut <-chan struct{}) {
	defer close(e.ended)
	e.StopAccepting()
	for _, l := range e.loops {
		l.Post(closeAll{})
	}
	for _, l := range e.loops {
		select {
		case <-l.empty:
		case <-cut:
		}
	}
	for _, l := range e.loops {
		l.Post(finish{})
	}
	for _, l := range e.loops {
		<-l.finished
	}
	close(e.stopClock)
	e.background.Wait()
	e.stopLoops()
}

func (e *Engine) logf(format string, args ...any) {
	if e.o.Logf != nil {
		e.o.Logf(format, args...)
	}
}
