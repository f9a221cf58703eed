package bench_test

import (
	"os"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/bench"
)

func TestFloor(t *testing.T) {
	dir := t.TempDir()
	f, err := bench.MeasureFloor(t.Context(), bench.FloorOptions{Connections: 20, Size: 100, Dir: dir, Duration: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if f.Connections != 20 || f.FrameBytes < 200 || len(f.Writes) < 3 || len(f.Syncs) != 3 {
		t.Fatalf("got %+v", f)
	}
	for _, w := range f.Writes {
		if w.Writes <= 0 || w.Frames != w.Writes*float64(w.Coalesced) {
			t.Errorf("writes %+v", w)
		}
	}
	for _, s := range f.Syncs {
		if s.PerSecond <= 0 || s.P50 <= 0 || s.P99 < s.P50 || s.Max < s.P999 || s.Paced > 0 && s.PerSecond > 1.5*s.Paced {
			t.Errorf("syncs %+v", s)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestFloorWithoutReader(t *testing.T) {
	o := bench.FloorOptions{Connections: 1, Worker: []string{"/bin/echo", `{"error":"no files left"}`}, Duration: time.Millisecond}
	if _, err := bench.MeasureFloor(t.Context(), o); err == nil {
		t.Error("no error")
	}
}

func TestShareOfTheFloor(t *testing.T) {
	o := options(t)
	r := passing(t, o, 10, func(o bench.Options) (*bench.Result, error) {
		return bench.WithFloor(t.Context(), bench.FloorOptions{Connections: 10, Dir: t.TempDir(), Duration: 20 * time.Millisecond},
			func() (*bench.Result, error) {
				return bench.Private(t.Context(), o, bench.PrivateOptions{Pairs: 5, InFlight: 4})
			})
	}, func(r *bench.Result) bool { return measured(r) && r.Commits != nil && r.Commits.PerSecond > 0 })
	if r.Floor == nil || r.Floor.DeliveriesShare <= 0 || r.Floor.CommitsShare <= 0 {
		t.Errorf("floor %+v", r.Floor)
	}
}
