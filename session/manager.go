package session

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/engine"
	"github.com/meshtalk/meshtalk/hub"
)

// Settings may change while the server runs (SIGHUP): Manager.Apply.
type Settings struct {
	MessagesPerSecond int // per connection; 0 = off
	MessagesBurst     int
}

// Options of a Manager.
type Options struct {
	Hub   *hub.Hub
	Auth  auth.Authenticator
	Hooks Hooks

	HeartbeatInterval time.Duration // what LOGIN tells the client
	HeartbeatTimeout  time.Duration // silence that closes
	LoginTimeout      time.Duration
	RecallWindow      time.Duration
	HistoryEnable     bool
	// Reorder is how long an entry waits for its predecessor before the store is read; 0 on a node that is alone, where none overtakes.
	Reorder  time.Duration
	Settings Settings

	Logf func(format string, args ...any)
}

// Manager is the engine's Handler: it makes a Session of every connection and hands packets to the command table.
// Its Handler methods run on the event loops.
type Manager struct {
	o         Options
	hub       *hub.Hub
	epoch     string
	loops     []*loop
	deadlines deadlines

	observer atomic.Pointer[func(Event)] // who is told of errors and closes, nil = nobody
}

var _ engine.Handler = (*Manager)(nil)

// New makes a manager. Connect must follow before the first connection.
func New(o Options) *Manager {
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	return &Manager{o: o, hub: o.Hub, epoch: o.Hub.Store().Epoch()}
}

// Connect gives the manager the event loops and returns them as the hub's outlets, in the same order.
func (m *Manager) Connect(loops []*engine.Loop) []hub.Outlet {
	outlets := make([]hub.Outlet, len(loops))
	for i, el := range loops {
		l := &loop{m: m, el: el, follows: make(map[string]*follow)}
		l.settings = m.o.Settings
		el.Data = l
		m.loops = append(m.loops, l)
		outlets[i] = l
	}
	return outlets
}

// LoopOf is hub.Options.LoopOf.
func LoopOf(r hub.Ref) int { return engine.Handle(r).Loop() }

// Apply changes the settings of all connections.
func (m *Manager) Apply(s Settings) {
	for _, l := range m.loops {
		l.post(func() { l.settings = s })
	}
}

// loop is the manager's part of one event loop: everything in it belongs to the loop but m and el.
type loop struct {
	m  *Manager
	el *engine.Loop

	settings Settings
	// scratch holds one packet while it is encoded; Conn.Send copies it.
	scratch []byte
	// head is the head of the message that is being pushed to a large group; what happens to one follower, a LAG, takes scratch.
	head []byte
	// in is the packet that is being handled: here, so that it costs no allocation. It dies with the handler's return.
	in struct {
		packet codec.Packet
		send   codec.SendRequest
	}
	follows map[string]*follow // large groups that sessions here follow, and the heads seen of others
	pending pending            // receipts and positions that wait a moment
	taken   []*[]taken         // spare lists for Session.taken
	// draining: GOAWAY was sent, nothing more is read.
	draining bool
	stats    loopStats
}

// opFunc is an operation of the rarer kind: a closure.
type opFunc func()

// Run implements engine.Op.
func (f opFunc) Run(*engine.Loop) { f() }

// post queues f on the loop. Safe from anywhere. After the loop has ended f never runs.
func (l *loop) post(f func()) { l.el.Post(opFunc(f)) }

// session is the logged-in or logging-in session of a handle, or nil.
func (l *loop) session(r hub.Ref) *Session {
	c := l.el.Conn(engine.Handle(r))
	if c == nil {
		return nil
	}
	s, _ := c.State.(*Session)
	return s
}

// Open implements engine.Handler.
func (m *Manager) Open(c *engine.Conn, h *codec.Handshake) {
	now := c.Loop().Now()
	s := &Session{conn: c, lastSeen: ceilSeconds(now)}
	if h != nil && h.Token != "" {
		s.extra().token = h.Token
	}
	c.State = s
	c.SetDeadline(now + m.o.LoginTimeout.Milliseconds())
}

// Message implements engine.Handler.
func (m *Manager) Message(c *engine.Conn, op codec.Op, payload []byte) {
	s := c.State.(*Session)
	s.lastSeen = ceilSeconds(c.Loop().Now())
	if op == codec.OpBinary {
		c.Close(ReasonBinary, 1003, "binary messages are reserved")
		return
	}
	s.packet(payload)
}

// Alive implements engine.Handler. A ping is no packet: only packets keep a session (PROTOCOL §5).
func (m *Manager) Alive(*engine.Conn) {}

// Violation implements engine.Handler. What breaks RFC 6455 itself is told by the close code alone.
func (m *Manager) Violation(c *engine.Conn, err *codec.FrameError) {
	if err.Close == 1009 {
		c.State.(*Session).refuse(nil, codec.CodeTooLarge, "packet over the limit")
	}
}

// TooSlow is engine.Options.OnTooSlow.
func (m *Manager) TooSlow(c *engine.Conn) {
	if s, ok := c.State.(*Session); ok {
		s.refuse(nil, codec.CodeTooSlow, "answers are not read")
		c.Close(engine.ReasonTooSlow, uint16(codec.CodeTooSlow), "answers are not read")
	}
}

// Expired implements engine.Handler: the login, the silence or the token has reached its end, or the deadline moves on.
func (m *Manager) Expired(c *engine.Conn) {
	s, now := c.State.(*Session), c.Loop().Now()
	switch {
	case s.state != online:
		s.end(codec.CodeTimeout, "no LOGIN in time")
	case s.tokenEnd() <= now:
		s.end(codec.CodeTokenExpired, "token expired")
	case s.silentSince()+m.o.HeartbeatTimeout.Milliseconds() <= now:
		s.end(codec.CodeTimeout, "no packet in time")
	default:
		s.setDeadline()
	}
}

// Drained implements engine.Handler: what was sent has been handed to the kernel, and there is room again.
func (m *Manager) Drained(c *engine.Conn) {
	if s, ok := c.State.(*Session); ok && s.state == online {
		s.drained()
	}
}

// Closed implements engine.Handler.
func (m *Manager) Closed(c *engine.Conn, why engine.Reason) {
	s, ok := c.State.(*Session)
	if !ok {
		return
	}
	if s.state == online {
		s.offline(ReasonName(why))
	}
	s.state = gone
}

// GoAway tells every session to come back after retryAfter, each at a time of its own within half of that, and reads
// nothing more from it. It returns when all loops have done so or ctx ends.
func (m *Manager) GoAway(ctx context.Context, reason string, retryAfter time.Duration) {
	m.eachLoop(ctx, func(l *loop) {
		l.draining = true
		l.el.Each(func(c *engine.Conn) bool {
			if s, ok := c.State.(*Session); ok {
				l.scratch = codec.AppendGoAway(l.scratch[:0], reason, jitter(retryAfter))
				s.send(l.scratch)
				c.Pause()
			}
			return true
		})
	})
}

// CloseAll ends every connection with the WebSocket code 1001 (going away).
func (m *Manager) CloseAll(ctx context.Context) {
	m.eachLoop(ctx, func(l *loop) {
		l.el.Each(func(c *engine.Conn) bool {
			c.Close(engine.ReasonShutdown, 1001, "going away")
			return true
		})
	})
}

// eachLoop runs f once on every loop and waits for it.
func (m *Manager) eachLoop(ctx context.Context, f func(l *loop)) {
	done := make(chan struct{}, len(m.loops))
	for _, l := range m.loops {
		if !l.el.Post(opFunc(func() { f(l); done <- struct{}{} })) {
			done <- struct{}{}
		}
	}
	for range m.loops {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}
