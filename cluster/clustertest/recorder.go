// Package clustertest is the executable meaning of cluster.Cluster: every backend for several nodes passes Run.
package clustertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
)

// patience bounds the wait for what must happen.
const patience = 30 * time.Second

// Recorder is a Receiver that remembers what it was given. Wait waits for it.
type Recorder struct {
	mu      sync.Mutex // guards the rest
	changed chan struct{}
	busy    bool
	wrong   []string

	wakes      []cluster.Wake
	signals    []cluster.Signal
	superseded []Session
	members    []cluster.MembersChange
	answers    []cluster.Answer
	nodes      [][]cluster.Node
	orders     []Order
	resyncs    int
}

// Session is a session as its node names it.
type Session struct {
	User, Terminal string
	Ref            uint64
}

// Order is one call of Ordered.
type Order struct {
	User, Terminal string
	Code           codec.Code
	Reason         string
	Before         int64
}

var _ cluster.Receiver = (*Recorder)(nil)

// note runs f, which records one call; calls must come one after the other.
func (r *Recorder) note(f func()) {
	r.mu.Lock()
	if r.busy {
		r.wrong = append(r.wrong, "two calls at a time")
	}
	r.busy = true
	r.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	r.busy = false
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Woken implements cluster.Receiver.
func (r *Recorder) Woken(w []cluster.Wake) { r.note(func() { r.wakes = append(r.wakes, w...) }) }

// Signalled implements cluster.Receiver.
func (r *Recorder) Signalled(s []cluster.Signal) {
	r.note(func() { r.signals = append(r.signals, s...) })
}

// Superseded implements cluster.Receiver.
func (r *Recorder) Superseded(user, terminal string, ref uint64) {
	r.note(func() { r.superseded = append(r.superseded, Session{user, terminal, ref}) })
}

// MembersChanged implements cluster.Receiver.
func (r *Recorder) MembersChanged(c cluster.MembersChange) {
	r.note(func() { r.members = append(r.members, c) })
}

// Answered implements cluster.Receiver.
func (r *Recorder) Answered(a []cluster.Answer) {
	r.note(func() { r.answers = append(r.answers, a...) })
}

// NodesChanged implements cluster.Receiver.
func (r *Recorder) NodesChanged(n []cluster.Node) {
	r.note(func() { r.nodes = append(r.nodes, n) })
}

// Ordered implements cluster.Receiver.
func (r *Recorder) Ordered(user, terminal string, code codec.Code, reason string, before int64) {
	r.note(func() { r.orders = append(r.orders, Order{user, terminal, code, reason, before}) })
}

// Asked implements cluster.Receiver: the answer names the question; to "wait" there is none before the end.
func (r *Recorder) Asked(ctx context.Context, question []byte) []byte {
	if string(question) == "wait" {
		<-ctx.Done()
	}
	return append([]byte("answer to "), question...)
}

// Resync implements cluster.Receiver.
func (r *Recorder) Resync() { r.note(func() { r.resyncs++ }) }

// Wait waits until f, which may look at what was recorded, is true.
func (r *Recorder) Wait(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		ok := f()
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// Read runs f, which may look at what was recorded.
func (r *Recorder) Read(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// Resyncs is how often Resync was called.
func (r *Recorder) Resyncs() (n int) {
	r.Read(func() { n = r.resyncs })
	return n
}

// Lost tells whether a session was superseded.
func (r *Recorder) Lost(s Session) (lost bool) {
	r.Read(func() { lost = slices.Contains(r.superseded, s) })
	return lost
}

// Inboxes are the inbox numbers that a user was woken for, in order.
func (r *Recorder) Inboxes(user string) (list []uint64) {
	r.Read(func() { list = r.inboxes(user) })
	return list
}

func (r *Recorder) inboxes(user string) (list []uint64) {
	for i := range r.wakes {
		if r.wakes[i].User == user {
			list = append(list, r.wakes[i].Inbox)
		}
	}
	return list
}

// WaitWoken waits until a user was woken for an inbox number.
func (r *Recorder) WaitWoken(t testing.TB, user string, inbox uint64) {
	t.Helper()
	r.Wait(t, fmt.Sprintf("the wake of %s for %d", user, inbox), func() bool { return slices.Contains(r.inboxes(user), inbox) })
}

// WaitNodes waits until NodesChanged has named exactly these, the receiver's own first.
func (r *Recorder) WaitNodes(t testing.TB, ids ...string) {
	t.Helper()
	r.Wait(t, fmt.Sprintf("the nodes %v", ids), func() bool {
		return len(r.nodes) > 0 && slices.Equal(IDs(r.nodes[len(r.nodes)-1]), ids)
	})
}

// NodeChanges is how often NodesChanged was called.
func (r *Recorder) NodeChanges() (n int) {
	r.Read(func() { n = len(r.nodes) })
	return n
}

// IDs are the nodes' IDs.
func IDs(nodes []cluster.Node) (ids []string) {
	for i := range nodes {
		ids = append(ids, nodes[i].ID)
	}
	return ids
}

// Node is one node of a test: a cluster with its recorder.
type Node struct {
	cluster.Cluster
	*Recorder
	stop func() error
}

// Start runs a node. It is stopped at the end of the test, if Stop was not called before.
func Start(t testing.TB, c cluster.Cluster) *Node {
	t.Helper()
	n := &Node{Cluster: c, Recorder: &Recorder{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, n.Recorder) }()
	n.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return fmt.Errorf("Run of %s did not end within %v", c.Self().ID, patience)
		}
	})
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("node %s: %v", c.Self().ID, err)
		}
		n.Read(func() {
			for _, w := range n.wrong {
				t.Errorf("node %s: %s", c.Self().ID, w)
			}
		})
	})
	return n
}

// Stop ends Run and waits for it.
func (n *Node) Stop(t testing.TB) {
	t.Helper()
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
}

// WaitReady waits until the node reaches the others.
func (n *Node) WaitReady(t testing.TB) {
	t.Helper()
	Eventually(t, "node "+n.Self().ID+" is ready", func() bool { return n.State() == nil })
}

// Eventually waits until f is true, for what tells nobody when it changes.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v until %s", patience, what)
		}
	}
}
