// Package services gives tests real Redis, PostgreSQL and RocketMQ servers of their own, by scripts/services.sh: started
// on free ports in a temporary folder, killed, paused and started again on the same files and ports, and gone at the
// end, also when the test fails or its process is killed.
package services

import (
	"bytes"
	"errors"
	"fmt"
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

// Name says which service. Those of one kind have numbers from the second on.
type Name string

// The services. RocketMQ stands for NameServer and Broker.
const (
	Redis       Name = "redis"
	Postgres    Name = "postgres"
	RocketMQ    Name = "rocketmq"
	NameServer  Name = "namesrv"
	NameServer2 Name = "namesrv2"
	Broker      Name = "broker"
	Broker2     Name = "broker2"
)

// patience bounds every wait; only what has failed reaches it.
const patience = 2 * time.Minute

// Set is the services that were started together. Safe for concurrent use.
type Set struct {
	// Dir holds a folder for each service, named as it is, with its log and data.
	Dir string
	// Those that were asked for, else nil.
	Redis, Postgres, NameServer, NameServer2, Broker, Broker2 *Service

	all []*Service // in the order of their start
}

// Service is one running server.
type Service struct {
	Name Name
	Addr string // host:port
	URL  string // of PostgreSQL and Redis: what their clients take

	dir string
	mu  sync.Mutex // one change at a time
}

// Start starts services for t and ends them in t's cleanup. A service that is not installed fails t with the command that
// installs it.
func Start(t testing.TB, names ...Name) *Set {
	t.Helper()
	s, err := Open(names...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the services say at their end:\n%s", s.Logs())
		}
		if err := s.Close(); err != nil {
			t.Errorf("ending services: %v", err)
		}
	})
	return s
}

// Open is Start for a TestMain, whose tests share the services: it must call Close.
func Open(names ...Name) (*Set, error) {
	dir, err := os.MkdirTemp("", "meshtalk-services-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // PostgreSQL runs as its own user
		return nil, err
	}
	s := &Set{Dir: dir}
	if err := s.open(names); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Set) open(names []Name) error {
	args := []string{"up", "--dir", s.Dir, "--for", strconv.Itoa(os.Getpid())}
	for _, n := range names {
		args = append(args, string(n))
	}
	out, err := run(args...)
	for line := range strings.Lines(out) {
		name, address, _ := strings.Cut(strings.TrimSpace(line), " ")
		svc := &Service{Name: Name(name), Addr: address, dir: filepath.Join(s.Dir, name)}
		switch svc.Name {
		case Redis:
			s.Redis, svc.URL = svc, "redis://"+address
		case Postgres:
			s.Postgres, svc.URL = svc, address
			_, address, _ = strings.Cut(address, "@")
			svc.Addr, _, _ = strings.Cut(address, "/")
		case NameServer:
			s.NameServer = svc
		case NameServer2:
			s.NameServer2 = svc
		case Broker:
			s.Broker = svc
		case Broker2:
			s.Broker2 = svc
		}
		s.all = append(s.all, svc)
	}
	return err
}

// Logs is the end of every service's log.
func (s *Set) Logs() string {
	out, err := run("logs", "--dir", s.Dir)
	if err != nil {
		return err.Error()
	}
	return out
}

// Close kills what runs and removes the folder. A second Close does nothing.
func (s *Set) Close() error {
	var errs []error
	pids, _ := filepath.Glob(filepath.Join(s.Dir, "*", "pid")) // also of those whose start failed
	for _, pid := range pids {
		svc := &Service{Name: Name(filepath.Base(filepath.Dir(pid))), dir: filepath.Dir(pid)}
		errs = append(errs, svc.Kill())
	}
	return errors.Join(append(errs, os.RemoveAll(s.Dir))...)
}

// Kill ends the service as a crash does, with SIGKILL, and returns when it is gone. One that does not run is no error.
func (s *Service) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	family := s.family()
	signal(family, syscall.SIGKILL)
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		alive := 0
		for _, pid := range family {
			if stat(pid).running {
				alive++
			}
		}
		if alive == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %d processes survive SIGKILL", s.Name, alive)
		}
	}
}

// Stop ends the service as an administrator does.
func (s *Service) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := run("down", string(s.Name), "--dir", filepath.Dir(s.dir))
	return err
}

// Start starts it again on the same files and ports and returns when it answers. One that runs is no error.
func (s *Service) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := run("up", string(s.Name), "--dir", filepath.Dir(s.dir))
	return err
}

// Pause stops all its processes with SIGSTOP: its connections stay open and nothing answers. Resume lets them go on.
func (s *Service) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Service) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Service) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	family := s.family()
	if len(family) == 0 {
		return fmt.Errorf("%s does not run", s.Name)
	}
	signal(family, sig)
	return nil
}

// run runs scripts/services.sh and returns what it prints. It never installs Debian packages: a test is no place for it.
func run(args ...string) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("bash", append([]string{filepath.Join(root, "scripts", "services.sh"), "--no-install"}, args...)...)
	// A test's broker lives for seconds: what the second compiler would make faster never pays, and a start takes a third less.
	cmd.Env = append(os.Environ(), "JAVA_TOOL_OPTIONS=-XX:TieredStopAtLevel=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("services.sh %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// repository is the folder of go.mod: tests run in their package's folder below it.
func repository() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return "", errors.Join(errors.New("services: no go.mod above the working directory"), err)
}
