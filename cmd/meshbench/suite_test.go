package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/bench"
)

// Some claims are measured in small, their results are files, and the table of a document is made of them.
func TestSuite(t *testing.T) {
	server := meshtalk(t)
	t.Setenv("TMPDIR", t.TempDir())
	dir := t.TempDir()
	doc := filepath.Join(dir, "doc.md")
	if err := os.WriteFile(doc, []byte("before\n"+tableBegin+"\nold\n"+tableEnd+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := newCommand()
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(append([]string{"suite", "--server", server, "--scale", "0.01", "--out", filepath.Join(dir, "results")}, args...))
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	// A stall of the disk may be longer than so short runs: a figure per message of none is none, and all is measured again.
	page := "NaN"
	for try := 0; strings.Contains(page, "NaN") && try < 5; try++ {
		if out, err := f("--only", "P1,P4,P8,P10,P11", "--table", doc); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		page = string(text)
	}
	if !strings.HasPrefix(page, "before\n"+tableBegin+"\n\n") || !strings.HasSuffix(page, tableEnd+"\nafter\n") || strings.Contains(page, "old") ||
		strings.Contains(page, "NaN") {
		t.Errorf("%s", page)
	}
	for _, want := range []string{"| P1 | RssAnon", "| P4 | fan-out to 100, 8", "| P7 | allocations per delivery", "| P8 |", "| P9 |", "| P10 | private",
		"| P11 |", "| scaled |"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "results", "p8.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s saved
	if err := json.Unmarshal(b, &s); err != nil || s.Result == nil || !s.Result.OK || s.Result.Machine.CPUs == 0 || s.Setting.Scale != 0.01 {
		t.Errorf("%v: %s", err, b)
	}
	out, err := f("--only", "none")
	if err != nil || !strings.Contains(out, "| P8 |") {
		t.Errorf("the table alone: %v\n%s", err, out)
	}
	if err := os.WriteFile(doc, []byte("no markers\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f("--only", "none", "--table", doc); err == nil {
		t.Error("a document without markers was written")
	}
}

// Every claim is judged: what reaches it has a tick, what does not is missed.
func TestSuiteJudges(t *testing.T) {
	result := func(good bool) *bench.Result {
		r := &bench.Result{Seconds: 5, Parameters: map[string]any{"members": 10_000.0}, Messages: &bench.Messages{DeliveredRate: 1.6e6, AckedRate: 1.6e6},
			Delivery: &bench.Latency{P99: 2}, Floor: &bench.Floor{DeliveriesShareAll: 16}, Metrics: map[string]float64{"go_memstats_mallocs_total": 100},
			Server: &bench.Usage{CPUShare: 0.02}, BytesPerConnection: 900,
			Storm: &bench.StormResult{Rounds: []bench.StormRound{{AllCaughtUp: 1.5}}},
			Slow: &bench.SlowResult{Before: bench.Latency{P99: 2}, During: bench.Latency{P99: 2.2},
				Memory: []bench.SlowMemory{{Part: "before", First: 0, Highest: 5e6}, {Part: "during", First: 5e6, Highest: 11e6}}}}
		if !good {
			r.Messages, r.Delivery, r.Floor = &bench.Messages{DeliveredRate: 100, AckedRate: 100}, &bench.Latency{P99: 200}, &bench.Floor{DeliveriesShareAll: 0.5}
			r.Metrics["go_memstats_mallocs_total"], r.Server.CPUShare, r.BytesPerConnection = 1e5, 0.1, 2000
			r.Storm.Rounds[0].AllCaughtUp, r.Slow.During.P99 = 3, 20
		}
		return r
	}
	for _, f := range rowsOfResults {
		for _, good := range []bool{true, false} {
			for _, r := range f.rows(result(good)) {
				if r.met != good || r.claim == "" || r.what == "" || r.must == "" || r.measured == "" {
					t.Errorf("%s of a result that is good: %v: %+v", f.name, good, r)
				}
			}
		}
	}
	o := suiteOptions{dir: t.TempDir(), share: 1}
	for name, steps := range map[string][]growthStep{
		"✓":          {{1000, 9, 100, 2, 0}, {10_000, 9, 81, 2, 0}},
		"**missed**": {{1000, 9, 100, 2, 0}, {10_000, 9, 79, 2, 0}},
	} {
		if err := o.write("p10", savedGrowth{Setting: o.setting(), Steps: steps}); err != nil {
			t.Fatal(err)
		}
		if text, err := o.tableText(); err != nil || !strings.Contains(text, "| "+name+" |") {
			t.Errorf("%v: %s", err, text)
		}
	}
	if err := o.write("p10", savedGrowth{Setting: o.setting(), Steps: []growthStep{{1000, 9, 100, 2, 0.3}, {10_000, 9, 79, 2, 0}}}); err != nil {
		t.Fatal(err)
	}
	if text, err := o.tableText(); err != nil || !strings.Contains(text, "| disturbed |") {
		t.Errorf("%v: %s", err, text)
	}
	if err := os.WriteFile(filepath.Join(o.dir, "go.txt"), []byte("BenchmarkSize-2  300000  3000 ns/op  446.0 B/op-on-disk  2.230 x-payload\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := o.tableText(); err != nil || !strings.Contains(text, "2.23 ×") {
		t.Errorf("%v: %s", err, text)
	}
}
