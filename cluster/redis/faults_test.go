package redis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/cluster/clustertest"
	"github.com/meshtalk/meshtalk/internal/services"
)

// whereIs gives "terminal@node" of a user, or nil when that cannot be asked now.
func whereIs(n *clustertest.Node, user string) (list []string) {
	routes, _ := n.Routes(context.Background(), []string{user})
	for _, r := range routes {
		list = append(list, r.Terminal+"@"+r.Node)
	}
	slices.Sort(list)
	return list
}

func wantRoutes(t testing.TB, n *clustertest.Node, user string, want ...string) {
	t.Helper()
	clustertest.Eventually(t, fmt.Sprintf("%s is at %v", user, want), func() bool {
		return n.State() == nil && slices.Equal(whereIs(n, user), want)
	})
}

func join(t testing.TB, n *clustertest.Node, user string, ref uint64) (elsewhere bool) {
	t.Helper()
	elsewhere, err := n.Join(context.Background(), user, "web", ref)
	if err != nil {
		t.Fatal(err)
	}
	return elsewhere
}

func waitLost(t testing.TB, n *clustertest.Node, user string, ref uint64) {
	t.Helper()
	clustertest.Eventually(t, fmt.Sprintf("%s loses %s %d", n.Self().ID, user, ref), func() bool {
		return n.Lost(clustertest.Session{User: user, Terminal: "web", Ref: ref})
	})
}

// wakesPass waits until wakes pass from one node to a user on another.
func wakesPass(t testing.TB, from, to *clustertest.Node, user string) {
	t.Helper()
	for inbox := rand.Uint64N(1 << 40); ; inbox++ {
		from.Wake([]cluster.Wake{{User: user, Inbox: inbox}})
		for range 50 {
			if slices.Contains(to.Inboxes(user), inbox) {
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
		if t.Failed() {
			return
		}
	}
}

// crowd joins many users on a node.
func crowd(t testing.TB, n *clustertest.Node, name string, count int) (users []string) {
	t.Helper()
	var all sync.WaitGroup
	for i := range count {
		users = append(users, fmt.Sprintf("%s-%d", name, i))
	}
	for part := range 32 {
		all.Go(func() {
			for i := part; i < count; i += 32 {
				if _, err := n.Join(context.Background(), users[i], "web", uint64(i+1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	return users
}

// wantCrowd waits until a node sees all users at another.
func wantCrowd(t testing.TB, n *clustertest.Node, users []string, at string) {
	t.Helper()
	clustertest.Eventually(t, fmt.Sprintf("%d users are at %s", len(users), at), func() bool {
		routes, err := n.Routes(context.Background(), users)
		if err != nil || len(routes) != len(users) {
			return false
		}
		return !slices.ContainsFunc(routes, func(r cluster.Route) bool { return r.Node != at })
	})
}

// Redis dies and comes back empty: the nodes stay what they were to each other, and their routes are back.
func TestRedisRestartsEmpty(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	nodes := clustertest.StartNodes(t, newCluster(s.Addr).open, "a", "b", "c")
	a, b := nodes[0], nodes[1]
	users := crowd(t, b, "u", 20_000)
	wantCrowd(t, a, users, "b")
	changes := a.NodeChanges()
	for round := range 2 {
		resyncs := b.Resyncs()
		s.Kill()
		clustertest.Eventually(t, "the nodes notice", func() bool { return a.State() != nil && b.State() != nil })
		began := time.Now()
		join(t, a, "while down", uint64(round))
		if since := time.Since(began); since > 20*time.Second {
			t.Errorf("a login waited %v for a dead Redis", since)
		}
		a.Wake([]cluster.Wake{{User: users[0], Inbox: 5}}) // is lost
		s.Start()
		began = time.Now()
		wantCrowd(t, a, users, "b")
		t.Logf("routes are back %v after Redis", time.Since(began))
		wantRoutes(t, nodes[2], "while down", "web@a")
		b.Wait(t, "Resync", func() bool { return true })
		clustertest.Eventually(t, "b is told to look", func() bool { return b.Resyncs() > resyncs })
		wakesPass(t, a, b, users[7])
	}
	if n := a.NodeChanges(); n != changes {
		t.Errorf("%d changes of nodes were told, and none came or went", n-changes)
	}
}

// FLUSHALL again and again, while sessions come and go and wakes are sent: the routes are those of the sessions.
func TestFlushUnderLoad(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	nodes := clustertest.StartNodes(t, newCluster(s.Addr).open, "a", "b", "c")
	quiet := crowd(t, nodes[1], "quiet", 5000)
	changes := nodes[0].NodeChanges()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var all sync.WaitGroup
	const busy = 200
	last := make([][busy]uint64, len(nodes)) // the newest ref of each busy user by node, 0 = left
	for i, n := range nodes {
		all.Go(func() {
			for ref := uint64(1); ctx.Err() == nil; ref++ {
				u := rand.IntN(busy)
				user := fmt.Sprintf("busy-%d", u)
				if last[i][u] != 0 && rand.IntN(2) == 0 {
					n.Leave(user, "web", last[i][u])
					last[i][u] = 0
				} else {
					join(t, n, user, ref)
					last[i][u] = ref
				}
				n.Wake([]cluster.Wake{{User: quiet[rand.IntN(len(quiet))], Inbox: ref}})
			}
		})
	}
	for range 5 {
		time.Sleep(time.Duration(300+rand.IntN(700)) * time.Millisecond) // the load between two flushes
		s.Do("FLUSHALL")
	}
	began := time.Now()
	wantCrowd(t, nodes[0], quiet, "b")
	t.Logf("routes are back %v after the last FLUSHALL", time.Since(began))
	cancel()
	all.Wait()
	for u := range busy {
		user := fmt.Sprintf("busy-%d", u)
		clustertest.Eventually(t, "one session of "+user+" at most is left, where its route points", func() bool {
			var here []string
			for i, n := range nodes {
				if ref := last[i][u]; ref != 0 && !n.Lost(clustertest.Session{User: user, Terminal: "web", Ref: ref}) {
					here = append(here, "web@"+n.Self().ID)
				}
			}
			if len(here) > 1 {
				return false
			}
			for _, n := range nodes {
				others := slices.DeleteFunc(slices.Clone(here), func(s string) bool { return s == "web@"+n.Self().ID })
				if !slices.Equal(whereIs(n, user), others) {
					return false
				}
			}
			return true
		})
	}
	if n := nodes[0].NodeChanges(); n != changes {
		t.Errorf("%d changes of nodes were told, and none came or went", n-changes)
	}
}

// The same terminal logs in on two nodes at once, while Redis is killed and comes back empty.
func TestConcurrentLoginsAndRestart(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	nodes := clustertest.StartNodes(t, newCluster(s.Addr).open, "a", "b", "c")
	clustertest.Duel(t, nodes[0], nodes[1], nodes[2], 1000, func() {
		s.Kill()
		s.Start()
	})
}

// A node is cut off from Redis. The newer login wins when it is back, whichever side it was on.
func TestCutOff(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	p := services.NewProxy(t, s.Addr)
	tc := newCluster(s.Addr)
	through := *tc
	through.addresses = []string{p.Addr}
	a := clustertest.Start(t, through.open(t, "a"))
	b := clustertest.Start(t, tc.open(t, "b"))
	a.WaitNodes(t, "a", "b")
	b.WaitNodes(t, "b", "a")
	a.WaitReady(t)
	b.WaitReady(t)
	join(t, a, "older on a", 1)
	join(t, b, "older on b", 2)
	join(t, a, "left", 3)
	wantRoutes(t, b, "left", "web@a")
	resyncs := a.Resyncs()

	p.Cut()
	clustertest.Eventually(t, "a notices", func() bool { return a.State() != nil })
	join(t, b, "older on a", 4)
	join(t, a, "older on b", 5)
	join(t, a, "new on a", 6)
	a.Leave("left", "web", 3)
	join(t, a, "came and went", 7)
	a.Leave("came and went", "web", 7)
	if _, err := a.Routes(context.Background(), []string{"left"}); err == nil {
		t.Error("a gives routes that it cannot know")
	}
	if nodes, err := a.Nodes(context.Background()); err != nil || len(nodes) != 2 {
		t.Errorf("a sees the nodes %v, %v; the last known ones stay", clustertest.IDs(nodes), err)
	}
	b.WaitNodes(t, "b") // its lease has ended
	changes := a.NodeChanges()

	p.Restore()
	b.WaitNodes(t, "b", "a")
	waitLost(t, a, "older on a", 1)
	waitLost(t, b, "older on b", 2)
	wantRoutes(t, a, "older on a", "web@b")
	wantRoutes(t, b, "older on b", "web@a")
	wantRoutes(t, b, "new on a", "web@a")
	wantRoutes(t, b, "left")
	wantRoutes(t, b, "came and went")
	clustertest.Eventually(t, "a is told to look", func() bool { return a.Resyncs() > resyncs })
	wakesPass(t, a, b, "older on a")
	wakesPass(t, b, a, "new on a")
	if n := a.NodeChanges(); n != changes {
		t.Errorf("a was told of %d changes of nodes, and b was there all the time", n-changes)
	}
}

// Redis stands still for longer than all leases. Logins go on; what was sent into it meanwhile does nothing later.
func TestRedisStandsStill(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	nodes := clustertest.StartNodes(t, newCluster(s.Addr).open, "a", "b", "c")
	a, b, c := nodes[0], nodes[1], nodes[2]
	users := crowd(t, b, "u", 1000)
	changes := a.NodeChanges()

	s.Signal(syscall.SIGSTOP)
	for ref := range uint64(20) { // the first ones reach its sockets
		user := fmt.Sprintf("ghost-%d", ref)
		join(t, a, user, ref)
		a.Leave(user, "web", ref)
		join(t, a, "both", ref)
		join(t, b, "both", ref)
		join(t, a, user+"-stays", ref)
	}
	clustertest.Eventually(t, "the nodes notice", func() bool { return a.State() != nil && b.State() != nil })
	time.Sleep(leaseTTL + time.Second) // that is the fault: all leases end meanwhile
	s.Signal(syscall.SIGCONT)

	for ref := range uint64(20) {
		user := fmt.Sprintf("ghost-%d", ref)
		wantRoutes(t, c, user)
		wantRoutes(t, c, user+"-stays", "web@a")
	}
	wantCrowd(t, a, users, "b")
	last := clustertest.Session{User: "both", Terminal: "web", Ref: 19}
	clustertest.Eventually(t, "one session is left, where the route points", func() bool {
		return a.Lost(last) && slices.Equal(whereIs(c, "both"), []string{"web@b"}) ||
			b.Lost(last) && slices.Equal(whereIs(c, "both"), []string{"web@a"})
	})
	if a.Lost(last) && b.Lost(last) {
		t.Error("both sessions are lost")
	}
	wakesPass(t, a, b, users[3])
	if n := a.NodeChanges(); n != changes {
		t.Errorf("%d changes of nodes were told, and none came or went", n-changes)
	}
}

// More than the queue takes: what is dropped is counted, and the others are told to look.
func TestOverflow(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	nodes := clustertest.StartNodes(t, newCluster(s.Addr).open, "a", "b")
	a, b := nodes[0], nodes[1]
	join(t, b, "bob", 1)
	resyncs := b.Resyncs()
	wakes := make([]cluster.Wake, outItems/2+1)
	for i := range wakes {
		wakes[i] = cluster.Wake{User: "bob", Inbox: uint64(i + 1)}
	}
	s.Signal(syscall.SIGSTOP) // nothing gets out for a moment
	a.Wake(wakes)
	a.Wake(wakes)
	a.Wake(wakes)
	s.Signal(syscall.SIGCONT)
	clustertest.Eventually(t, "b is told to look", func() bool { return b.Resyncs() > resyncs })
	if d := of(a).Stats().Dropped; d < uint64(len(wakes)) {
		t.Errorf("%d are counted as dropped", d)
	}
	wakesPass(t, a, b, "bob")
}

// A hole in a sender's numbers, and what cannot be read, are losses; a number from before is not taken.
func TestGapsAreNoticed(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	tc := newCluster(s.Addr)
	n := clustertest.Start(t, tc.open(t, "a"))
	n.WaitReady(t)
	c := of(n)
	send := func(sender string, number, inbox uint64) {
		var e encoder
		e.begin(sender, number)
		e.wake("bob", "", inbox, nil)
		if err := c.client.Do(context.Background(), c.publishCommand(c.self.Incarnation, string(e.b))).Error(); err != nil {
			t.Fatal(err)
		}
	}
	settled := func() int { // the resyncs of the start are over
		clustertest.Eventually(t, "all Resyncs are done", func() bool {
			c.in.mu.Lock()
			defer c.in.mu.Unlock()
			return !c.in.again && len(c.in.events) == 0
		})
		return n.Resyncs()
	}
	before := settled()
	send("x", 7, 1)
	send("x", 8, 2)
	send("y", 1, 3)
	n.WaitWoken(t, "bob", 3)
	if got := settled(); got != before {
		t.Errorf("%d Resyncs without a gap", got-before)
	}
	send("x", 10, 4)
	clustertest.Eventually(t, "the hole is noticed", func() bool { return n.Resyncs() > before })
	before = settled()
	send("x", 9, 5)
	send("x", 11, 6)
	n.WaitWoken(t, "bob", 6)
	if got := n.Inboxes("bob"); !slices.Equal(got, []uint64{1, 2, 3, 4, 6}) {
		t.Errorf("bob was woken for %v", got)
	}
	clustertest.Eventually(t, "the late one is noticed", func() bool { return n.Resyncs() > before })
	before = settled()
	if err := c.client.Do(context.Background(), c.publishCommand(everyone, "\x01\x05nonsense")).Error(); err != nil {
		t.Fatal(err)
	}
	clustertest.Eventually(t, "the unreadable one is noticed", func() bool { return n.Resyncs() > before })
	if m := c.Stats().Malformed; m != 1 {
		t.Errorf("%d malformed payloads", m)
	}
}

// The message to the older session's node is lost. The comparison finds it.
func TestLostSupersededIsFound(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	tc := newCluster(s.Addr)
	nodes := clustertest.StartNodes(t, tc.open, "a", "b")
	a, b := nodes[0], nodes[1]
	join(t, a, "bob", 1)
	// As if b had joined and the message had been lost.
	s.Do(fmt.Sprintf("HSET %sroute:bob web \"%s %d 2\"", tc.prefix, b.Self().Incarnation, uint64(1)<<52))
	of(a).routes.compareAll(compareEvery)
	waitLost(t, a, "bob", 1)
}

// One route is lost in Redis, as by a fail-over. The comparison of a part finds it, and then all are looked at.
func TestLostRouteIsFound(t *testing.T) {
	t.Parallel()
	s := services.StartRedis(t)
	tc := newCluster(s.Addr)
	nodes := clustertest.StartNodes(t, tc.open, "a", "b")
	users := crowd(t, nodes[1], "u", 2000)
	wantCrowd(t, nodes[0], users, "b")
	for _, u := range users {
		s.Do("DEL " + tc.prefix + "route:" + u)
	}
	wantCrowd(t, nodes[0], users, "b")
}
