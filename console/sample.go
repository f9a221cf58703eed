package console

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sample is what one look at the sources found: the same numbers as /metrics, by name.
type sample struct {
	at         time.Time
	sums       map[string]float64            // counters and gauges, over all labels
	by         map[string]map[string]float64 // those with a label, by its value
	histograms map[string]Metric
	cpu        time.Duration // of the process, since its start
}

// look asks all sources.
func (o *Options) look() *sample {
	s := &sample{
		at: time.Now(), cpu: processCPU(),
		sums: map[string]float64{}, by: map[string]map[string]float64{}, histograms: map[string]Metric{},
	}
	for _, source := range o.Sources {
		if err := s.ask(source); err != nil {
			o.Logf("console: %v", err)
		}
	}
	return s
}

// ask adds one source's. A panic there costs the rest of that source.
func (s *sample) ask(source Source) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a source panicked: %v", p)
		}
	}()
	source.Metrics(s.add)
	return nil
}

func (s *sample) add(m Metric) {
	if m.Kind == Histogram {
		s.histograms[m.Name] = m
		return
	}
	s.sums[m.Name] += m.Value
	if len(m.Labels) == 0 {
		return
	}
	series := s.by[m.Name]
	if series == nil {
		series = map[string]float64{}
		s.by[m.Name] = series
	}
	series[m.Labels[0].Value] += m.Value
}

// loops is a metric with the label loop, in the order of the loops.
func (s *sample) loops(name string) []float64 {
	series := s.by[name]
	list := make([]float64, len(series))
	for label, v := range series {
		if i, err := strconv.Atoi(label); err == nil && i >= 0 && i < len(list) {
			list[i] = v
		}
	}
	return list
}

// frame is what the page gets each second. Rates are per second since the frame before; absent in the first.
type frame struct {
	T      int64   `json:"t"`      // ms since the Unix epoch
	Second float64 `json:"second"` // seconds that the rates are the mean of

	Connections map[string]float64 `json:"connections"` // by transport
	Gauges      map[string]float64 `json:"gauges"`
	Rates       map[string]float64 `json:"rates,omitempty"`
	// Percentiles 50, 95 and 99 of what ended since the frame before, in seconds; null when nothing did.
	Commit   *[3]float64 `json:"commit"`
	Delivery *[3]float64 `json:"delivery"`
	Sync     *[3]float64 `json:"sync"`
	Loops    loopFrame   `json:"loops"`

	// Not kept for those who come later.
	Totals map[string]map[string]float64 `json:"totals,omitempty"` // counters by label since the start of the server
	State  *readiness                    `json:"state,omitempty"`
}

// loopFrame is one number for each event loop.
type loopFrame struct {
	Busy  []float64 `json:"busy"`  // share of the time, 0 … 1
	Lag   []float64 `json:"lag"`   // longest, in seconds
	Queue []float64 `json:"queue"` // most operations
}

// The metrics that make a frame, by the name that the page knows them by.
var (
	frameGauges = map[string]string{
		"sessions": "meshtalk_sessions", "users": "meshtalk_users_online", "lagging": "meshtalk_lagging_sessions",
		"outbound": "meshtalk_outbound_bytes", "waiting": "meshtalk_submissions_waiting", "pool": "meshtalk_pool_waiting",
		"storeBytes": "meshtalk_store_bytes", "storeMessages": "meshtalk_store_messages_total",
		"storeMemory": "meshtalk_store_memory_bytes", "readOnly": "meshtalk_store_readonly",
		"connectionMemory": "meshtalk_connection_memory_bytes", "panics": "meshtalk_panics_total",
		"queues": "meshtalk_queues_owned", "lag": "meshtalk_log_lag_messages", "routes": "meshtalk_routes",
	}
	frameRates = map[string]string{
		"accepts": "meshtalk_accepts_total", "accepted": "meshtalk_messages_accepted_total",
		"delivered": "meshtalk_deliveries_total", "packets": "meshtalk_packets_in_total",
		"in": "meshtalk_received_bytes_total", "out": "meshtalk_sent_bytes_total",
		"errors": "meshtalk_errors_total", "closes": "meshtalk_closes_total",
	}
	frameTotals = map[string]string{
		"closes": "meshtalk_closes_total", "errors": "meshtalk_errors_total", "accepts": "meshtalk_accepts_total",
		"accepted": "meshtalk_messages_accepted_total", "delivered": "meshtalk_deliveries_total",
		"logins": "meshtalk_logins_total", "packets": "meshtalk_packets_in_total", "lag": "meshtalk_log_lag_messages",
	}
)

// frameOf compares a sample with the one before; before nil = there is none.
func frameOf(before, now *sample) *frame {
	f := &frame{
		T: now.at.UnixMilli(), Connections: map[string]float64{}, Gauges: map[string]float64{},
		Loops: loopFrame{Lag: now.loops("meshtalk_loop_lag_peak_seconds"), Queue: now.loops("meshtalk_loop_queue_peak_operations")},
	}
	for transport, n := range now.by["meshtalk_connections"] {
		f.Connections[transport] = n
	}
	for name, metric := range frameGauges {
		f.Gauges[name] = round(now.sums[metric])
	}
	processGauges(f.Gauges)
	if before == nil {
		return f
	}
	seconds := now.at.Sub(before.at).Seconds()
	if seconds <= 0 {
		return f
	}
	f.Second = round(seconds)
	f.Rates = map[string]float64{"cpu": round((now.cpu - before.cpu).Seconds() / seconds)}
	for name, metric := range frameRates {
		f.Rates[name] = rate(now.sums[metric]-before.sums[metric], seconds)
	}
	logins, was := now.by["meshtalk_logins_total"], before.by["meshtalk_logins_total"]
	f.Rates["logins"] = rate(logins["ok"]-was["ok"], seconds)
	f.Rates["loginsRefused"] = rate(logins["failed"]-was["failed"], seconds)
	f.Commit = percentiles(before, now, "meshtalk_commit_seconds")
	f.Delivery = percentiles(before, now, "meshtalk_delivery_seconds")
	f.Sync = percentiles(before, now, "meshtalk_store_fsync_seconds")
	busy, busyBefore := now.loops("meshtalk_loop_busy_seconds_total"), before.loops("meshtalk_loop_busy_seconds_total")
	for i := range min(len(busy), len(busyBefore)) {
		f.Loops.Busy = append(f.Loops.Busy, min(1, rate(busy[i]-busyBefore[i], seconds)))
	}
	return f
}

// totals are the counters by label.
func (s *sample) totals() map[string]map[string]float64 {
	t := make(map[string]map[string]float64, len(frameTotals))
	for name, metric := range frameTotals {
		if t[name] = s.by[metric]; t[name] == nil {
			t[name] = map[string]float64{}
		}
	}
	return t
}

func rate(more, seconds float64) float64 { return round(max(0, more) / seconds) }

// round keeps six digits: charts show three.
func round(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	if v == math.Trunc(v) {
		return v
	}
	scale := math.Pow(10, 5-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

// percentiles are those of what a histogram counted between two samples, nil when it was nothing.
func percentiles(before, now *sample, name string) *[3]float64 {
	a, b := before.histograms[name], now.histograms[name]
	counts := make([]float64, len(b.Counts))
	var sum float64
	for i := range b.Counts {
		n := float64(b.Counts[i])
		if i < len(a.Counts) {
			n -= float64(a.Counts[i])
		}
		counts[i] = max(0, n)
		sum += counts[i]
	}
	if sum == 0 {
		return nil
	}
	return &[3]float64{quantile(.5, b.Bounds, counts, sum), quantile(.95, b.Bounds, counts, sum), quantile(.99, b.Bounds, counts, sum)}
}

// quantile is, as Prometheus does it, linear within the bucket; in the last one, which has no end, its beginning.
func quantile(q float64, bounds, counts []float64, sum float64) float64 {
	rank := q * sum
	for i, n := range counts {
		if rank > n {
			rank -= n
			continue
		}
		lower := 0.0
		if i > 0 {
			lower = bounds[i-1]
		}
		if i == len(bounds) || n == 0 {
			return lower
		}
		return round(lower + (bounds[i]-lower)*rank/n)
	}
	return bounds[len(bounds)-1]
}

// processCPU is the CPU time of the process.
func processCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processGauges adds what is known of the process: memory in bytes, as the kernel and as Go count it.
func processGauges(g map[string]float64) {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/sched/goroutines:goroutines"},
	}
	metrics.Read(samples)
	for i, name := range []string{"heapLive", "heap", "goroutines"} {
		if samples[i].Value.Kind() == metrics.KindUint64 {
			g[name] = float64(samples[i].Value.Uint64())
		}
	}
	g["cores"] = float64(runtime.GOMAXPROCS(0))
	b, err := os.ReadFile("/proc/self/statm") // pages: size, resident, …
	if fields := strings.Fields(string(b)); err == nil && len(fields) > 1 {
		if pages, err := strconv.ParseFloat(fields[1], 64); err == nil {
			g["rss"] = pages * float64(os.Getpagesize())
		}
	}
}
