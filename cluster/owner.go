package cluster

import "hash/fnv"

// OwnerOf is the ID of the node that consumes a partition: of all nodes the one that the partition scores highest
// (rendezvous hashing). It depends on nothing but the partition and the IDs, so nodes that see the same nodes agree
// without talking, and when a node comes or goes only the partitions that it takes or had move. "" when there are no nodes.
func OwnerOf(partition int, nodes []Node) string {
	owner, best := "", uint64(0)
	for i := range nodes {
		id := nodes[i].ID
		if s := score(partition, id); owner == "" || s > best || s == best && id < owner {
			owner, best = id, s
		}
	}
	return owner
}

// score mixes a node and a partition. FNV alone would leave similar IDs with similar scores, so its sum goes through the
// finalizer of SplitMix64.
func score(partition int, id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	x := h.Sum64() + (uint64(partition)+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
