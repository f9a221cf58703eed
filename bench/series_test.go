package bench

import (
	"math"
	"testing"
	"time"
)

func TestCoarseKeepsWithinItsError(t *testing.T) {
	last := -1
	for v := int64(1); v < histogramMax; v += max(1, v/97) {
		i := coarseIndex(v)
		if i < last || i >= coarseLen {
			t.Fatalf("%d µs is in bucket %d after %d of %d", v, i, last, coarseLen)
		}
		last = i
		if off := math.Abs(coarseValue(i)-float64(v)) / float64(v); off > 0.016 {
			t.Fatalf("%d µs came back as %g", v, coarseValue(i))
		}
	}
	if i := coarseIndex(histogramMax); i >= coarseLen {
		t.Errorf("the longest is in bucket %d of %d", i, coarseLen)
	}
}

func TestSeriesMergesTheLoops(t *testing.T) {
	s := newSeries(time.Now().Add(-2500*time.Millisecond), 2)
	a, b := tally{to: s}, tally{to: s}
	a.tick(0, 0)
	b.tick(0, 0)
	for ms := range int64(100) {
		a.arrived((ms + 1) * int64(time.Millisecond))
		b.arrived(int64(time.Millisecond))
	}
	b.accepted(int64(2 * time.Millisecond))
	a.tick(int64(1100*time.Millisecond), 3)
	s.look("measure", nil, ownCPU())
	if s.p99() != 0 {
		t.Error("half a second's loops make a second")
	}
	b.tick(int64(1050*time.Millisecond), 4)
	if p := s.p99(); math.Abs(p-98) > 2 {
		t.Errorf("p99 is %g", p)
	}
	b.arrived(int64(time.Millisecond))
	a.finish(int64(2500*time.Millisecond), 3)
	b.finish(int64(2500*time.Millisecond), 5)
	all := s.samples(0)
	if len(all) != 3 {
		t.Fatalf("%d samples", len(all))
	}
	first, second, third := all[0], all[1], all[2]
	if first.Delivered != 200 || first.Accepted != 1 || first.Connections != 7 || first.Delivery.P50 > 1.1 || first.Delivery.Max != 100 {
		t.Errorf("first %+v, %+v", first, first.Delivery)
	}
	if second.Delivered != 1 || second.Connections != 8 || second.Stage != "" || second.Accept != nil {
		t.Errorf("second %+v", second)
	}
	if third.Stage != "measure" || third.Connections != 8 || third.At < 2.5 || third.At > 3 {
		t.Errorf("third %+v", third)
	}
}

func TestDistributionEndsWhereTheCountDoes(t *testing.T) {
	h := newHistogram()
	for ms := range int64(1000) {
		h.record((ms + 1) * int64(time.Millisecond))
	}
	d := h.distribution()
	if len(d) != 31 || d[0].Percent != 0 || math.Abs(d[30].Percent-99.9) > 1e-6 || math.Abs(d[10].MS-900) > 5 {
		t.Errorf("%d points: %+v", len(d), d)
	}
}
