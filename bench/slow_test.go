package bench_test

import (
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/bench"
)

func TestSlow(t *testing.T) {
	o := options(t)
	o.Window = 16
	so := bench.SlowOptions{Receivers: 3, Stall: 300 * time.Millisecond, Bytes: 1_000_000, BulkSize: 20_000, Pairs: 4, Rate: 200, Collect: true}
	r, err := bench.Slow(t.Context(), o, so)
	mustPass(t, r, err, 2*(so.Receivers+so.Pairs))
	s := r.Slow
	if s == nil || len(s.Memory) != 3 || s.Memory[1].Highest == 0 || s.Memory[1].Live == 0 || s.CatchUp.Count != int64(so.Receivers) {
		t.Fatalf("got %+v", s)
	}
	for name, l := range map[string]bench.Latency{"before": s.Before, "during": s.During, "after": s.After} {
		if want := int64(so.Rate * so.Stall.Seconds()); l.Count < want-2 || l.Count > want+2 {
			t.Errorf("%s the stall the others got %d messages, want %d", name, l.Count, want)
		}
	}
	if want := so.Bytes * int64(so.Receivers); s.BulkBytes < want*95/100 || s.BulkBytes > want*105/100 {
		t.Errorf("%d bytes were sent to the slow receivers, want %d", s.BulkBytes, want)
	}
	if r.Lags == 0 {
		t.Error("nobody got LAG: nobody was slow")
	}
}
