package services

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy hands TCP connections on to a service, until it is told not to: it cuts off whoever goes through it. Safe for concurrent
// use.
type Proxy struct {
	Addr string // host:port to connect to

	target string
	// rewrite copies what the service says; nil = as it is.
	rewrite func(dst io.Writer, src io.Reader) error
	l       net.Listener
	wg      sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	ended bool
	conns map[net.Conn]bool
}

// NewProxy listens on a free port until t's cleanup.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	return newProxy(t, target, nil)
}

func newProxy(t testing.TB, target string, rewrite func(io.Writer, io.Reader) error) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, rewrite: rewrite, l: l, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Cut resets every connection, and new ones as soon as they are made.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		reset(c)
	}
}

// Restore lets new connections through again.
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

func (p *Proxy) close() {
	_ = p.l.Close()
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.Cut()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && p.admit(c) {
			p.wg.Go(func() { p.serve(c) })
		}
	}
}

// admit registers a connection unless the proxy is cut.
func (p *Proxy) admit(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut || p.ended {
		reset(c)
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	_ = c.Close()
}

func (p *Proxy) serve(client net.Conn) {
	defer p.forget(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		reset(client)
		return
	}
	if !p.admit(server) {
		reset(client)
		return
	}
	defer p.forget(server)
	var back sync.WaitGroup
	back.Go(func() {
		var err error
		if p.rewrite != nil {
			err = p.rewrite(client, server)
		} else {
			_, err = io.Copy(client, server)
		}
		end(client, err)
		_ = server.(*net.TCPConn).CloseRead()
	})
	_, err = io.Copy(server, client)
	end(server, err)
	back.Wait()
}

// end tells the peer of c how the other side has ended: with an end, or with a break.
func end(c net.Conn, err error) {
	if err != nil && !errors.Is(err, io.EOF) {
		reset(c)
		return
	}
	_ = c.(*net.TCPConn).CloseWrite()
}

// reset closes c so that its peer sees an error rather than an end.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// RocketMQProxy cuts one client off from a name server and its brokers. The name server tells clients the brokers'
// addresses, so its answers are rewritten to lead through the proxy as well.
type RocketMQProxy struct {
	Addr       string // of the name server
	NameServer *Proxy
	Brokers    []*Proxy // in the order of the brokers of the set
}

// NewRocketMQProxy stands before the set's first name server and all its brokers until t's cleanup.
func NewRocketMQProxy(t testing.TB, s *Set) *RocketMQProxy {
	t.Helper()
	p := &RocketMQProxy{}
	replace := map[string]string{}
	for _, b := range []*Service{s.Broker, s.Broker2} {
		if b == nil {
			continue
		}
		proxy := NewProxy(t, b.Addr)
		if len(proxy.Addr) != len(b.Addr) { // lengths of frames stay as they are
			t.Fatalf("the addresses %s and %s differ in length", proxy.Addr, b.Addr)
		}
		p.Brokers = append(p.Brokers, proxy)
		replace[b.Addr] = proxy.Addr
	}
	p.NameServer = newProxy(t, s.NameServer.Addr, func(dst io.Writer, src io.Reader) error {
		return rewriteFrames(dst, src, replace)
	})
	p.Addr = p.NameServer.Addr
	return p
}

// Cut cuts name server and brokers off.
func (p *RocketMQProxy) Cut() {
	p.NameServer.Cut()
	for _, b := range p.Brokers {
		b.Cut()
	}
}

// Restore ends a Cut.
func (p *RocketMQProxy) Restore() {
	p.NameServer.Restore()
	for _, b := range p.Brokers {
		b.Restore()
	}
}

// rewriteFrames copies RocketMQ's frames, a 4-byte big-endian length before each, with texts replaced by others as long.
func rewriteFrames(dst io.Writer, src io.Reader, replace map[string]string) error {
	for {
		var head [4]byte
		if _, err := io.ReadFull(src, head[:]); err != nil {
			return err
		}
		frame := make([]byte, 4+int(binary.BigEndian.Uint32(head[:])&0xffffff))
		copy(frame, head[:])
		if _, err := io.ReadFull(src, frame[4:]); err != nil {
			return err
		}
		for from, to := range replace {
			frame = bytes.ReplaceAll(frame, []byte(from), []byte(to))
		}
		if _, err := dst.Write(frame); err != nil {
			return err
		}
	}
}
