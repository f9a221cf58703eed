// Package hub knows who is here and who gets what: the sharded registry of sessions, and the path of a message from
// its submission over the commit to its delivery.
//
// Reading order: submit.go, commit.go, deliver.go; registry.go beside them. Event loops are reached through Outlet,
// which package session implements; what a session knows of its own (positions, window) stays on its loop.
package hub

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/mq"
	"github.com/meshtalk/meshtalk/store"
)

// Ref names a session's connection: an engine.Handle, opaque here. 0 names none.
type Ref uint64

// Outlet is one event loop as the hub sees it. Every method queues an operation on the loop and returns at once;
// operations of one outlet run in order. Packets are immutable from the call on.
type Outlet interface {
	// Deliver hands over what a commit made for this loop. The outlet owns b and calls Release when it is done.
	Deliver(b *Batch)
	// Tell sends a packet that may be dropped to sessions of this loop. refs belongs to the outlet.
	Tell(refs []Ref, cmd codec.Cmd, packet []byte)
	// TellGroup is Tell for the sessions that follow a large group, without those of the user except.
	TellGroup(group, except string, packet []byte)
	// Broadcast sends a packet that differs by user (head + user + tail) to every logged-in session.
	Broadcast(packet func(dst []byte, user string) []byte)
	// Close ends a session. With before > 0 only one whose token was issued before it (ms).
	Close(ref Ref, code codec.Code, reason string, before int64)
	// Join and Leave tell a session that its user came to or left a large group.
	Join(ref Ref, group string)
	Leave(ref Ref, group string)
	// Heads tells sessions how far their users' inboxes have come, as the store has it.
	Heads(heads []Head)
	// Recheck compares what was pushed of the large groups that sessions follow with the store.
	Recheck()
	// Inspect asks what only the loop knows of a session; found is false when it is gone.
	Inspect(ref Ref, answer func(info TerminalInfo, found bool))
}

// Head is the newest inbox number of a session's user.
type Head struct {
	Ref   Ref
	Inbox uint64
}

// Options of a Hub.
type Options struct {
	Store   store.Store
	Log     mq.Log
	Cluster cluster.Cluster
	// LoopOf is the index into Outlets of a session's loop.
	LoopOf func(Ref) int

	MaxMembers   int           // members of a group
	RecallWindow time.Duration // for senders; the API has none
	Workers      int           // goroutines for what may block; 0 = 128
	// Overlap is how many commits may be under way, 0 = 2: the next is encoded while the last one syncs. A log of several partitions, which
	// are applied side by side, wants more.
	Overlap int

	// Events, when set, gets the store's outbox, partition by partition of Partitions.
	Events     mq.Events
	Partitions mq.Partitions
	// NodesChanged, when set, is told of nodes that came or went, this one first. It must not block.
	NodesChanged func([]cluster.Node)
	// Expelled is told, once, that this node cannot be part of the cluster any more (cluster.Cluster.Run): it is to stop. Until
	// that it goes on, without the others. It must not block. nil = it is logged.
	Expelled func(error)
	// AfterCommit, when set, is told of every stored message, in order per conversation. The message is valid during the call.
	AfterCommit func(m *codec.ConvMessage)
	Logf        func(format string, args ...any)
	Now         func() time.Time // nil = time.Now
}

// Hub is one node's hub. All its methods are safe for concurrent use.
type Hub struct {
	// Static after construction and Connect.
	store    store.Store
	log      mq.Log
	cluster  cluster.Cluster
	outlets  []Outlet
	o        Options
	registry registry
	watchers watchers
	telling  sync.Mutex // presenceChanged's
	pool     *Pool

	durable bool   // the log is: its word is the promise
	alone   bool   // there are no other nodes
	origin  origin // of submissions that are made here
	waiting waiting
	outbox  outbox
	resync  chan struct{} // holds one token when heads are to be compared

	submissions sync.Pool // *Submission
	batches     sync.Pool // *Batch
	flights     chan *flight
	slots       chan struct{} // one token per commit that may be under way
	broadcasts  atomic.Uint64 // numbers them
	logins      atomic.Uint64 // see NextLogin

	stats counters
}

// New makes a hub. Connect must follow before the first session.
func New(o Options) *Hub {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Workers == 0 {
		o.Workers = 128
	}
	if o.Overlap == 0 {
		o.Overlap = 2
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.Expelled == nil {
		o.Expelled = func(err error) { o.Logf("cluster: %v", err) }
	}
	h := &Hub{
		store: o.Store, log: o.Log, cluster: o.Cluster, o: o,
		pool:    NewPool(o.Workers, o.Logf),
		flights: make(chan *flight, o.Overlap),
		slots:   make(chan struct{}, o.Overlap),
		durable: o.Log.Durable(), alone: o.Cluster.Alone(),
		origin: newOrigin(o.Cluster.Self().ID),
	}
	h.resync = make(chan struct{}, 1)
	h.waiting.init()
	h.outbox.init()
	h.submissions.New = func() any { return new(Submission) }
	h.batches.New = func() any { return new(Batch) }
	h.registry.init()
	h.watchers.init()
	h.stats.init()
	return h
}

// Connect gives the hub its event loops. It is called once, before Run.
func (h *Hub) Connect(outlets []Outlet) { h.outlets = outlets }

// Pool is where work that may block is done.
func (h *Hub) Pool() *Pool { return h.pool }

// Store is the store that the hub commits to.
func (h *Hub) Store() store.Store { return h.store }

// NodeID is this node's name.
func (h *Hub) NodeID() string { return h.cluster.Self().ID }

// Run commits and delivers until ctx ends; everything accepted before is still committed and answered, and told to the
// other nodes before this one leaves them.
func (h *Hub) Run(ctx context.Context) error {
	var finisher, beside sync.WaitGroup
	finisher.Go(h.finish)
	still, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	beside.Go(func() {
		if err := h.cluster.Run(still, h); err != nil {
			h.o.Expelled(err)
		}
	})
	if !h.alone {
		beside.Go(func() { h.watchHeads(still) })
	}
	if h.o.Events != nil {
		beside.Go(func() { h.publishOutbox(still) })
	}
	err := h.log.Run(ctx, h)
	close(h.flights)
	finisher.Wait()
	leave()
	beside.Wait()
	return err
}

// Close waits for the pool's work. No session may be left.
func (h *Hub) Close() { h.pool.Close() }

func (h *Hub) now() int64 { return h.o.Now().UnixMilli() }

func (h *Hub) outlet(r Ref) Outlet { return h.outlets[h.o.LoopOf(r)] }

// fail turns a store's error into the answer for who asked.
func fail(err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case *Error:
		return e
	}
	return storeError(err)
}

// SessionID is the id of the session of a connection, which logs in once: the node's incarnation keeps it unique over
// restarts.
func (h *Hub) SessionID(r Ref) string {
	return fmt.Sprintf("%s-%x", h.cluster.Self().Incarnation, uint64(r))
}
