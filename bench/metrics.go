package bench

import (
	"bufio"
	"bytes"
	"context"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// metrics scrapes /metrics; series of one name are summed. The buckets of histograms stand under "name_bucket LE".
func (a admin) metrics(ctx context.Context) (map[string]float64, error) {
	b, err := a.call(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return nil, err
	}
	return parseMetrics(b), nil
}

const bucketSuffix = "_bucket"

func parseMetrics(b []byte) map[string]float64 {
	all := map[string]float64{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		line := lines.Text()
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		name, labels, _ := strings.Cut(line[:i], "{")
		if strings.HasSuffix(name, bucketSuffix) {
			_, bound, _ := strings.Cut(labels, `le="`)
			bound, _, _ = strings.Cut(bound, `"`)
			name += " " + bound
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			all[name] += v
		}
	}
	return all
}

// growth is what counters grew by and what gauges are, without buckets and zeros.
func growth(before, after map[string]float64) map[string]float64 {
	grown := map[string]float64{}
	for name, v := range after {
		for _, suffix := range []string{"_total", "_sum", "_count"} {
			if strings.HasSuffix(name, suffix) {
				v -= before[name]
				break
			}
		}
		if v != 0 && !strings.Contains(name, bucketSuffix+" ") {
			grown[name] = v
		}
	}
	return grown
}

// Commits are what the server's /metrics say of its commits in the measured time. The quantiles are bounds of buckets: so
// much or less, 0 = above the last bound.
type Commits struct {
	PerSecond float64 `json:"per_second"`
	Messages  float64 `json:"messages"` // in a commit, on average
	P50       float64 `json:"p50_at_most_ms"`
	P99       float64 `json:"p99_at_most_ms"`
}

// commits is nil when nothing was committed.
func commits(before, after map[string]float64, took time.Duration) *Commits {
	const time, size = "meshtalk_commit_seconds", "meshtalk_commit_batch_messages"
	grown := func(name string) float64 { return after[name] - before[name] }
	n := grown(time + "_count")
	if n <= 0 || took <= 0 {
		return nil
	}
	return &Commits{PerSecond: n / took.Seconds(), Messages: grown(size+"_sum") / n,
		P50: 1000 * bucketQuantile(before, after, time, 0.5), P99: 1000 * bucketQuantile(before, after, time, 0.99)}
}

// bucketQuantile is the bound of the bucket in which that share of what came between two looks lies, 0 when it has none.
func bucketQuantile(before, after map[string]float64, name string, share float64) float64 {
	type bucket struct{ bound, count float64 }
	var all []bucket
	for key, v := range after {
		if text, ok := strings.CutPrefix(key, name+bucketSuffix+" "); ok {
			if bound, err := strconv.ParseFloat(text, 64); err == nil {
				all = append(all, bucket{bound, v - before[key]})
			}
		}
	}
	slices.SortFunc(all, func(a, b bucket) int {
		if a.bound < b.bound {
			return -1
		}
		return 1
	})
	for _, b := range all {
		if !math.IsInf(b.bound, 1) && b.count >= share*all[len(all)-1].count {
			return b.bound
		}
	}
	return 0
}

// Of the Go and process collectors of the server.
const (
	metricCPU      = "process_cpu_seconds_total"
	metricResident = "process_resident_memory_bytes"
	metricHeap     = "go_memstats_heap_inuse_bytes"
)

// scrapeTimeout is how long a look at /metrics may take that is made every second.
const scrapeTimeout = 500 * time.Millisecond

// scrape notes in the series what the server says of itself, at the end of a second.
func (r *runner) scrape(ctx context.Context, second int) {
	idle := r.server != nil && r.result.Scenario == "idle" // the look would be most of what the server does
	if r.o.Admin == "" || !r.team.leads() || idle {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	at := time.Now()
	m, err := admin{r.o.Admin, r.o.AdminAuth}.metrics(ctx)
	if err != nil {
		return // a second without them
	}
	last := r.scraped
	r.scraped = scraped{at: at, cpu: m[metricCPU]}
	r.o.series.note(second, func(s *Sample) {
		s.ServerResident, s.ServerHeap = int64(m[metricResident]), int64(m[metricHeap])
		if s.ServerRSSAnon == 0 && !last.at.IsZero() {
			s.ServerCPU = max(0, (m[metricCPU]-last.cpu)/at.Sub(last.at).Seconds())
		}
	})
}

// scraped is the last look at /metrics.
type scraped struct {
	at  time.Time
	cpu float64 // seconds
}
