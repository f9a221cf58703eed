package redis

import (
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"time"
)

// routeKey names a route. Its strings are the caller's: hundreds of thousands are kept.
type routeKey struct{ user, terminal string }

// route is what was joined here: the caller's name for the session, and the epoch of the login, by which the newer of two
// is known when Redis could not say. An epoch is ms << epochBits by Redis's clock, and larger than every one that it replaces.
type route struct{ ref, epoch uint64 }

// epochBits of an epoch tell logins of one ms apart. Redis's Lua counts exactly up to 2^53: until the year 2248.
const epochBits = 10

// shardCount is how many parts the routes are compared in: one part at a time.
const shardCount = 256

// change says that a route may stand otherwise in Redis than here.
type change struct {
	joined  time.Time // of the newest Join; zero for a Leave
	fresh   bool      // nothing of this key was ever sent to Redis: a Leave just forgets it
	tried   bool      // it was sent and failed, perhaps after it was done
	waiting []chan<- bool
}

// routes are this node's routes, and what of them Redis has not been told. The state here is what is wanted: a change names
// a key, and is carried out by writing what stands here at that time. One goroutine does so (writeRoutes).
type routes struct {
	seed maphash.Seed
	work chan struct{} // there is something to do

	mu      sync.Mutex // guards the rest; never held across a call to Redis
	shards  [shardCount]map[routeKey]route
	count   int
	epoch   uint64 // the last one given
	changes map[routeKey]*change
	queue   []routeKey // keys of changes, in order; those that were taken or dropped are skipped

	// Comparing: parts that are still to be looked at, and what is left of the one that is.
	cursor, left int
	part         []routeKey
	wanted       time.Duration // a whole comparison is asked for, this long after the last one at the earliest; 0 = none
	began        time.Time     // of the last whole comparison
}

func newRoutes() *routes {
	r := &routes{seed: maphash.MakeSeed(), work: make(chan struct{}, 1), changes: map[routeKey]*change{}}
	for i := range r.shards {
		r.shards[i] = map[routeKey]route{}
	}
	return r
}

func (r *routes) shard(k routeKey) map[routeKey]route {
	return r.shards[maphash.String(r.seed, k.user)%shardCount]
}

func (r *routes) wake() {
	select {
	case r.work <- struct{}{}:
	default:
	}
}

// nextEpoch is called with mu held. now is Redis's clock in ms.
func (r *routes) nextEpoch(now int64) uint64 {
	r.epoch = max(r.epoch+1, uint64(now)<<epochBits)
	return r.epoch
}

// join makes ref the session of a key. done gets whether the older session was elsewhere, once Redis has been told or
// could not be.
func (r *routes) join(k routeKey, ref uint64, now int64, done chan<- bool) {
	r.mu.Lock()
	m := r.shard(k)
	_, had := m[k]
	if !had {
		r.count++
	}
	m[k] = route{ref, r.nextEpoch(now)}
	c := r.mark(k, !had)
	c.joined = time.Now()
	c.waiting = append(c.waiting, done)
	r.mu.Unlock()
	r.wake()
}

// mark notes a change; fresh counts for a new one only.
func (r *routes) mark(k routeKey, fresh bool) *change {
	c := r.changes[k]
	if c == nil {
		c = &change{fresh: fresh}
		r.changes[k] = c
		r.queue = append(r.queue, k)
	}
	return c
}

// leave forgets a route if it is still ref's.
func (r *routes) leave(k routeKey, ref uint64) {
	r.mu.Lock()
	if !r.forget(k, ref) {
		r.mu.Unlock()
		return
	}
	if c := r.changes[k]; c != nil && c.fresh && !c.tried {
		delete(r.changes, k) // Redis never heard of it
		answer(c.waiting, false)
	} else {
		r.mark(k, false).joined = time.Time{}
	}
	r.mu.Unlock()
	r.wake()
}

// forget removes a route if it is still ref's, with mu held.
func (r *routes) forget(k routeKey, ref uint64) bool {
	m := r.shard(k)
	if s, ok := m[k]; !ok || s.ref != ref {
		return false
	}
	delete(m, k)
	r.count--
	return true
}

// lose forgets a route that a newer login elsewhere has replaced, as a write of ours has found. It tells whether it was
// ref's until now.
func (r *routes) lose(k routeKey, ref uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.forget(k, ref)
}

// loseTold is lose for what another node has told. A write of ours may be under way meanwhile, and Redis may have lost the
// newer route before it: so what stands there of us is removed.
func (r *routes) loseTold(k routeKey, ref uint64) bool {
	r.mu.Lock()
	lost := r.forget(k, ref)
	if lost {
		r.mark(k, false).joined = time.Time{}
	}
	r.mu.Unlock()
	if lost {
		r.wake()
	}
	return lost
}

func (r *routes) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// op is one write to Redis: the route as it stood here, or that there is none.
type op struct {
	key    routeKey
	route  route
	here   bool
	login  bool    // it is a login of right now: the newest whatever stands there
	change *change // nil when it is only compared
}

// take gives up to n writes: changes first, then what is to be compared. after is how long from now there will be more
// to compare; 0 when that is not known.
func (r *routes) take(ops []op, n int) (_ []op, after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := 0
	for ; i < len(r.queue) && len(ops) < n; i++ {
		k := r.queue[i]
		c := r.changes[k]
		if c == nil {
			continue
		}
		delete(r.changes, k)
		s, here := r.shard(k)[k]
		ops = append(ops, op{k, s, here, here && !c.tried && time.Since(c.joined) < joinWait, c})
	}
	if r.queue = r.queue[i:]; len(r.queue) == 0 {
		r.queue = nil
	}
	if r.wanted > 0 {
		if after = r.wanted - time.Since(r.began); after <= 0 {
			r.wanted, r.left, r.began, after = 0, shardCount, time.Now(), 0
		}
	}
	for len(ops) < n {
		if len(r.part) == 0 {
			if r.left == 0 {
				break
			}
			r.left--
			r.cursor = (r.cursor + 1) % shardCount
			for k := range r.shards[r.cursor] {
				r.part = append(r.part, k)
			}
			continue
		}
		k := r.part[len(r.part)-1]
		r.part = r.part[:len(r.part)-1]
		if s, here := r.shard(k)[k]; here && r.changes[k] == nil {
			ops = append(ops, op{key: k, route: s, here: true})
		}
	}
	return ops, after
}

// compareAll asks for all routes to be compared with what Redis has, and published where they are missing, but not sooner
// than every after the last time.
func (r *routes) compareAll(every time.Duration) {
	r.mu.Lock()
	if r.wanted == 0 || every < r.wanted {
		r.wanted = every
	}
	r.mu.Unlock()
	r.wake()
}

// compareSome adds one part of the routes.
func (r *routes) compareSome() {
	r.mu.Lock()
	r.left = max(r.left, 1)
	r.mu.Unlock()
}

// comparing tells whether a whole comparison is under way.
func (r *routes) comparing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wanted > 0 || r.left > 1
}

// written notes the epoch under which a route stands in Redis now.
func (r *routes) written(o *op, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch = max(r.epoch, epoch)
	m := r.shard(o.key)
	if s, ok := m[o.key]; ok && s.ref == o.route.ref {
		s.epoch = epoch
		m[o.key] = s
	}
}

// again puts a write back whose outcome is not known.
func (r *routes) again(o *op) {
	if o.change == nil {
		return // all are compared when Redis can be reached again
	}
	r.mu.Lock()
	c := r.mark(o.key, false)
	c.fresh, c.tried = false, true
	if c.joined.IsZero() {
		c.joined = o.change.joined
	}
	r.mu.Unlock()
	answer(o.change.waiting, false)
}

// answer tells those that wait for a Join. Their channels have room for one.
func answer(waiting []chan<- bool, elsewhere bool) {
	for _, w := range waiting {
		w <- elsewhere
	}
}

// stored is a route as it stands in Redis: "incarnation epoch ref".
type stored struct {
	incarnation string
	epoch, ref  uint64
}

func parseStored(text string) (s stored, ok bool) {
	incarnation, rest, ok1 := strings.Cut(text, " ")
	epoch, ref, ok2 := strings.Cut(rest, " ")
	s.incarnation = incarnation
	var err1, err2 error
	s.epoch, err1 = strconv.ParseUint(epoch, 10, 64)
	s.ref, err2 = strconv.ParseUint(ref, 10, 64)
	return s, ok1 && ok2 && err1 == nil && err2 == nil
}
