package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// TestCloseHandshake: the peer's close is echoed, with its code, and then the server ends its side.
func TestCloseHandshake(t *testing.T) {
	ended := make(chan Reason, 1)
	s := start(t, &script{closed: func(_ *Conn, why Reason) { ended <- why }}, nil)
	for _, code := range []uint16{1000, 1001, 3000, 4999, 1005} {
		c := dialWS(t, s.ws)
		payload := []byte{byte(code >> 8), byte(code)}
		if code == 1005 {
			payload = nil
		}
		c.put(append(c.frame(codec.OpClose, payload), c.frame(codec.OpText, []byte("too late"))...))
		c.expectClose(code)
		c.expectEnd()
		if why := <-ended; why != ReasonPeer {
			t.Errorf("%d: closed for %v", code, why)
		}
	}
}

// TestOurClose: the server's close frame is its last, it waits for the peer's, and takes no message meanwhile.
func TestOurClose(t *testing.T) {
	const why = FirstHandlerReason + 1
	var messages, closed atomic.Int64
	s := start(t, &script{
		message: func(c *Conn, _ codec.Op, _ []byte) {
			messages.Add(1)
			c.Send([]byte("bye"), nil)
			c.Close(why, 4009, "replaced")
			c.Send([]byte("after the end"), nil)
			c.Close(ReasonError, 4000, "again")
			if c.Room() != 0 || closed.Load() != 0 {
				t.Error("still open, or Closed inside Close")
			}
		},
		alive: func(*Conn) { t.Error("alive after Close") },
		closed: func(_ *Conn, got Reason) {
			closed.Add(1)
			if got != why {
				t.Errorf("closed for %v", got)
			}
		},
	}, func(o *Options) { o.CloseTimeout = time.Hour })
	c := dialWS(t, s.ws)
	c.send("one")
	c.expect(codec.OpText, "bye")
	c.expectClose(4009)
	eventually(t, "Closed", func() bool { return closed.Load() == 1 })
	c.send("two")
	c.put(c.frame(codec.OpPing, nil))
	c.put(c.frame(codec.OpClose, []byte{0x0f, 0xa9}))
	c.expectEnd()
	if messages.Load() != 1 || closed.Load() != 1 {
		t.Errorf("%d messages, Closed %d times", messages.Load(), closed.Load())
	}
	if s.Stats().Connections[codec.WebSocket] != 1 {
		t.Error("the server closed before the peer had ended its side")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "socket closed", func() bool { return s.Stats().Connections[codec.WebSocket] == 0 })
}

// TestCloseTimeout: a peer that neither answers nor ends its side is waited for only so long.
func TestCloseTimeout(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, dial func(t testing.TB, s *server) *client) {
		s := start(t, &script{message: func(c *Conn, _ codec.Op, _ []byte) {
			c.Close(FirstHandlerReason, 1000, "")
		}}, func(o *Options) { o.CloseTimeout = 10 * time.Millisecond })
		c := dial(t, s)
		c.send("close me")
		eventually(t, "Closed", func() bool { return s.Stats().Closes[FirstHandlerReason] == 1 })
		eventually(t, "socket closed", func() bool { return s.Stats().Connections == [2]int64{} })
		if n := s.Stats().Closes; n[FirstHandlerReason] != 1 || len(n) != 1 {
			t.Errorf("closes %v", n)
		}
	})
}

// TestLastPacket: the packet before a close arrives although the peer has sent, and goes on sending, more than the
// server reads: without the lingering end the kernel would reset the connection and destroy it.
func TestLastPacket(t *testing.T) {
	for round := range 20 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			both(t, func(t *testing.T, dial func(t testing.TB, s *server) *client) {
				s := start(t, &script{violation: func(c *Conn, err *codec.FrameError) {
					if err.Close != 1009 {
						t.Errorf("violation %d", err.Close)
					}
					c.Send([]byte("too large"), nil)
				}}, func(o *Options) { o.MaxFrame = 100 })
				c := dial(t, s)
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					_, _ = c.Write(c.frame(codec.OpText, make([]byte, 3<<20)))
				}()
				c.expect(codec.OpText, "too large")
				if c.ws {
					c.expectClose(1009)
				}
				c.expectEnd()
				<-sent
				if n := s.Stats().Closes[ReasonProtocol]; n != 1 {
					t.Errorf("closes %v", s.Stats().Closes)
				}
			})
		})
	}
}

// TestViolations: each closes with its code.
func TestViolations(t *testing.T) {
	s := start(t, &script{}, nil)
	c := &client{ws: true}
	for name, v := range map[string]struct {
		frame []byte
		code  uint16
	}{
		"unmasked":      {[]byte{0x81, 1, 'a'}, 1002},
		"reserved bits": {[]byte{0xc1, 0x80, 0, 0, 0, 0}, 1002},
		"not utf-8":     {c.frame(codec.OpText, []byte{0xff}), 1007},
		"too large":     {c.frame(codec.OpText, make([]byte, 70_000)), 1009},
		"close of 1":    {c.frame(codec.OpClose, []byte{3}), 1002},
		"close 1005":    {c.frame(codec.OpClose, []byte{0x03, 0xed}), 1002},
		"close reason":  {c.frame(codec.OpClose, []byte{0x03, 0xe8, 0xff}), 1007},
	} {
		t.Run(name, func(t *testing.T) {
			c := dialWS(t, s.ws)
			c.put(v.frame)
			c.expectClose(v.code)
			c.expectEnd()
		})
	}
}

// TestPing: pings are answered, and a flood of them from a peer that does not read ends as too slow.
func TestPing(t *testing.T) {
	s := start(t, &script{}, func(o *Options) { o.HardLimit = 64 << 10 })
	c := dialWS(t, s.ws)
	c.put(c.frame(codec.OpPing, []byte("are you there")))
	c.expect(codec.OpPong, "are you there")
	c.put(c.frame(codec.OpPong, []byte("unasked")))
	flood := c.frame(codec.OpPing, make([]byte, 125))
	for range 10 {
		flood = append(flood, flood...)
	}
	var err error
	for err == nil { // until the server has had enough
		_, err = c.Write(flood)
	}
	eventually(t, "closed", func() bool { return s.Stats().Closes[ReasonTooSlow] == 1 })
}

// TestPanic: a panic in any method of the handler costs that connection and nothing else.
func TestPanic(t *testing.T) {
	other := "other"
	for name, h := range map[string]*script{
		"Open":      {open: func(c *Conn, _ *codec.Handshake) { panic("Open") }},
		"Message":   {message: func(c *Conn, _ codec.Op, _ []byte) { panic("Message") }},
		"Alive":     {alive: func(*Conn) { panic("Alive") }},
		"Violation": {violation: func(*Conn, *codec.FrameError) { panic("Violation") }},
		"Expired":   {open: func(c *Conn, _ *codec.Handshake) { c.SetDeadline(1) }, expired: func(*Conn) { panic("Expired") }},
		"Drained":   {drained: func(*Conn) { panic("Drained") }},
		"Closed": {
			message: func(c *Conn, _ codec.Op, _ []byte) { c.Close(ReasonPanic, 1011, "") },
			closed:  func(*Conn, Reason) { panic("Closed") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var told atomic.Int64
			if h.closed == nil {
				h.closed = func(_ *Conn, why Reason) { told.Add(1) }
			}
			careful := &careful{script: h, exempt: &other}
			s := start(t, careful, func(o *Options) { o.Loops = 1 })
			good := dialWS(t, s.ws)
			good.send(other)
			good.expect(codec.OpText, "still here")

			c := dialWS(t, s.ws)
			switch name {
			case "Alive":
				c.put(c.frame(codec.OpPing, nil))
				c.expect(codec.OpPong, "")
			case "Violation":
				c.put([]byte{0xff, 0xff})
			case "Message", "Closed":
				c.send("m")
			case "Drained":
				c.send("m")
				c.expect(codec.OpText, "m")
			}
			c.expectClose(1011)
			if name == "Closed" {
				c.put(c.frame(codec.OpClose, nil)) // an orderly close: the peer's is waited for
			}
			c.expectEnd()
			if st := s.Stats(); st.Panics != 1 || st.Closes[ReasonPanic] != 1 {
				t.Errorf("%d panics, closes %v", st.Panics, st.Closes)
			}
			if s.log.count("closing_test.go") == 0 {
				t.Errorf("no stack in the log: %q", s.log.lines)
			}
			if name != "Closed" && told.Load() != 1 {
				t.Errorf("Closed %d times", told.Load())
			}
			good.send(other)
			good.expect(codec.OpText, "still here")
		})
	}
}

// careful keeps a script away from the first connection, which only says that it is still there.
type careful struct {
	*script
	exempt *string
	first  *Conn // loop-owned; one loop
}

func (h *careful) Open(c *Conn, hs *codec.Handshake) {
	if h.first == nil {
		h.first = c
		return
	}
	h.script.Open(c, hs)
}

func (h *careful) Message(c *Conn, op codec.Op, p []byte) {
	if string(p) == *h.exempt {
		c.Send([]byte("still here"), nil)
		return
	}
	h.script.Message(c, op, p)
}

func (h *careful) Drained(c *Conn) {
	if c != h.first {
		h.script.Drained(c)
	}
}

func (h *careful) Closed(c *Conn, why Reason) {
	if c != h.first {
		h.script.Closed(c, why)
	}
}

// TestPanicInTooSlow: also the callback before the end of a slow peer may panic.
func TestPanicInTooSlow(t *testing.T) {
	s := start(t, &script{message: func(c *Conn, _ codec.Op, p []byte) {
		for range 100_000 { // more than the kernel takes
			c.Send(p, nil)
		}
	}}, func(o *Options) {
		o.HardLimit, o.SoftLimit = 10_000, 1000
		o.OnTooSlow = func(*Conn) { panic("OnTooSlow") }
	})
	c := dialTCP(t, s.tcp)
	c.send(strings.Repeat("x", 500))
	eventually(t, "closed", func() bool { return s.Stats().Closes[ReasonPanic] == 1 })
	eventually(t, "socket closed", func() bool { return s.Stats().Connections[0] == 0 })
}

// TestEndings connects and ends in every way, many times, and expects nothing to be left: no descriptor, no buffer, and
// (TestMain) no goroutine. Every connection that was opened hears of its end exactly once.
func TestEndings(t *testing.T) {
	var opened, closed atomic.Int64
	seen := func(c *Conn, _ Reason) {
		if c.State == "closed" {
			t.Error("Closed twice")
		}
		c.State = "closed"
		closed.Add(1)
	}
	s := start(t, &script{
		open: func(*Conn, *codec.Handshake) { opened.Add(1) },
		message: func(c *Conn, op codec.Op, p []byte) {
			switch string(p) {
			case "panic":
				panic("asked for")
			case "close":
				c.Close(FirstHandlerReason, 1000, "")
			case "expire":
				c.SetDeadline(c.Loop().Now())
			case "flood":
				big := make([]byte, 10_000)
				for c.Room() > 0 {
					c.Send(big, nil)
				}
				for range 200 {
					c.Send(big, nil)
				}
			default:
				c.SendOp(op, p)
			}
		},
		expired: func(c *Conn) { c.Close(FirstHandlerReason, 4008, "") },
		closed:  seen,
	}, func(o *Options) { o.CloseTimeout = time.Millisecond })
	dialTCP(t, s.tcp).send("warm up")
	before := descriptors(t)
	endings := map[string]func(c *client){
		"leave":     func(*client) {},
		"leave mid": func(c *client) { c.put(c.frame(codec.OpText, []byte("half a message"))[:8]) },
		"reset":     func(c *client) { c.send("m"); _ = c.SetLinger(0) },
		"violation": func(c *client) { c.put([]byte{0xff, 0xff, 0xff, 0xff, 0xff}) },
		"panic":     func(c *client) { c.send("panic"); _, _, _ = c.receive() },
		"close":     func(c *client) { c.send("close"); _, _, _ = c.receive() },
		"expire":    func(c *client) { c.send("expire") },
		"flood":     func(c *client) { c.send("flood") },
		"half":      func(c *client) { c.send("m"); _ = c.CloseWrite(); _, _, _ = c.receive() },
		"linger": func(c *client) {
			c.send("close")
			c.send("and more")
			if c.ws {
				c.put(c.frame(codec.OpClose, nil))
			}
			_, _ = io.Copy(io.Discard, c)
		},
	}
	const rounds = 60
	for name, end := range endings {
		for range rounds {
			var c *client
			if name != "expire" || opened.Load()%2 == 0 {
				c = dialTCP(t, s.tcp)
			} else {
				c = dialWS(t, s.ws)
			}
			end(c)
			_ = c.Close()
			w := dialWS(t, s.ws)
			end(w)
			_ = w.Close()
		}
	}
	eventually(t, "all closed", func() bool { return s.Stats().Connections == [2]int64{1, 0} })
	if n := descriptors(t); n > before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
	if opened.Load() != closed.Load()+1 || opened.Load() != int64(1+2*rounds*len(endings)) {
		t.Errorf("%d opened, %d closed", opened.Load(), closed.Load())
	}
	if st := s.Stats(); st.OutboundBytes != 0 {
		t.Errorf("%d outbound bytes of nobody", st.OutboundBytes)
	}
	for _, l := range s.Loops() {
		on(t, l, func() {
			if len(l.doomed)+len(l.gone)+len(l.ready) != 0 {
				t.Errorf("left: %d doomed, %d gone, %d ready", len(l.doomed), len(l.gone), len(l.ready))
			}
		})
	}
}

func TestReasonOf(t *testing.T) {
	for err, want := range map[error]Reason{
		nil: ReasonPeer, io.EOF: ReasonPeer, syscall.ECONNRESET: ReasonPeer, syscall.EPIPE: ReasonPeer,
		syscall.ETIMEDOUT: ReasonError, net.ErrClosed: ReasonError,
		fmt.Errorf("read: %w", syscall.ECONNRESET): ReasonPeer,
		errors.New("anything"):                     ReasonError,
	} {
		if got := reasonOf(err); got != want {
			t.Errorf("%v is %v, want %v", err, got, want)
		}
	}
}

func TestReasonString(t *testing.T) {
	seen := map[string]bool{}
	for r := ReasonPeer; r <= ReasonShutdown; r++ {
		if s := r.String(); seen[s] || strings.HasPrefix(s, "reason_") {
			t.Errorf("reason %d is %q", r, s)
		} else {
			seen[s] = true
		}
	}
	if s := FirstHandlerReason.String(); s != "reason_32" {
		t.Error(s)
	}
}
