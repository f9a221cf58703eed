package redis

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
)

const (
	// What may wait to be sent. Beyond it is dropped and the others are told that something is lost.
	outItems = 100_000
	outBytes = 64 << 20
	// sendChunk is how many items are looked up and published as one pipeline, payloadBytes at which size a payload is closed.
	sendChunk    = 1024
	payloadBytes = 256 << 10
	// sendGap is the shortest time from one pipeline to the next: what comes meanwhile goes together. An idle node sends at once.
	sendGap = time.Millisecond
	// sendCall bounds one pipeline.
	sendCall = 2 * time.Second
	// lostEvery is the shortest time between two notices of a loss: each makes every node look at all its users.
	lostEvery = time.Second
)

// everyone as an item's destination are all other nodes.
const everyone = "*"

// item is one record on its way out.
type item struct {
	kind    byte
	to      string // an incarnation, everyone, or "" for the nodes where the user is
	user    string
	group   string
	except  string
	inbox   uint64
	message *codec.ConvMessage
	packet  []byte
	state   *codec.PresenceState
	other   any // cluster.MembersChange, cluster.Answer, order, superseded, question
	bytes   int // what it counts for in the queue: the first wake of a message counts for all of it
}

// out is the queue of what is to be sent: bounded, never blocking.
type out struct {
	work    chan struct{} // there is something to do
	gate    *gate
	dropped func(n int)

	mu    sync.Mutex // guards the rest
	items []item
	bytes int  // of messages and packets
	lost  bool // something was dropped, and the others do not know yet
}

func newOut(g *gate, dropped func(int)) *out {
	return &out{work: make(chan struct{}, 1), gate: g, dropped: dropped}
}

// put appends items. While Redis cannot be reached all is dropped: when it can be again, the
// others look by themselves, and what is older than that helps nobody.
func (o *out) put(items ...item) {
	n, bytes := len(items), 0
	for i := range items {
		bytes += items[i].bytes
	}
	up, _ := o.gate.state()
	o.mu.Lock()
	if full := len(o.items)+n > outItems || o.bytes+bytes > outBytes; !up || full && len(o.items) > 0 {
		o.lost = true
		o.mu.Unlock()
		o.dropped(n)
	} else {
		o.items = append(o.items, items...)
		o.bytes += bytes
		o.mu.Unlock()
	}
	select {
	case o.work <- struct{}{}:
	default:
	}
}

// lose notes a loss that the others must be told of.
func (o *out) lose(n int) {
	o.mu.Lock()
	o.lost = true
	o.mu.Unlock()
	o.dropped(n)
}

// take gives up to sendChunk items in their order.
func (o *out) take(tellLoss bool) (items []item, lost bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(len(o.items), sendChunk)
	items = append(items, o.items[:n]...)
	for i := range items {
		o.bytes -= items[i].bytes
	}
	if n == len(o.items) {
		clear(o.items)
		o.items = o.items[:0]
		if cap(o.items) > 4*sendChunk {
			o.items = nil // given back after a burst
		}
	} else {
		clear(o.items[:n])
		o.items = o.items[n:]
	}
	if tellLoss {
		lost, o.lost = o.lost, false
	}
	return items, lost
}

func (o *out) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.items)
}

func (o *out) notice(kind byte) { o.put(item{kind: kind, to: everyone}) }

func (o *out) superseded(incarnation string, s superseded) {
	o.put(item{kind: kindSuperseded, to: incarnation, other: s})
}

// Wake implements cluster.Cluster. The messages must not change.
func (c *Cluster) Wake(wakes []cluster.Wake) {
	items := make([]item, len(wakes))
	var last *codec.ConvMessage
	for i := range wakes {
		w := &wakes[i]
		items[i] = item{kind: kindWake, user: w.User, group: w.Group, inbox: w.Inbox, message: w.Message}
		if w.User == "" {
			items[i].to = everyone
		}
		if m := w.Message; m != nil && m != last {
			items[i].bytes, last = len(m.Content), m
		}
	}
	c.out.put(items...)
}

// Send implements cluster.Cluster. The packets and states must not change.
func (c *Cluster) Send(signals []cluster.Signal) {
	items := make([]item, len(signals))
	for i := range signals {
		s := &signals[i]
		switch {
		case s.Broadcast != nil:
			items[i] = item{kind: kindBroadcast, to: everyone, message: s.Broadcast, bytes: len(s.Broadcast.Content)}
		case s.State != nil:
			items[i] = item{kind: kindState, to: everyone, user: s.User, state: s.State}
		case s.Group != "":
			items[i] = item{kind: kindSignal, to: everyone, group: s.Group, except: s.Except, packet: s.Packet, bytes: len(s.Packet)}
		default:
			items[i] = item{kind: kindSignal, user: s.User, packet: s.Packet, bytes: len(s.Packet)}
		}
	}
	c.out.put(items...)
}

// Members implements cluster.Cluster.
func (c *Cluster) Members(m cluster.MembersChange) {
	c.out.put(item{kind: kindMembers, to: everyone, other: m})
}

// Reply implements cluster.Cluster.
func (c *Cluster) Reply(node string, a cluster.Answer) {
	incarnation, ok := c.nodes.snapshot.Load().incarnation(node)
	if !ok {
		c.stats.dropped.Add(1) // who waited for it is gone
		return
	}
	c.out.put(item{kind: kindAnswer, to: incarnation, other: a})
}

// Order implements cluster.Cluster.
func (c *Cluster) Order(user, terminal string, code codec.Code, reason string, before int64) {
	c.out.put(item{kind: kindOrder, to: everyone, other: order{user, terminal, code, reason, before}})
}

// parcel is a pipeline's worth of items and where each goes.
type parcel struct {
	items []item
	to    map[string][]int32 // by incarnation or everyone: indices of items, in order
	order []string           // keys of to
	lost  bool
}

func (p *parcel) add(to string, i int) {
	list, ok := p.to[to]
	if !ok {
		p.order = append(p.order, to)
	}
	p.to[to] = append(list, int32(i))
}

// address takes items from the queue and finds out where their users are, until ctx ends; then the rest of the queue, as far as
// flush has time.
func (c *Cluster) address(ctx, flush context.Context, parcels chan<- *parcel) {
	defer close(parcels)
	var told, sent time.Time
	retell := time.NewTimer(0)
	defer retell.Stop()
	for ctx.Err() == nil || flush.Err() == nil && c.out.len() > 0 {
		if !c.gate.wait(flush) {
			return
		}
		if gap := sendGap - time.Since(sent); gap > 0 && c.out.len() < sendChunk {
			time.Sleep(gap)
		}
		p := &parcel{to: map[string][]int32{}}
		p.items, p.lost = c.out.take(time.Since(told) >= lostEvery)
		if p.lost {
			told = time.Now()
			retell.Reset(lostEvery) // another loss may wait for it
		}
		if len(p.items) > 0 || p.lost {
			sent = time.Now()
			c.find(flush, p)
			parcels <- p
			continue
		}
		select {
		case <-ctx.Done():
		case <-c.out.work:
		case <-retell.C:
		}
	}
}

// find fills in where the items go. Routes are asked from Redis every time: a remembered "nowhere" would cost a wake-up.
func (c *Cluster) find(ctx context.Context, p *parcel) {
	where := map[string]int{} // user -> index of its command
	var commands rueidis.Commands
	for i := range p.items {
		if u := p.items[i].user; p.items[i].to == "" {
			if _, ok := where[u]; !ok {
				where[u] = len(commands)
				commands = append(commands, c.client.B().Hvals().Key(c.routeKey(u)).Build())
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, sendCall)
	defer cancel()
	found := make([][]string, len(commands))
	failed := make([]bool, len(commands))
	for i, r := range c.pipeline(ctx, commands) {
		list, err := r.AsStrSlice()
		if failed[i] = err != nil; err == nil {
			found[i] = c.othersOf(list)
		}
	}
	for u, at := range where {
		c.leftoversOf(u, found[at])
	}
	lost := 0
	for i := range p.items {
		it := &p.items[i]
		if it.to != "" {
			p.add(it.to, i)
			continue
		}
		at := where[it.user]
		if failed[at] {
			lost++
			continue
		}
		for j, incarnation := range found[at] {
			if !contains(found[at][:j], incarnation) { // two terminals there
				p.add(incarnation, i)
			}
		}
	}
	if lost > 0 {
		c.out.lose(lost)
		c.look()
	}
}

// othersOf cuts stored routes to their incarnations, without this node's. It reuses list.
func (c *Cluster) othersOf(list []string) []string {
	others := list[:0]
	for _, text := range list {
		if incarnation, _, ok := strings.Cut(text, " "); ok && incarnation != c.self.Incarnation {
			others = append(others, incarnation)
		}
	}
	return others
}

// leftoversOf has the routes of dead nodes cleaned away. An incarnation that is not known may be that of a node that has
// just come: the table is read again before it is judged, and it is sent to all the same.
func (c *Cluster) leftoversOf(user string, incarnations []string) {
	t := c.nodes.snapshot.Load()
	for _, incarnation := range incarnations {
		if t.dead[incarnation] {
			if c.leftovers.add(leftover{user, incarnation}) {
				c.routes.wake()
			}
		} else if _, known := t.node(incarnation); !known && c.nodes.stranger(incarnation) {
			c.look()
		}
	}
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

// publish sends parcels, one at a time so that order is kept, until there are no more.
func (c *Cluster) publish(ctx context.Context, parcels <-chan *parcel) {
	numbers := map[string]uint64{} // of the last payload, by destination
	var e encoder
	for p := range parcels {
		var commands rueidis.Commands
		if p.lost {
			p.add(everyone, -1)
		}
		for _, to := range p.order {
			commands = c.encode(&e, p, to, numbers, commands)
		}
		call, cancel := context.WithTimeout(ctx, sendCall)
		failed := 0
		for _, r := range c.pipeline(call, commands) {
			if r.Error() != nil {
				failed++
			}
		}
		cancel()
		if failed > 0 {
			c.out.lose(failed)
			c.look()
		}
		c.stats.payloadsOut.Add(uint64(len(commands) - failed))
		if t := c.nodes.snapshot.Load(); len(numbers) > 4*len(t.nodes)+64 {
			for to := range numbers {
				if t.dead[to] {
					delete(numbers, to)
				}
			}
		}
	}
}

// encode makes the payloads of a parcel for one destination.
func (c *Cluster) encode(e *encoder, p *parcel, to string, numbers map[string]uint64, commands rueidis.Commands) rueidis.Commands {
	open := false
	for _, i := range p.to[to] {
		if !open {
			numbers[to]++
			e.begin(c.self.Incarnation, numbers[to])
			open = true
		}
		if i < 0 {
			e.notice(kindLost)
		} else if it := &p.items[i]; it.append(e) {
			c.stats.wakesOut.Add(1)
		}
		if len(e.b) >= payloadBytes {
			commands = append(commands, c.publishCommand(to, string(e.b)))
			open = false
		}
	}
	if open {
		commands = append(commands, c.publishCommand(to, string(e.b)))
	}
	return commands
}

// append writes the item's record. It tells whether it is a wake.
func (i *item) append(e *encoder) bool {
	switch i.kind {
	case kindWake:
		e.wake(i.user, i.group, i.inbox, i.message)
		return true
	case kindSignal:
		e.signal(i.user, i.group, i.except, i.packet)
	case kindBroadcast:
		e.broadcast(i.message)
	case kindState:
		e.state(i.user, i.state)
	case kindMembers:
		e.members(i.other.(cluster.MembersChange))
	case kindAnswer:
		e.answer(i.other.(cluster.Answer))
	case kindOrder:
		e.order(i.other.(order))
	case kindSuperseded:
		e.superseded(i.other.(superseded))
	case kindAsk, kindTold:
		e.question(i.kind, i.other.(question))
	default:
		e.notice(i.kind)
	}
	return false
}

// channel is where a node listens; a Redis Cluster spreads the nodes' channels over its servers.
func (c *Cluster) channel(to string) string {
	if to == everyone {
		return c.o.Prefix + "all"
	}
	return c.o.Prefix + "node:" + to
}

func (c *Cluster) publishCommand(to, text string) rueidis.Completed {
	if c.mode == clustered {
		return c.client.B().Spublish().Channel(c.channel(to)).Message(text).Build()
	}
	return c.client.B().Publish().Channel(c.channel(to)).Message(text).Build()
}

// leftover is a user who has routes of a dead incarnation.
type leftover struct{ user, incarnation string }

// leftovers is a bounded set of them.
type leftovers struct {
	mu  sync.Mutex // guards set
	set map[leftover]bool
}

func (l *leftovers) add(e leftover) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set[e] || len(l.set) >= cleanMax {
		return false
	}
	if l.set == nil {
		l.set = map[leftover]bool{}
	}
	l.set[e] = true
	return true
}

func (l *leftovers) take(n int) (list []leftover) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := range l.set {
		if len(list) == n {
			break
		}
		list = append(list, e)
		delete(l.set, e)
	}
	return list
}
