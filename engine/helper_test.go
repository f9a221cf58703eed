package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meshtalk/meshtalk/codec"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, leakOptions()...)
}

// leakOptions leaves out gnet's worker pool: it is global to the process, started when the package is loaded, and its
// idle workers (gnet's Enroll runs on them) end after 10 s or more.
func leakOptions() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"),
	}
}

// script is a Handler made of functions; nil ones do nothing. Without message it echoes.
type script struct {
	open      func(c *Conn, h *codec.Handshake)
	message   func(c *Conn, op codec.Op, payload []byte)
	alive     func(c *Conn)
	violation func(c *Conn, err *codec.FrameError)
	expired   func(c *Conn)
	drained   func(c *Conn)
	closed    func(c *Conn, why Reason)
}

func (s *script) Open(c *Conn, h *codec.Handshake) {
	if s.open != nil {
		s.open(c, h)
	}
}

func (s *script) Message(c *Conn, op codec.Op, payload []byte) {
	if s.message != nil {
		s.message(c, op, payload)
		return
	}
	c.SendOp(op, payload)
}

func (s *script) Alive(c *Conn) {
	if s.alive != nil {
		s.alive(c)
	}
}

func (s *script) Violation(c *Conn, err *codec.FrameError) {
	if s.violation != nil {
		s.violation(c, err)
	}
}

func (s *script) Expired(c *Conn) {
	if s.expired != nil {
		s.expired(c)
	}
}

func (s *script) Drained(c *Conn) {
	if s.drained != nil {
		s.drained(c)
	}
}

func (s *script) Closed(c *Conn, why Reason) {
	if s.closed != nil {
		s.closed(c, why)
	}
}

// opFunc is a function as an Op.
type opFunc func(l *Loop)

func (f opFunc) Run(l *Loop) { f(l) }

// on runs f on the loop and waits for it.
func on(t testing.TB, l *Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(opFunc(func(*Loop) { defer close(done); f() })) {
		t.Fatal("the loop has ended")
	}
	<-done
}

// testLog collects what an engine logs.
type testLog struct {
	mu    sync.Mutex
	lines []string
}

func (g *testLog) logf(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lines = append(g.lines, fmt.Sprintf(format, args...))
}

// count is how often s was logged.
func (g *testLog) count(s string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, line := range g.lines {
		n += strings.Count(line, s)
	}
	return n
}

type server struct {
	*Engine
	log     *testLog
	tcp, ws netip.AddrPort
}

// start runs an engine with one TCP and one WebSocket listener until the end of the test.
func start(t testing.TB, h Handler, change func(o *Options)) *server {
	t.Helper()
	s := &server{log: &testLog{}}
	o := DefaultOptions()
	o.Handler, o.Loops, o.Logf = h, 2, s.log.logf
	o.Upgrade.Path = "/im"
	if change != nil {
		change(&o)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	s.Engine = e
	t.Cleanup(func() { s.stop(t) })
	if s.tcp, err = e.Listen(codec.TCP, "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.ws, err = e.Listen(codec.WebSocket, "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) stop(t testing.TB) {
	t.Helper()
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

// client is the other side: blocking, and failing the test on errors.
type client struct {
	t  testing.TB
	ws bool
	*net.TCPConn
}

func dialTCP(t testing.TB, a netip.AddrPort) *client {
	t.Helper()
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(a))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &client{t: t, TCPConn: conn}
}

const request = "GET /im HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// dialWS connects and upgrades.
func dialWS(t testing.TB, a netip.AddrPort) *client {
	t.Helper()
	c := dialTCP(t, a)
	c.ws = true
	c.put([]byte(request))
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("upgrade answered %q", head)
	}
	return c
}

// head reads an HTTP response head.
func (c *client) head() string {
	c.t.Helper()
	var b []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(b), "\r\n\r\n"); b = append(b, one[0]) {
		if _, err := io.ReadFull(c, one); err != nil {
			c.t.Fatalf("after %q: %v", b, err)
		}
	}
	return string(b)
}

func (c *client) put(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// frame is one frame as this client sends it.
func (c *client) frame(op codec.Op, payload []byte) []byte {
	if c.ws {
		return codec.AppendMaskedFrame(nil, op, payload, [4]byte{1, 2, 3, 4})
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

func (c *client) send(payload string) {
	c.t.Helper()
	c.put(c.frame(codec.OpText, []byte(payload)))
}

// receive reads one frame.
func (c *client) receive() (codec.Op, []byte, error) {
	op, n := codec.OpText, 0
	head := make([]byte, 8)
	if c.ws {
		if _, err := io.ReadFull(c, head[:2]); err != nil {
			return 0, nil, err
		}
		op, n = codec.Op(head[0]&15), int(head[1])
		switch n {
		case 126:
			if _, err := io.ReadFull(c, head[:2]); err != nil {
				return 0, nil, err
			}
			n = int(binary.BigEndian.Uint16(head))
		case 127:
			if _, err := io.ReadFull(c, head); err != nil {
				return 0, nil, err
			}
			n = int(binary.BigEndian.Uint64(head))
		}
	} else {
		if _, err := io.ReadFull(c, head[:4]); err != nil {
			return 0, nil, err
		}
		n = int(binary.BigEndian.Uint32(head))
	}
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return op, b, err
}

func (c *client) expect(op codec.Op, want string) {
	c.t.Helper()
	got, b, err := c.receive()
	if err != nil || got != op || string(b) != want {
		c.t.Fatalf("received %d %.80q %v, want %d %.80q", got, b, err, op, want)
	}
}

// expectEnd expects that the server ended its side, with nothing in front of it.
func (c *client) expectEnd() {
	c.t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		c.t.Fatalf("read %d bytes, %v; want EOF", n, err)
	}
}

func (c *client) expectClose(code uint16) {
	c.t.Helper()
	op, b, err := c.receive()
	if err != nil || op != codec.OpClose {
		c.t.Fatalf("received %d %q %v, want a close frame", op, b, err)
	}
	if got, err := codec.CloseCode(b); err != nil || got != code {
		c.t.Fatalf("close code %d %v, want %d", got, err, code)
	}
}

// both runs f on both transports.
func both(t *testing.T, f func(t *testing.T, dial func(t testing.TB, s *server) *client)) {
	t.Run("tcp", func(t *testing.T) {
		f(t, func(t testing.TB, s *server) *client { return dialTCP(t, s.tcp) })
	})
	t.Run("websocket", func(t *testing.T) {
		f(t, func(t testing.TB, s *server) *client { return dialWS(t, s.ws) })
	})
}

// descriptors counts what the process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// eventually waits until f holds. It is for what the other side of a socket does in its own time.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
