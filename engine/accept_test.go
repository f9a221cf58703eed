package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/codec"
)

// asChild names the test that a child process of the test binary is to run with its descriptors limited.
const asChild = "ENGINE_TEST_CHILD"

// TestOutOfFiles runs in a child, because the limit is the whole process's: connections that are there go on, new ones
// wait, and come in when there is room.
func TestOutOfFiles(t *testing.T) {
	if os.Getenv(asChild) == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestOutOfFiles$", "-test.v")
		child.Env = append(os.Environ(), asChild+"=1")
		out, err := child.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	s := start(t, &script{}, func(o *Options) { o.MaxConnections = 100_000 })
	established := dialTCP(t, s.tcp)
	established.send("before")
	established.expect(codec.OpText, "before")

	// Clients are sockets of this process too. They are all made before the limit is set to leave room for few.
	const clients, room = 40, 20
	var waiting []*client
	fds := make([]int, clients)
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds[i] = fd
	}
	limitFiles(t, uint64(descriptors(t)+room))
	for _, fd := range fds {
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(s.tcp.Port())}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "out of descriptors", func() bool { return s.Stats().Accepts["emfile"] > 3 })
	established.send("during")
	established.expect(codec.OpText, "during")
	if n := s.log.count("wait until there is room"); n != 1 {
		t.Errorf("said %d times in the log", n)
	}
	served := s.Stats().Accepts["accepted"]
	if served <= 1 || served >= clients {
		t.Errorf("%d accepted with room for %d", served, room)
	}
	// Those who are in leave; the others come in.
	for _, fd := range fds[:served-1] {
		if err := unix.Close(fd); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the rest is in", func() bool {
		st := s.Stats()
		return st.Accepts["accepted"] > served && st.Connections[0] >= 1
	})
	limitFiles(t, 4096)
	for _, fd := range fds[served-1:] {
		f := os.NewFile(uintptr(fd), "client")
		conn, err := net.FileConn(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, &client{t: t, TCPConn: conn.(*net.TCPConn)})
	}
	answered := 0
	for _, c := range waiting {
		_, err := c.Write(c.frame(codec.OpText, []byte("after")))
		if err == nil {
			_, _, err = c.receive()
		}
		if err == nil {
			answered++
		}
		_ = c.Close()
	}
	// The few whose second descriptor was not to be had were closed.
	if answered < len(waiting)/2 {
		t.Errorf("%d of %d answered", answered, len(waiting))
	}
	established.send("after")
	established.expect(codec.OpText, "after")
}

// limitFiles sets the soft limit of descriptors.
func limitFiles(t *testing.T, n uint64) {
	t.Helper()
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
	r.Cur = n
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
}

// letIn connects and reports whether the server answers; the connection lives to the end of the test.
func letIn(t *testing.T, s *server) (*client, bool) {
	t.Helper()
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(s.tcp))
	if errors.Is(err, unix.ECONNRESET) { // the refusal came before connect(2) returned
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := &client{t: t, TCPConn: conn}
	if _, err = c.Write(c.frame(codec.OpText, []byte("in?"))); err == nil {
		_, _, err = c.receive()
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		t.Fatal(err)
	}
	return c, err == nil
}

func TestAdmission(t *testing.T) {
	for result, change := range map[string]func(o *Options){
		"limit":  func(o *Options) { o.MaxConnections = 3 },
		"per_ip": func(o *Options) { o.MaxPerIP = 3 },
	} {
		t.Run(result, func(t *testing.T) {
			s := start(t, &script{}, change)
			var in []*client
			for range 3 {
				c, ok := letIn(t, s)
				if !ok {
					t.Fatal("refused below the limit")
				}
				in = append(in, c)
			}
			if _, ok := letIn(t, s); ok {
				t.Fatal("let in above the limit")
			}
			eventually(t, "all counted", func() bool {
				n := s.Stats().Accepts
				return n[result] == 1 && n["accepted"] == 3
			})
			_ = in[0].Close()
			eventually(t, "one gone", func() bool { return s.Stats().Connections[0] == 2 })
			if _, ok := letIn(t, s); !ok {
				t.Error("refused though one has gone")
			}
		})
	}
}

func TestAdmissionRate(t *testing.T) {
	var a admission
	a.init(&Options{MaxConnections: 100, HandshakesPerSecondPerIP: 2, MaxPerIP: 3})
	one, other := remoteOf(1), remoteOf(2)
	for i, want := range []acceptResult{accepted, accepted, overRate, overRate} {
		if got := a.admit(one); got != want {
			t.Errorf("%d: %v, want %v", i, got, want)
		}
	}
	if got := a.admit(other); got != accepted {
		t.Errorf("another address: %v", got)
	}
	a.nextSecond()
	for i, want := range []acceptResult{accepted, overPerIP} {
		if got := a.admit(one); got != want {
			t.Errorf("next second %d: %v, want %v", i, got, want)
		}
	}
	a.release(one)
	if got := a.admit(one); got != accepted {
		t.Errorf("after a release: %v", got)
	}
	for range 3 {
		a.release(one)
	}
	a.release(other)
	if a.open.Load() != 0 || len(a.mu.open) != 0 {
		t.Errorf("%d open, %v", a.open.Load(), a.mu.open)
	}
}

// TestBalance: loops get their share, also when everyone comes at once, and when those of one loop have gone.
func TestBalance(t *testing.T) {
	s := start(t, &script{}, func(o *Options) { o.Loops, o.Acceptors = 4, 3 })
	crowd(t, s, codec.TCP, 201)
	for _, l := range s.Loops() {
		if n := l.assigned.Load(); n < 50 || n > 51 {
			t.Errorf("loop %d has %d connections", l.Index, n)
		}
	}
	on(t, s.Loops()[2], func() {
		s.Loops()[2].Each(func(c *Conn) bool { c.fail(ReasonError); return true })
	})
	eventually(t, "a loop without", func() bool { return s.Stats().Connections[0] == 151 })
	crowd(t, s, codec.TCP, 40)
	if n := s.Loops()[2].assigned.Load(); n != 40 {
		t.Errorf("the empty loop got %d of 40", n)
	}
}

// TestResetBeforeAccept: sockets that are reset while they wait for accept end nothing.
func TestResetBeforeAccept(t *testing.T) {
	s := start(t, &script{}, nil)
	for range 300 {
		c := dialTCP(t, s.tcp)
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	c := dialTCP(t, s.tcp)
	c.send("still there?")
	c.expect(codec.OpText, "still there?")
}

func TestStopAccepting(t *testing.T) {
	s := start(t, &script{}, nil)
	c := dialTCP(t, s.tcp)
	c.send("in")
	c.expect(codec.OpText, "in")
	s.StopAccepting()
	if conn, err := net.DialTimeout("tcp", s.tcp.String(), time.Second); err == nil {
		_ = conn.Close()
		t.Error("connected after StopAccepting")
	}
	c.send("still in")
	c.expect(codec.OpText, "still in")
}

func TestListenErrors(t *testing.T) {
	s := start(t, &script{}, nil)
	for _, address := range []string{s.tcp.String(), "127.0.0.1:not-a-port", "192.0.2.1:0"} {
		if _, err := s.Listen(codec.TCP, address); err == nil {
			t.Errorf("listens on %s", address)
		}
	}
}

// TestIPv6: the peer's address is its own on a listener for both families.
func TestIPv6(t *testing.T) {
	remotes := make(chan string, 2)
	s := start(t, &script{open: func(c *Conn, _ *codec.Handshake) { remotes <- c.Remote().String() }}, nil)
	bound, err := s.Listen(codec.TCP, ":0")
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(bound.Port())))
		if err != nil {
			if host == "::1" {
				t.Log("no IPv6 here:", err)
				return
			}
			t.Fatal(err)
		}
		if got := <-remotes; got != conn.LocalAddr().String() {
			t.Errorf("remote %s, want %v", got, conn.LocalAddr())
		}
		_ = conn.Close()
	}
}

func remoteOf(i byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, i}) }

// One host's many IPv6 addresses are one; IPv4 addresses are one each, also as IPv6 writes them.
func TestAdmissionHolders(t *testing.T) {
	for _, v := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"fe80::1%eth0", "fe80::2%eth1", true},
	} {
		var a admission
		a.init(&Options{MaxConnections: 100, MaxPerIP: 1})
		first, second := netip.MustParseAddr(v.a), netip.MustParseAddr(v.b)
		if got := a.admit(first); got != accepted {
			t.Fatalf("%s: %v", v.a, got)
		}
		if got := a.admit(second); (got == overPerIP) != v.same {
			t.Errorf("%s after %s: %v", v.b, v.a, got)
		}
		a.release(first)
		if _, open := a.mu.open[holder(first)]; open && !v.same || a.open.Load() > 1 {
			t.Errorf("%s: after a release %v, %d open", v.a, a.mu.open, a.open.Load())
		}
	}
}
