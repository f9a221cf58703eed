package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
)

// Comparison is what changed from runs A to runs B.
type Comparison struct {
	Scenario string `json:"scenario"`
	RunsA    int    `json:"runs_a"`
	RunsB    int    `json:"runs_b"`
	// Chance is how likely one figure's intervals lie apart although nothing changed; 0 when there is no noise figure.
	Chance  float64  `json:"chance_of_a_false_difference,omitempty"`
	Figures []Figure `json:"figures"`
	// Notes are what a reader must know before believing the figures.
	Notes []string `json:"notes,omitempty"`
}

// Figure is one number of the runs.
type Figure struct {
	Name    string   `json:"name"`
	Unit    string   `json:"unit"`
	A       Interval `json:"a"`
	B       Interval `json:"b"`
	Ratio   float64  `json:"ratio,omitempty"` // median of B ÷ median of A; 0 = A is zero
	Verdict Verdict  `json:"verdict"`
}

// Interval is what the runs of one side had.
type Interval struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

// Verdict says whether a figure changed.
type Verdict string

// The verdicts. A difference exceeds the noise when the intervals of the two sides, from the least to the largest run, lie
// apart; that takes at least two runs on each side.
const (
	NoNoise    Verdict = "no noise figure"
	WithinIt   Verdict = "within the noise"
	Better     Verdict = "better"
	Worse      Verdict = "worse"
	Changed    Verdict = "changed" // and which way is better depends on what was wanted
	SameNumber Verdict = "same"    // in all runs
	OneSided   Verdict = "missing" // not in all runs of both sides
)

// direction is which way a figure is better.
type direction int

const (
	neither direction = iota
	higher
	lower
)

// figureOf finds a figure in a result; ok is false when the result has none.
type figureOf struct {
	name, unit string
	better     direction
	get        func(*Result) (v float64, ok bool)
}

func figures() []figureOf {
	all := []figureOf{
		{"logins", "/s", higher, func(r *Result) (float64, bool) { return r.Logins.Rate, r.Logins.Count > 0 }},
		{"login p99", "ms", lower, func(r *Result) (float64, bool) { return r.Logins.Latency.P99, r.Logins.Latency.Count > 0 }},
		{"delivered", "/s", higher, messageRate(func(m *Messages) float64 { return m.DeliveredRate })},
		{"accepted", "/s", higher, messageRate(func(m *Messages) float64 { return m.AckedRate })},
	}
	all = append(all, latencies("delivery", func(r *Result) *Latency { return r.Delivery })...)
	all = append(all, latencies("accept", func(r *Result) *Latency { return r.Accept })...)
	all = append(all, latencies("caught up", func(r *Result) *Latency {
		switch {
		case r.Storm != nil:
			return &r.Storm.CatchUp
		case r.Slow != nil:
			return &r.Slow.CatchUp
		}
		return nil
	})...)
	all = append(all, latencies("others during the stall", func(r *Result) *Latency {
		if r.Slow == nil {
			return nil
		}
		return &r.Slow.During
	})...)
	server := func(f func(*Usage) float64) func(*Result) (float64, bool) {
		return func(r *Result) (float64, bool) {
			if r.Server == nil {
				return 0, false
			}
			return f(r.Server), true
		}
	}
	return append(all,
		figureOf{"memory per connection", "B", lower, func(r *Result) (float64, bool) { return r.BytesPerConnection, r.BytesPerConnection != 0 }},
		figureOf{"server memory", "MB", lower, server(func(u *Usage) float64 { return float64(u.RSSAnon) / 1e6 })},
		figureOf{"server CPU", "cores", neither, server(func(u *Usage) float64 { return u.CPUShare })},
		figureOf{"server CPU per message", "µs", lower, server(func(u *Usage) float64 { return u.MicrosPerMessage })},
		figureOf{"load CPU", "cores", neither, func(r *Result) (float64, bool) { return r.Load.CPUShare, r.Seconds > 0 }},
		figureOf{"share of the write floor", "", higher, func(r *Result) (float64, bool) {
			return floorShare(r, func(f *Floor) float64 { return f.DeliveriesShare })
		}},
		figureOf{"share of the sync floor", "", higher, func(r *Result) (float64, bool) {
			return floorShare(r, func(f *Floor) float64 { return f.CommitsShare })
		}})
}

func messageRate(f func(*Messages) float64) func(*Result) (float64, bool) {
	return func(r *Result) (float64, bool) {
		if r.Messages == nil {
			return 0, false
		}
		return f(r.Messages), true
	}
}

func floorShare(r *Result, f func(*Floor) float64) (float64, bool) {
	if r.Floor == nil || f(r.Floor) == 0 {
		return 0, false
	}
	return f(r.Floor), true
}

func latencies(name string, of func(*Result) *Latency) (all []figureOf) {
	for _, q := range []struct {
		name string
		get  func(*Latency) float64
	}{
		{"p50", func(l *Latency) float64 { return l.P50 }}, {"p90", func(l *Latency) float64 { return l.P90 }},
		{"p99", func(l *Latency) float64 { return l.P99 }}, {"p99.9", func(l *Latency) float64 { return l.P999 }},
		{"max", func(l *Latency) float64 { return l.Max }},
	} {
		all = append(all, figureOf{name + " " + q.name, "ms", lower, func(r *Result) (float64, bool) {
			l := of(r)
			if l == nil || l.Count == 0 {
				return 0, false
			}
			return q.get(l), true
		}})
	}
	return all
}

// ReadResults reads results that stand behind each other, or in arrays, as they come from several runs with --json.
func ReadResults(r io.Reader) (all []*Result, err error) {
	d := json.NewDecoder(r)
	for {
		var raw json.RawMessage
		switch err := d.Decode(&raw); {
		case errors.Is(err, io.EOF):
			if len(all) == 0 {
				return nil, errors.New("bench: no result")
			}
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("bench: result: %w", err)
		}
		var some []*Result
		if raw[0] == '[' {
			err = json.Unmarshal(raw, &some)
		} else {
			var one Result
			err = json.Unmarshal(raw, &one)
			some = []*Result{&one}
		}
		if err != nil {
			return nil, fmt.Errorf("bench: result: %w", err)
		}
		for _, r := range some {
			if r == nil || r.Scenario == "" {
				return nil, errors.New("bench: result: this is not what a scenario prints with --json")
			}
		}
		all = append(all, some...)
	}
}

// Compare compares the runs of two sides, at least one each, all of one scenario.
func Compare(a, b []*Result) (*Comparison, error) {
	if len(a) == 0 || len(b) == 0 {
		return nil, errors.New("bench: compare: want runs on both sides")
	}
	for _, r := range slices.Concat(a, b) {
		if r.Scenario != a[0].Scenario {
			return nil, fmt.Errorf("bench: compare: scenarios %s and %s", a[0].Scenario, r.Scenario)
		}
	}
	c := &Comparison{Scenario: a[0].Scenario, RunsA: len(a), RunsB: len(b)}
	for _, f := range figures() {
		va, vb := f.of(a), f.of(b)
		if len(va) == 0 || len(vb) == 0 {
			continue
		}
		figure := Figure{Name: f.name, Unit: f.unit, A: interval(va), B: interval(vb), Verdict: OneSided}
		if figure.A.Median != 0 {
			figure.Ratio = figure.B.Median / figure.A.Median
		}
		if len(va) == len(a) && len(vb) == len(b) {
			figure.Verdict = judge(figure.A, figure.B, min(len(a), len(b)), f.better)
		}
		c.Figures = append(c.Figures, figure)
	}
	c.note(a, b)
	return c, nil
}

// of is the figure's values, of the results that have it.
func (f figureOf) of(results []*Result) (values []float64) {
	for _, r := range results {
		if v, ok := f.get(r); ok {
			values = append(values, v)
		}
	}
	return values
}

// interval sorts values.
func interval(values []float64) Interval {
	slices.Sort(values)
	n := len(values)
	return Interval{Min: values[0], Median: (values[(n-1)/2] + values[n/2]) / 2, Max: values[n-1]}
}

func judge(a, b Interval, runs int, better direction) Verdict {
	switch {
	case runs < 2:
		return NoNoise
	case a == b && a.Min == a.Max:
		return SameNumber
	case a.Max >= b.Min && b.Max >= a.Min:
		return WithinIt
	case better == neither:
		return Changed
	case (b.Min > a.Max) == (better == higher):
		return Better
	}
	return Worse
}

// note says what stands between the figures and a conclusion.
func (c *Comparison) note(a, b []*Result) {
	add := func(format string, args ...any) { c.Notes = append(c.Notes, fmt.Sprintf(format, args...)) }
	if c.RunsA < 2 || c.RunsB < 2 {
		add("one run on a side has no noise figure: a difference may be chance; repeat the runs, several results may stand in one file")
	} else {
		c.Chance = apart(c.RunsA, c.RunsB)
		add("with %d and %d runs a figure that did not change looks changed with a chance of %.2g", c.RunsA, c.RunsB, c.Chance)
	}
	for _, what := range []struct {
		name string
		of   func(*Result) any
	}{
		{"parameters", func(r *Result) any { return r.Parameters }},
		{"configuration", func(r *Result) any { return r.Configuration }},
		{"machine", func(r *Result) any { return r.Machine }},
		{"addresses", func(r *Result) any { return r.Transport }},
	} {
		first := what.of(a[0])
		if slices.ContainsFunc(slices.Concat(a, b), func(r *Result) bool { return !reflect.DeepEqual(what.of(r), first) }) {
			add("the runs differ in their %s", what.name)
		}
	}
	for i, side := range [][]*Result{a, b} {
		for j, r := range side {
			if !r.OK {
				add("%c, run %d: its checks failed", 'A'+i, j+1)
			}
			if r.Limit != "" {
				add("%c, run %d was limited by %s", 'A'+i, j+1, r.Limit)
			}
		}
	}
}

// apart is the probability that two samples of one distribution do not overlap: of all the ways to deal the n + m values
// to the sides, two keep them apart.
func apart(n, m int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(m + 1))
	both, _ := math.Lgamma(float64(n + m + 1))
	return 2 * math.Exp(a+b-both)
}
