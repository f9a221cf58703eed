package redis

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/cluster/clustertest"
	"github.com/meshtalk/meshtalk/internal/services"
)

// nodeVariable makes the test binary a node of its own process: "address prefix ID".
const nodeVariable = "CLUSTER_REDIS_TEST_NODE"

func TestMain(m *testing.M) {
	if text := os.Getenv(nodeVariable); text != "" {
		runNode(strings.Fields(text))
		return
	}
	// The parallel ones wait for leases to end: not for cores, which is what their number follows otherwise.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// runNode is a node that joins user-<ID> and tells on stdout what happens, until its stdin ends.
func runNode(args []string) {
	c, err := New(context.Background(), Options{Addresses: args[:1], Prefix: args[1], Node: cluster.Node{ID: args[2]}})
	if err != nil {
		fmt.Println("failed:", err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := &clustertest.Recorder{}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, r) }()
	for c.State() != nil {
		time.Sleep(time.Millisecond)
	}
	if _, err := c.Join(ctx, "user-"+args[2], "web", 1); err != nil {
		fmt.Println("failed:", err)
	}
	fmt.Println("ready")
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	if err := <-ended; err != nil {
		fmt.Println("ended:", err)
		return
	}
	fmt.Println("left")
}

// process is a node in a process of its own.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	lines chan string
	stop  func()
}

// startProcess starts a node and does not wait for it.
func startProcess(t testing.TB, tc *testCluster, id string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", nodeVariable, tc.addresses[0], tc.prefix, id))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := cmd.Start(); err1 != nil || err2 != nil || err != nil {
		t.Fatal(err1, err2, err)
	}
	p := &process{t: t, cmd: cmd, lines: make(chan string, 16), stop: sync.OnceFunc(func() { in.Close() })}
	var reading sync.WaitGroup
	reading.Go(func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
	})
	t.Cleanup(func() {
		p.kill()
		reading.Wait()
		_ = cmd.Wait()
	})
	return p
}

// want waits for a line with this beginning.
func (p *process) want(line string) string {
	p.t.Helper()
	select {
	case got, ok := <-p.lines:
		if !ok || !strings.HasPrefix(got, line) {
			p.t.Fatalf("the node says %q, want %q", got, line)
		}
		return got
	case <-time.After(40 * time.Second):
		p.t.Fatalf("waited 40 s for %q", line)
	}
	return ""
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) kill() { _ = p.cmd.Process.Kill() }

// A node that is killed is seen dead when its lease ends; its routes are void then, and are cleaned away when they are met.
func TestNodeDies(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	tc := newCluster(s.Addr)
	a := clustertest.Start(t, tc.open(t, "a"))
	p := startProcess(t, tc, "p")
	p.want("ready")
	a.WaitNodes(t, "a", "p")
	wantRoutes(t, a, "user-p", "web@p")
	p.kill()
	killed := time.Now()
	wantRoutes(t, a, "user-p", "web@p") // it may be alive
	a.WaitNodes(t, "a")
	t.Logf("found dead after %v", time.Since(killed))
	wantRoutes(t, a, "user-p")

	p = startProcess(t, tc, "p")
	p.want("ready")
	a.WaitNodes(t, "a", "p")
	first := incarnationOf(a, "p")
	p.kill()
	killed = time.Now()
	again := startProcess(t, tc, "p") // its supervisor starts it at once: it waits for its predecessor's lease
	again.want("ready")
	t.Logf("started again after %v", time.Since(killed))
	clustertest.Eventually(t, "a sees the new incarnation", func() bool {
		now := incarnationOf(a, "p")
		return now != "" && now != first
	})
	wantRoutes(t, a, "user-p", "web@p")
	again.stop()
	again.want("left")
	a.WaitNodes(t, "a")
	wantRoutes(t, a, "user-p")
	if got := s.Do("EXISTS " + tc.prefix + "route:user-p"); got != ":0" {
		t.Errorf("the route of a node that left stands in Redis: %s", got)
	}
}

// incarnationOf a node, as another sees it.
func incarnationOf(n *clustertest.Node, id string) string {
	incarnation, _ := of(n).nodes.snapshot.Load().incarnation(id)
	return incarnation
}

func TestDeadRoutesAreCleaned(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	tc := newCluster(s.Addr)
	a := clustertest.Start(t, tc.open(t, "a"))
	a.WaitReady(t)
	key := tc.prefix + "route:bob"
	s.Do("HSET " + key + ` web "nosuchnode123 1800000000000000 7"`)
	wantRoutes(t, a, "bob")
	clustertest.Eventually(t, "the dead route is cleaned away", func() bool { return s.Do("EXISTS "+key) == ":0" })
	// A wake finds them too; what stands beside them stays.
	s.Do("HSET " + key + ` web "nosuchnode123 1800000000000000 7"`)
	if elsewhere, err := a.Join(context.Background(), "bob", "ios", 1); err != nil || elsewhere {
		t.Fatal(elsewhere, err)
	}
	a.Wake([]cluster.Wake{{User: "bob", Inbox: 1}})
	clustertest.Eventually(t, "the dead route is cleaned away", func() bool { return s.Do("HLEN "+key) == ":1" })
	// A login over one is not one over a session elsewhere.
	s.Do("HSET " + key + ` web "nosuchnode123 1800000000000000 7"`)
	if elsewhere, err := a.Join(context.Background(), "bob", "web", 2); err != nil || elsewhere {
		t.Error(elsewhere, err)
	}
}

// Routes that nobody meets go by themselves: those of a live node are kept by its comparisons.
func TestRoutesExpire(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	tc := newCluster(s.Addr)
	a := clustertest.Start(t, tc.open(t, "a"))
	a.WaitReady(t)
	join(t, a, "bob", 1)
	key := tc.prefix + "route:bob"
	lives := func() int {
		seconds, err := strconv.Atoi(strings.TrimPrefix(s.Do("TTL "+key), ":"))
		if err != nil {
			t.Fatal(err)
		}
		return seconds
	}
	if got := lives(); got < 1 || got > 3600 {
		t.Errorf("a route lives for %d s after its login", got)
	}
	s.Do("EXPIRE " + key + " 1800")
	of(a).routes.compareAll(time.Nanosecond)
	clustertest.Eventually(t, "a comparison makes the route live longer", func() bool { return lives() > 1800 })
}

// A second process with the ID of a live one is refused, and the first goes on.
func TestSameIDIsRefused(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	tc := newCluster(s.Addr)
	a := clustertest.Start(t, tc.open(t, "a"))
	a.WaitReady(t)
	began := time.Now()
	c, err := New(context.Background(), tc.options(t, "a"))
	if err == nil {
		c.Close()
		t.Fatal("a second process has the same ID")
	}
	t.Logf("refused after %v: %v", time.Since(began), err)
	if !strings.Contains(err.Error(), `the node ID is in use: "a" runs at "http://a"`) {
		t.Errorf("the error does not tell: %v", err)
	}
	if a.State() != nil {
		t.Errorf("the first node: %v", a.State())
	}
	a.Stop(t)
	b := clustertest.Start(t, tc.open(t, "a")) // who left as planned leaves the ID free
	b.WaitNodes(t, "a")
}

// A node that stood still for longer than its lease was dead to the others. It comes back with its routes.
func TestNodeStandsStill(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	tc := newCluster(s.Addr)
	a := clustertest.Start(t, tc.open(t, "a"))
	p := startProcess(t, tc, "p")
	p.want("ready")
	a.WaitNodes(t, "a", "p")
	p.signal(syscall.SIGSTOP)
	a.WaitNodes(t, "a")
	wantRoutes(t, a, "user-p")
	clustertest.Eventually(t, "the void route is cleaned away", func() bool {
		return s.Do("EXISTS "+tc.prefix+"route:user-p") == ":0"
	})
	p.signal(syscall.SIGCONT)
	a.WaitNodes(t, "a", "p")
	wantRoutes(t, a, "user-p", "web@p")
	p.stop()
	p.want("left")
}

// If another process took the ID meanwhile, the one that stood still ends and changes nothing.
func TestIDIsTakenFromWhoStandsStill(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	tc := newCluster(s.Addr)
	p := startProcess(t, tc, "p")
	p.want("ready")
	p.signal(syscall.SIGSTOP)
	q := startProcess(t, tc, "p")
	q.want("ready")
	p.signal(syscall.SIGCONT)
	p.want("ended: the node ID is in use")
	a := clustertest.Start(t, tc.open(t, "a"))
	a.WaitNodes(t, "a", "p")
	wantRoutes(t, a, "user-p", "web@p")
	q.stop()
	q.want("left")
}
