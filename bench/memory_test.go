//go:build !race

package bench_test

import (
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/bench"
)

// An idle connection costs the load at most 4 KiB (without the race detector, which multiplies it), as a slope, in a process of its own and on both transports.
func TestMemoryOfAnIdleConnection(t *testing.T) {
	o := options(t)
	o.Procs, o.Duration = 2, 0
	limit, err := bench.RaiseFileLimit()
	if err != nil {
		t.Fatal(err)
	}
	steps := []int{500, min(4500, limit-1000)} // the server is in this process
	r, err := bench.Idle(t.Context(), o, bench.IdleOptions{Steps: steps, Settle: 100 * time.Millisecond})
	mustPass(t, r, err, steps[1])
	if len(r.Memory) != 2 || r.Memory[0].LoadRSSAnon == 0 || r.LoadBytesPerConnection > 4096 {
		t.Errorf("%.0f bytes a connection: %+v", r.LoadBytesPerConnection, r.Memory)
	}
	t.Logf("%.0f bytes a connection", r.LoadBytesPerConnection)
}
