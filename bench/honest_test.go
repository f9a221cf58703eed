package bench

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// However seldom and however late the loop looks, an open loop sends every message that its rate wants, in order, none
// before its time, and says of each how late it was.
func TestPropertyOpenLoop(t *testing.T) {
	l := mustLoop(t, 2)
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(1, 5000).Draw(t, "rate")
		const begin, warm, length = int64(3e9), int64(1e8), int64(1e9)
		l.o.WarmUp = time.Duration(warm)
		l.o.from, l.o.until = begin+warm, begin+warm+length
		l.stats = newStats()
		p := pace{units: 3}
		p.setRate(rate)
		n, last, worst := 0, int64(0), int64(0)
		for l.now = begin - 1; l.now < l.o.until; {
			l.now += rapid.Int64Range(1, 4e8).Draw(t, "nap")
			p.due(l, l.now, func(unit int, at int64) {
				if unit != n%3 || at < last || at > l.now || at < begin || at >= l.o.until {
					t.Fatalf("message %d of unit %d at %d, the last one at %d, now %d", n, unit, at, last, l.now)
				}
				if n, last = n+1, at; at >= l.o.from {
					worst = max(worst, l.now-at)
				}
			})
		}
		if want := rate * (float64(warm+length) / 1e9); float64(n) < want-1 || float64(n) > want+1 {
			t.Errorf("%d messages, want %.1f", n, want)
		}
		late := l.stats.late.summary()
		if want := rate * float64(length) / 1e9; float64(late.Count) < want-1.5 || float64(late.Count) > want+1.5 {
			t.Errorf("%d counted as measured, want %.1f", late.Count, want)
		}
		if got := late.Max * 1e6; late.Count > 0 && (got < float64(worst)*0.99-1e3 || got > float64(worst)*1.01+1e3) {
			t.Errorf("the latest was %.0f ns late, told are %.0f", float64(worst), got)
		}
	})
}

// What was to be sent before or after the measured time is in no figure, and what arrives outside of it in no rate; a message
// that arrives late counts with its whole lateness.
func TestOnlyTheMeasuredTimeCounts(t *testing.T) {
	l := mustLoop(t, 2)
	l.o.from, l.o.until = 1_000_000_000, 2_000_000_000
	for _, m := range []struct {
		sent, arrived int64 // ms
		latency, rate int64
	}{
		{900, 950, 0, 0},   // in the warm-up
		{999, 1000, 0, 1},  // sent in the warm-up, arrived in the measured time
		{1000, 1001, 1, 1}, //
		{1500, 1900, 1, 1}, // late by 400 ms: from the intended time
		{1999, 2500, 1, 0}, // arrived in the drain
		{2000, 2001, 0, 0}, //
	} {
		delivery, accept, measured, acks := l.stats.delivery.h.TotalCount(), l.stats.accept.h.TotalCount(), l.stats.measured, l.stats.measuredAcks
		l.now = m.arrived * 1e6
		l.arrived(m.sent * 1e6)
		l.acked(m.sent * 1e6)
		if d, a := l.stats.delivery.h.TotalCount()-delivery, l.stats.accept.h.TotalCount()-accept; d != m.latency || a != m.latency {
			t.Errorf("%+v: counted %d and %d latencies", m, d, a)
		}
		if d, a := l.stats.measured-measured, l.stats.measuredAcks-acks; d != m.rate || a != m.rate {
			t.Errorf("%+v: counted %d and %d for the rate", m, d, a)
		}
	}
	if s := l.stats.delivery.summary(); s.Max < 500 || s.Max > 502 {
		t.Errorf("%+v", s)
	}
}

// The load says when something else than the server was the limit.
func TestLimit(t *testing.T) {
	here := map[string]any{"server_on_this_machine": true}
	for want, r := range map[string]Result{
		"":                           {Seconds: 1, Configuration: here, Server: &Usage{CPUShare: 1.2}, Load: Usage{CPUShare: 0.4, BusyLoop: 0.5}},
		"the load: its event loop":   {Seconds: 1, Load: Usage{BusyLoop: 0.95}},
		"other processes":            {Seconds: 1, Configuration: here, Server: &Usage{CPUShare: 1}, Others: 0.5},
		"the machine: server 1.50":   {Seconds: 1, Configuration: here, Server: &Usage{CPUShare: 1.5}, Load: Usage{CPUShare: 0.45}},
		"the load: it sent up to 40": {Seconds: 1, Delivery: &Latency{P99: 50}, SendLag: &Latency{P99: 40}},
		"of the time; the load: it sent up to 2": {Seconds: 1, Load: Usage{BusyLoop: 0.99}, Delivery: &Latency{P99: 5},
			SendLag: &Latency{P99: 2}},
	} {
		r.Machine.CPUs = 2
		if got := r.limit(); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for name, r := range map[string]Result{
		"another machine's server": {Seconds: 1, Server: &Usage{CPUShare: 8}, Load: Usage{CPUShare: 1.5}},
		"late, but not felt":       {Seconds: 1, Delivery: &Latency{P99: 500}, SendLag: &Latency{P99: 40}},
	} {
		r.Machine.CPUs = 2
		if got := r.limit(); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestMetricsOfTheServer(t *testing.T) {
	before := parseMetrics([]byte(`meshtalk_commit_seconds_bucket{le="0.001"} 10
meshtalk_commit_seconds_bucket{le="0.01"} 10
meshtalk_commit_seconds_bucket{le="+Inf"} 10
meshtalk_commit_seconds_count 10
meshtalk_commit_batch_messages_sum 100
process_cpu_seconds_total 3
process_resident_memory_bytes 1e+06
`))
	after := parseMetrics([]byte(`meshtalk_commit_seconds_bucket{le="+Inf"} 110
meshtalk_commit_seconds_bucket{le="0.01"} 109
meshtalk_commit_seconds_bucket{le="0.001"} 80
meshtalk_commit_seconds_count 110
meshtalk_commit_batch_messages_sum 600
process_cpu_seconds_total 4.5
process_resident_memory_bytes 2e+06
`))
	if c := commits(before, after, 2*time.Second); c == nil || *c != (Commits{PerSecond: 50, Messages: 5, P50: 1, P99: 10}) {
		t.Errorf("%+v", c)
	}
	if commits(before, before, time.Second) != nil {
		t.Error("commits where there were none")
	}
	now := time.Now()
	u := serverUsage(usageSample{at: now, metrics: before}, usageSample{at: now.Add(3 * time.Second), metrics: after})
	if u == nil || u.CPUSeconds != 1.5 || u.CPUShare != 0.5 || u.Resident != 2_000_000 {
		t.Errorf("of a server elsewhere: %+v", u)
	}
	if serverUsage(usageSample{at: now}, usageSample{at: now}) != nil {
		t.Error("of a server that is not known")
	}
	if g := growth(before, after); len(g) != 4 || g["process_cpu_seconds_total"] != 1.5 {
		t.Errorf("growth %v", g)
	}
}

// What a worker counts of its lateness reaches the coordinator.
func TestLatenessOnTheLink(t *testing.T) {
	s := newStats()
	s.late.record(5_000_000)
	b, err := json.Marshal(&s)
	if err != nil {
		t.Fatal(err)
	}
	var back stats
	if err := json.Unmarshal(b, &back); err != nil || back.late.summary().Max < 4.9 {
		t.Errorf("%+v, %v", back.late.summary(), err)
	}
}
