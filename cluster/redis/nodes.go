package redis

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshtalk/meshtalk/cluster"
)

// deadKept is how long a dead incarnation is remembered, so that what it left in routes is recognised.
const deadKept = time.Hour

// table is the nodes as one reader sees them: immutable.
type table struct {
	nodes []cluster.Node // the others, by ID
	dead  map[string]bool
}

// incarnation finds the present incarnation of a node.
func (t *table) incarnation(id string) (string, bool) {
	for i := range t.nodes {
		if t.nodes[i].ID == id {
			return t.nodes[i].Incarnation, true
		}
	}
	return "", false
}

// node finds the node of an incarnation.
func (t *table) node(incarnation string) (cluster.Node, bool) {
	for i := range t.nodes {
		if t.nodes[i].Incarnation == incarnation {
			return t.nodes[i], true
		}
	}
	return cluster.Node{}, false
}

// nodes are the other nodes. One goroutine writes (keepLease), all read the snapshot.
type nodes struct {
	self string // ID

	// Owned by the goroutine that keeps the lease.
	live map[string]member    // by ID
	dead map[string]time.Time // incarnations, and when they were found dead

	snapshot atomic.Pointer[table]

	mu        sync.Mutex
	strangers map[string]bool // incarnations that stand in a route and not in the table; guarded by mu
	begun     uint64          // reads of the table that were begun; guarded by mu
	done      uint64          // the last of them that has succeeded; guarded by mu
	read      chan struct{}   // closed by the next read that succeeds; guarded by mu
}

type member struct {
	node    cluster.Node
	expires int64 // by Redis's clock, ms: the latest that was ever seen of this incarnation
}

func newNodes(self string) *nodes {
	n := &nodes{
		self: self, live: map[string]member{}, dead: map[string]time.Time{},
		strangers: map[string]bool{}, read: make(chan struct{}),
	}
	n.snapshot.Store(&table{})
	return n
}

// nodeInfo is what stands in Redis of a node, after its incarnation.
type nodeInfo struct {
	Address string       `json:"address"`
	Since   int64        `json:"since"`
	Load    cluster.Load `json:"load"`
}

// formatInfo is the JSON; what stands in Redis is "incarnation JSON".
func formatInfo(n cluster.Node) string {
	text, err := json.Marshal(nodeInfo{Address: n.Address, Since: n.Since, Load: n.Load})
	if err != nil { // numbers and names only
		panic(err)
	}
	return string(text)
}

func parseInfo(id, text string) (n cluster.Node, ok bool) {
	incarnation, rest, ok := strings.Cut(text, " ")
	var info nodeInfo
	if !ok || json.Unmarshal([]byte(rest), &info) != nil {
		return n, false
	}
	return cluster.Node{ID: id, Incarnation: incarnation, Address: info.Address, Since: info.Since, Load: info.Load}, true
}

// update takes what Redis says: leases by ID and what stands of each node. A node that Redis has forgotten stays until its last
// known lease would have ended: a Redis that lost its data, or a node that has not renewed yet, ends nobody. It tells whether
// nodes came or went. Readers see it after publish.
func (n *nodes) update(now int64, leases map[string]int64, infos map[string]string) bool {
	came := false
	for id, expires := range leases {
		node, ok := parseInfo(id, infos[id])
		if !ok || id == n.self || expires <= now {
			continue
		}
		old, known := n.live[id]
		if known && old.node.Incarnation == node.Incarnation {
			n.live[id] = member{node, max(expires, old.expires)}
			continue
		}
		if known {
			n.dead[old.node.Incarnation] = time.Now()
		}
		delete(n.dead, node.Incarnation) // it was away and is back
		n.live[id], came = member{node, expires}, true
	}
	for id, m := range n.live {
		if m.expires <= now {
			n.dead[m.node.Incarnation] = time.Now()
			delete(n.live, id)
			came = true
		}
	}
	return came
}

// left removes a node that said so.
func (n *nodes) left(incarnation string) bool {
	for id, m := range n.live {
		if m.node.Incarnation == incarnation {
			n.dead[incarnation] = time.Now()
			delete(n.live, id)
			return true
		}
	}
	return false
}

// stranger notes an incarnation that stands in a route: one that is not in the table when that is read next is dead.
// It tells whether that was not known.
func (n *nodes) stranger(incarnation string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.strangers[incarnation] {
		return false
	}
	n.strangers[incarnation] = true
	return true
}

// begin notes the begin of a read of the table; the strangers of before are judged by it.
func (n *nodes) begin() (read uint64, strangers map[string]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	strangers, n.strangers = n.strangers, map[string]bool{}
	n.begun++
	return n.begun, strangers
}

// end notes that a read has succeeded.
func (n *nodes) end(read uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.done = read
	close(n.read)
	n.read = make(chan struct{})
}

// next gives a function that tells whether a read that began after this call has succeeded, and otherwise what to wait for.
func (n *nodes) next() func() (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	want := n.begun + 1
	return func() (bool, <-chan struct{}) {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.done >= want, n.read
	}
}

// judge ends the strangers that are not in the table.
func (n *nodes) judge(strangers map[string]bool) {
	for _, m := range n.live {
		delete(strangers, m.node.Incarnation)
	}
	for incarnation := range strangers {
		n.dead[incarnation] = time.Now()
	}
}

// extend lets every known lease last until then at least.
func (n *nodes) extend(until int64) {
	for id, m := range n.live {
		m.expires = max(m.expires, until)
		n.live[id] = m
	}
}

// nextEnd is when the first lease ends, as far as is known; 0 when there is none.
func (n *nodes) nextEnd() (end int64) {
	for _, m := range n.live {
		if end == 0 || m.expires < end {
			end = m.expires
		}
	}
	return end
}

// publish makes the snapshot.
func (n *nodes) publish() {
	t := &table{dead: make(map[string]bool, len(n.dead))}
	for incarnation, at := range n.dead {
		if time.Since(at) > deadKept {
			delete(n.dead, incarnation)
		} else {
			t.dead[incarnation] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(n.live)) {
		t.nodes = append(t.nodes, n.live[id].node)
	}
	n.snapshot.Store(t)
}
