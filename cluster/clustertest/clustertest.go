package clustertest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
)

// Open makes a node of the cluster under test, for Start.
type Open func(t testing.TB, id string) cluster.Cluster

// Run runs the suite. fresh makes a cluster that has no nodes yet.
func Run(t *testing.T, fresh func(t *testing.T) Open) {
	for _, test := range []struct {
		name string
		f    func(t *testing.T, open Open)
	}{
		{"Nodes", testNodes},
		{"Wake", testWake},
		{"WakeTwoTerminals", testWakeTwoTerminals},
		{"WakeOrder", testWakeOrder},
		{"Signals", testSignals},
		{"OtherCalls", testOtherCalls},
		{"Questions", testQuestions},
		{"NewerLoginElsewhere", testNewerLoginElsewhere},
		{"NewerLoginHere", testNewerLoginHere},
		{"Routes", testRoutes},
		{"ConcurrentLogins", testConcurrentLogins},
		{"ManySessionsComeAndGo", testChurn},
	} {
		t.Run(test.name, func(t *testing.T) { test.f(t, fresh(t)) })
	}
}

// StartNodes starts nodes that see each other and can be reached.
func StartNodes(t testing.TB, open Open, ids ...string) []*Node {
	t.Helper()
	nodes := make([]*Node, len(ids))
	for i, id := range ids {
		nodes[i] = Start(t, open(t, id))
	}
	for i, n := range nodes {
		all := append([]string{ids[i]}, slices.Delete(slices.Clone(ids), i, i+1)...)
		slices.Sort(all[1:])
		n.WaitNodes(t, all...)
		n.WaitReady(t)
	}
	return nodes
}

// Join logs in, and fails the test when that fails.
func (n *Node) join(t testing.TB, user, terminal string, ref uint64) (elsewhere bool) {
	t.Helper()
	elsewhere, err := n.Join(context.Background(), user, terminal, ref)
	if err != nil {
		t.Fatalf("join of %s/%s on %s: %v", user, terminal, n.Self().ID, err)
	}
	return elsewhere
}

// WhereIs gives "terminal@node" of a user as a node sees it, sorted.
func (n *Node) WhereIs(t testing.TB, user string) (list []string) {
	t.Helper()
	routes, err := n.Routes(context.Background(), []string{user})
	if err != nil {
		t.Fatalf("routes of %s: %v", user, err)
	}
	for _, r := range routes {
		if r.User != user {
			t.Errorf("routes of %s hold one of %s", user, r.User)
		}
		list = append(list, r.Terminal+"@"+r.Node)
	}
	slices.Sort(list)
	return list
}

func wantRoutes(t testing.TB, n *Node, user string, want ...string) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%s sees %s at %v", n.Self().ID, user, want), func() bool { return slices.Equal(n.WhereIs(t, user), want) })
}

func testNodes(t *testing.T, open Open) {
	a := Start(t, open(t, "a"))
	a.WaitNodes(t, "a")
	c := Start(t, open(t, "c"))
	b := Start(t, open(t, "b"))
	a.WaitNodes(t, "a", "b", "c")
	b.WaitNodes(t, "b", "a", "c")
	c.WaitNodes(t, "c", "a", "b")
	nodes, err := a.Nodes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got := IDs(nodes); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("Nodes gives %v", got)
	}
	for i, n := range []*Node{a, b, c} {
		want, got := n.Self(), nodes[i]
		got.Load = want.Load
		if !reflect.DeepEqual(got, want) {
			t.Errorf("a sees %+v, that is %+v", got, want)
		}
	}
	if a.Self().Incarnation == b.Self().Incarnation || a.Alone() {
		t.Error("nodes must have incarnations of their own, and are not alone")
	}
	b.Stop(t)
	a.WaitNodes(t, "a", "c")
	c.WaitNodes(t, "c", "a")
	again := Start(t, open(t, "b"))
	a.WaitNodes(t, "a", "b", "c")
	if again.Self().Incarnation == b.Self().Incarnation {
		t.Error("a node that starts again has the same incarnation")
	}
}

// message is a message with everything set.
func message(n uint64) *codec.ConvMessage {
	return &codec.ConvMessage{
		Cmd: codec.PrivateMessage, MsgID: codec.MakeMsgID("alice", []byte(fmt.Sprint(n))), Conv: "p:alice:bob", Seq: n, From: "alice", To: "bob",
		TS: 1_700_000_000_000 + int64(n), Type: 3, Content: []byte(fmt.Sprintf(`{"n":%d}`, n)), ID: fmt.Sprint(n),
	}
}

func testWake(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b", "c")
	a, b, c := nodes[0], nodes[1], nodes[2]
	b.join(t, "bob", "web", 1)
	a.join(t, "alice", "web", 2)
	a.Wake([]cluster.Wake{
		{User: "alice", Inbox: 4, Message: message(7)}, {User: "bob", Inbox: 9, Message: message(7)}, {User: "nobody", Inbox: 1, Message: message(7)},
	})
	a.Wake([]cluster.Wake{{Group: "big", Message: message(8)}})
	for _, n := range []*Node{b, c} {
		n.Wait(t, "the wake of the group", func() bool {
			return slices.ContainsFunc(n.wakes, func(w cluster.Wake) bool { return w.Group == "big" })
		})
	}
	b.Read(func() {
		want := []cluster.Wake{{User: "bob", Inbox: 9, Message: message(7)}, {Group: "big", Message: message(8)}}
		for i := range b.wakes { // the two ways may overtake each other, but not change
			if !slices.ContainsFunc(want, func(w cluster.Wake) bool { return reflect.DeepEqual(w, b.wakes[i]) }) {
				t.Errorf("b got %+v", b.wakes[i])
			}
		}
	})
	b.WaitWoken(t, "bob", 9)
	// Whatever else was sent has arrived when what was sent after it has.
	c.join(t, "carol", "web", 3)
	a.Wake([]cluster.Wake{{User: "carol", Inbox: 1, Message: message(9)}, {User: "bob", Inbox: 10}})
	c.WaitWoken(t, "carol", 1)
	b.WaitWoken(t, "bob", 10)
	for _, n := range nodes {
		n.Read(func() {
			for _, w := range n.wakes {
				at := map[string]*Node{"bob": b, "carol": c, "": n}[w.User]
				if at != n || n == a {
					t.Errorf("node %s was woken for %q", n.Self().ID, w.User)
				}
			}
		})
	}
}

// Two terminals of a user on one node are one wake there; on two nodes each has one.
func testWakeTwoTerminals(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b", "c")
	a, b, c := nodes[0], nodes[1], nodes[2]
	b.join(t, "bob", "web", 1)
	b.join(t, "bob", "ios", 2)
	c.join(t, "bob", "mac", 3)
	for i := uint64(1); i <= 3; i++ {
		a.Wake([]cluster.Wake{{User: "bob", Inbox: i, Message: message(i)}})
	}
	for _, n := range []*Node{b, c} {
		n.WaitWoken(t, "bob", 3)
		if got := n.Inboxes("bob"); !slices.Equal(got, []uint64{1, 2, 3}) {
			t.Errorf("%s was woken for %v", n.Self().ID, got)
		}
	}
}

// Wakes of one user that one goroutine sends arrive in order, whatever else is sent.
func testWakeOrder(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b", "c")
	const users, each = 40, 300
	for u := range users {
		nodes[1+u%2].join(t, fmt.Sprintf("u%d", u), "web", uint64(u))
	}
	for i := uint64(1); i <= each; i++ {
		var wakes []cluster.Wake
		for u := range users {
			wakes = append(wakes, cluster.Wake{User: fmt.Sprintf("u%d", u), Inbox: i, Message: message(i)})
		}
		nodes[0].Wake(wakes)
	}
	for u := range users {
		n, user := nodes[1+u%2], fmt.Sprintf("u%d", u)
		n.WaitWoken(t, user, each)
		got := n.Inboxes(user)
		if len(got) != each || !slices.IsSorted(got) {
			t.Errorf("%s: %d wakes, sorted %v", user, len(got), slices.IsSorted(got))
		}
	}
}

func testSignals(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b", "c")
	a, b, c := nodes[0], nodes[1], nodes[2]
	b.join(t, "bob", "web", 1)
	packet := []byte(`{"cmd":12,"data":{"conv":"p:alice:bob","from":"alice"}}`)
	state := &codec.PresenceState{User: "alice", Online: true, Terminals: []string{"web", "ios"}, LastSeen: 5}
	forAll := []cluster.Signal{
		{User: "alice", State: state}, {Group: "big", Except: "alice", Packet: packet}, {Broadcast: message(3)},
	}
	a.Send(append([]cluster.Signal{{User: "bob", Packet: packet}}, forAll...))
	for _, n := range []*Node{b, c} {
		for _, want := range forAll {
			n.Wait(t, fmt.Sprintf("the signal %+v", want), func() bool {
				return slices.ContainsFunc(n.signals, func(s cluster.Signal) bool { return reflect.DeepEqual(s, want) })
			})
		}
	}
	b.Wait(t, "the packet for bob", func() bool {
		return slices.ContainsFunc(b.signals, func(s cluster.Signal) bool { return s.User == "bob" && string(s.Packet) == string(packet) })
	})
	c.Read(func() {
		if len(c.signals) != len(forAll) {
			t.Errorf("c got %+v", c.signals)
		}
	})
}

func testOtherCalls(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b", "c")
	a, b, c := nodes[0], nodes[1], nodes[2]
	change := cluster.MembersChange{Group: "team", Added: []string{"x"}, Removed: []string{"y", "z"}, Large: true, BecameLarge: true}
	reply := cluster.Answer{Ref: 1 << 40, Token: 2, ID: []byte("id"), Code: codec.CodeConflict, Message: "m", MsgID: codec.MsgID{1}, Seq: 3, TS: 4, Duplicate: true}
	a.Members(change)
	a.Reply("c", reply)
	a.Reply("nobody", reply)
	a.Order("bob", "web", codec.CodeRevoked, "token revoked", 77)
	for _, n := range []*Node{b, c} {
		n.Wait(t, "the change and the order", func() bool { return len(n.members) == 1 && len(n.orders) == 1 })
		n.Read(func() {
			if !reflect.DeepEqual(n.members[0], change) || n.orders[0] != (Order{"bob", "web", codec.CodeRevoked, "token revoked", 77}) {
				t.Errorf("%s got %+v and %+v", n.Self().ID, n.members, n.orders)
			}
		})
	}
	c.Wait(t, "the answer", func() bool { return len(c.answers) == 1 })
	for _, n := range nodes {
		n.Read(func() {
			if n == c && !reflect.DeepEqual(n.answers[0], reply) || n != c && len(n.answers) != 0 || n == a && len(n.orders) != 0 {
				t.Errorf("%s got %+v, %+v", n.Self().ID, n.answers, n.orders)
			}
		})
	}
}

func testQuestions(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b", "c")
	a := nodes[0]
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			question := fmt.Sprint("question ", i)
			to := nodes[1+i%2].Self().ID
			answer, err := a.Ask(ctx, to, []byte(question))
			if i < 100 && (err != nil || string(answer) != "answer to "+question) {
				t.Errorf("asking %s: %q, %v", to, answer, err)
			}
		})
		if i < 100 {
			all.Wait() // the second hundred goes at once: more than are answered may be dropped
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	waited := make(chan error, 1)
	go func() {
		_, err := a.Ask(ctx, "b", []byte("wait"))
		waited <- err
	}()
	cancel()
	if err := <-waited; err == nil {
		t.Error("a question without an answer was answered")
	}
	if _, err := a.Ask(context.Background(), "nobody", []byte("you there?")); err == nil {
		t.Error("a node that is not there answers")
	}
	all.Wait()
}

func testNewerLoginElsewhere(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b", "c")
	a, b, c := nodes[0], nodes[1], nodes[2]
	if a.join(t, "bob", "web", 1) {
		t.Error("the first login was elsewhere")
	}
	if b.join(t, "bob", "ios", 1) {
		t.Error("another terminal counts as the older session")
	}
	for round := range uint64(20) {
		older, newer := nodes[round%3], nodes[(round+1)%3]
		was, is := Session{"bob", "web", round + 1}, Session{"bob", "web", round + 2}
		if !newer.join(t, is.User, is.Terminal, is.Ref) {
			t.Errorf("round %d: the older session was elsewhere, which Join does not tell", round)
		}
		older.Wait(t, "the end of the older session", func() bool { return slices.Contains(older.superseded, was) })
		older.Leave(was.User, was.Terminal, was.Ref) // it closes; the newer route stays
	}
	last := nodes[20%3] // c
	wantRoutes(t, a, "bob", "ios@b", "web@"+last.Self().ID)
	for i, n := range nodes {
		n.Read(func() {
			if want := []int{7, 7, 6}[i]; len(n.superseded) != want {
				t.Errorf("%s lost %v, want %d sessions", n.Self().ID, n.superseded, want)
			}
		})
	}
	c.Leave("bob", "web", 21)
	wantRoutes(t, a, "bob", "ios@b")
}

// A newer login on the same node is the node's own affair; the older session's Leave comes late and changes nothing.
func testNewerLoginHere(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b")
	a, b := nodes[0], nodes[1]
	for ref := range uint64(50) {
		if a.join(t, "bob", "web", ref+1) {
			t.Error("the older session was here")
		}
		a.Leave("bob", "web", ref)
	}
	wantRoutes(t, b, "bob", "web@a")
	if !b.join(t, "bob", "web", 1) {
		t.Error("the older session was elsewhere")
	}
	a.Wait(t, "the end of the older session", func() bool { return slices.Contains(a.superseded, Session{"bob", "web", 50}) })
	a.Read(func() {
		if len(a.superseded) != 1 {
			t.Errorf("a lost %v", a.superseded)
		}
	})
}

func testRoutes(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b", "c")
	a, b, c := nodes[0], nodes[1], nodes[2]
	var users []string
	for i := range 1500 { // more than one pipeline
		user := fmt.Sprintf("user %d", i)
		users = append(users, user)
		if i%3 > 0 {
			nodes[i%3].join(t, user, "web", uint64(i))
		}
	}
	a.join(t, users[1], "ios", 1)
	routes, err := a.Routes(context.Background(), users)
	if err != nil {
		t.Fatal(err)
	}
	if len(routes) != 1000 {
		t.Errorf("a sees %d routes, want the 1000 of b and c", len(routes))
	}
	wantRoutes(t, c, users[1], "ios@a", "web@b")
	for i, user := range users {
		if i%3 > 0 {
			nodes[i%3].Leave(user, "web", uint64(i))
		}
	}
	Eventually(t, "all have left", func() bool {
		routes, err := a.Routes(context.Background(), users)
		return err == nil && len(routes) == 0
	})
	if list, err := a.Routes(context.Background(), nil); err != nil || len(list) != 0 {
		t.Errorf("routes of nobody: %v, %v", list, err)
	}
	b.Stop(t) // with nothing joined
}

// The same terminal logs in on two nodes at the same time, over and over: exactly one of each pair is left.
func testConcurrentLogins(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b", "c")
	Duel(t, nodes[0], nodes[1], nodes[2], 1000, nil)
}

// Duel logs the same (user, terminal) in on two nodes at once, rounds times, 16 at a time, and then checks by a third node
// that exactly one of each pair is left, and that its node is where the route points. At half time it calls between.
func Duel(t testing.TB, a, b, witness *Node, rounds int, between func()) {
	t.Helper()
	sides := []*Node{a, b}
	turns := make(chan int)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := range turns {
				var pair sync.WaitGroup
				for _, n := range sides {
					pair.Go(func() {
						if _, err := n.Join(context.Background(), fmt.Sprintf("duel%d", i), "web", uint64(i+1)); err != nil {
							t.Errorf("round %d on %s: %v", i, n.Self().ID, err)
						}
					})
				}
				pair.Wait()
			}
		})
	}
	for i := range rounds {
		if i == rounds/2 && between != nil {
			between()
		}
		turns <- i
	}
	close(turns)
	all.Wait()
	for i := range rounds {
		user := fmt.Sprintf("duel%d", i)
		s := Session{user, "web", uint64(i + 1)}
		Eventually(t, "one session of "+user+" is left, where the route points", func() bool {
			if a.Lost(s) == b.Lost(s) {
				return false
			}
			left := a
			if a.Lost(s) {
				left = b
			}
			routes, err := witness.Routes(context.Background(), []string{user})
			return err == nil && len(routes) == 1 && routes[0].Node == left.Self().ID
		})
	}
	for i := range rounds {
		if s := (Session{fmt.Sprintf("duel%d", i), "web", uint64(i + 1)}); a.Lost(s) == b.Lost(s) {
			t.Errorf("%s: lost on both nodes or on none", s.User)
		}
	}
	for _, n := range sides {
		n.Read(func() {
			seen := map[Session]bool{}
			for _, s := range n.superseded {
				if seen[s] {
					t.Errorf("%s was told twice that %+v is superseded", n.Self().ID, s)
				}
				seen[s] = true
			}
		})
	}
}

// Sessions come and go in every order on all nodes; in the end the routes are those of the sessions that are left.
func testChurn(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b", "c")
	const users, rounds = 30, 40
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			for round := range rounds {
				for u := range users {
					user := fmt.Sprintf("u%d", u)
					ref := uint64(round*100 + i)
					if _, err := n.Join(context.Background(), user, "web", ref); err != nil {
						t.Error(err)
					}
					if (u+round+i)%4 != 0 || round == rounds-1 && u%2 == 1 {
						n.Leave(user, "web", ref)
					}
				}
			}
		})
	}
	all.Wait()
	for u := range users {
		user := fmt.Sprintf("u%d", u)
		Eventually(t, "the routes of "+user+" are those of its sessions", func() bool {
			var want []string
			for i, n := range nodes {
				last := Session{user, "web", uint64((rounds-1)*100 + i)}
				left := (u+rounds-1+i)%4 != 0 || u%2 == 1
				if !left && !n.Lost(last) {
					want = append(want, "web@"+n.Self().ID)
				}
			}
			// Each node sees those of the others.
			for _, n := range nodes {
				others := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "web@"+n.Self().ID })
				if !slices.Equal(n.WhereIs(t, user), others) {
					return false
				}
			}
			return len(want) <= 1
		})
	}
}
