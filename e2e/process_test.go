package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/server"
)

// The server under test runs in a process of its own, which is this test program once more: so it can be killed.

// patience is how long a test waits for what must happen; only a test that fails waits for it.
const patience = 60 * time.Second

const (
	envChild         = "MESHTALK_E2E_DATA"            // set in a child: its data directory
	envAckBeforeSync = "MESHTALK_E2E_ACK_BEFORE_SYNC" // the server breaks its promise
	envConnections   = "MESHTALK_E2E_NOFILE"          // the child's limit of descriptors
	envOptions       = "MESHTALK_E2E_OPTIONS"         // JSON of what differs from the options below
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envChild); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if shared.set != nil {
		if err := shared.set.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// child is a server, until SIGTERM.
func child(dir string) error {
	o := server.DefaultOptions()
	o.DataDir = dir
	o.WebSocket.Host, o.WebSocket.Port = "127.0.0.1", 0
	o.TCP.Host, o.TCP.Port = "127.0.0.1", 0
	o.Admin.Port = 0
	o.Limits.MessagesPerSecond = 0
	o.AckBeforeSync = os.Getenv(envAckBeforeSync) != ""
	o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	if changes := os.Getenv(envOptions); changes != "" {
		if err := json.Unmarshal([]byte(changes), &o); err != nil {
			return err
		}
	}
	if n := os.Getenv(envConnections); n != "" {
		var limit syscall.Rlimit
		if _, err := fmt.Sscan(n, &limit.Cur); err != nil {
			return err
		}
		limit.Max = limit.Cur
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := server.New(o)
	if err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	for _, a := range s.Addresses() {
		fmt.Println(a.Name, a.URL)
	}
	fmt.Println("ready")
	<-ctx.Done()
	end, cancel := context.WithTimeout(context.Background(), o.ShutdownTimeout)
	defer cancel()
	return s.Stop(end)
}

// process is a running server.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	dir   string
	urls  map[string]string // by listener
	lines <-chan string     // of its standard output after the start; closed at its end
	admin *http.Transport
}

// spawn starts a server on dir and waits until it is ready.
func spawn(t *testing.T, dir string, env ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), envChild+"="+dir), env...)
	if testing.Verbose() {
		cmd.Stderr = os.Stderr
	}
	return run(t, dir, cmd)
}

// run starts a server on dir by a command and waits until it is ready.
func run(t *testing.T, dir string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, dir: dir, urls: map[string]string{}, cmd: cmd, admin: new(http.Transport)}
	t.Cleanup(p.admin.CloseIdleConnections)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	lines := make(chan string, 16)
	p.lines = lines
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			lines <- in.Text()
		}
	}()
	late := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	for line := range lines {
		name, url, _ := strings.Cut(line, " ")
		if name == "ready" {
			return p
		}
		p.urls[name] = url
	}
	t.Fatalf("the server did not start: %v", p.cmd.Wait())
	return nil
}

// kill is kill -9.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		p.wait()
	}
}

// wait returns when the process has ended and all that it printed has been read.
func (p *process) wait() {
	for range p.lines { // Wait closes the pipe: it must have been read to its end
	}
	_ = p.cmd.Wait()
}

// terminate is SIGTERM; it returns the exit code.
func (p *process) terminate() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	p.wait()
	return p.cmd.ProcessState.ExitCode()
}

// token mints a token with the server's key.
func (p *process) token(user string) string {
	p.t.Helper()
	key, err := os.ReadFile(filepath.Join(p.dir, "jwt.key"))
	if err != nil {
		p.t.Fatal(err)
	}
	token, err := auth.Mint([]byte(strings.TrimSpace(string(key))), user, "", time.Hour, time.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}
