package rocketmq

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/mq"
)

// stamped is a record that carries when it was appended.
type stamped struct {
	at    time.Time
	size  int
	kept  func(error)
	begin time.Time // of the benchmark
}

func (r *stamped) AppendRecord(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.at.Sub(r.begin)))
	return append(dst, make([]byte, r.size-8)...)
}

func (r *stamped) Kept(err error) { r.kept(err) }

// sink is a consumer that only measures, and the partitions of the one node.
type sink struct {
	begin   time.Time
	applied atomic.Int64
	batches atomic.Int64
	mu      sync.Mutex
	times   []time.Duration // from appended to applied
}

func (s *sink) Apply(_ context.Context, b mq.Batch) error {
	now := time.Since(s.begin)
	s.applied.Add(int64(len(b.Bodies)))
	s.batches.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, body := range b.Bodies {
		s.times = append(s.times, now-time.Duration(binary.BigEndian.Uint64(body)))
	}
	return nil
}

func (*sink) Owned() ([]int, <-chan struct{}) {
	all := make([]int, 64)
	for i := range all {
		all[i] = i
	}
	return all, nil
}

func (*sink) Offset(context.Context, int) (int64, error) { return 0, nil }

func percentile(times []time.Duration, p float64) float64 {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return float64(times[min(int(p*float64(len(times))), len(times)-1)].Microseconds()) / 1000
}

// BenchmarkLog: records of 300 bytes from Append over Kept to Apply, one broker with SYNC_FLUSH, 16 partitions. "closed" has that many
// records in flight in 100 conversations; "rate" appends so many per second.
func BenchmarkLog(b *testing.B) {
	for _, flying := range []int{1, 64, 6400} {
		b.Run(fmt.Sprintf("closed/%d", flying), func(b *testing.B) { benchmarkLog(b, flying, 0) })
	}
	for _, rate := range []int{2000, 10000} {
		b.Run(fmt.Sprintf("rate/%d", rate), func(b *testing.B) { benchmarkLog(b, 1<<15, rate) })
	}
}

func benchmarkLog(b *testing.B, flying, rate int) {
	s := &sink{begin: time.Now()}
	l := openLog(b, shared.NameServer.Addr, newTopic(), 16, s)
	end := run(b, l, s)
	var mu sync.Mutex
	var kept []time.Duration
	slots := make(chan struct{}, flying)
	b.ResetTimer()
	begin := time.Now()
	for n := range b.N {
		if rate > 0 {
			time.Sleep(time.Until(begin.Add(time.Duration(n) * time.Second / time.Duration(rate))))
		}
		slots <- struct{}{}
		r := &stamped{at: time.Now(), size: 300, begin: s.begin}
		r.kept = func(err error) {
			if err != nil {
				b.Error(err)
			}
			mu.Lock()
			kept = append(kept, time.Since(r.at))
			mu.Unlock()
			<-slots
		}
		if err := l.Append(fmt.Sprint("key", n%100), r); err != nil {
			b.Fatal(err)
		}
	}
	for range flying {
		slots <- struct{}{}
	}
	eventually(b, "all is applied", func() bool { return s.applied.Load() == int64(b.N) })
	took := b.Elapsed()
	b.StopTimer()
	end()
	b.ReportMetric(float64(b.N)/took.Seconds(), "records/s")
	b.ReportMetric(percentile(kept, .5), "kept-p50-ms")
	b.ReportMetric(percentile(kept, .99), "kept-p99-ms")
	b.ReportMetric(percentile(s.times, .5), "applied-p50-ms")
	b.ReportMetric(percentile(s.times, .99), "applied-p99-ms")
	messages := int64(0)
	for p := range 16 {
		offset, err := l.client.maxOffset(context.Background(), l.o.Topic, l.places.at(p))
		must(b, err)
		messages += offset
	}
	b.ReportMetric(float64(b.N)/float64(messages), "records/message")
	b.ReportMetric(float64(messages)/took.Seconds(), "messages/s")
	b.ReportMetric(float64(b.N)/float64(s.batches.Load()), "records/batch")
}
