package postgres

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/store"
)

// writer makes private messages: everyone talks with five others. A conversation is always of the same writer, inboxes are of all.
type writer struct {
	part  int
	pairs [][2]string
	rnd   *rand.Rand
	n     int
	next  int64
}

func newWriter(part, writers, users int) *writer {
	w := &writer{part: part, rnd: rand.New(rand.NewPCG(uint64(part), 1))}
	for a := range users {
		for i := range 5 {
			if (a*5+i)%writers == part {
				w.pairs = append(w.pairs, [2]string{fmt.Sprint("user-", a), fmt.Sprint("user-", (a+1+i*i*7)%users)})
			}
		}
	}
	return w
}

func (w *writer) draft() *store.Draft {
	pair := w.pairs[w.rnd.IntN(len(w.pairs))]
	if w.n < len(w.pairs) {
		pair = w.pairs[w.n] // each once
	}
	w.n++
	from, to := pair[0], pair[1]
	if w.n%2 == 0 {
		from, to = to, from
	}
	d := &store.Draft{Kind: store.Private, From: from, ID: fmt.Appendf(nil, "w%d-%d", w.part, w.n), Conv: store.PrivateConv(from, to),
		Content: fmt.Appendf(nil, `{"text":"message %d of a writer, sixty-four bytes or so long"}`, w.n), TS: time.Now().UnixMilli()}
	sum := sha256.Sum256(append([]byte(from+"\x00"), d.ID...))
	copy(d.MsgID[:], sum[:])
	return d
}

func (w *writer) batch(n int) []*store.Draft {
	list := make([]*store.Draft, n)
	for i := range list {
		list[i] = w.draft()
	}
	return list
}

// commit commits a batch and waits.
func (w *writer) commit(ctx context.Context, s *Store, drafts []*store.Draft) error {
	w.next++
	p, err := s.Commit(ctx, w.part, w.next, drafts)
	if err != nil {
		return err
	}
	defer p.Release()
	results, err := p.Wait()
	for i, r := range results {
		if r.Outcome != store.Stored {
			return fmt.Errorf("draft %d: outcome %d", i, r.Outcome)
		}
	}
	return err
}

// BenchmarkCommit: private messages of 64 bytes among 2,000 users whose inboxes are shared between the writers, full durability.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 4} {
		for _, size := range []int{32, 128, 512} {
			b.Run(fmt.Sprintf("writers=%d/batch=%d", writers, size), func(b *testing.B) { benchCommit(b, writers, size) })
		}
	}
}

func benchCommit(b *testing.B, writers, size int) {
	ctx := context.Background()
	s := openTest(b, testOptions(b))
	defer func() { _ = s.Close() }()
	all := make([]*writer, writers)
	for i := range all {
		all[i] = newWriter(i, writers, 2000)
		for all[i].n < 2*len(all[i].pairs) { // names, conversations, plans
			if err := all[i].commit(ctx, s, all[i].batch(512)); err != nil {
				b.Fatal(err)
			}
		}
	}
	statements := s.stats.statements.Load()
	client, server := cpuOfProcess(), cpuOfServer(b)
	b.ResetTimer()
	begun := time.Now()
	var done sync.WaitGroup
	per := b.N / writers / size
	for _, w := range all {
		done.Go(func() {
			for range max(per, 1) {
				if err := w.commit(ctx, s, w.batch(size)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	done.Wait()
	b.StopTimer()
	n := float64(max(per, 1) * writers * size)
	b.ReportMetric(n/time.Since(begun).Seconds(), "msg/s")
	b.ReportMetric(float64(cpuOfProcess()-client)/n/1e3, "client-µs/msg")
	b.ReportMetric(float64(cpuOfServer(b)-server)/n/1e3, "server-µs/msg")
	b.ReportMetric(float64(s.stats.statements.Load()-statements)/n*float64(size), "statements/batch")
	b.ReportMetric(0, "ns/op")
}

func cpuOfProcess() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOfServer is what all processes of the server have used, in ticks of 10 ms. A backend that ended is in its parent's account.
func cpuOfServer(b *testing.B) (sum time.Duration) {
	pids, err := filepath.Glob(filepath.Join(shared.Dir, "postgres", "pid"))
	if err != nil || len(pids) == 0 {
		b.Fatal("no pid file of the server")
	}
	text, err := os.ReadFile(pids[0])
	if err != nil {
		b.Fatal(err)
	}
	postmaster := strings.Fields(string(text))[0]
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		line, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(line[strings.LastIndexByte(string(line), ')')+1:]))
		own := filepath.Base(filepath.Dir(path)) == postmaster
		if !own && fields[1] != postmaster {
			continue
		}
		last := 12 // utime, stime; of the postmaster also those of ended children
		if own {
			last = 14
		}
		for _, f := range fields[11 : last+1] {
			ticks, _ := strconv.ParseInt(f, 10, 64)
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return sum
}
