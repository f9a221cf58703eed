package server

import (
	"fmt"
	"slices"
	"testing"

	"github.com/meshtalk/meshtalk/cluster"
)

func TestPartitions(t *testing.T) {
	alone := newPartitions("a", 3, true, nil)
	if owned, _ := alone.Owned(); fmt.Sprint(owned) != "[0 1 2]" {
		t.Errorf("alone: %v", owned)
	}
	nodes := []cluster.Node{{ID: "a"}, {ID: "b"}, {ID: "c"}}
	all := map[string]*partitions{}
	for _, n := range nodes {
		all[n.ID] = newPartitions(n.ID, 16, false, nil)
		if owned, _ := all[n.ID].Owned(); len(owned) != 0 {
			t.Errorf("%s owns %v before it knows of anybody", n.ID, owned)
		}
	}
	owners := func(nodes []cluster.Node) (list []int) {
		for _, n := range nodes {
			_, before := all[n.ID].Owned()
			all[n.ID].nodesChanged(nodes)
			owned, _ := all[n.ID].Owned()
			list = append(list, owned...)
			select {
			case <-before:
			default:
				if len(owned) > 0 && len(nodes) != 2 {
					t.Errorf("%s was not told of %v", n.ID, owned)
				}
			}
			_, again := all[n.ID].Owned()
			all[n.ID].nodesChanged(nodes)
			select {
			case <-again:
				t.Errorf("%s was told of no change", n.ID)
			default:
			}
		}
		slices.Sort(list)
		return list
	}
	want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	if got := owners(nodes); !slices.Equal(got, want) {
		t.Errorf("of three nodes: %v", got)
	}
	if got := owners(nodes[:2]); !slices.Equal(got, want) {
		t.Errorf("of two: %v", got)
	}
	sick := slices.Clone(nodes)
	sick[1].Load.Unfit = true
	for _, p := range all {
		p.nodesChanged(sick)
	}
	if owned, _ := all["b"].Owned(); len(owned) != 0 {
		t.Errorf("a node that cannot consume owns %v", owned)
	}
	for i := range sick {
		sick[i].Load.Unfit = true
	}
	if got := owners(sick); !slices.Equal(got, want) {
		t.Errorf("of three of which none can consume: %v", got)
	}
}
