package engine

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/codec"
)

// TestSendOrder: heads and tails, small and large, of one drain and of many, blocked and not, arrive as they were sent.
func TestSendOrder(t *testing.T) {
	both(t, func(t *testing.T, dial func(t testing.TB, s *server) *client) {
		s := start(t, &script{}, func(o *Options) { o.Loops, o.HardLimit = 1, 1<<30 })
		c := dial(t, s)
		c.send("up")
		c.expect(codec.OpText, "up")
		var want []string
		tail := []byte(strings.Repeat("t", 40))
		l := s.Loops()[0]
		for drain := range 200 {
			on(t, l, func() {
				l.Each(func(c *Conn) bool {
					head := []byte{}
					for i := range 20 {
						head = fmt.Appendf(head[:0], "%d/%d:", drain, i) // used again: it must have been copied
						body := tail
						switch {
						case i == 7 && drain%5 == 0:
							body = bytes.Repeat(tail, 10_000) // large
						case i == 9:
							body = nil
						}
						c.Send(head, body)
						want = append(want, string(head)+string(body))
					}
					return true
				})
			})
		}
		var blocked bool
		on(t, l, func() { l.Each(func(c *Conn) bool { blocked = c.blocked(); return true }) })
		if !blocked {
			t.Error("the socket took everything: the test is too small")
		}
		for _, w := range want {
			c.expect(codec.OpText, w)
		}
		eventually(t, "no outbound bytes left", func() bool { return s.Stats().OutboundBytes == 0 }) // counted after the write
		idle(t, s)
	})
}

// TestOneWrite: what is sent in one drain comes in one piece.
func TestOneWrite(t *testing.T) {
	s := start(t, &script{}, func(o *Options) { o.Loops = 1 })
	c := dialTCP(t, s.tcp)
	c.send("up")
	c.expect(codec.OpText, "up")
	l := s.Loops()[0]
	on(t, l, func() {
		l.Each(func(c *Conn) bool {
			for range 100 {
				c.Send([]byte("head"), []byte("tail"))
			}
			if got := c.Outbound(); got != 1200 {
				t.Errorf("%d bytes of outbound", got)
			}
			if got := c.Room(); got != 64<<10-1200 {
				t.Errorf("room for %d", got)
			}
			return true
		})
	})
	b := make([]byte, 4096)
	if n, err := c.Read(b); n != 1200 || err != nil {
		t.Errorf("the first read gives %d bytes, %v", n, err)
	}
}

// TestDrained: after a flush, once; not when nothing was sent; and for a full socket when the peer has read.
func TestDrained(t *testing.T) {
	var drained atomic.Int64
	s := start(t, &script{
		message: func(c *Conn, _ codec.Op, p []byte) {
			if string(p) == "answer" {
				c.Send(p, nil)
				c.Send(p, nil)
			}
		},
		drained: func(c *Conn) {
			if n := c.Outbound(); n != 0 {
				t.Errorf("drained with %d bytes left", n)
			}
			drained.Add(1)
		},
	}, func(o *Options) { o.Loops, o.HardLimit = 1, 1<<30 })
	l := s.Loops()[0]
	c := dialWS(t, s.ws)
	c.send("no answer")
	c.send("answer")
	c.expect(codec.OpText, "answer")
	c.expect(codec.OpText, "answer")
	on(t, l, func() {
		if n := drained.Load(); n != 1 {
			t.Errorf("drained %d times", n)
		}
	})
	chunk, sent := bytes.Repeat([]byte("x"), 10_000), 0
	on(t, l, func() {
		l.Each(func(c *Conn) bool {
			for !c.blocked() || c.Room() > 0 {
				c.Send(chunk, nil)
				sent++
			}
			return true
		})
	})
	on(t, l, func() {
		if n := drained.Load(); n != 1 {
			t.Errorf("drained %d times while blocked", n)
		}
		if s.Stats().OutboundBytes == 0 {
			t.Error("no outbound bytes while blocked")
		}
	})
	for range sent {
		c.expect(codec.OpText, string(chunk))
	}
	eventually(t, "drained", func() bool { return drained.Load() == 2 })
	idle(t, s)
}

// TestSendInDrained: a handler that goes on sending when there is room, as one that catches up from a store does.
func TestSendInDrained(t *testing.T) {
	const total = 20_000
	sent := 0
	push := func(c *Conn) {
		for c.Room() > 0 && sent < total {
			c.Send(fmt.Appendf(nil, "%d", sent), []byte(strings.Repeat("x", 500)))
			sent++
		}
	}
	s := start(t, &script{
		message: func(c *Conn, _ codec.Op, _ []byte) { push(c) },
		drained: push,
	}, func(o *Options) { o.Loops = 1 })
	c := dialTCP(t, s.tcp)
	c.send("go")
	for i := range total {
		c.expect(codec.OpText, fmt.Sprint(i)+strings.Repeat("x", 500))
	}
}

// TestTooSlow: answers beyond the hard limit end the connection at once and give the memory back, though the peer never
// reads; the callback comes first.
func TestTooSlow(t *testing.T) {
	both(t, func(t *testing.T, dial func(t testing.TB, s *server) *client) {
		const hard, slow = 1 << 20, 8
		var told, closed atomic.Int64
		s := start(t, &script{
			message: func(c *Conn, _ codec.Op, p []byte) {
				for range 100 {
					c.Send(p, nil)
					if n := c.Outbound(); n > hard+2*len(p) {
						t.Errorf("%d bytes of outbound", n)
					}
				}
			},
			closed: func(c *Conn, why Reason) {
				if why != ReasonTooSlow {
					t.Errorf("closed for %v", why)
				}
				closed.Add(1)
			},
		}, func(o *Options) {
			o.OnTooSlow = func(c *Conn) {
				told.Add(1)
				c.Send([]byte("too slow"), nil)
			}
		})
		var peers []*client
		for range slow {
			peers = append(peers, dial(t, s))
		}
		before := heapInUse()
		for _, c := range peers {
			// The kernel takes a few MB for each: asking is enough.
			for range 20 {
				if _, err := c.Write(c.frame(codec.OpText, bytes.Repeat([]byte("x"), 30_000))); err != nil {
					break
				}
			}
		}
		eventually(t, "all closed", func() bool { return s.Stats().Connections == [2]int64{} })
		if told.Load() != slow || closed.Load() != slow || s.Stats().OutboundBytes != 0 {
			t.Errorf("told %d, closed %d, %d bytes left", told.Load(), closed.Load(), s.Stats().OutboundBytes)
		}
		if grown := heapInUse() - before; grown > 1<<20 {
			t.Errorf("%d bytes of heap stay", grown)
		}
		runtime.KeepAlive(peers)
	})
}

// TestFanoutToBroken: peers that reset in the middle of a fan-out end once each; the others get everything.
func TestFanoutToBroken(t *testing.T) {
	var closed atomic.Int64
	s := start(t, &script{closed: func(_ *Conn, why Reason) {
		if why != ReasonPeer {
			t.Errorf("closed for %v", why)
		}
		closed.Add(1)
	}}, func(o *Options) { o.Loops = 1 })
	fds := crowd(t, s, codec.WebSocket, 200)
	l := s.Loops()[0]
	tail := []byte(strings.Repeat("x", 200))
	on(t, l, func() {
		for i, fd := range fds {
			if i%2 == 0 {
				_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
				_ = unix.Shutdown(fd, unix.SHUT_RDWR)
				fresh, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					t.Error(err)
				}
				_ = unix.Dup3(fresh, fd, unix.O_CLOEXEC) // resets the connection, keeps the number taken
				_ = unix.Close(fresh)
			}
		}
		for range 10 {
			l.Each(func(c *Conn) bool { c.Send(nil, tail); return true })
			l.writeOut()
		}
		if closed.Load() != 0 {
			t.Error("Closed inside a fan-out")
		}
	})
	eventually(t, "half closed", func() bool { return closed.Load() == 100 })
	got := 0
	for i, fd := range fds {
		if i%2 == 1 {
			got += drainAll([]int{fd})
		}
	}
	if want := 100 * 10 * (4 + 200); got != want {
		t.Errorf("the others got %d bytes, want %d", got, want)
	}
}

// TestGatherLimit: a drain that sends without end is written in between, and memory goes back afterwards.
func TestGatherLimit(t *testing.T) {
	s := start(t, &script{}, func(o *Options) { o.Loops, o.HardLimit, o.SoftLimit = 1, 1<<30, 1<<30 })
	c := dialTCP(t, s.tcp)
	c.send("up")
	c.expect(codec.OpText, "up")
	l := s.Loops()[0]
	const n = 2000
	head := make([]byte, 30_000)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for range n {
			c.expect(codec.OpText, string(head))
		}
	}()
	on(t, l, func() {
		l.Each(func(c *Conn) bool {
			for range n {
				c.Send(head, nil)
				if size := l.out.size(); size > gatherLimit {
					t.Fatalf("%d bytes gathered", size)
				}
			}
			return true
		})
	})
	<-read
	// Eventually: an operation may still run in the drain that sent, which has not settled.
	eventually(t, "the memory goes back", func() (back bool) {
		on(t, l, func() {
			l.out.trim()
			l.out.trim()
			back = cap(l.out.heads) <= 256<<10
		})
		return back
	})
}

// TestSendNoAlloc: gathering and writing a small message allocates nothing.
func TestSendNoAlloc(t *testing.T) {
	s := start(t, &script{}, func(o *Options) { o.Loops = 1 })
	fds := crowd(t, s, codec.WebSocket, 1)
	l := s.Loops()[0]
	head, tail := []byte(`{"cmd":3,"inbox":1,"data":`), []byte(`{"content":"hello"}}`)
	on(t, l, func() {
		var c *Conn
		l.Each(func(x *Conn) bool { c = x; return true })
		if n := testing.AllocsPerRun(100, func() {
			c.Send(head, tail)
			l.settle()
			drainAll(fds)
		}); n > 1 { // drainAll's buffer
			t.Errorf("%v allocations a message", n)
		}
	})
}
