package hub

import (
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPoolRunsAllOnFewGoroutines(t *testing.T) {
	const limit, calls = 4, 1000
	p := NewPool(limit, t.Logf)
	var running, most, ran atomic.Int64
	var wg sync.WaitGroup
	for range calls {
		wg.Add(1)
		p.Go(func() {
			defer wg.Done()
			n := running.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			ran.Add(1)
			running.Add(-1)
		})
	}
	wg.Wait()
	if most.Load() > limit || ran.Load() != calls {
		t.Errorf("%d calls ran, %d at a time", ran.Load(), most.Load())
	}
	p.Close()
	p.Go(func() { t.Error("ran after Close") })
}

func TestPoolCloseWaits(t *testing.T) {
	p := NewPool(2, t.Logf)
	begun, end := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	p.Go(func() { close(begun); <-end; ended.Store(true) })
	<-begun
	closed := make(chan struct{})
	go func() { p.Close(); close(closed) }()
	select {
	case <-closed:
		t.Error("Close did not wait")
	default:
	}
	close(end)
	<-closed
	if !ended.Load() {
		t.Error("Close returned before the call")
	}
}
