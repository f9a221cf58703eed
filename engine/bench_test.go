package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/codec"
)

// crowd connects n clients of the transport. They are bare descriptors: no goroutine, no Go object.
func crowd(t testing.TB, s *server, tr codec.Transport, n int) []int {
	t.Helper()
	address := s.tcp
	if tr == codec.WebSocket {
		address = s.ws
	}
	want := openOn(t, s) + n
	fds := make([]int, n)
	for i := range fds {
		fds[i] = bareDial(t, address, i)
		if tr == codec.WebSocket {
			if _, err := unix.Write(fds[i], []byte(request)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() {
		for _, fd := range fds {
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			_ = unix.Close(fd)
		}
	})
	eventually(t, "all connected", func() bool { return openOn(t, s) == want })
	drainAll(fds)
	return fds
}

// openOn counts the connections that a handler has.
func openOn(t testing.TB, s *server) int {
	n := 0
	for _, l := range s.Loops() {
		on(t, l, func() { l.Each(func(*Conn) bool { n++; return true }) })
	}
	return n
}

func bareDial(t testing.TB, a netip.AddrPort, i int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	from := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(1 + i%4)}}
	if err := unix.Bind(fd, from); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return fd
}

// drainAll reads what is there, and returns how much.
func drainAll(fds []int) int {
	b, sum := make([]byte, 64<<10), 0
	for _, fd := range fds {
		for {
			n, err := unix.Read(fd, b)
			if n <= 0 || err != nil {
				break
			}
			sum += n
		}
	}
	return sum
}

// BenchmarkFanout sends 200-byte messages to each of 8,000 connections of one loop, one operation for each message and a
// number of them posted at once, and writes the same frames to the same sockets without the engine, by turns. "ratio" is
// the time of the bare writes, one for each frame, over the engine's.
func BenchmarkFanout(b *testing.B) {
	for _, outstanding := range []int{1, 8, 64} {
		b.Run(fmt.Sprint("outstanding=", outstanding), func(b *testing.B) { benchFanout(b, outstanding) })
	}
}

func benchFanout(b *testing.B, outstanding int) {
	const members = 8000
	s := start(b, &script{}, func(o *Options) { o.Loops = 1 })
	fds := crowd(b, s, codec.WebSocket, members)
	l := s.Loops()[0]
	head := []byte(`{"cmd":4,"inbox":123456,"data":`)
	tail := append(bytes.Repeat([]byte("x"), 199-len(head)), '}')
	frame := append(append(codec.AppendHeader(nil, codec.WebSocket, codec.OpText, 200), head...), tail...)
	var ours, bare time.Duration
	var conns []*Conn
	on(b, l, func() { l.Each(func(c *Conn) bool { conns = append(conns, c); return true }) })
	push := opFunc(func(*Loop) {
		for _, c := range conns {
			c.Send(head, tail)
		}
	})
	round := func() {
		begin := time.Now()
		hold := make(chan struct{})
		l.Post(opFunc(func(*Loop) { <-hold }))
		for range outstanding {
			l.Post(push)
		}
		close(hold)
		on(b, l, func() {})
		on(b, l, func() {})
		ours += time.Since(begin)
		drainAll(fds)
		begin = time.Now()
		on(b, l, func() {
			for _, c := range conns {
				if _, err := unix.Write(int(c.fd), frame); err != nil {
					b.Error(err)
				}
			}
		})
		bare += time.Since(begin)
	}
	round()
	ours, bare = 0, 0
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		round()
	}
	b.StopTimer()
	per := float64(b.N * members)
	b.ReportMetric(float64(ours.Nanoseconds())/per/float64(outstanding), "ns/delivery")
	b.ReportMetric(float64(bare.Nanoseconds())/per, "ns/write(2)")
	b.ReportMetric(float64(bare)*float64(outstanding)/float64(ours), "ratio")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkPost is the way onto a loop from two goroutines.
func BenchmarkPost(b *testing.B) {
	s := start(b, &script{}, func(o *Options) { o.Loops = 1 })
	l := s.Loops()[0]
	var ran atomic.Int64
	op := opFunc(func(*Loop) { ran.Add(1) })
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Post(op)
			for l.Backlog() > 10_000 {
				runtime.Gosched()
			}
		}
	})
	on(b, l, func() {})
}

// BenchmarkEcho is a closed loop of 64 clients with 1 or 64 messages of 64 bytes in flight each.
func BenchmarkEcho(b *testing.B) {
	for name, window := range map[string]int{"1": 1, "64": 64} {
		b.Run("inflight="+name, func(b *testing.B) {
			s := start(b, &script{}, nil)
			const clients = 64
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range clients {
				c := dialTCP(b, s.tcp)
				wg.Add(1)
				go func() {
					defer wg.Done()
					frame := append(binary.BigEndian.AppendUint32(nil, 64), make([]byte, 64)...)
					burst := bytes.Repeat(frame, window)
					back := make([]byte, len(burst))
					for left.Add(int64(-window)) > int64(-window) {
						if _, err := c.Write(burst); err != nil {
							b.Error(err)
							return
						}
						for n := 0; n < len(back); {
							m, err := c.Read(back[n:])
							if err != nil {
								b.Error(err)
								return
							}
							n += m
						}
					}
				}()
			}
			wg.Wait()
		})
	}
}

// BenchmarkAccept is how fast connections come up, clients included.
func BenchmarkAccept(b *testing.B) {
	s := start(b, &script{}, nil)
	for range b.N {
		fd := bareDial(b, s.tcp, 0)
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		_ = unix.Close(fd)
	}
}

// heapInUse is the live heap after a collection, with what grows by connections and nothing else.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkIdleConnection reports the live heap per idle connection as a slope: engine, gnet and the loop's table.
func BenchmarkIdleConnection(b *testing.B) {
	for _, tr := range []codec.Transport{codec.TCP, codec.WebSocket} {
		b.Run(tr.String(), func(b *testing.B) {
			s := start(b, &script{}, nil)
			crowd(b, s, tr, 1500)
			before := heapInUse()
			const more = 6000
			crowd(b, s, tr, more)
			b.ReportMetric(float64(heapInUse()-before)/more, "B/connection")
			b.ReportMetric(0, "ns/op")
		})
	}
}
