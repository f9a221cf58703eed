package redis

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/cluster/clustertest"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/internal/services"
)

// sink is a Receiver that counts wakes, for benchmarks.
type sink struct {
	clustertest.Recorder
	woken chan int
}

func (s *sink) Woken(w []cluster.Wake) { s.woken <- len(w) }

// next is how many wakes came together. A lost one ends the benchmark: it was no run to measure.
func (s *sink) next(b *testing.B, sender *Cluster) int {
	b.Helper()
	select {
	case n := <-s.woken:
		return n
	case <-time.After(20 * time.Second):
		b.Fatalf("no wake for 20 s; the sender has %+v", sender.Stats())
		return 0
	}
}

// twoNodes are a sender, and a receiver with users.
func twoNodes(b *testing.B, users int) (from *clustertest.Node, to *sink, names []string) {
	to = &sink{woken: make(chan int, 1<<16)}
	from, names = nodesOf(b, users, to)
	return from, to, names
}

func nodesOf(b *testing.B, users int, to cluster.Receiver) (from *clustertest.Node, names []string) {
	s := services.StartRedis(b)
	tc := newCluster(s.Addr)
	from = clustertest.Start(b, tc.open(b, "a"))
	c := tc.open(b, "b").(*Cluster)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, to) }()
	b.Cleanup(func() {
		cancel()
		<-ended
	})
	clustertest.Eventually(b, "both are ready", func() bool { return from.State() == nil && c.State() == nil })
	for i := range users {
		names = append(names, fmt.Sprintf("user%d", i))
		if _, err := c.Join(ctx, names[i], "web", uint64(i)); err != nil {
			b.Fatal(err)
		}
	}
	return from, names
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWakes sends private messages (two wakes each, one for a user who is here) with at most 4,096 in flight. CPU is that
// of both nodes, without Redis.
func BenchmarkWakes(b *testing.B) {
	for _, batch := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("commit of %d", batch), func(b *testing.B) {
			from, to, users := twoNodes(b, 1000)
			if _, err := from.Join(context.Background(), "alice", "web", 1); err != nil {
				b.Fatal(err)
			}
			c := of(from)
			before, began := c.Stats(), cpu()
			flying := 0
			b.ResetTimer()
			for sent := 0; sent < b.N; {
				for flying+batch > 4096 {
					flying -= to.next(b, c)
				}
				var wakes []cluster.Wake
				for range batch {
					m := &codec.ConvMessage{
						Cmd: codec.PrivateMessage, Conv: "p:alice:user", Seq: uint64(sent), From: "alice", To: users[sent%len(users)],
						TS: 1_800_000_000_000, Content: make([]byte, 128), ID: "c-17",
					}
					wakes = append(wakes, cluster.Wake{User: "alice", Inbox: m.Seq, Message: m}, cluster.Wake{User: m.To, Inbox: m.Seq, Message: m})
					sent++
				}
				c.Wake(wakes)
				flying += batch
			}
			for flying > 0 {
				flying -= to.next(b, c)
			}
			b.StopTimer()
			after := c.Stats()
			n := float64(after.WakesOut - before.WakesOut)
			b.ReportMetric(n/b.Elapsed().Seconds(), "messages/s")
			b.ReportMetric(float64(after.Commands-before.Commands)/n, "commands/message")
			b.ReportMetric(float64((cpu()-began).Microseconds())/n, "µs-cpu/message")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// stamped is a Receiver that takes the time from Message.TS (µs) to Woken.
type stamped struct {
	clustertest.Recorder
	took chan int64
}

func (s *stamped) Woken(wakes []cluster.Wake) {
	now := time.Now().UnixMicro()
	for i := range wakes {
		s.took <- now - wakes[i].Message.TS
	}
}

// BenchmarkPaced sends private messages between many users at a steady rate, one Wake a message, as from small commits.
func BenchmarkPaced(b *testing.B) {
	for _, rate := range []int{500, 2000, 15_000} {
		b.Run(fmt.Sprintf("%d a second", rate), func(b *testing.B) {
			to := &stamped{took: make(chan int64, 1<<16)}
			from, users := nodesOf(b, 1000, to)
			c := of(from)
			before, began := c.Stats(), cpu()
			took := make([]int64, 0, b.N)
			collected := make(chan bool)
			b.ResetTimer()
			go func() {
				defer close(collected)
				for range b.N {
					select {
					case t := <-to.took:
						took = append(took, t)
					case <-time.After(20 * time.Second):
						return
					}
				}
			}()
			for sent := 0; sent < b.N; sent++ {
				if ahead := time.Duration(sent)*time.Second/time.Duration(rate) - b.Elapsed(); ahead > 200*time.Microsecond {
					time.Sleep(ahead)
				}
				m := &codec.ConvMessage{
					Cmd: codec.PrivateMessage, Conv: "p:alice:user", Seq: uint64(sent), From: "alice", To: users[sent%len(users)],
					TS: time.Now().UnixMicro(), Content: make([]byte, 128), ID: "c-17",
				}
				c.Wake([]cluster.Wake{{User: fmt.Sprintf("here%d", sent%1000), Inbox: 1, Message: m}, {User: m.To, Inbox: 2, Message: m}})
			}
			<-collected
			b.StopTimer()
			if len(took) != b.N {
				b.Fatalf("%d of %d wakes arrived; the sender has %+v", len(took), b.N, c.Stats())
			}
			after, n := c.Stats(), float64(b.N)
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2]), "µs-p50")
			b.ReportMetric(float64(took[len(took)*99/100]), "µs-p99")
			b.ReportMetric(float64(after.Commands-before.Commands)/n, "commands/message")
			b.ReportMetric(float64((cpu()-began).Microseconds())/n, "µs-cpu/message")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkHop is the time from Wake to Woken of a single message: a look-up and a Pub/Sub hop.
func BenchmarkHop(b *testing.B) {
	from, to, users := twoNodes(b, 1)
	took := make([]float64, 0, 1<<16)
	m := &codec.ConvMessage{Cmd: codec.PrivateMessage, Conv: "p:a:b", Content: make([]byte, 128)}
	for b.Loop() {
		began := time.Now()
		from.Wake([]cluster.Wake{{User: users[0], Inbox: 1, Message: m}})
		to.next(b, of(from))
		took = append(took, float64(time.Since(began).Microseconds()))
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2], "µs-p50")
	b.ReportMetric(took[len(took)*99/100], "µs-p99")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkJoins is logins, 64 at a time.
func BenchmarkJoins(b *testing.B) {
	from, _, _ := twoNodes(b, 0)
	b.SetParallelism(32)
	began := cpu()
	next := make(chan int, 1024)
	go func() {
		for i := range b.N {
			next <- i
		}
		close(next)
	}()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			i := <-next
			if _, err := from.Join(context.Background(), fmt.Sprintf("user%d", i), "web", uint64(i)); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "µs-cpu/login")
}

// BenchmarkRouteMemory is what a route costs this process, without its strings, and Redis.
func BenchmarkRouteMemory(b *testing.B) {
	const count = 200_000
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("user%06d", i)
	}
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := newRoutes()
		for i, name := range names {
			r.join(routeKey{name, "web"}, uint64(i), 1_800_000_000_000, make(chan bool, 1))
			if i%writeChunk == 0 {
				_, _ = r.take(nil, writeChunk)
			}
		}
		for {
			if ops, _ := r.take(nil, writeChunk); len(ops) == 0 {
				break
			}
		}
		r.changes = map[routeKey]*change{} // as after the burst: a map keeps its room
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/count, "B/route")
		runtime.KeepAlive(r)
	}
	runtime.KeepAlive(names)
}

// BenchmarkRepublish is an empty Redis that is filled again with the routes of one node.
func BenchmarkRepublish(b *testing.B) {
	s := services.StartRedis(b)
	a := clustertest.Start(b, newCluster(s.Addr).open(b, "a"))
	a.WaitReady(b)
	const count = 100_000
	crowd(b, a, "u", count)
	size := fmt.Sprintf(":%d", count+2) // and the leases
	clustertest.Eventually(b, "all are published", func() bool { return s.Do("DBSIZE") == size })
	used := s.Do("INFO memory")
	for b.Loop() {
		s.Do("FLUSHALL")
		clustertest.Eventually(b, "all are published again", func() bool { return s.Do("DBSIZE") == size })
	}
	var bytes int
	if _, err := fmt.Sscanf(infoField(used, "used_memory"), "%d", &bytes); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(bytes)/count, "B-of-redis/route")
}
