package engine

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

func TestEcho(t *testing.T) {
	both(t, func(t *testing.T, dial func(t testing.TB, s *server) *client) {
		s := start(t, &script{}, nil)
		c := dial(t, s)
		for i := range 100 {
			c.send(fmt.Sprint("hello ", i))
			c.expect(codec.OpText, fmt.Sprint("hello ", i))
		}
		if n := s.Stats().Connections; n[0]+n[1] != 1 {
			t.Errorf("%v connections", n)
		}
	})
}

// TestByteByByte: the split of the bytes changes nothing, from the first of the request to the last of a message.
func TestByteByByte(t *testing.T) {
	both(t, func(t *testing.T, _ func(t testing.TB, s *server) *client) {
		s := start(t, &script{}, nil)
		c := dialTCP(t, s.tcp)
		want := []string{"a", strings.Repeat("b", 300), "c"}
		var all []byte
		if strings.HasSuffix(t.Name(), "websocket") {
			c = dialTCP(t, s.ws)
			c.ws = true
			all = append(all, request...)
		}
		for _, w := range want {
			all = append(all, c.frame(codec.OpText, []byte(w))...)
		}
		for i := range all {
			c.put(all[i : i+1])
		}
		if c.ws {
			c.head()
		}
		for _, w := range want {
			c.expect(codec.OpText, w)
		}
		idle(t, s)
	})
}

// idle waits until no connection holds anything.
func idle(t *testing.T, s *server) {
	t.Helper()
	eventually(t, "no connection holds anything", func() bool {
		busy := 0
		for _, l := range s.Loops() {
			on(t, l, func() {
				l.Each(func(c *Conn) bool {
					if c.x != nil || c.has(flagReady|flagDeaf|flagPaused) {
						busy++
					}
					return true
				})
			})
		}
		return busy == 0
	})
}

// TestFragments: a message in fragments with a ping in between, and the frames after it, in one packet or in two.
func TestFragments(t *testing.T) {
	var alive atomic.Int64
	s := start(t, &script{alive: func(*Conn) { alive.Add(1) }}, nil)
	c := dialWS(t, s.ws)
	var all []byte
	first := c.frame(codec.OpText, []byte("frag"))
	first[0] &^= 0x80
	all = append(all, first...)
	all = append(all, c.frame(codec.OpPing, []byte("p"))...)
	last := c.frame(codec.OpText, []byte("ments"))
	last[0] = 0x80
	all = append(append(all, last...), c.frame(codec.OpBinary, []byte{0, 1})...)
	for split := range len(all) {
		c.put(all[:split])
		c.put(all[split:])
		c.expect(codec.OpPong, "p")
		c.expect(codec.OpText, "fragments")
		c.expect(codec.OpBinary, "\x00\x01")
	}
	idle(t, s)
	if int(alive.Load()) != len(all) {
		t.Errorf("alive %d times", alive.Load())
	}
}

// TestPipelinedWithUpgrade: frames may come in the same packet as the request.
func TestPipelinedWithUpgrade(t *testing.T) {
	handshakes := make(chan codec.Handshake, 1)
	s := start(t, &script{open: func(_ *Conn, h *codec.Handshake) { handshakes <- *h }}, nil)
	c := dialTCP(t, s.ws)
	c.ws = true
	c.put(append([]byte(request), c.frame(codec.OpText, []byte("early"))...))
	c.head()
	c.expect(codec.OpText, "early")
	if h := <-handshakes; h.Path != "/im" || h.Host != "x" {
		t.Errorf("handshake %+v", h)
	}
}

func TestRefusedUpgrade(t *testing.T) {
	s := start(t, &script{open: func(*Conn, *codec.Handshake) { t.Error("opened") }}, nil)
	for i, r := range []struct{ request, status string }{
		{strings.Replace(request, "/im", "/other", 1), "404"},
		{"GET /im HTTP/1.1\r\nHost: x\r\n\r\n", "426"},
		{"\x16\x03\x01 hello", "400"},
		{"GET /im HTTP/1.1\r\nX: " + strings.Repeat("x", codec.MaxHandshake), "431"},
	} {
		c := dialTCP(t, s.ws)
		c.put([]byte(r.request))
		if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 "+r.status+" ") {
			t.Errorf("%.20q answered %q", r.request, head)
		}
		// The rest of the answer, then the end: not a reset, although the server has not read all.
		if b := rest(t, c); len(b) == 0 {
			t.Error("no text")
		}
		eventually(t, "closed", func() bool { return s.Stats().Closes[ReasonHandshake] == int64(i+1) })
	}
}

// rest reads to the end of the server's side.
func rest(t *testing.T, c *client) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := b.ReadFrom(c); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	s := start(t, &script{}, func(o *Options) { o.HandshakeTimeout = time.Millisecond })
	c := dialTCP(t, s.ws)
	c.put([]byte("GET /im HTTP/1.1\r\n"))
	c.expectEnd()
	if n := s.Stats().Closes[ReasonHandshake]; n != 1 {
		t.Errorf("closes %v", s.Stats().Closes)
	}
}

// TestYield: a connection that has sent thousands of messages does not make another wait for all of them, nor does the
// engine read on for it meanwhile.
func TestYield(t *testing.T) {
	const perEvent, flood = 8, 5000
	started, release := make(chan struct{}), make(chan struct{})
	var flooded, atOther int // loop-owned
	s := start(t, &script{message: func(c *Conn, _ codec.Op, payload []byte) {
		if string(payload) == "other" {
			atOther = flooded
			c.Send([]byte("ok"), nil)
			return
		}
		if flooded++; flooded == 1 {
			close(started)
			<-release
		}
		if flooded == flood {
			c.Send([]byte("all"), nil)
		}
	}}, func(o *Options) { o.Loops, o.FramesPerEvent = 1, perEvent })
	a, b := dialTCP(t, s.tcp), dialTCP(t, s.tcp)
	eventually(t, "both open", func() bool { return s.Stats().Connections[0] == 2 })
	go func() { _, _ = a.Write(bytes.Repeat(a.frame(codec.OpText, []byte("flood")), flood)) }()
	<-started
	b.send("other")
	close(release)
	b.expect(codec.OpText, "ok")
	a.expect(codec.OpText, "all")
	on(t, s.Loops()[0], func() {
		if atOther > 4*perEvent {
			t.Errorf("the other waited for %d messages", atOther)
		}
	})
	idle(t, s)
}

// TestPause: nothing is delivered while paused, everything after, in order; meanwhile little is read.
func TestPause(t *testing.T) {
	both(t, func(t *testing.T, dial func(t testing.TB, s *server) *client) {
		const messages = 3000
		payload := strings.Repeat("x", 1000)
		var got []string // loop-owned
		conns := make(chan *Conn, 1)
		s := start(t, &script{message: func(c *Conn, _ codec.Op, p []byte) {
			got = append(got, string(p[:4]))
			switch len(got) {
			case 1:
				c.Pause()
				conns <- c
			case messages:
				c.Send([]byte("done"), nil)
			}
		}}, nil)
		peer := dial(t, s)
		go func() {
			for i := range messages {
				_, _ = peer.Write(peer.frame(codec.OpText, fmt.Appendf(nil, "%04d%s", i, payload)))
			}
		}()
		c := <-conns
		l := c.Loop()
		eventually(t, "deaf", func() (deaf bool) {
			on(t, l, func() { deaf = c.has(flagDeaf) })
			return
		})
		on(t, l, func() {
			if len(got) != 1 {
				t.Errorf("%d messages while paused", len(got))
			}
			if n := len(c.x.in.B); n > 65535+128<<10 {
				t.Errorf("%d bytes kept while paused", n)
			}
			c.Resume()
			if len(got) != 1 {
				t.Error("a message inside Resume")
			}
		})
		peer.expect(codec.OpText, "done")
		on(t, l, func() {
			for i, g := range got {
				if g != fmt.Sprintf("%04d", i) {
					t.Fatalf("message %d is %s", i, g)
				}
			}
		})
		idle(t, s)
	})
}

// TestResetWhilePaused: a paused and deaf connection whose peer resets is closed.
func TestResetWhilePaused(t *testing.T) {
	ended := make(chan Reason, 1)
	conns := make(chan *Conn, 1)
	s := start(t, &script{
		message: func(c *Conn, _ codec.Op, _ []byte) { c.Pause(); conns <- c },
		closed:  func(_ *Conn, why Reason) { ended <- why },
	}, nil)
	peer := dialTCP(t, s.tcp)
	peer.send("one")
	c := <-conns
	eventually(t, "deaf", func() (deaf bool) {
		peer.put(make([]byte, 1000))
		on(t, c.Loop(), func() { deaf = c.has(flagDeaf) })
		return
	})
	if err := peer.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	if why := <-ended; why != ReasonPeer {
		t.Errorf("closed for %v", why)
	}
}

// TestLastMessages: what a peer sent before it ended its side is delivered, also what had to wait for its turn.
func TestLastMessages(t *testing.T) {
	both(t, func(t *testing.T, dial func(t testing.TB, s *server) *client) {
		const messages = 1000
		var got int
		total := make(chan int, 1)
		s := start(t, &script{
			message: func(*Conn, codec.Op, []byte) { got++ },
			closed:  func(*Conn, Reason) { total <- got },
		}, func(o *Options) { o.Loops, o.FramesPerEvent = 1, 4 })
		c := dial(t, s)
		c.put(bytes.Repeat(c.frame(codec.OpText, []byte("last words")), messages))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if n := <-total; n != messages {
			t.Errorf("%d of %d messages", n, messages)
		}
	})
}

// TestLarge: a message of megabytes in small pieces, with room that grows with what is there.
func TestLarge(t *testing.T) {
	both(t, func(t *testing.T, dial func(t testing.TB, s *server) *client) {
		const size = 4 << 20
		s := start(t, &script{}, func(o *Options) { o.MaxFrame, o.HardLimit = size, 4*size })
		c := dial(t, s)
		want := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		go func() {
			for b := c.frame(codec.OpBinary, want); len(b) > 0; {
				n := min(len(b), 10_000)
				if _, err := c.Write(b[:n]); err != nil {
					return
				}
				b = b[n:]
			}
		}()
		_, b, err := c.receive()
		if err != nil || !bytes.Equal(b, want) {
			t.Fatalf("%d bytes came back, %v", len(b), err)
		}
		idle(t, s)
	})
}

// TestPromise: a header that promises a lot costs nothing until it comes.
func TestPromise(t *testing.T) {
	const size = 4 << 20
	s := start(t, &script{}, func(o *Options) { o.MaxFrame, o.Loops = size, 1 })
	c := dialTCP(t, s.tcp)
	c.put(c.frame(codec.OpText, make([]byte, size))[:100])
	eventually(t, "arrived", func() bool { return s.Stats().BytesIn == 100 })
	on(t, s.Loops()[0], func() {
		s.Loops()[0].Each(func(c *Conn) bool {
			if n := cap(c.x.in.B); n > 4096 {
				t.Errorf("%d bytes of room for 100", n)
			}
			return true
		})
	})
}
