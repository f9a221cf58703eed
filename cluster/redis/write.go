package redis

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

const (
	// joinWait bounds a Join: longer than that a login does not wait for Redis.
	joinWait = time.Second
	// writeChunk is how many routes are written as one pipeline: some ms of Redis's time.
	writeChunk = 512
	// writeCall bounds one pipeline. Nothing is written after a failed one until its deadline has passed in Redis too, so that
	// two writes of one route never change places.
	writeCall = 2 * time.Second
	// compareEvery is the shortest time between two comparisons of all routes.
	compareEvery = 2 * time.Second
	// compareAfterGap is that after a lost message, of which there may be many.
	compareAfterGap = 10 * time.Second
	// cleanMax is how many users with left-over routes are remembered.
	cleanMax = 10_000
)

// writeRoutes carries changes of routes to Redis, one pipeline at a time, until ctx ends.
func (c *Cluster) writeRoutes(ctx context.Context) {
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	later := time.NewTimer(0)
	defer later.Stop()
	var ops []op
	for c.gate.wait(ctx) {
		var after time.Duration
		ops, after = c.routes.take(ops[:0], writeChunk)
		if after > 0 {
			later.Reset(after)
		}
		if len(ops) > 0 {
			c.write(ctx, ops)
			clear(ops)
			continue
		}
		c.clean(ctx)
		select {
		case <-ctx.Done():
		case <-c.routes.work:
		case <-later.C:
		case <-tick.C:
			c.routes.compareSome()
		}
	}
}

// write carries out one pipeline.
func (c *Cluster) write(ctx context.Context, ops []op) {
	began := time.Now()
	deadline := strconv.FormatInt(c.now()+writeCall.Milliseconds(), 10)
	calls := make([]call, len(ops))
	for i := range ops {
		o := &ops[i]
		key := []string{c.routeKey(o.key.user)}
		if !o.here {
			calls[i] = call{scriptDrop, key, []string{o.key.terminal, c.self.Incarnation, deadline}}
			continue
		}
		mode := "compare"
		if o.login {
			mode = "login"
		}
		calls[i] = call{scriptPut, key, []string{
			o.key.terminal, c.self.Incarnation, strconv.FormatUint(o.route.ref, 10), strconv.FormatUint(o.route.epoch, 10), deadline, mode,
		}}
	}
	failed := false
	for i, r := range c.run(ctx, writeCall, calls) {
		if err := c.wrote(&ops[i], r); err != nil {
			failed = true
			c.routes.again(&ops[i])
		}
	}
	if failed {
		c.look()
		c.routes.compareAll(compareEvery)
		select {
		case <-ctx.Done():
		case <-time.After(writeCall - time.Since(began) + 50*time.Millisecond):
		}
	}
}

// wrote takes the result of one write. With an error its outcome is not known.
func (c *Cluster) wrote(o *op, r rueidis.RedisResult) error {
	list, err := r.ToArray()
	if err != nil {
		return err
	}
	if len(list) != 3 {
		return errPayload
	}
	result, err := list[0].AsInt64()
	if err != nil {
		return err
	}
	epoch, err := list[1].AsUint64()
	if err != nil {
		return err
	}
	if result == putLate { // our idea of Redis's clock is wrong
		c.offset.Store(int64(epoch) - time.Now().UnixMilli())
		return context.DeadlineExceeded
	}
	elsewhere := false
	if o.here {
		text, err := list[2].ToString()
		if err != nil {
			return err
		}
		elsewhere = c.placed(o, result, epoch, text)
	}
	if o.change != nil {
		answer(o.change.waiting, elsewhere)
	}
	return nil
}

// placed takes the result of scriptPut. It tells whether the older session was on another node.
func (c *Cluster) placed(o *op, result int64, epoch uint64, prior string) (elsewhere bool) {
	switch result {
	case putLost:
		if c.routes.lose(o.key, o.route.ref) {
			c.in.put(event{superseded: &superseded{o.key.user, o.key.terminal, o.route.ref}})
		}
		return true
	case putNew:
		if o.change == nil && !c.routes.comparing() { // it had been published: what else is gone?
			c.routes.compareAll(compareEvery)
		}
	case putWon:
		old, ok := parseStored(prior)
		if ok && !c.nodes.snapshot.Load().dead[old.incarnation] {
			elsewhere = true
			c.out.superseded(old.incarnation, superseded{o.key.user, o.key.terminal, old.ref})
		}
	}
	c.routes.written(o, epoch)
	return elsewhere
}

// clean removes what dead nodes left in the routes of users that were looked up.
func (c *Cluster) clean(ctx context.Context) {
	left := c.leftovers.take(writeChunk)
	if len(left) == 0 {
		return
	}
	calls := make([]call, len(left))
	for i, l := range left {
		calls[i] = call{scriptClean, []string{c.routeKey(l.user)}, []string{l.incarnation}}
	}
	for _, r := range c.run(ctx, writeCall, calls) {
		if r.Error() == nil {
			c.stats.cleaned.Add(1)
		}
	}
}

func (c *Cluster) routeKey(user string) string { return c.o.Prefix + "route:" + user }

// Join implements cluster.Cluster.
func (c *Cluster) Join(ctx context.Context, user, terminal string, ref uint64) (elsewhere bool, err error) {
	done := make(chan bool, 1)
	c.routes.join(routeKey{user, terminal}, ref, c.now(), done)
	if up, _ := c.gate.state(); !up || time.Now().UnixMilli()-c.slow.Load() < joinWait.Milliseconds() {
		return false, nil
	}
	timer := time.NewTimer(joinWait)
	defer timer.Stop()
	select {
	case elsewhere = <-done:
		return elsewhere, nil
	case <-timer.C:
		c.slow.Store(time.Now().UnixMilli()) // the next ones do not wait at all
		c.look()
		return false, nil
	case <-ctx.Done(): // it stays joined until Leave
		return false, ctx.Err()
	}
}

// Leave implements cluster.Cluster.
func (c *Cluster) Leave(user, terminal string, ref uint64) {
	c.routes.leave(routeKey{user, terminal}, ref)
}

// leaveAll removes the routes that are still here, as far as there is time.
func (c *Cluster) leaveAll(ctx context.Context) {
	var ops []op
	c.routes.mu.Lock()
	for i, m := range c.routes.shards {
		for k := range m {
			c.routes.mark(k, false)
		}
		c.routes.shards[i] = map[routeKey]route{}
	}
	c.routes.count, c.routes.left, c.routes.part, c.routes.wanted = 0, 0, nil, 0
	c.routes.mu.Unlock()
	for ctx.Err() == nil {
		if ops, _ = c.routes.take(ops[:0], writeChunk); len(ops) == 0 {
			return
		}
		c.write(ctx, ops)
	}
}
