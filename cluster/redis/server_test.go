package redis

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/cluster/clustertest"
)

var prefixes atomic.Int64

// cluster names a cluster of its own on a Redis; change may change the options of its nodes.
type testCluster struct {
	addresses []string
	prefix    string
	change    func(o *Options)
}

func newCluster(addresses ...string) *testCluster {
	return &testCluster{addresses: addresses, prefix: fmt.Sprintf("test%d:", prefixes.Add(1))}
}

func (tc *testCluster) options(t testing.TB, id string) Options {
	o := Options{
		Addresses: tc.addresses, Prefix: tc.prefix, Node: cluster.Node{ID: id, Address: "http://" + id},
		Load: func() cluster.Load { return cluster.Load{Connections: 3, Queues: []int{1}, Lag: map[int]int64{1: 5}} },
		Logf: func(format string, args ...any) { t.Logf(id+": "+format, args...) },
	}
	if tc.change != nil {
		tc.change(&o)
	}
	return o
}

// open is a clustertest.Open.
func (tc *testCluster) open(t testing.TB, id string) cluster.Cluster {
	t.Helper()
	c, err := New(context.Background(), tc.options(t, id))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// of is the backend of a node.
func of(n *clustertest.Node) *Cluster { return n.Cluster.(*Cluster) }
