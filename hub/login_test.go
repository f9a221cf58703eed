package hub

import (
	"context"
	"testing"

	"github.com/meshtalk/meshtalk/cluster"
	clusterlocal "github.com/meshtalk/meshtalk/cluster/local"
)

// joins is a cluster that records routes, and lets something happen between the registry and the route.
type joins struct {
	*clusterlocal.Cluster
	route   uint64
	between func()
}

func (*joins) Alone() bool { return false }

func (j *joins) Join(_ context.Context, _, _ string, ref uint64) (bool, error) {
	if f := j.between; f != nil {
		j.between = nil
		f()
	}
	j.route = ref
	return false, nil
}

func (j *joins) Leave(_, _ string, ref uint64) {
	if j.route == ref {
		j.route = 0
	}
}

// The route that is left is that of the session that the registry holds, whatever overtakes what.
func TestJoinIsPutRight(t *testing.T) {
	for _, v := range []struct {
		name    string
		between func(h *Hub, j *joins)
		want    uint64
	}{
		{"nothing happens", func(*Hub, *joins) {}, 1},
		{"the session ends", func(h *Hub, j *joins) {
			h.registry.remove("u", "web", 1)
			j.Leave("u", "web", 1)
		}, 0},
		{"a newer login is first", func(h *Hub, j *joins) {
			h.registry.add("u", "web", 2, 2)
			j.route = 2
		}, 2},
	} {
		t.Run(v.name, func(t *testing.T) {
			j := &joins{Cluster: clusterlocal.New(cluster.Node{ID: "a"}, nil)}
			h := &Hub{cluster: j}
			h.registry.init()
			h.registry.add("u", "web", 1, 1)
			j.between = func() { v.between(h, j) }
			if _, err := h.join(t.Context(), "u", "web", 1); err != nil || j.route != v.want {
				t.Errorf("route %d, %v; want %d", j.route, err, v.want)
			}
		})
	}
}
