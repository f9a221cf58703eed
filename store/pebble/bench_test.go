package pebble

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/store"
)

// cpuTime is what the process has used, user and system.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchStore(b *testing.B) *Store {
	dir, err := os.MkdirTemp(os.Getenv("MESHTALK_BENCH_DIR"), "bench")
	if err != nil {
		b.Fatal(err)
	}
	s, err := open(Options{Dir: dir, Logf: b.Logf})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = s.Close()
		_ = os.RemoveAll(dir)
	})
	return s
}

// traffic makes private messages between pairs of users; drafts are reused once their commit is done.
type traffic struct {
	pairs []pair
	batch []*store.Draft
	rand  *rand.Rand
	n     uint64
	ts    int64
}

type pair struct{ a, b, conv string }

func newTraffic(pairs, batch, content int) *traffic {
	t := &traffic{rand: rand.New(rand.NewPCG(1, 2)), ts: time.Now().UnixMilli()}
	for i := range pairs {
		a, b := fmt.Sprintf("user%07d", 2*i), fmt.Sprintf("user%07d", 2*i+1)
		t.pairs = append(t.pairs, pair{a, b, store.PrivateConv(a, b)})
	}
	for range batch {
		d := &store.Draft{Kind: store.Private, Content: make([]byte, content), ID: make([]byte, 0, 32)}
		for i := range d.Content {
			d.Content[i] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-+"[t.rand.IntN(64)]
		}
		t.batch = append(t.batch, d)
	}
	return t
}

func (t *traffic) next() []*store.Draft {
	for i, d := range t.batch {
		p := t.pairs[t.rand.IntN(len(t.pairs))]
		t.n++
		d.From, d.Conv = p.a, p.conv
		if t.n%2 == 0 {
			d.From = p.b
		}
		d.ID = fmt.Appendf(d.ID[:0], "c-%d", t.n)
		binary.LittleEndian.PutUint64(d.Content, t.rand.Uint64())
		if i%32 == 0 {
			t.ts++
		}
		d.TS = t.ts
		sum := sha256.Sum256(d.ID)
		copy(d.MsgID[:], sum[:])
	}
	return t.batch
}

// BenchmarkCommit: batches of 512 with two commits under way, everything synced and compacted. One op is one message.
func BenchmarkCommit(b *testing.B) {
	for _, pairs := range []int{100, 50_000} {
		b.Run(fmt.Sprintf("pairs=%d", pairs), func(b *testing.B) { benchCommit(b, pairs, 512, 200) })
	}
}

func benchCommit(b *testing.B, pairs, batch, content int) {
	s := benchStore(b)
	gens := [2]*traffic{newTraffic(pairs, batch, content), newTraffic(pairs, batch, content)}
	gens[1].n = 1 << 40
	var mem [2]runtime.MemStats
	run := func(n int) {
		var prev store.Pending
		for i := 0; i < n; i += batch {
			p, err := s.Commit(context.Background(), 0, 0, gens[i/batch%2].next())
			if err != nil {
				b.Fatal(err)
			}
			if prev != nil {
				if _, err := prev.Wait(); err != nil {
					b.Fatal(err)
				}
				prev.Release()
			}
			prev = p
		}
		if prev != nil {
			_, _ = prev.Wait()
			prev.Release()
		}
	}
	run(2 * pairs)
	generate := func() time.Duration { // what making the drafts costs
		c := cpuTime()
		for range 100 {
			gens[0].next()
		}
		return (cpuTime() - c) / time.Duration(100*batch)
	}()
	runtime.ReadMemStats(&mem[0])
	b.ResetTimer()
	cpu := cpuTime()
	run(b.N)
	b.StopTimer()
	cpu = cpuTime() - cpu
	runtime.ReadMemStats(&mem[1])
	settle := cpuTime()
	s.waitCompactions()
	settle = cpuTime() - settle
	b.ReportMetric(float64(cpu+settle)/float64(b.N)-float64(generate), "cpu-ns/op")
	b.ReportMetric(float64(settle)/float64(b.N), "later-cpu-ns/op")
	b.ReportMetric(float64(mem[1].Mallocs-mem[0].Mallocs)/float64(b.N), "mallocs/op")
	b.ReportMetric(float64(s.Stats().FilterHits)/float64(b.N), "filterhits/op")
}

// waitCompactions returns when Pebble has had nothing to do for a while.
func (s *Store) waitCompactions() {
	g := s.gen.Load()
	_ = g.db.Flush()
	for idle := 0; idle < 20; idle++ {
		if m := g.db.Metrics(); m.Compact.NumInProgress > 0 || m.Flush.NumInProgress > 0 {
			idle = 0
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// BenchmarkSize reports the bytes on disk per message of 200 bytes after a full compaction, as a multiple of the content.
func BenchmarkSize(b *testing.B) {
	s := benchStore(b)
	t := newTraffic(1000, 512, 200)
	r := rand.New(rand.NewPCG(3, 4))
	for i := 0; i < b.N; i += 512 {
		drafts := t.next()
		for _, d := range drafts { // text that does not compress below 6 bits a character
			for j := range d.Content {
				d.Content[j] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-+"[r.IntN(64)]
			}
		}
		p, err := s.Commit(context.Background(), 0, 0, drafts)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = p.Wait()
		p.Release()
	}
	if err := s.flushTail(1); err != nil {
		b.Fatal(err)
	}
	g := s.gen.Load()
	_ = g.db.Flush()
	if err := g.db.Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
		b.Fatal(err)
	}
	var size uint64
	m := g.db.Metrics()
	for _, l := range m.Levels {
		size += uint64(l.TablesSize)
	}
	b.ReportMetric(float64(size)/float64(b.N), "B/op-on-disk")
	b.ReportMetric(float64(size)/float64(b.N)/200, "x-payload")
}

// BenchmarkReadInbox reads pages of 100 entries of users with many.
func BenchmarkReadInbox(b *testing.B) {
	s := benchStore(b)
	t := newTraffic(100, 512, 200)
	for range 400 {
		p, err := s.Commit(context.Background(), 0, 0, t.next())
		if err != nil {
			b.Fatal(err)
		}
		_, _ = p.Wait()
		p.Release()
	}
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for i := 0; n < b.N; i++ {
		p := t.pairs[i%len(t.pairs)]
		list, _, _, err := s.ReadInbox(context.Background(), p.a, uint64(i%500), 100)
		if err != nil || len(list) == 0 {
			b.Fatal(err, len(list))
		}
		n += len(list)
	}
}

// BenchmarkAttach logs users in for the first time, 64 at once.
func BenchmarkAttach(b *testing.B) {
	s := benchStore(b)
	var next atomic.Int64
	b.ResetTimer()
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if _, err := s.Attach(context.Background(), fmt.Sprint("user", i), "web"); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkFilterMiss is the look-up of a new id with a full day in memory.
func BenchmarkFilterMiss(b *testing.B) {
	f := newRepeatFilter(128 << 20)
	var id [16]byte
	r := rand.New(rand.NewPCG(1, 2))
	next := func() *[16]byte {
		binary.LittleEndian.PutUint64(id[:], r.Uint64())
		binary.LittleEndian.PutUint64(id[8:], r.Uint64())
		return &id
	}
	for day := range 8 {
		n := 2_000_000
		if day < 7 {
			n /= 16
		}
		for range n {
			f.add(uint16(day), next())
		}
	}
	hits, to := 0, []uint16(nil)
	b.ResetTimer()
	for range b.N {
		to = f.suspects(next(), to[:0])
		hits += len(to)
	}
	b.ReportMetric(float64(hits)/float64(b.N), "false-hits/op")
}

// BenchmarkGrowth commits to a store that holds conversations already: messages a second and the p99 of a commit of 64 are to be
// the same for few and many. The messages go to 1,000 of them, at random over all. One op is one message.
func BenchmarkGrowth(b *testing.B) {
	for _, held := range []int{1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("conversations=%d", held), func(b *testing.B) { benchGrowth(b, held) })
	}
}

func benchGrowth(b *testing.B, held int) {
	s := benchStore(b)
	all := newTraffic(held, 512, 200)
	for i := 0; i < held; i += len(all.batch) { // each has one message
		drafts := all.next()
		for j, d := range drafts {
			p := all.pairs[(i+j)%held]
			d.From, d.Conv = p.a, p.conv
		}
		commitAll(b, s, drafts)
	}
	if err := s.flushTail(1); err != nil {
		b.Fatal(err)
	}
	s.waitCompactions()
	busy := newTraffic(0, 64, 200)
	busy.n = 1 << 40
	for range 1000 {
		busy.pairs = append(busy.pairs, all.pairs[all.rand.IntN(held)])
	}
	for range 256 { // each has been used some times then
		commitAll(b, s, busy.next())
	}
	var took []time.Duration
	cpu := cpuTime()
	b.ResetTimer()
	for i := 0; i < b.N; i += len(busy.batch) {
		drafts := busy.next()
		began := time.Now()
		commitAll(b, s, drafts)
		took = append(took, time.Since(began))
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

func commitAll(b *testing.B, s *Store, drafts []*store.Draft) {
	b.Helper()
	p, err := s.Commit(context.Background(), 0, 0, drafts)
	if err == nil {
		_, err = p.Wait()
	}
	if err != nil {
		b.Fatal(err)
	}
	p.Release()
}
