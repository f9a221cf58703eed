package services

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// RedisServer is a redis-server with arguments of its own, beside that of a Set: one with a password, a replica, a server of a Redis
// Cluster, a Sentinel. It keeps nothing on disk, and ends with the test, or with the test's process.
type RedisServer struct {
	Addr string // host:port
	Port int

	t    testing.TB
	dir  string
	args []string

	mu  sync.Mutex // guards cmd
	cmd *exec.Cmd  // nil = it does not run
}

// StartRedis starts a redis-server with further arguments on a free port, until t's cleanup. One that comes first and begins with no dash
// is a configuration file.
func StartRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	port := freePort(t)
	s := &RedisServer{Addr: fmt.Sprintf("127.0.0.1:%d", port), Port: port, t: t, dir: t.TempDir(), args: args}
	s.Start()
	t.Cleanup(s.Kill)
	return s
}

// freePort is a port that is free with its companion, which a Redis Cluster talks over.
func freePort(t testing.TB) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		bus, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+10000))
		_ = l.Close()
		if err == nil {
			_ = bus.Close()
			return port
		}
	}
}

// StartSentinel starts a Sentinel that watches masters by name, with more lines of its configuration.
func StartSentinel(t testing.TB, masters map[string]*RedisServer, more ...string) *RedisServer {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := ""
	for name, m := range masters {
		text += fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 1\nsentinel down-after-milliseconds %s 1000\nsentinel failover-timeout %s 5000\n", name, m.Port, name, name)
	}
	text += strings.Join(more, "\n") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return StartRedis(t, file, "--sentinel")
}

// StartReplica starts a replica of a server, and returns when it follows.
func StartReplica(t testing.TB, of *RedisServer) *RedisServer {
	t.Helper()
	s := StartRedis(t, "--replicaof", fmt.Sprintf("127.0.0.1 %d", of.Port), "--repl-diskless-sync-delay", "0")
	s.eventually("the replica follows", func() bool { return strings.Contains(of.Do("INFO replication"), "state=online") })
	return s
}

// StartRedisCluster starts a Redis Cluster of three servers that share the slots.
func StartRedisCluster(t testing.TB) (servers []*RedisServer) {
	t.Helper()
	for range 3 {
		servers = append(servers, StartRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
			"--cluster-allow-reads-when-down", "yes", "--cluster-require-full-coverage", "no"))
	}
	for i, s := range servers {
		s.Do(fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", i*16384/3, (i+1)*16384/3-1))
		s.Do(fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", i+1))
		if i > 0 {
			s.Do(fmt.Sprintf("CLUSTER MEET 127.0.0.1 %d", servers[0].Port))
		}
	}
	for _, s := range servers {
		s.eventually("the cluster is complete", func() bool {
			info := s.Do("CLUSTER INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3") &&
				strings.Contains(info, "cluster_slots_ok:16384")
		})
	}
	return servers
}

// Start starts the process again, empty, on the same port, and returns when it answers.
func (s *RedisServer) Start() {
	s.t.Helper()
	args := append([]string{
		"--port", strconv.Itoa(s.Port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.dir,
		"--logfile", filepath.Join(s.dir, "log"),
	}, s.args...)
	if len(s.args) > 0 && !strings.HasPrefix(s.args[0], "--") {
		args = append([]string{s.args[0], "--port", strconv.Itoa(s.Port)}, s.args[1:]...)
	}
	cmd := exec.Command("redis-server", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.cmd = cmd
	s.mu.Unlock()
	s.eventually("redis-server answers", func() bool {
		answer, err := AskRedis(s.Addr, "PING")
		return err == nil && (strings.HasPrefix(answer, "+PONG") || strings.HasPrefix(answer, "-NOAUTH"))
	})
}

// Kill is kill -9. One that does not run is no error.
func (s *RedisServer) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Signal sends a signal to the process.
func (s *RedisServer) Signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Do runs a command and fails the test if Redis refuses it.
func (s *RedisServer) Do(command string) string {
	s.t.Helper()
	answer, err := AskRedis(s.Addr, command)
	if err != nil || strings.HasPrefix(answer, "-") {
		s.t.Fatalf("%s: %q, %v", command, answer, err)
	}
	return answer
}

func (s *RedisServer) eventually(what string, f func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("does not happen: %s", what)
		}
	}
}

// AskRedis sends one line to a Redis and gives what comes back at once, up to 64 KiB, as the protocol has it.
func AskRedis(address, line string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
		return "", err
	}
	buf := make([]byte, 1<<16)
	n, err := conn.Read(buf)
	return string(bytes.TrimSpace(buf[:n])), err
}
