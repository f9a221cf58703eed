package console

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// everything has a valid metric of each kind.
func everything() list {
	return list{
		{Name: "meshtalk_sessions", Help: "Logged-in sessions.", Kind: Gauge, Value: 17},
		{Name: "meshtalk_logins_total", Help: "Logins.", Kind: Counter, Labels: []Label{{"result", "ok"}}, Value: 5},
		{Name: "meshtalk_logins_total", Help: "Logins.", Kind: Counter, Labels: []Label{{"result", "UNAUTHORIZED"}}, Value: 1},
		{
			Name: "meshtalk_commit_seconds", Help: "Time of a commit.", Kind: Histogram,
			Bounds: []float64{.001, .01}, Counts: []uint64{3, 2, 1}, Sum: .25,
		},
	}
}

func TestMetrics(t *testing.T) {
	a := ask(t, New(Options{Sources: []Source{everything()}}), "GET", "/metrics")
	if a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	for _, line := range []string{
		"# TYPE meshtalk_sessions gauge",
		"meshtalk_sessions 17",
		"# HELP meshtalk_logins_total Logins.",
		`meshtalk_logins_total{result="ok"} 5`,
		`meshtalk_logins_total{result="UNAUTHORIZED"} 1`,
		"# TYPE meshtalk_commit_seconds histogram",
		`meshtalk_commit_seconds_bucket{le="0.001"} 3`,
		`meshtalk_commit_seconds_bucket{le="0.01"} 5`,
		`meshtalk_commit_seconds_bucket{le="+Inf"} 6`,
		"meshtalk_commit_seconds_sum 0.25",
		"meshtalk_commit_seconds_count 6",
		"promhttp_metric_handler_errors_total{cause=\"gathering\"} 0",
	} {
		if !strings.Contains(a.body, line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	for _, name := range []string{"go_goroutines ", "process_open_fds ", "process_resident_memory_bytes "} {
		if !strings.Contains(a.body, "\n"+name) {
			t.Errorf("no metric %s", name)
		}
	}
}

// A metric that is wrong, given twice or not given because its source panics costs itself alone.
func TestBadMetricHidesNoOther(t *testing.T) {
	bad := list{
		{Name: "meshtalk_broken_seconds", Help: "No counts.", Kind: Histogram, Bounds: []float64{1}},
		{Name: "meshtalk_twice", Help: "Twice.", Kind: Gauge, Value: 1},
		{Name: "meshtalk_twice", Help: "Twice.", Kind: Gauge, Value: 2},
	}
	var logged []string
	h := New(Options{
		Sources: []Source{bad, panicking{}, everything()},
		Logf:    func(format string, args ...any) { logged = append(logged, fmt.Sprintf(format, args...)) },
	})
	a := ask(t, h, "GET", "/metrics")
	if a.status != 200 || !strings.Contains(a.body, "meshtalk_sessions 17\n") || strings.Contains(a.body, "meshtalk_broken") {
		t.Errorf("got %d %s", a.status, a.body)
	}
	all := strings.Join(logged, "\n")
	for _, want := range []string{"meshtalk_broken_seconds", "meshtalk_twice", "a source panicked: oh"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q was not logged: %s", want, all)
		}
	}
}

type panicking struct{}

func (panicking) Metrics(func(Metric)) { panic("oh") }

// shrinking is a counter that goes down.
type shrinking struct{ n float64 }

func (s *shrinking) Metrics(emit func(Metric)) {
	s.n--
	emit(Metric{Name: "meshtalk_things_total", Help: "Things.", Kind: Counter, Value: s.n})
}

func TestVerify(t *testing.T) {
	if err := Verify(everything()); err != nil {
		t.Errorf("valid ones: %v", err)
	}
	gauge := func(name string, labels ...Label) Metric {
		return Metric{Name: name, Help: "A thing.", Kind: Gauge, Labels: labels}
	}
	histogram := func(bounds []float64, counts ...uint64) list {
		return list{{Name: "meshtalk_x_seconds", Help: "A thing.", Kind: Histogram, Bounds: bounds, Counts: counts}}
	}
	for name, s := range map[string]Source{
		"no name":              list{gauge("")},
		"a space in the name":  list{gauge("meshtalk x")},
		"a digit in front":     list{gauge("1meshtalk")},
		"no help":              list{{Name: "meshtalk_x", Kind: Gauge}},
		"unknown kind":         list{{Name: "meshtalk_x", Help: "A thing.", Kind: 9}},
		"counter, no _total":   list{{Name: "meshtalk_x", Help: "A thing.", Kind: Counter}},
		"gauge with _total":    list{gauge("meshtalk_x_total")},
		"negative counter":     list{{Name: "meshtalk_x_total", Help: "A thing.", Kind: Counter, Value: -1}},
		"counter of NaN":       list{{Name: "meshtalk_x_total", Help: "A thing.", Kind: Counter, Value: math.NaN()}},
		"not a base unit":      list{gauge("meshtalk_x_milliseconds")},
		"camel case":           list{gauge("meshtalk_someThing")},
		"label's name":         list{gauge("meshtalk_x", Label{"a-b", "c"})},
		"reserved label":       list{gauge("meshtalk_x", Label{"__a", "c"})},
		"label of a histogram": list{{Name: "meshtalk_x_seconds", Help: "A thing.", Kind: Histogram, Counts: []uint64{0}, Labels: []Label{{"le", "1"}}}},
		"label twice":          list{gauge("meshtalk_x", Label{"a", "b"}, Label{"a", "c"})},
		"label not UTF-8":      list{gauge("meshtalk_x", Label{"a", "\xff"})},
		"series twice":         list{gauge("meshtalk_x", Label{"a", "b"}), gauge("meshtalk_x", Label{"a", "b"})},
		"other labels":         list{gauge("meshtalk_x", Label{"a", "b"}), gauge("meshtalk_x", Label{"c", "d"})},
		"other help":           list{gauge("meshtalk_x", Label{"a", "b"}), {Name: "meshtalk_x", Help: "Another.", Kind: Gauge, Labels: []Label{{"a", "c"}}}},
		"other kind":           list{gauge("meshtalk_x", Label{"a", "b"}), {Name: "meshtalk_x", Help: "A thing.", Kind: Counter, Labels: []Label{{"a", "c"}}}},
		"counts missing":       histogram([]float64{1, 2}, 1, 1),
		"too many counts":      histogram([]float64{1}, 1, 1, 1),
		"bounds do not grow":   histogram([]float64{1, 1}, 1, 1, 1),
		"bound of NaN":         histogram([]float64{math.NaN()}, 1, 1),
		"infinite bound":       histogram([]float64{math.Inf(1)}, 1, 1),
		"a counter going down": &shrinking{10},
		"panics":               panicking{},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Verify(s); err == nil {
				t.Error("taken as valid")
			}
		})
	}
	if err := Verify(everything(), everything()); err == nil {
		t.Error("two sources with the same series are taken as valid")
	}
}
