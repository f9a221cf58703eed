package postgres

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// server is a real PostgreSQL in a folder of its own, on a free port, with full durability. One serves all tests of the process; those
// that kill it have their own.
type server struct {
	dir  string
	port int
	uid  *user.User // whom it runs as, if we are root
	n    atomic.Int64
}

// shared is started by TestMain.
var shared *server

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if shared, err = startServer(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := shared.remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func startServer() (_ *server, err error) {
	s := &server{}
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		if s.uid, err = user.Lookup("postgres"); err != nil {
			return nil, err
		}
	}
	if s.dir, err = os.MkdirTemp("", "meshtalk-postgres-"); err != nil {
		return nil, err
	}
	if s.uid != nil {
		id, err := strconv.Atoi(s.uid.Uid)
		if err != nil {
			return nil, err
		}
		if err := os.Chown(s.dir, id, -1); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	if err := s.tool("initdb", "--no-sync", "-A", "trust", "-U", "meshtalk", "-E", "UTF8", "--locale=C.UTF-8", "-D", s.data()); err != nil {
		return nil, err
	}
	settings := fmt.Sprintf("listen_addresses = '127.0.0.1'\nport = %d\nunix_socket_directories = ''\nmax_connections = 300\n"+
		"shared_buffers = 256MB\nmax_wal_size = 4GB\ncheckpoint_timeout = 30min\nfsync = on\nsynchronous_commit = on\n", s.port)
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(settings); err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return s, s.start()
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

// tool runs one of PostgreSQL's programs to its end.
func (s *server) tool(name string, args ...string) error {
	args = append([]string{pgBinary(name)}, args...)
	if s.uid != nil {
		args = append([]string{"runuser", "-u", s.uid.Username, "--"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = s.dir
	out, err := os.OpenFile(filepath.Join(s.dir, "tools.log"), os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out // a file, not a pipe: the server that pg_ctl starts keeps it
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s: %w: %s", name, err, text)
	}
	return nil
}

// pgBinary finds a program: in the path, or where Debian puts the newest version.
func pgBinary(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	slices.Sort(found)
	if len(found) == 0 {
		return name
	}
	return found[len(found)-1]
}

func (s *server) start() error {
	return s.tool("pg_ctl", "-D", s.data(), "-w", "-t", "60", "-l", filepath.Join(s.dir, "server.log"), "start")
}

// stop ends the server; mode "immediate" is a crash.
func (s *server) stop(mode string) error {
	return s.tool("pg_ctl", "-D", s.data(), "-w", "-t", "60", "-m", mode, "stop")
}

func (s *server) remove() error {
	err := s.stop("immediate")
	return errors.Join(err, os.RemoveAll(s.dir))
}

func (s *server) url(database string) string {
	return fmt.Sprintf("postgres://meshtalk@127.0.0.1:%d/%s", s.port, database)
}

// exec runs a statement on the maintenance database.
func (s *server) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement, args...); err != nil {
		t.Fatal(err)
	}
}

// database makes an empty database and gives its URL.
func (s *server) database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", s.n.Add(1))
	s.exec(t, "create database "+name)
	t.Cleanup(func() {
		s.exec(t, "drop database if exists "+name+" with (force)")
	})
	return s.url(name)
}

// testOptions are the suite's settings.
func testOptions(t testing.TB, url string) Options {
	return Options{URL: url, Logf: t.Logf}
}

// openTest opens a store or ends the test.
func openTest(t testing.TB, o Options) *Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
