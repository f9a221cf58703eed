package redis

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/cluster/clustertest"
)

// server is a redis-server process of a test.
type server struct {
	t    testing.TB
	dir  string
	port int
	args []string
	log  string

	mu  sync.Mutex // guards cmd
	cmd *exec.Cmd
}

// startServer starts a redis-server that keeps nothing on disk, with further arguments.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), port: freePort(t), args: args}
	s.log = filepath.Join(s.dir, "log")
	s.start()
	t.Cleanup(s.kill)
	return s
}

func freePort(t testing.TB) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		bus, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+10000)) // of a Redis Cluster
		_ = l.Close()
		if err == nil {
			_ = bus.Close()
			return port
		}
	}
}

func (s *server) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// start starts the process, empty, on the same port, and waits until it answers.
func (s *server) start() {
	s.t.Helper()
	args := append([]string{
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.dir, "--logfile", s.log,
	}, s.args...)
	if len(s.args) > 0 && !strings.HasPrefix(s.args[0], "--") { // a configuration file comes first
		args = append([]string{s.args[0], "--port", strconv.Itoa(s.port)}, s.args[1:]...)
	}
	cmd := exec.Command("redis-server", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.cmd = cmd
	s.mu.Unlock()
	clustertest.Eventually(s.t, "redis-server answers", func() bool {
		answer, err := ask(s.address(), "PING")
		return err == nil && (strings.HasPrefix(answer, "+PONG") || strings.HasPrefix(answer, "-NOAUTH"))
	})
}

// kill is kill -9.
func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// do runs a command and fails the test if Redis refuses it.
func (s *server) do(command string) string {
	s.t.Helper()
	answer, err := ask(s.address(), command)
	if err != nil || strings.HasPrefix(answer, "-") {
		s.t.Fatalf("%s: %q, %v", command, answer, err)
	}
	return answer
}

// ask sends one line to a Redis and gives what comes back at once.
func ask(address, line string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
		return "", err
	}
	buf := make([]byte, 1<<16)
	n, err := conn.Read(buf)
	return string(bytes.TrimSpace(buf[:n])), err
}

var prefixes atomic.Int64

// cluster names a cluster of its own on a Redis; change may change the options of its nodes.
type testCluster struct {
	addresses []string
	prefix    string
	change    func(o *Options)
}

func newCluster(addresses ...string) *testCluster {
	return &testCluster{addresses: addresses, prefix: fmt.Sprintf("test%d:", prefixes.Add(1))}
}

func (tc *testCluster) options(t testing.TB, id string) Options {
	o := Options{
		Addresses: tc.addresses, Prefix: tc.prefix, Node: cluster.Node{ID: id, Address: "http://" + id},
		Load: func() cluster.Load { return cluster.Load{Connections: 3, Queues: []int{1}, Lag: map[int]int64{1: 5}} },
		Logf: func(format string, args ...any) { t.Logf(id+": "+format, args...) },
	}
	if tc.change != nil {
		tc.change(&o)
	}
	return o
}

// open is a clustertest.Open.
func (tc *testCluster) open(t testing.TB, id string) cluster.Cluster {
	t.Helper()
	c, err := New(context.Background(), tc.options(t, id))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// of is the backend of a node.
func of(n *clustertest.Node) *Cluster { return n.Cluster.(*Cluster) }
