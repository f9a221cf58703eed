package main

import "testing"

func TestHeapPercent(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		live, heads int64
		want        int
	}{
		{0, 0, 50},
		{20 * mb, 0, 50},
		{200 * mb, 100 * mb, 125},
		{200 * mb, 200 * mb, 200},
		{100 * mb, 200 * mb, 200}, // heads are counted about, and are there before a collection has seen them
	} {
		if got := heapPercent(c.live, c.heads); got != c.want {
			t.Errorf("%d of %d MB are heads: %d %%, want %d", c.heads/mb, c.live/mb, got, c.want)
		}
	}
}
