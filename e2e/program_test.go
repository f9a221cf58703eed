package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/meshtalk/meshtalk/internal/services"
)

// The program itself, cmd/meshtalk, with a configuration file as operators have one.

// built is the program, built once for all tests.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// program is the path of the program.
func program(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "meshtalk-e2e-"); built.err != nil {
			return
		}
		if out, err := exec.Command("go", "build", "-o", built.dir, "../cmd/meshtalk").CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "meshtalk")
}

// serve runs `meshtalk serve` with a data directory of the test's, and gives what it logs. The admin port, which no file of the
// original server has, is a free one.
func serve(t *testing.T, dir string, args ...string) (*process, *record) {
	t.Helper()
	cmd := exec.Command(program(t), append([]string{"serve", "--data-dir", dir, "--admin.port=0"}, args...)...)
	log := &record{}
	cmd.Stderr = log
	return run(t, dir, cmd), log
}

// refused runs the program, which must fail with one line on standard error, and gives the line and the exit code.
func refused(t *testing.T, args ...string) (line string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil {
		t.Fatalf("meshtalk %s: no error", strings.Join(args, " "))
	}
	line = strings.TrimSpace(stderr.String())
	if line == "" || strings.Contains(line, "\n") {
		t.Errorf("meshtalk %s: not one line of error: %q", strings.Join(args, " "), line)
	}
	return line, cmd.ProcessState.ExitCode()
}

// record is what a program has written.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

var placeholder = regexp.MustCompile(`@[a-z-]+@`)

// seedFile writes a file of testdata with the addresses of the services, and free ports.
func seedFile(t *testing.T, name string, set *services.Set) (file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(set.Redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replaced := strings.NewReplacer("@redis-host@", host, "@redis-port@", port, "@name-server@", set.NameServer.Addr,
		"@websocket-port@", "0", "@tcp-port@", "0").Replace(string(text))
	if left := placeholder.FindString(replaced); left != "" {
		t.Fatalf("%s: nothing was put in for %s", name, left)
	}
	file = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(replaced), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// talks sends a message from one user to another and waits until it has come.
func talks(t *testing.T, p *process, transport, from, to, content string) {
	t.Helper()
	ctx := patient(t)
	sender, err := connect(ctx, p, transport, from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sender.Close() }()
	receiver, err := connect(ctx, p, transport, to)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = receiver.Close() }()
	if _, err := exchange(ctx, sender, fmt.Sprintf(`{"cmd":3,"id":%q,"data":{"to":%q,"content":%q}}`, "m-"+content, to, content)); err != nil {
		t.Fatal(err)
	}
	if err := awaitContent(ctx, receiver, fmt.Sprintf("%q", content)); err != nil {
		t.Fatal(err)
	}
}

// The original server's application.yml starts a working node, on its services: an embedded store, and events by RocketMQ.
func TestOriginalConfiguration(t *testing.T) {
	set := sharedServices(t)
	p, log := serve(t, t.TempDir(), "--config", seedFile(t, "application.yml", set))
	if p.urls["websocket"] == "" || p.urls["tcp"] != "" {
		t.Errorf("the listeners are %v, the file has WebSocket alone", p.urls)
	}
	talks(t, p, "websocket", "alice", "bob", "as before")
	events := readEvents(t, set, "meshtalk_event")
	events.until("the event of the message", func(e *event) bool { return e.Event == "message.stored" && string(e.Message.Content) == `"as before"` })
	until(t, "the log names the keys that mean nothing here", func() (any, bool) {
		s := log.String()
		return s, strings.Contains(s, "jwt.accessToken.secret") && strings.Contains(s, "spring.redis.lettuce.pool.max-wait")
	})
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("the log has an error:\n%s", log)
	}
}

// The sections of the original server's readme start a node of a cluster, once it is told of the one service that it lacks.
func TestOriginalClusterConfiguration(t *testing.T) {
	set := sharedServices(t)
	file := seedFile(t, "application-cluster.yml", set)
	line, code := refused(t, "serve", "--config", file, "--data-dir", t.TempDir())
	if code != 2 || !strings.Contains(line, "missing: store.postgres.url") {
		t.Errorf("without PostgreSQL: exit code %d, %s", code, line)
	}
	database := newDatabase(t, set)
	p, log := serve(t, t.TempDir(), "--config", file, "--store.postgres.url", database)
	for _, transport := range []string{"websocket", "tcp"} {
		talks(t, p, transport, "carol", "dave", "in a cluster by "+transport)
	}
	if nodes := p.nodes(); len(nodes) != 1 || nodes[0].Node != "node-1" || len(nodes[0].Queues) != 16 {
		t.Errorf("the nodes are %+v", nodes)
	}
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("the log has an error:\n%s", log)
	}
}
