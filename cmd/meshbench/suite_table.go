package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/meshtalk/meshtalk/bench"
)

// row is one line of the table.
type row struct {
	claim, what, must, measured string
	met                         bool
	others                      float64 // cores that other processes used meanwhile
	from                        setting
}

// tableText is the table of all results that there are.
func (o *suiteOptions) tableText() (string, error) {
	var rows []row
	var machine *bench.Machine
	for _, f := range rowsOfResults {
		s := &saved{}
		ok, err := o.read(f.name, s)
		if err != nil {
			return "", err
		}
		if ok && s.Result != nil {
			machine = &s.Result.Machine
			for _, r := range f.rows(s.Result) {
				r.from, r.others = s.Setting, s.Result.Others
				rows = append(rows, r)
			}
		}
	}
	more, err := o.otherRows()
	if err != nil {
		return "", err
	}
	rows = append(rows, more...)
	slices.SortStableFunc(rows, func(a, b row) int { return claimNumber(a.claim) - claimNumber(b.claim) })
	var b strings.Builder
	f := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format, args...) }
	f("\n")
	if machine != nil {
		f("%s, %d CPUs, %.0f GB, Linux %s, %s. Server and load share the CPUs. The last columns: what other processes of the machine used\n"+
			"meanwhile, and what was measured when. \"Disturbed\" is a number that was missed while others used more than a quarter of a core.\n\n", machine.Model, machine.CPUs, float64(machine.Memory)/1e9, machine.Kernel, machine.Go)
	}
	f("| # | what | must reach | measured | | others, cores | commit, date |\n|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		verdict := "**missed**"
		switch {
		case r.from.Scale != 1:
			verdict = "scaled"
		case r.met:
			verdict = "✓"
		case r.others > disturbance:
			verdict = "disturbed"
		}
		f("| %s | %s | %s | %s | %s | %.2f | %s, %s |\n", r.claim, r.what, r.must, r.measured, verdict, r.others, r.from.Version, r.from.Taken.Format("2006-01-02"))
	}
	text, err := o.baselineTable()
	return b.String() + text + "\n", err
}

// disturbance is how many cores other processes may use before a number that is missed says nothing of the server.
const disturbance = 0.25

func claimNumber(claim string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(claim, "P")) // 0 when it is none
	return n
}

// rowsOfResults are the lines that one result of a scenario gives.
var rowsOfResults = []struct {
	name string
	rows func(r *bench.Result) []row
}{
	{"p1-websocket", func(r *bench.Result) []row { return append(memoryRow("WebSocket", r), idleCPURow("WebSocket", r)) }},
	{"p1-tcp", func(r *bench.Result) []row { return append(memoryRow("TCP", r), idleCPURow("TCP", r)) }},
	{"p3", func(r *bench.Result) []row {
		return []row{fanoutRow("P3", "fan-out to %s, one message at a time", 0.85, r)}
	}},
	{"p4-8", func(r *bench.Result) []row { return []row{fanoutRow("P4", "fan-out to %s, 8 outstanding", 5, r)} }},
	{"p4-64", func(r *bench.Result) []row {
		return []row{
			fanoutRow("P4", "fan-out to %s, 64 outstanding", 15, r),
			// Of the run with most deliveries, so that what the process does besides counts least.
			{claim: "P7", what: "allocations per delivery", must: "0", measured: fmt.Sprintf("%.3f in the whole process", perUnit(r, r.Messages.DeliveredRate)),
				met: perUnit(r, r.Messages.DeliveredRate) < 0.05},
		}
	}},
	{"p4-1000", func(r *bench.Result) []row {
		return []row{{claim: "P4", what: "fan-out to 1,000, 16 outstanding", must: "≥ 1,500,000/s", met: r.Messages.DeliveredRate >= 1.5e6,
			measured: bench.Grouped(r.Messages.DeliveredRate) + "/s, " + floorText(r)}}
	}},
	{"p5", func(r *bench.Result) []row {
		return []row{{claim: "P5", what: "10,000 connections, groups of 100, 50,000 durable deliveries/s, open loop", must: "p99 ≤ 3 ms",
			met: r.Delivery.P99 <= 3, measured: latencyText(r)}}
	}},
	{"p6-100x64", func(r *bench.Result) []row {
		return []row{
			privateRow("private, 100 pairs × 64", 100_000, 150, r),
			{claim: "P7", what: "allocations per accepted message", must: "≤ 2", measured: fmt.Sprintf("%.2f in the whole process", perUnit(r, r.Messages.AckedRate)),
				met: perUnit(r, r.Messages.AckedRate) <= 2},
		}
	}},
	{"p6-100x1", func(r *bench.Result) []row { return []row{privateRow("private, 100 pairs × 1", 40_000, 8, r)} }},
	{"p6-2000x8", func(r *bench.Result) []row { return []row{privateRow("private, 2,000 pairs × 8", 80_000, 0, r)} }},
	{"p6-open", func(r *bench.Result) []row { return []row{privateRow("private, open loop at 25,000/s", 0, 5, r)} }},
	{"p8", func(r *bench.Result) []row {
		s := r.Storm.Rounds[len(r.Storm.Rounds)-1]
		return []row{{claim: "P8", what: "15,000 lose the connection, come back, resume 10 messages each", must: "≤ 2 s", met: s.AllCaughtUp <= 2,
			measured: fmt.Sprintf("%.2f s", s.AllCaughtUp)}}
	}},
	{"p11", func(r *bench.Result) []row { return []row{slowRow(r)} }},
}

func memoryRow(transport string, r *bench.Result) []row {
	return []row{{claim: "P1", what: "RssAnon per idle logged-in connection, " + transport, must: "≤ 1,024 B", met: r.BytesPerConnection <= 1024,
		measured: bench.Grouped(r.BytesPerConnection) + " B"}}
}

func idleCPURow(transport string, r *bench.Result) row {
	return row{claim: "P9", what: "CPU with 15,000 idle connections, a heartbeat each 30 s, " + transport, must: "≤ 3 % of a core",
		met: r.Server.CPUShare <= 0.03, measured: fmt.Sprintf("%.1f %%", 100*r.Server.CPUShare)}
}

// fanoutRow is judged by the share of the uncoalesced writes of all cores.
func fanoutRow(claim, what string, share float64, r *bench.Result) row {
	members, _ := r.Parameters["members"].(float64) // as JSON has it
	return row{claim: claim, what: fmt.Sprintf(what, bench.Grouped(members)), must: fmt.Sprintf("≥ %g of the write floor", share),
		met: floorShare(r) >= share, measured: bench.Grouped(r.Messages.DeliveredRate) + "/s, " + floorText(r)}
}

// floorShare is that of the uncoalesced writes of a thread per core, the most that this kernel gives.
func floorShare(r *bench.Result) float64 {
	if r.Floor == nil {
		return 0
	}
	if r.Floor.DeliveriesShareAll > 0 {
		return r.Floor.DeliveriesShareAll
	}
	return r.Floor.DeliveriesShare
}

func floorText(r *bench.Result) string {
	if r.Floor == nil {
		return "no floor"
	}
	return fmt.Sprintf("%.2f of the floor of all cores, %.2f of one's", r.Floor.DeliveriesShareAll, r.Floor.DeliveriesShare)
}

func latencyText(r *bench.Result) string {
	return fmt.Sprintf("p50 %.2f, p99 %.2f, p99.9 %.2f ms", r.Delivery.P50, r.Delivery.P99, r.Delivery.P999)
}

// privateRow is judged by a rate and a p99 in ms, 0 = not.
func privateRow(what string, rate, p99 float64, r *bench.Result) row {
	var must []string
	if rate > 0 {
		must = append(must, "≥ "+bench.Grouped(rate)+"/s")
	}
	if p99 > 0 {
		must = append(must, fmt.Sprintf("p99 ≤ %g ms", p99))
	}
	text := bench.Grouped(r.Messages.DeliveredRate) + "/s, " + latencyText(r)
	if r.Server != nil {
		text += fmt.Sprintf("; %.1f µs of server CPU a message", r.Server.MicrosPerMessage)
	}
	return row{claim: "P6", what: what, must: strings.Join(must, ", "), measured: text,
		met: r.Messages.DeliveredRate >= rate && (p99 == 0 || r.Delivery.P99 <= p99)}
}

// perUnit is the server's heap objects per something that came at a rate.
func perUnit(r *bench.Result, rate float64) float64 {
	mallocs, ok := r.Metrics["go_memstats_mallocs_total"]
	if !ok || rate == 0 || r.Seconds == 0 {
		return math.NaN()
	}
	return mallocs / r.Seconds / rate
}

func slowRow(r *bench.Result) row {
	s := r.Slow
	before, during := bench.SlowMemory{}, bench.SlowMemory{}
	for _, m := range s.Memory {
		switch m.Part {
		case "before":
			before = m
		case "during":
			during = m
		}
	}
	grew := float64((during.Highest-during.First)-(before.Highest-before.First)) / 1e6
	return row{claim: "P11", what: fmt.Sprintf("receivers stop reading while %s MB are sent to them", bench.Grouped(float64(s.BulkBytes)/1e6)),
		must: "≤ 2 MB more than when they read, the others' p99 as before", met: grew <= 2 && s.During.P99 <= 1.25*s.Before.P99+0.5,
		measured: fmt.Sprintf("%+.1f MB more than the same traffic to those who read; others' p99 %.2f ms before, %.2f during, %.2f after; all caught up in %.2f s",
			grew, s.Before.P99, s.During.P99, s.After.P99, s.CatchUp.Max/1000)}
}

// otherRows are those of the growth and of the Go benchmarks.
func (o *suiteOptions) otherRows() (rows []row, err error) {
	g := savedGrowth{}
	ok, err := o.read("p10", &g)
	if err != nil {
		return nil, err
	}
	if ok && len(g.Steps) > 0 {
		var texts []string
		low, high, others := math.Inf(1), 0.0, 0.0
		for _, s := range g.Steps {
			low, high, others = min(low, s.Rate), max(high, s.Rate), max(others, s.Others)
			texts = append(texts, fmt.Sprintf("%s: %s/s, p99 %.1f ms", bench.Grouped(float64(s.Conversations)), bench.Grouped(s.Rate), s.P99))
		}
		rows = append(rows, row{claim: "P10", what: fmt.Sprintf("private messages with so many conversations in the store, with as many messages in them each time; the stores in turns, the median of %d", growthTurns), must: "flat within 20 %",
			measured: strings.Join(texts, "; "), met: low >= 0.8*high, from: g.Setting, others: others})
	}
	size, ok, err := o.sizeOnDisk()
	if err == nil && ok {
		rows = append(rows, row{claim: "P10", what: "store, after compaction, for 200-byte messages with two inbox entries", must: "≤ 2.5 × the payload",
			measured: fmt.Sprintf("%.2f ×", size), met: size <= 2.5, from: o.setting()})
	}
	return rows, err
}

var sizeLine = regexp.MustCompile(`(?m)^BenchmarkSize\S*\s.*\s([0-9.]+) x-payload`)

// sizeOnDisk is what the Go benchmarks' output in the folder says.
func (o *suiteOptions) sizeOnDisk() (size float64, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(o.dir, "go.txt"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	m := sizeLine.FindSubmatch(b)
	if m == nil {
		return 0, false, nil
	}
	size, err = strconv.ParseFloat(string(m[1]), 64)
	return size, err == nil, err
}

// baselineTable is empty when there was no comparison.
func (o *suiteOptions) baselineTable() (string, error) {
	s := savedBaseline{}
	ok, err := o.read("baseline", &s)
	if err != nil || !ok {
		return "", err
	}
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "\nBeside a server with a goroutine per connection (`meshbench baseline`, rounds in turns; it syncs nothing), %s, %s:\n\n",
		s.Setting.Version, s.Setting.Taken.Format("2006-01-02"))
	b.WriteString("| | ours | goroutine per connection | times better |\n|---|---|---|---|\n")
	for _, r := range s.Comparison.Rows {
		_, _ = fmt.Fprintf(&b, "| %s, %s | %s | %s | %.1f |\n", r.Name, r.Unit, all(r.Ours), all(r.Theirs), r.Better)
	}
	return b.String(), nil
}
