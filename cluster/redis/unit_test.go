package redis

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/cluster"
)

// table is what a test says of Redis: leases, and "incarnation" by ID.
func (n *nodes) see(now int64, leases map[string]int64, incarnations map[string]string) (changed bool, ids []string) {
	infos := map[string]string{}
	for id, incarnation := range incarnations {
		infos[id] = incarnation + " " + formatInfo(cluster.Node{})
	}
	changed = n.update(now, leases, infos)
	n.publish()
	for _, node := range n.snapshot.Load().nodes {
		ids = append(ids, node.ID+"/"+node.Incarnation)
	}
	return changed, ids
}

func TestNodeTable(t *testing.T) {
	n := newNodes("self")
	step := func(name string, now int64, leases map[string]int64, incarnations map[string]string, wantChange bool, want ...string) {
		t.Helper()
		changed, got := n.see(now, leases, incarnations)
		if changed != wantChange || !slices.Equal(got, want) {
			t.Errorf("%s: changed %v, nodes %v; want %v, %v", name, changed, got, wantChange, want)
		}
	}
	both := map[string]string{"self": "s1", "b": "b1", "a": "a1"}
	step("two others", 1000, map[string]int64{"self": 2000, "b": 1500, "a": 1600}, both, true, "a/a1", "b/b1")
	step("nothing new", 1100, map[string]int64{"self": 2000, "b": 1500, "a": 1600}, both, false, "a/a1", "b/b1")
	step("Redis is empty", 1200, nil, nil, false, "a/a1", "b/b1")
	step("b's lease would have ended", 1501, map[string]int64{"a": 2600}, both, true, "a/a1")
	if !n.snapshot.Load().dead["b1"] {
		t.Error("b1 is not dead")
	}
	step("an expired lease counts for nothing", 1550, map[string]int64{"a": 2600, "b": 1500}, both, false, "a/a1")
	step("b is back", 1600, map[string]int64{"a": 2600, "b": 2600}, both, true, "a/a1", "b/b1")
	if n.snapshot.Load().dead["b1"] {
		t.Error("b1 is alive and dead")
	}
	both["a"] = "a2"
	step("a was started again", 1700, map[string]int64{"a": 2700, "b": 2600}, both, true, "a/a2", "b/b1")
	if !n.snapshot.Load().dead["a1"] {
		t.Error("a1 is not dead")
	}
	n.extend(5000)
	step("leases ended while Redis could not be reached", 4000, map[string]int64{"a": 2700, "b": 2600}, both, false, "a/a2", "b/b1")
	if n.left("b1"); n.nextEnd() != 5000 {
		t.Errorf("the next lease ends at %d", n.nextEnd())
	}
	step("b left", 4000, map[string]int64{"a": 2700}, both, false, "a/a2")
	n.see(4100, map[string]int64{"x y": 9000}, map[string]string{})
	n.judge(map[string]bool{"a2": true, "z9": true})
	n.publish()
	if dead := n.snapshot.Load().dead; dead["a2"] || !dead["z9"] {
		t.Errorf("dead are %v", dead)
	}
}

// ops takes all work of routes, as "put user/ref" or "drop user".
func (r *routes) ops() (list []string) {
	ops, _ := r.take(nil, 100)
	for _, o := range ops {
		switch {
		case o.here && o.login:
			list = append(list, fmt.Sprintf("login %s/%d", o.key.user, o.route.ref))
		case o.here:
			list = append(list, fmt.Sprintf("compare %s/%d", o.key.user, o.route.ref))
		default:
			list = append(list, "drop "+o.key.user)
		}
	}
	return list
}

func TestRouteChanges(t *testing.T) {
	now := time.Now().UnixMilli()
	key := func(user string) routeKey { return routeKey{user, "web"} }
	r := newRoutes()
	want := func(name string, ops ...string) {
		t.Helper()
		if got := r.ops(); !slices.Equal(got, ops) {
			t.Errorf("%s: %v, want %v", name, got, ops)
		}
	}
	joined := func(user string, ref uint64) chan bool {
		done := make(chan bool, 1)
		r.join(key(user), ref, now, done)
		return done
	}
	joined("a", 1)
	joined("b", 2)
	joined("a", 3)
	want("one write a key, in the order of the first change", "login a/3", "login b/2")
	want("nothing is left")
	r.leave(key("a"), 1)
	want("the older session's Leave is nothing")
	r.leave(key("a"), 3)
	want("a Leave", "drop a")
	done := joined("c", 4)
	r.leave(key("c"), 4)
	want("who came and went before Redis heard of it is nothing")
	if elsewhere := <-done; elsewhere {
		t.Error("its Join was answered with elsewhere")
	}
	joined("b", 5)
	r.leave(key("b"), 5)
	want("but Redis has heard of b", "drop b")
	joined("d", 6)
	ops, _ := r.take(nil, 100)
	r.again(&ops[0])
	want("a write that failed is compared, not a login any more", "compare d/6")
	if r.len() != 1 {
		t.Errorf("%d routes, want d's", r.len())
	}
	r.leave(key("d"), 6)
	ops, _ = r.take(nil, 100)
	joined("d", 7)
	r.again(&ops[0]) // the failed drop gives way to the login
	want("a login after a drop that failed", "compare d/7")
	joined("e", 8)
	want("a login", "login e/8")
	if !r.loseTold(key("e"), 8) || r.loseTold(key("e"), 8) {
		t.Error("a session is lost once")
	}
	want("what may stand in Redis of a lost session goes", "drop e")
	r.compareAll(time.Hour)
	want("all are compared", "compare d/7")
	r.compareAll(time.Hour)
	want("but not again within the hour")
	r.compareAll(time.Nanosecond)
	want("unless somebody is in a hurry", "compare d/7")
	if !r.lose(key("d"), 7) || r.lose(key("d"), 7) || r.len() != 0 {
		t.Error("a session is lost once")
	}
}

// Epochs grow, whatever clocks and Redis say.
func TestEpochs(t *testing.T) {
	r := newRoutes()
	var last uint64
	for _, now := range []int64{1_800_000_000_000, 1_800_000_000_000, 1_700_000_000_000, 1_800_000_000_001} {
		e := r.nextEpoch(now)
		if e <= last || e >= 1<<53 {
			t.Errorf("epoch %d after %d", e, last)
		}
		last = e
	}
	r.join(routeKey{"u", "t"}, 1, 1, make(chan bool, 1))
	ops, _ := r.take(nil, 1)
	r.written(&ops[0], last+500)
	if e := r.nextEpoch(5); e != last+501 {
		t.Errorf("epoch %d after Redis gave %d", e, last+500)
	}
}

// What was taken counts no more, also when the queue is never empty.
func TestOutIsBounded(t *testing.T) {
	g, dropped := newGate(), 0
	_, _ = g.set(true, nil)
	o := newOut(g, func(n int) { dropped += n })
	content := make([]byte, 60_000)
	half := make([]item, sendChunk/2)
	half[0].bytes = len(content)
	o.put(half...)
	for range 3 * outBytes / len(content) {
		o.put(half...)
		o.put(half...)
		if items, lost := o.take(true); len(items) != sendChunk || lost || dropped > 0 {
			t.Fatalf("%d items, lost %v, %d dropped", len(items), lost, dropped)
		}
	}
	for dropped == 0 && len(o.items) < 2*outItems {
		o.put(half...)
	}
	if n := len(o.items); n > outItems || n < outItems-sendChunk {
		t.Errorf("%d items wait when the first are dropped", n)
	}
	for o.len() > 0 {
		if _, lost := o.take(false); lost {
			t.Error("the loss is told when nobody asks")
		}
	}
	if _, lost := o.take(true); !lost || o.bytes != 0 {
		t.Errorf("lost %v, %d bytes in an empty queue", lost, o.bytes)
	}
	o.put(item{bytes: outBytes + 1}) // alone it is taken, whatever its size
	o.put(item{bytes: 1})
	if items, lost := o.take(true); len(items) != 1 || !lost {
		t.Errorf("%d items, lost %v beyond the bound of bytes", len(items), lost)
	}
}
