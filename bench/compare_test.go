package bench

import (
	"math"
	"strings"
	"testing"
)

// runs have these rates and p99s.
func runs(rate, p99 []float64) (all []*Result) {
	for i := range rate {
		all = append(all, &Result{Scenario: "private", Seconds: 1, OK: true, Messages: &Messages{DeliveredRate: rate[i], AckedRate: 5},
			Delivery: &Latency{Count: 1, P99: p99[i], Max: 7}})
	}
	return all
}

func figure(t *testing.T, c *Comparison, name string) Figure {
	t.Helper()
	for _, f := range c.Figures {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no figure %q", name)
	return Figure{}
}

func TestCompareKnowsTheNoise(t *testing.T) {
	a := runs([]float64{100, 110, 90}, []float64{5, 6, 7})
	b := runs([]float64{200, 220, 111}, []float64{6, 8, 9})
	c, err := Compare(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if f := figure(t, c, "delivered"); f.Verdict != Better || f.Ratio != 2 || f.A != (Interval{90, 100, 110}) {
		t.Errorf("delivered %+v", f)
	}
	if f := figure(t, c, "delivery p99"); f.Verdict != WithinIt {
		t.Errorf("p99 %+v", f)
	}
	if f := figure(t, c, "accepted"); f.Verdict != SameNumber || f.Ratio != 1 {
		t.Errorf("accepted %+v", f)
	}
	if math.Abs(c.Chance-0.1) > 1e-9 { // 2 of 20 ways
		t.Errorf("chance %g", c.Chance)
	}
	back, err := Compare(b, a)
	if err != nil {
		t.Fatal(err)
	}
	if f := figure(t, back, "delivered"); f.Verdict != Worse || f.Ratio != 0.5 {
		t.Errorf("delivered %+v", f)
	}
}

func TestCompareSaysWhatItCannotKnow(t *testing.T) {
	a, b := runs([]float64{100}, []float64{5}), runs([]float64{900, 901}, []float64{1, 1})
	b[1].OK, b[1].Limit, b[0].Machine.CPUs = false, "the load", 64
	c, err := Compare(a, b)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range c.Figures {
		if f.Verdict != NoNoise {
			t.Errorf("one run is enough for %+v", f)
		}
	}
	notes := strings.Join(c.Notes, "\n")
	for _, want := range []string{"no noise figure", "differ in their machine", "B, run 2: its checks failed", "B, run 2 was limited by the load"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no %q in\n%s", want, notes)
		}
	}
	b[0].Server = &Usage{CPUShare: 1}
	a = runs([]float64{1, 2}, []float64{5, 5})
	a[0].Server, a[1].Server = &Usage{CPUShare: 1}, &Usage{CPUShare: 1}
	if c, err = Compare(a, b); err != nil || figure(t, c, "server CPU").Verdict != OneSided {
		t.Errorf("%+v, %v", c, err)
	}
	a[0].Scenario = "idle"
	if _, err := Compare(a, b); err == nil {
		t.Error("scenarios were mixed")
	}
}

func TestReadResults(t *testing.T) {
	f := func(text string, want int) {
		t.Helper()
		if all, err := ReadResults(strings.NewReader(text)); len(all) != want || (err == nil) != (want > 0) {
			t.Errorf("%s: %d results, %v", text, len(all), err)
		}
	}
	f(`{"scenario":"idle"}`, 1)
	f(`{"scenario":"idle"} [{"scenario":"idle"},{"scenario":"idle"}]`, 3)
	f(``, 0)
	f(`{"connections":1}`, 0)
	f(`[null]`, 0)
	f(`{"scenario":`, 0)
	f(`7`, 0)
}
