package server

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/mq"
	"github.com/meshtalk/meshtalk/store"
)

// partitions says which partitions of the log are this node's: of a node that is alone all, else those that rendezvous hashing over the
// live nodes gives it, without the nodes that say that they cannot consume, unless none can. That nodes may differ on who is alive for a while is no harm: the store takes a partition's next batch from
// whoever comes first (mq.Partitions).
type partitions struct {
	self  string
	count int
	store store.Store

	mu      sync.Mutex
	owned   []int
	changed chan struct{} // closed by the next change
}

var _ mq.Partitions = (*partitions)(nil)

func newPartitions(self string, count int, alone bool, st store.Store) *partitions {
	p := &partitions{self: self, count: count, store: st, changed: make(chan struct{})}
	if alone {
		p.nodesChanged([]cluster.Node{{ID: self}})
	}
	return p
}

// nodesChanged is hub.Options.NodesChanged.
func (p *partitions) nodesChanged(nodes []cluster.Node) {
	nodes = fitOf(nodes)
	owned := []int{}
	for i := range p.count {
		if cluster.OwnerOf(i, nodes) == p.self {
			owned = append(owned, i)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owned != nil && slices.Equal(owned, p.owned) {
		return
	}
	p.owned = owned
	close(p.changed)
	p.changed = make(chan struct{})
}

// fitOf are the nodes that can consume; all of them if none can.
func fitOf(nodes []cluster.Node) []cluster.Node {
	fit := make([]cluster.Node, 0, len(nodes))
	for _, n := range nodes {
		if !n.Load.Unfit {
			fit = append(fit, n)
		}
	}
	if len(fit) == 0 {
		return nodes
	}
	return fit
}

// fitness is whether this node can consume. It is slow to believe that it can again: while it consumes nothing, nothing fails.
type fitness struct {
	mu    sync.Mutex
	unfit time.Time // when that was seen last
}

// fitAfter is how long nothing may be wrong before a node takes its partitions back.
const fitAfter = 10 * time.Second

// look judges by the states of log and store, and tells whether the node is unfit.
func (f *fitness) look(states ...error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, err := range states {
		if err != nil {
			f.unfit = time.Now()
		}
	}
	return !f.unfit.IsZero() && time.Since(f.unfit) < fitAfter
}

// Owned implements mq.Partitions.
func (p *partitions) Owned() ([]int, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.owned, p.changed
}

// Offset implements mq.Partitions.
func (p *partitions) Offset(ctx context.Context, partition int) (int64, error) {
	return p.store.Offset(ctx, partition)
}
