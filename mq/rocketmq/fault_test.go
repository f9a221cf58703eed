package rocketmq

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/internal/services"
	"github.com/meshtalk/meshtalk/mq"
	"github.com/meshtalk/meshtalk/mq/mqtest"
)

// client is a sender as people have them: it sends some records without waiting, and what is refused again under the same id
// until it is kept.
type client struct {
	id   uint32
	kept atomic.Int64 // records
	last atomic.Int64 // when one was kept, Unix ns
}

// window is how many records a client sends before it waits.
const window = 16

// send sends until stop closes and everything is kept.
func (c *client) send(l mq.Log, h *mqtest.History, stop <-chan struct{}) {
	for n := uint32(0); ; n += window {
		select {
		case <-stop:
			return
		default:
		}
		todo := make([]uint32, window)
		for i := range todo {
			todo[i] = n + uint32(i)
		}
		for len(todo) > 0 {
			todo = c.attempt(l, h, todo)
		}
		time.Sleep(20 * time.Millisecond) // leaves the machine to brokers that start
	}
}

// attempt sends records and returns those that were refused.
func (c *client) attempt(l mq.Log, h *mqtest.History, todo []uint32) (again []uint32) {
	errs := make([]error, len(todo))
	var wait sync.WaitGroup
	for i, n := range todo {
		wait.Add(1)
		_ = h.Append(l, &mqtest.Record{ID: mqtest.ID{Sender: c.id, N: n}, Size: 250, Done: func(err error) {
			errs[i] = err
			wait.Done()
		}})
	}
	wait.Wait()
	for i, n := range todo {
		if errs[i] != nil {
			again = append(again, n)
			continue
		}
		c.kept.Add(1)
		c.last.Store(time.Now().UnixNano())
	}
	if len(again) > 0 {
		time.Sleep(20 * time.Millisecond) // as one who was refused does
	}
	return again
}

// load is clients of several nodes on one topic.
type load struct {
	t       *testing.T
	s       *mqtest.Store
	h       mqtest.History
	clients []*client
	queues  int
	stop    chan struct{}
	sending sync.WaitGroup
}

// startLoad sends to every partition through each log.
func startLoad(t *testing.T, s *mqtest.Store, queues int, logs ...*Log) *load {
	d := &load{t: t, s: s, queues: queues, stop: make(chan struct{})}
	for _, l := range logs {
		for range 3 * queues {
			c := &client{id: uint32(len(d.clients))}
			d.clients = append(d.clients, c)
			d.sending.Go(func() { c.send(l, &d.h, d.stop) })
		}
	}
	t.Cleanup(d.finish)
	return d
}

func (d *load) finish() {
	select {
	case <-d.stop:
	default:
		close(d.stop)
	}
	d.sending.Wait()
}

// of are the clients whose records go to one of the partitions.
func (d *load) of(partitions ...int) (list []*client) {
	for _, c := range d.clients {
		if slices.Contains(partitions, Partition(mqtest.Key(c.id), d.queues)) {
			list = append(list, c)
		}
	}
	return list
}

// progress waits until each of the clients has kept some more.
func (d *load) progress(what string, clients []*client) {
	d.t.Helper()
	before := make([]int64, len(clients))
	for i, c := range clients {
		before[i] = c.kept.Load()
	}
	eventually(d.t, what, func() bool {
		for i, c := range clients {
			if c.kept.Load() < before[i]+2*window {
				return false
			}
		}
		return true
	})
}

// check ends the load and judges it.
func (d *load) check() {
	d.t.Helper()
	d.finish()
	d.h.Wait()
	kept := d.h.Kept()
	if !d.s.Await(kept, patience) {
		d.t.Error("not all that was kept is applied")
	}
	wrong := d.s.Wrong(&d.h)
	if len(wrong) > 0 {
		d.t.Errorf("%d wrong: %.5q", len(wrong), wrong)
	}
	d.t.Logf("%d records kept, %d refusals, %d batches", len(kept), d.h.Refused(), len(d.s.Batches()))
}

// appliedAgain waits until a record that is sent from now on is applied in each of the partitions, and tells how long that took.
func (d *load) appliedAgain(partitions ...int) {
	d.t.Helper()
	begin := time.Now()
	before := d.s.Offsets()
	eventually(d.t, "every partition moves", func() bool {
		now := d.s.Offsets()
		for _, p := range partitions {
			if now[p] == before[p] {
				return false
			}
		}
		return true
	})
	d.t.Logf("all of partitions %v moved within %s", partitions, time.Since(begin).Round(time.Millisecond))
}

// Brokers of their own, for what breaks them: starting some takes longer than most tests.
func TestTwoBrokers(t *testing.T) {
	t.Parallel()
	set := services.Start(t, services.RocketMQ, services.Broker2)
	t.Run("Faults", func(t *testing.T) { brokerFaults(t, set) })
	t.Run("ForeignLayout", func(t *testing.T) { foreignLayout(t, set) })
}

func TestOneBroker(t *testing.T) {
	t.Parallel()
	set := services.Start(t, services.RocketMQ)
	t.Run("LosesItsFiles", func(t *testing.T) { brokerLosesItsFiles(t, set) })
	t.Run("ACL", func(t *testing.T) { brokerWithACL(t, set) }) // the last: it stays
}

// A broker that is killed under load, comes back on its files, and is stopped and continued: its partitions refuse, those of the
// other broker go on, and nothing that was kept is missing or stands in another order.
func brokerFaults(t *testing.T, set *services.Set) {
	const count = 8
	s := mqtest.NewStore()
	nodes := []*mqtest.Node{s.Node(0, 2, 4, 6), s.Node(1, 3, 5, 7)}
	topic := newTopic()
	var logs []*Log
	for _, n := range nodes {
		l := openLog(t, set.NameServer.Addr, topic, count, n)
		run(t, l, n)
		logs = append(logs, l)
	}
	first, second := []int{0, 1, 2, 3}, []int{4, 5, 6, 7} // by the names of the brokers
	for p := range count {
		if want := map[bool]string{true: "broker", false: "broker2"}[p < 4]; logs[0].places.at(p).broker != want {
			t.Fatalf("partition %d is at %s", p, logs[0].places.at(p))
		}
	}
	d := startLoad(t, s, count, logs...)
	d.progress("all send", d.clients)

	for _, fault := range []struct {
		name      string
		begin     func() error
		end       func() error
		hit, rest []int
	}{
		{"kill", set.Broker.Kill, set.Broker.Start, first, second},
		{"kill of the other", set.Broker2.Kill, set.Broker2.Start, second, first},
		{"pause", set.Broker.Pause, set.Broker.Resume, first, second},
	} {
		must(t, fault.begin())
		eventually(t, fault.name+": its partitions refuse", func() bool { return refuses(logs[0], fault.hit[0]) })
		if logs[0].State() == nil {
			t.Errorf("%s: the state is fine", fault.name)
		}
		d.progress(fault.name+": the others go on", d.of(fault.rest...))
		d.appliedAgain(fault.rest...)
		must(t, fault.end())
		d.appliedAgain(fault.hit...)
		d.progress(fault.name+": all send again", d.clients)
		eventually(t, fault.name+": the state is fine again", func() bool { return logs[0].State() == nil && logs[1].State() == nil })
	}
	d.check()
	if d.h.Refused() == 0 {
		t.Error("nothing was refused")
	}
}

// refuses asks whether a log takes nothing for a partition, with a record that nobody misses.
func refuses(l *Log, partition int) bool {
	err := l.Append(keyIn(partition, l.o.Queues), &mqtest.Record{ID: mqtest.ID{Sender: 1<<20 + uint32(partition)}})
	return err != nil && !errors.Is(err, mq.ErrFull)
}

// keyIn is a key of that partition.
func keyIn(partition, n int) string {
	for i := 0; ; i++ {
		if k := "k" + string(rune('a'+i)); Partition(k, n) == partition {
			return k
		}
	}
}

// One node is cut off from RocketMQ: it takes nothing and says so, the other goes on; then it comes back.
func TestNodeCutOff(t *testing.T) {
	t.Parallel()
	const count = 4
	s := mqtest.NewStore()
	nodes := []*mqtest.Node{s.Node(0, 1), s.Node(2, 3)}
	topic := newTopic()
	proxy := services.NewRocketMQProxy(t, shared)
	cut := openLog(t, proxy.Addr, topic, count, nodes[0])
	free := openLog(t, shared.NameServer.Addr, topic, count, nodes[1])
	run(t, cut, nodes[0])
	run(t, free, nodes[1])
	d := startLoad(t, s, count, cut, free)
	d.progress("all send", d.clients)
	proxy.Cut()
	eventually(t, "the cut node refuses", func() bool { return refuses(cut, 0) && refuses(cut, count-1) })
	if cut.State() == nil {
		t.Error("the state of a node that is cut off is fine")
	}
	d.progress("the other goes on", d.clients[len(d.clients)/2:])
	if err := free.State(); err != nil {
		t.Errorf("the state of the other: %v", err)
	}
	proxy.Restore()
	d.progress("all send again", d.clients)
	eventually(t, "the state is fine again", func() bool { return cut.State() == nil })
	d.appliedAgain(0, 1)
	d.check()
}

// A node that consumes nothing and sends nothing knows that it is cut off, too.
func TestIdleNodeCutOff(t *testing.T) {
	t.Parallel()
	n := mqtest.NewStore().Node()
	proxy := services.NewRocketMQProxy(t, shared)
	l := openLog(t, proxy.Addr, newTopic(), 4, n)
	run(t, l, n)
	must(t, l.State())
	proxy.Cut()
	eventually(t, "the state tells", func() bool { return l.State() != nil })
	proxy.Restore()
	eventually(t, "the state is fine again", func() bool { return l.State() == nil })
}

// Partitions move between two nodes under load, both believing to own all for a while.
func TestOwnersChange(t *testing.T) {
	const count = 4
	s := mqtest.NewStore()
	nodes := []*mqtest.Node{s.Node(0, 1, 2, 3), s.Node()}
	topic := newTopic()
	var logs []*Log
	for _, n := range nodes {
		l := openLog(t, shared.NameServer.Addr, topic, count, n)
		run(t, l, n)
		logs = append(logs, l)
	}
	d := startLoad(t, s, count, logs...)
	for _, owned := range [][2][]int{
		{{0, 1}, {2, 3}}, {{}, {0, 1, 2, 3}}, {{0, 1, 2, 3}, {0, 1, 2, 3}}, {{0, 3}, {1, 2}}, {{0, 1, 2, 3}, {}},
	} {
		nodes[0].Own(owned[0]...)
		nodes[1].Own(owned[1]...)
		d.appliedAgain(0, 1, 2, 3)
		d.appliedAgain(0, 1, 2, 3) // by batches that began after the change
	}
	d.check()
}

// A partition that is nobody's is not applied, and its lag is of nobody; the next owner takes it from where it stands.
func TestNobodysPartition(t *testing.T) {
	s := mqtest.NewStore()
	n := s.Node(0)
	l := openLog(t, shared.NameServer.Addr, newTopic(), 2, n)
	run(t, l, n)
	var h mqtest.History
	for sender := range uint32(8) {
		h.Send(t, l, sender, 10, func(int) int { return 100 })
	}
	h.Wait()
	mine := slices.DeleteFunc(h.Kept(), func(id mqtest.ID) bool { return Partition(mqtest.Key(id.Sender), 2) != 0 })
	if !s.Await(mine, patience) {
		t.Error("not all of an owned partition is applied")
	}
	eventually(t, "its lag ends", func() bool { lag, ok := l.Lag()[0]; return ok && lag == 0 })
	if offsets := s.Offsets(); offsets[0] == 0 || offsets[1] != 0 {
		t.Errorf("offsets %v", offsets)
	}
	if _, ok := l.Lag()[1]; ok {
		t.Error("a partition of nobody has a lag")
	}
	n.Own(0, 1)
	if !s.Await(h.Kept(), patience) {
		t.Error("not all is applied")
	}
	if wrong := s.Wrong(&h); len(wrong) > 0 {
		t.Errorf("wrong: %.5q", wrong)
	}
}
