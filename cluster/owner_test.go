package cluster

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// named are n nodes whose IDs resemble each other, as those of one cluster do.
func named(pattern string, n int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		nodes[i].ID = fmt.Sprintf(pattern, i)
	}
	return nodes
}

var patterns = []string{"node-%d", "mesh-%02d.example.org", "10.0.0.%d", "%d"}

func TestOwnerOfNobody(t *testing.T) {
	if o := OwnerOf(3, nil); o != "" {
		t.Errorf("owner %q without nodes", o)
	}
	if o := OwnerOf(3, named("n%d", 1)); o != "n0" {
		t.Errorf("owner %q, want the only node", o)
	}
}

// The order in which a node lists the others (itself first) does not matter.
func TestOwnerOfAgrees(t *testing.T) {
	nodes := named("node-%d", 7)
	for p := range 64 {
		want := OwnerOf(p, nodes)
		for turn := range nodes {
			if got := OwnerOf(p, append(slices.Clone(nodes[turn:]), nodes[:turn]...)); got != want {
				t.Fatalf("partition %d: %s as node %d sees it, %s as node 0", p, got, turn, want)
			}
		}
	}
}

// Over many clusters every node gets its share: the sum over them is within a few standard deviations of a fair draw, and
// no single cluster is worse than what chance allows.
func TestOwnerOfBalance(t *testing.T) {
	const clusters = 60
	for _, pattern := range patterns {
		for _, size := range []int{3, 5, 10, 20, 50} {
			for _, queues := range []int{16, 32, 64} {
				worst, share := 0, make([]int, size)
				for c := range clusters {
					nodes := named(fmt.Sprintf("c%d-", c)+pattern, size)
					owned := map[string]int{}
					for p := range queues {
						owned[OwnerOf(p, nodes)]++
					}
					for i := range nodes {
						n := owned[nodes[i].ID]
						share[i] += n
						worst = max(worst, n)
					}
				}
				fair := float64(queues) / float64(size)
				if limit := fair + 6*math.Sqrt(fair) + 3; float64(worst) > limit {
					t.Errorf("%s, %d nodes, %d queues: a node owns %d, fair were %.1f", pattern, size, queues, worst, fair)
				}
				for i, n := range share {
					want := fair * clusters
					if d := float64(n) - want; d*d > 36*want {
						t.Errorf("%s, %d nodes, %d queues: node %d owned %d over all clusters, fair were %.0f", pattern, size, queues, i, n, want)
					}
				}
			}
		}
	}
}

// Only what a node had moves when it goes, and only to it when it comes.
func TestOwnerOfMovesLittle(t *testing.T) {
	for _, pattern := range patterns {
		for _, size := range []int{3, 4, 7, 16, 50} {
			nodes := named(pattern, size)
			for gone := range nodes {
				left := slices.Delete(slices.Clone(nodes), gone, gone+1)
				for p := range 64 {
					before, after := OwnerOf(p, nodes), OwnerOf(p, left)
					if before != nodes[gone].ID && before != after {
						t.Fatalf("%d nodes without %s: partition %d moved from %s to %s", size, nodes[gone].ID, p, before, after)
					}
				}
			}
		}
	}
}
