// Package engine is the reactor: sockets, event loops, admission and back-pressure. It is the only package that
// imports gnet, and no type of gnet leaves it. It knows frames (package codec) and nothing of what they mean.
//
// Everything of a connection happens on its event loop: Handler's methods and all methods of Conn run there and
// nowhere else. From outside there is one way onto a loop: Loop.Post.
package engine

import (
	"context"
	"net/netip"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// Handle names a connection off its loop: loop index, slot in the loop's table and the slot's generation, so that a
// handle of a closed connection finds nothing rather than its successor. The zero Handle names none.
type Handle uint64

// Loop is the index of the event loop that owns the connection.
func (h Handle) Loop() int { panic("stub") }

// Reason is why a connection ended. Its string is the label of meshtalk_closes_total.
type Reason uint8

// Reasons the engine itself gives. A Handler closes with these or with Reason values from FirstHandlerReason on.
const (
	ReasonPeer         Reason = iota // the peer closed or reset
	ReasonError                      // a socket error
	ReasonHandshake                  // no whole upgrade request in time, or a refused one
	ReasonProtocol                   // the framer refused the bytes
	ReasonTooSlow                    // more than the hard limit unread
	ReasonPanic                      // the handler panicked
	ReasonShutdown                   // the engine stops
	FirstHandlerReason Reason = 32
)

// Handler is the protocol above the frames. Its methods run on the connection's loop, one at a time per loop; they must
// not block. A panic in one of them closes that connection with ReasonPanic, is counted and logged, and nothing else.
type Handler interface {
	// Open: the connection exists; on WebSocket after the upgrade, with its request.
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

// Options of an Engine. DefaultOptions has the defaults.
type Options struct {
	Handler                  Handler
	Loops                    int // event loops; 0 = GOMAXPROCS
	Acceptors                int // goroutines in accept per listener; default 1
	MaxFrame                 int // bytes of one inbound message; default 65,535
	Upgrade                  codec.UpgradeRules
	SoftLimit                int           // bytes of outbound above which Conn.Room is 0; default 64 KiB
	HardLimit                int           // bytes of outbound above which the connection closes with ReasonTooSlow; default 1 MiB
	HandshakeTimeout         time.Duration // accept → upgraded; default 5 s
	CloseTimeout             time.Duration // our close frame → the peer's; default 2 s
	FramesPerEvent           int           // then the loop goes on to others; default 64
	MaxConnections           int           // 0 = RLIMIT_NOFILE − reserve
	MaxPerIP                 int           // 0 = no limit
	HandshakesPerSecondPerIP int           // 0 = no limit
	// OnTooSlow is called on the loop just before a connection over HardLimit is closed (to write the ERROR packet).
	OnTooSlow func(c *Conn)
	Logf      func(format string, args ...any) // engine events and panics with their stack; default: none
}

// Engine runs the loops and listeners.
type Engine struct{}

// New checks o and makes an engine; nothing runs yet.
func New(o Options) (*Engine, error) { panic("stub") }

// Start starts the loops. It returns once every loop runs.
func (e *Engine) Start() error { panic("stub") }

// Listen opens a listener (address as in net.Listen, port 0 = any) and accepts on it. It returns the bound address.
func (e *Engine) Listen(t codec.Transport, address string) (netip.AddrPort, error) { panic("stub") }

// StopAccepting closes the listeners; connections live on.
func (e *Engine) StopAccepting() { panic("stub") }

// Stop closes all connections with ReasonShutdown after flushing what is gathered, ends the loops and returns when
// every goroutine of the engine has ended or ctx is done.
func (e *Engine) Stop(ctx context.Context) error { panic("stub") }

// Loops are the event loops, indexed by Handle.Loop.
func (e *Engine) Loops() []*Loop { panic("stub") }

// Stats is a snapshot of the engine's counters, safe to take from anywhere.
type Stats struct {
	Connections       [2]int64         // by codec.Transport
	Accepts           map[string]int64 // by result: accepted, limit, per_ip, rate, emfile, error
	Closes            map[Reason]int64
	BytesIn, BytesOut int64
	OutboundBytes     int64 // gathered or buffered now
	Panics            int64
	LoopQueue         []int     // operations waiting, per loop
	LoopLag           []float64 // seconds from Post to Run of the last drained operation, per loop
}

func (e *Engine) Stats() Stats { panic("stub") }

// Loop is one event loop.
type Loop struct {
	// Index in Engine.Loops.
	Index int
	// Data belongs to the Handler and is touched on the loop only.
	Data any
}

// Post queues op: operations of one loop run in the order of their Posts, one Post wakes an idle loop, and what they
// sent is flushed once at the end of a drain. Safe from anywhere, including the loop itself (it then runs in the same or the next drain, never inline).
// It reports false after the loop has ended: op will never run.
func (l *Loop) Post(op Op) bool { panic("stub") }

// Backlog is how many operations wait; producers of unbounded work look at it and hold back.
func (l *Loop) Backlog() int { panic("stub") }

// Conn is the live connection of h, or nil. On the loop only.
func (l *Loop) Conn(h Handle) *Conn { panic("stub") }

// Now is the loop's clock, read once per event or drain: seconds and milliseconds since the Unix epoch. On the loop only.
func (l *Loop) Now() (ms int64) { panic("stub") }

// Each calls f for every open connection (after its Open, before its Closed) of the loop until f returns false. On the loop only; f may close the connection.
func (l *Loop) Each(f func(c *Conn) bool) { panic("stub") }

// Conn is one connection. All methods on its loop only.
type Conn struct {
	// State belongs to the Handler.
	State any
}

func (c *Conn) Handle() Handle             { panic("stub") }
func (c *Conn) Loop() *Loop                { panic("stub") }
func (c *Conn) Transport() codec.Transport { panic("stub") }
func (c *Conn) Remote() netip.AddrPort     { panic("stub") }

// Send gathers one text message made of head followed by tail. head is copied; tail is copied or, when large, referenced until it
// is flushed, so it must never change. All messages of a drain leave in one write. Nothing is sent after Close.
func (c *Conn) Send(head, tail []byte) { panic("stub") }

// SendOp is Send with an opcode of WebSocket (text, binary, ping).
func (c *Conn) SendOp(op codec.Op, payload []byte) { panic("stub") }

// Room is how many bytes may be sent until the soft limit, 0 when it is reached. Pushes stop at 0; answers to the
// client's own packets may go beyond, up to the hard limit.
func (c *Conn) Room() int { panic("stub") }

// Outbound is how many bytes have been sent and not yet handed to the kernel.
func (c *Conn) Outbound() int { panic("stub") }

// SetDeadline asks for Expired at or after the time (ms since the Unix epoch, resolution 1 s, never early); 0 = none.
func (c *Conn) SetDeadline(ms int64) { panic("stub") }

// Close flushes what is gathered, on WebSocket sends a close frame with code and reason and waits for the peer's up to
// CloseTimeout, and ends the connection. Closed follows, maybe from inside this call's drain, never from inside Close itself.
func (c *Conn) Close(why Reason, code uint16, reason string) { panic("stub") }

// Pause stops the reading of further messages from c until Resume: the bytes stay where they are. For a handler with
// one request in flight. It takes effect before the next Message call.
func (c *Conn) Pause()  { panic("stub") }
func (c *Conn) Resume() { panic("stub") }
