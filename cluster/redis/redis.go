// Package redis is a cluster of nodes that find and reach each other through Redis: single, Redis Cluster or Sentinel.
//
// Redis holds who is alive (a lease per node), who is where (a route per terminal) and carries what nodes tell each other
// (Pub/Sub). All of it can be rebuilt by the nodes: a Redis that was emptied is filled again, one that cannot be
// reached costs wake-ups, which receivers find again in the inboxes (Receiver.Resync). docs/redis.md tells keys and sizes.
//
//	Join, Leave → routes (here) → writeRoutes → scriptPut, scriptDrop → Redis
//	Wake, Send, … → out → address: HVALS of the users' routes → publish: one payload per node
//	listen: subscription → in → deliver: Receiver
//	keepLease: lease, table of nodes, and the judgement whether Redis can be reached
//
// Each arrow's end is one goroutine, so order is kept. No lock is held across a call to Redis or to the Receiver.
package redis

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/meshtalk/meshtalk/cluster"
)

// Options say how to reach Redis and who this node is.
type Options struct {
	// Addresses are host:port of a single Redis, of some servers of a Redis Cluster, or of Sentinels: which it is, is asked from the
	// first that answers.
	Addresses []string
	Password  string // of the servers, and of Sentinels that have one; who has none takes any
	DB        int    // not with a Redis Cluster
	Master    string // what a Sentinel calls the Redis; "" = the only one that it watches
	Prefix    string // of keys and channels; "" = "meshtalk:"
	// Node is this node: ID (unique among live nodes) and Address. Incarnation and Since are set by New.
	Node cluster.Node
	// Load is asked every few seconds; nil = nothing is told.
	Load func() cluster.Load
	Logf func(format string, args ...any) // nil = nothing is logged
}

// Cluster implements cluster.Cluster. Safe for concurrent use.
type Cluster struct {
	// Static after New.
	o      Options
	self   cluster.Node
	client rueidis.Client
	mode   mode

	offset    atomic.Int64 // Redis's clock minus ours, ms
	slow      atomic.Int64 // when a Join waited in vain, ms
	gate      *gate
	nodes     *nodes
	routes    *routes
	out       *out
	in        *in
	expect    expected
	listening subscriptions
	leftovers leftovers
	questions *questions
	poke      chan struct{} // keepLease is to look
	byes      chan string   // incarnations that left as planned
	running   atomic.Bool
	stats     counters
}

var _ cluster.Cluster = (*Cluster)(nil)

// errRunning: Run is called once.
var errRunning = errors.New("cluster/redis: Run was called before")

// New connects and takes the lease of the node: from then on others see it. It fails when Redis cannot be reached, is not
// what is needed, or another process runs under the same ID; a lease that a crashed process has left is waited out (10 s). The
// errors name the address and are to be prefixed with the key of the configuration. Run or Close must follow.
func New(ctx context.Context, o Options) (*Cluster, error) {
	if len(o.Addresses) == 0 {
		return nil, errors.New("no address of a Redis")
	}
	if o.Node.ID == "" || strings.ContainsAny(o.Node.ID, " \r\n") {
		return nil, fmt.Errorf("node ID %q: must be a word", o.Node.ID)
	}
	if o.Prefix == "" {
		o.Prefix = "meshtalk:"
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	client, s, err := connect(ctx, &o)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		o: o, self: o.Node, client: client, mode: s.mode,
		gate: newGate(), nodes: newNodes(o.Node.ID), routes: newRoutes(),
		questions: newQuestions(), poke: make(chan struct{}, 1), byes: make(chan string, 16),
	}
	c.self.Incarnation, c.self.Since = newIncarnation(), time.Now().UnixMilli()
	c.out = newOut(c.gate, c.drop)
	c.in = newIn(c.drop)
	if err := c.claim(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("%s: %w", strings.Join(o.Addresses, ","), err)
	}
	return c, nil
}

// newIncarnation is 13 letters and digits that no other start of any node has.
func newIncarnation() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

func (c *Cluster) drop(n int) { c.stats.dropped.Add(uint64(n)) }

// Self implements cluster.Cluster, without the load.
func (c *Cluster) Self() cluster.Node { return c.self }

// loaded is this node with the load of now.
func (c *Cluster) loaded() cluster.Node {
	self := c.self
	if c.o.Load != nil {
		self.Load = c.o.Load()
	}
	return self
}

// Alone implements cluster.Cluster: others may come at any time.
func (c *Cluster) Alone() bool { return false }

// Run implements cluster.Cluster. All calls of r but Asked come from one goroutine, the first is NodesChanged with the nodes of now. What r gets
// shares memory per payload (≤ 256 KiB and a message): it copies what it keeps for long. When ctx ends Run sends what
// is queued, gives the lease back, removes this node's routes and closes the connections; that takes 5 s at most. It ends
// before that, with ErrTaken, when another process has taken the ID while this one was not heard of for a whole lease.
func (c *Cluster) Run(ctx context.Context, r cluster.Receiver) error {
	if !c.running.CompareAndSwap(false, true) {
		return errRunning
	}
	// work ends with ctx; flush goes on for a while so that what is queued gets out.
	work, stop := context.WithCancel(ctx)
	defer stop()
	flush, stopFlush := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFlush()

	c.questions.ctx = work
	c.changed()
	var receiving, writing, sending sync.WaitGroup
	receiving.Go(func() { c.deliver(work, r) })
	receiving.Go(func() { c.listen(work, c.self.Incarnation) })
	receiving.Go(func() { c.listen(work, everyone) })
	writing.Go(func() { c.writeRoutes(work) })
	parcels := make(chan *parcel, 1)
	sending.Go(func() { c.address(work, flush, parcels) })
	sending.Go(func() { c.publish(flush, parcels) })
	sending.Go(func() { // the others see us at once, not when they read the table next
		if c.gate.wait(work) {
			c.out.notice(kindHello)
		}
	})

	err := c.keepLease(work)
	stop()
	cut := time.AfterFunc(time.Second, stopFlush)
	writing.Wait()
	sending.Wait()
	cut.Stop()
	receiving.Wait()
	c.questions.all.Wait()
	if err == nil {
		c.depart()
	}
	c.client.Close()
	return err
}

// depart tells the others that this node is gone, at once, and cleans up.
func (c *Cluster) depart() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if up, _ := c.gate.state(); !up {
		return // the lease ends by itself
	}
	if err := c.leave(ctx); err != nil {
		c.o.Logf("leaving the cluster: %v", err)
		return
	}
	var e encoder
	e.begin(c.self.Incarnation, 0)
	e.notice(kindBye)
	c.pipeline(ctx, rueidis.Commands{c.publishCommand(everyone, string(e.b))})
	c.leaveAll(ctx)
}

// Close is for a Cluster that was never run: it gives the lease back.
func (c *Cluster) Close() {
	if c.running.CompareAndSwap(false, true) {
		ctx, cancel := context.WithTimeout(context.Background(), leaseCall)
		defer cancel()
		if err := c.leave(ctx); err != nil {
			c.o.Logf("leaving the cluster: %v", err)
		}
		c.client.Close()
	}
}

// State implements cluster.Cluster.
func (c *Cluster) State() error {
	if up, err := c.gate.state(); !up {
		if err == nil {
			return errors.New("redis: not asked yet")
		}
		return fmt.Errorf("redis: %w", err)
	}
	if !c.listening.all(c.channel(everyone), c.channel(c.self.Incarnation)) {
		return errors.New("redis: not subscribed")
	}
	return nil
}

// Routes implements cluster.Cluster. It fails when Redis does not answer within 2 s.
func (c *Cluster) Routes(ctx context.Context, users []string) (routes []cluster.Route, err error) {
	if up, err := c.gate.state(); !up {
		return nil, fmt.Errorf("routes: redis cannot be reached: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, sendCall)
	defer cancel()
	known := c.nodes.next()
	var strange []cluster.Route
	for len(users) > 0 {
		chunk := users[:min(len(users), writeChunk)]
		users = users[len(chunk):]
		commands := make(rueidis.Commands, len(chunk))
		for i, u := range chunk {
			commands[i] = c.client.B().Hgetall().Key(c.routeKey(u)).Build()
		}
		for i, r := range c.pipeline(ctx, commands) {
			all, err := r.AsStrMap()
			if err != nil {
				return nil, fmt.Errorf("routes: %w", err)
			}
			routes, strange = c.sort(chunk[i], all, routes, strange)
		}
	}
	if len(strange) == 0 || !c.lookNow(ctx, known) {
		strange = nil
	}
	t := c.nodes.snapshot.Load()
	for _, s := range strange { // Node is the incarnation
		if n, ok := t.node(s.Node); ok {
			routes = append(routes, cluster.Route{User: s.User, Terminal: s.Terminal, Node: n.ID})
		} else {
			c.leftoversOf(s.User, []string{s.Node})
		}
	}
	return routes, nil
}

// sort adds a user's routes to those of live nodes, and to those whose incarnation is not known.
func (c *Cluster) sort(user string, all map[string]string, routes, strange []cluster.Route) (_, _ []cluster.Route) {
	t := c.nodes.snapshot.Load()
	for terminal, text := range all {
		s, ok := parseStored(text)
		if !ok || s.incarnation == c.self.Incarnation {
			continue
		}
		if n, ok := t.node(s.incarnation); ok {
			routes = append(routes, cluster.Route{User: user, Terminal: terminal, Node: n.ID})
			continue
		}
		if !t.dead[s.incarnation] {
			strange = append(strange, cluster.Route{User: user, Terminal: terminal, Node: s.incarnation})
		}
		c.leftoversOf(user, []string{s.incarnation})
	}
	return routes, strange
}

// lookNow waits until the table of nodes was read anew.
func (c *Cluster) lookNow(ctx context.Context, known func() (bool, <-chan struct{})) bool {
	for {
		ok, read := known()
		if ok {
			return true
		}
		c.look()
		select {
		case <-read:
		case <-ctx.Done():
			return false
		}
	}
}
