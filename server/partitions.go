package server

import (
	"context"
	"slices"
	"sync"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/mq"
	"github.com/meshtalk/meshtalk/store"
)

// partitions says which partitions of the log are this node's: of a node that is alone all, else those that rendezvous hashing over the
// live nodes gives it. That nodes may differ on who is alive for a while is no harm: the store takes a partition's next batch from
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
