package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// Both servers stand the same load with all its checks; the numbers of so short a run mean nothing. A stall of the disk may be longer than
// it, and a rate of nothing says nothing of the command: then the run is made again, longer.
func TestBaseline(t *testing.T) {
	server := meshtalk(t)
	t.Setenv("TMPDIR", t.TempDir())
	compared := func(duration time.Duration) (c comparison) {
		t.Helper()
		var out, told bytes.Buffer
		cmd := newCommand()
		cmd.SetOut(&out)
		cmd.SetErr(&told)
		cmd.SetArgs([]string{"baseline", "--server", server, "--rounds", "1", "--connections", "24", "--duration", duration.String(), "--json"})
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatalf("%v\n%s%s", err, told.String(), out.String())
		}
		if err := json.Unmarshal(out.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	nothing := func(r *sideBySide) bool {
		return r.Higher && (slices.Contains(r.Ours, 0) || slices.Contains(r.Theirs, 0))
	}
	c := compared(150 * time.Millisecond)
	for duration := time.Second; slices.ContainsFunc(c.Rows, nothing) && duration <= 4*time.Second; duration *= 4 {
		c = compared(duration)
	}
	if !c.OK || len(c.Rows) != 6 || c.Machine.CPUs == 0 {
		t.Errorf("%+v", c)
	}
	for i, r := range c.Rows {
		if memory := i == 0; len(r.Ours) != 1 || len(r.Theirs) != 1 || !memory && (r.Ours[0] <= 0 || r.Theirs[0] <= 0 || r.Better <= 0) {
			t.Errorf("%+v", r)
		}
	}
	var table bytes.Buffer
	if err := c.print(&table); err != nil || !strings.Contains(table.String(), "times better") || strings.Count(table.String(), "\n") != 7 {
		t.Errorf("%v\n%s", err, table.String())
	}
}

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		higher       bool
		ours, theirs []float64
		better       float64
	}{{true, []float64{10, 30}, []float64{5, 5}, 4}, {false, []float64{1, 2, 3}, []float64{8}, 4}, {true, nil, []float64{1}, 0}, {true, []float64{1}, []float64{0}, 0}} {
		s := sideBySide{Higher: tc.higher, Ours: tc.ours, Theirs: tc.theirs}
		if s.judge(); s.Better != tc.better {
			t.Errorf("%+v", s)
		}
	}
}
