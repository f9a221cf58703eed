package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/meshtalk/meshtalk/cluster"
)

// Times of the lease. A node that died is found dead when its lease ends; see scriptLease.
const (
	leaseTTL   = 10 * time.Second
	leaseRenew = 3 * time.Second
	leaseRetry = 250 * time.Millisecond // after a failure
	leaseCall  = 2 * time.Second        // one attempt
	// lapse is the silence of Redis after which the leases of the others may have ended unrenewed: they get a whole one.
	lapse = 5 * time.Second
)

// ErrTaken: another process has this node's ID.
var ErrTaken = errors.New("the node ID is in use")

// claim takes the lease for a node that starts. A holder that renews it is alive and has the ID; one that crashed is waited
// out, at most one lease.
func (c *Cluster) claim(ctx context.Context) error {
	var holder string
	var expiry int64
	for {
		a, err := c.askLease(ctx)
		if err != nil {
			return err
		}
		if a.state != "taken" {
			c.nodes.update(a.now, a.leases, a.infos)
			c.nodes.publish()
			return nil
		}
		now, has := a.infos[c.self.ID], a.leases[c.self.ID]
		n, _ := parseInfo(c.self.ID, now)
		if holder == n.Incarnation && has > expiry {
			return fmt.Errorf("%w: %q runs%s since %s UTC", ErrTaken, c.self.ID, at(n), time.UnixMilli(n.Since).UTC().Format(time.DateTime))
		}
		if holder == "" {
			c.o.Logf("the lease of node %q is held since %s; waiting whether it is renewed", c.self.ID, time.UnixMilli(n.Since).UTC().Format(time.DateTime))
		}
		holder, expiry = n.Incarnation, has
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(time.Duration(has-a.now)*time.Millisecond+50*time.Millisecond, time.Second)):
		}
	}
}

// at tells where a node is, if it says so.
func at(n cluster.Node) string {
	if n.Address == "" {
		return ""
	}
	return fmt.Sprintf(" at %q", n.Address)
}

// leaseAnswer is what scriptLease answers.
type leaseAnswer struct {
	state  string
	now    int64 // ms, Redis's clock
	leases map[string]int64
	infos  map[string]string
}

// askLease runs scriptLease once.
func (c *Cluster) askLease(ctx context.Context) (a leaseAnswer, err error) {
	self := c.loaded()
	k := call{scriptLease, c.leaseKeys(), []string{
		self.ID, self.Incarnation, formatInfo(self), strconv.FormatInt(leaseTTL.Milliseconds(), 10),
	}}
	began := time.Now()
	r := c.run(ctx, leaseCall, []call{k})[0]
	if a, err = readLease(r); err == nil {
		took := time.Since(began)
		c.offset.Store(a.now - began.Add(took/2).UnixMilli())
	}
	return a, err
}

func readLease(r rueidis.RedisResult) (a leaseAnswer, err error) {
	list, err := r.ToArray()
	if err != nil {
		return a, err
	}
	if len(list) != 4 {
		return a, fmt.Errorf("lease: %d elements", len(list))
	}
	a.leases, a.infos = map[string]int64{}, map[string]string{}
	a.state, err = list[0].ToString()
	now, err1 := list[1].AsInt64()
	leases, err2 := list[2].AsStrSlice()
	infos, err3 := list[3].AsStrSlice()
	a.now = now
	for i := 0; i+1 < len(leases); i += 2 {
		expiry, err := strconv.ParseFloat(leases[i+1], 64)
		if err != nil {
			return a, fmt.Errorf("lease of %q: %w", leases[i], err)
		}
		a.leases[leases[i]] = int64(expiry)
	}
	for i := 0; i+1 < len(infos); i += 2 {
		a.infos[infos[i]] = infos[i+1]
	}
	return a, errors.Join(err, err1, err2, err3)
}

// now is Redis's clock, as far as is known, in ms.
func (c *Cluster) now() int64 { return time.Now().UnixMilli() + c.offset.Load() }

// keepLease renews the lease and reads the table of nodes until ctx ends. It is the judge of whether Redis can be
// reached. It ends with an error only when another process has the ID.
func (c *Cluster) keepLease(ctx context.Context) error {
	contact := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var resume time.Time // a second look after this node was given up by the others
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.poke:
			if up, _ := c.gate.state(); !up { // it is tried again soon enough
				continue
			}
		case incarnation := <-c.byes:
			if c.nodes.left(incarnation) {
				c.nodes.publish()
				c.changed()
			}
			continue
		}
		wait, state, err := c.renew(ctx, &contact)
		if errors.Is(err, ErrTaken) {
			_, _ = c.gate.set(false, err)
			return err
		}
		if state == "lapsed" {
			resume = time.Now().Add(lapse)
		}
		if !resume.IsZero() && time.Now().After(resume) {
			// The others have read the table since: they send to us again, and what they cleaned away is published again.
			resume = time.Time{}
			c.doubt()
		}
		timer.Reset(wait)
	}
}

// renew renews the lease once. contact is when that succeeded last. wait is when to do it again.
func (c *Cluster) renew(ctx context.Context, contact *time.Time) (wait time.Duration, state string, err error) {
	read, strangers := c.nodes.begin()
	a, err := c.askLease(ctx)
	switch {
	case err != nil:
		if up, _ := c.gate.set(false, err); up && ctx.Err() == nil {
			c.o.Logf("Redis cannot be reached; other nodes get nothing until it can: %v", err)
		}
		return leaseRetry, "", err
	case a.state == "taken":
		n, _ := parseInfo(c.self.ID, a.infos[c.self.ID])
		return 0, a.state, fmt.Errorf("%w: %q was started%s while this process was not heard of", ErrTaken, c.self.ID, at(n))
	}
	if time.Since(*contact) > lapse {
		c.nodes.extend(a.now + leaseTTL.Milliseconds())
	}
	*contact = time.Now()
	came := c.nodes.update(a.now, a.leases, a.infos)
	c.nodes.judge(strangers)
	c.nodes.publish()
	c.nodes.end(read)
	wasUp, wasErr := c.gate.set(true, nil)
	if !wasUp {
		if wasErr != nil {
			c.o.Logf("Redis can be reached again")
		}
		c.doubt()
	}
	if a.state != "kept" {
		c.out.notice(kindHello)
		c.doubt()
	}
	if came {
		c.changed()
	}
	wait = leaseRenew
	if end := c.nodes.nextEnd(); end != 0 {
		wait = min(wait, max(time.Duration(end-a.now)*time.Millisecond+20*time.Millisecond, leaseRetry))
	}
	return wait, a.state, nil
}

// doubt: Redis may have lost what it knew, or messages to us. All routes are compared, the receiver looks at its users.
func (c *Cluster) doubt() {
	c.routes.compareAll(compareEvery)
	c.in.resync()
}

// changed hands the table to the receiver.
func (c *Cluster) changed() {
	nodes, _ := c.Nodes(context.Background())
	c.in.put(event{nodes: nodes})
}

// look makes keepLease read the table soon.
func (c *Cluster) look() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// leave gives the lease back and tells the others.
func (c *Cluster) leave(ctx context.Context) error {
	err := c.run(ctx, leaseCall, []call{{scriptLeave, c.leaseKeys(), []string{c.self.ID, c.self.Incarnation}}})[0].Error()
	if err != nil {
		return fmt.Errorf("giving the lease back: %w", err)
	}
	return nil
}

func (c *Cluster) leaseKeys() []string {
	return []string{c.o.Prefix + "{nodes}", c.o.Prefix + "{nodes}:info"}
}

// Nodes implements cluster.Cluster: as read at most leaseRenew ago.
func (c *Cluster) Nodes(context.Context) ([]cluster.Node, error) {
	return append([]cluster.Node{c.loaded()}, c.nodes.snapshot.Load().nodes...), nil
}

// gate tells whether Redis can be reached, and lets wait for it.
type gate struct {
	mu   sync.Mutex
	up   bool
	err  error         // why not; nil before the first try
	open chan struct{} // closed while up
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

// set gives the state that was.
func (g *gate) set(up bool, err error) (wasUp bool, wasErr error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	wasUp, wasErr = g.up, g.err
	if up && !g.up {
		close(g.open)
	}
	if !up && g.up {
		g.open = make(chan struct{})
	}
	g.up, g.err = up, err
	return wasUp, wasErr
}

func (g *gate) state() (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.up, g.err
}

// wait returns when Redis can be reached, or with false when ctx ends.
func (g *gate) wait(ctx context.Context) bool {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
