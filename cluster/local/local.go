// Package local is a cluster of one node.
package local

import (
	"context"
	"fmt"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
)

// Cluster implements cluster.Cluster for a node that is alone.
type Cluster struct {
	self cluster.Node
	load func() cluster.Load
}

var _ cluster.Cluster = (*Cluster)(nil)

// New is a cluster of self. load, which may be nil, is asked for what Nodes says of it.
func New(self cluster.Node, load func() cluster.Load) *Cluster {
	return &Cluster{self: self, load: load}
}

// Self implements cluster.Cluster.
func (c *Cluster) Self() cluster.Node { return c.self }

// Alone implements cluster.Cluster.
func (c *Cluster) Alone() bool { return true }

// Run implements cluster.Cluster: nothing ever arrives.
func (c *Cluster) Run(ctx context.Context, _ cluster.Receiver) error {
	<-ctx.Done()
	return nil
}

// Join implements cluster.Cluster.
func (c *Cluster) Join(context.Context, string, string, uint64) (bool, error) { return false, nil }

// Leave implements cluster.Cluster.
func (c *Cluster) Leave(string, string, uint64) {}

// Wake implements cluster.Cluster.
func (c *Cluster) Wake([]cluster.Wake) {}

// Send implements cluster.Cluster.
func (c *Cluster) Send([]cluster.Signal) {}

// Members implements cluster.Cluster.
func (c *Cluster) Members(cluster.MembersChange) {}

// Reply implements cluster.Cluster.
func (c *Cluster) Reply(string, cluster.Answer) {}

// Order implements cluster.Cluster.
func (c *Cluster) Order(string, string, codec.Code, string, int64) {}

// Ask implements cluster.Cluster: there is nobody to ask.
func (c *Cluster) Ask(_ context.Context, node string, _ []byte) ([]byte, error) {
	return nil, fmt.Errorf("cluster: no node %s", node)
}

// Routes implements cluster.Cluster.
func (c *Cluster) Routes(context.Context, []string) ([]cluster.Route, error) { return nil, nil }

// Nodes implements cluster.Cluster.
func (c *Cluster) Nodes(context.Context) ([]cluster.Node, error) {
	self := c.self
	if c.load != nil {
		self.Load = c.load()
	}
	return []cluster.Node{self}, nil
}

// State implements cluster.Cluster.
func (c *Cluster) State() error { return nil }
