package console

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Kind is what a metric is.
type Kind uint8

// The kinds.
const (
	Counter   Kind = iota // only grows; its name ends in _total
	Gauge                 // goes up and down
	Histogram             // counts values by size
)

// Label is one label of a metric. Values are few and of our choosing: never a user's, a conversation's or a client's.
type Label struct{ Name, Value string }

// Metric is one series at this moment. All series of one name have the same Help, Kind and label names.
type Metric struct {
	Name   string // in full, with prefix and unit: meshtalk_commit_seconds
	Help   string
	Kind   Kind
	Labels []Label

	Value float64 // of a counter or gauge

	// Of a histogram: Counts[i] are the values up to Bounds[i] and above the bound before, the last count those above all bounds,
	// so there is one count more than bounds. Bounds grow. Sum is of all values.
	Bounds []float64
	Counts []uint64
	Sum    float64
}

// Source gives metrics at a scrape. Metrics is called from several goroutines at the same time; it should take what it
// shows from counters that are there anyway and return at once. emit keeps nothing of what it is given.
type Source interface {
	Metrics(emit func(Metric))
}

// newRegistry holds the sources and Go's own metrics. There is none for the whole process: two servers in one process,
// as in tests, have one each.
func newRegistry(sources []Source) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collector(sources),
	)
	return r
}

// collector turns the sources into a prometheus.Collector. It describes nothing beforehand (an unchecked one): which
// series there are is seen at the scrape.
type collector []Source

// Describe implements prometheus.Collector.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	for _, s := range c {
		collect(s, out)
	}
}

// collect asks one source. The registry calls it on a goroutine of its own, where a panic would end the process.
func collect(s Source, out chan<- prometheus.Metric) {
	defer func() {
		if p := recover(); p != nil {
			err := fmt.Errorf("a source panicked: %v", p)
			out <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
		}
	}()
	s.Metrics(func(m Metric) { out <- convert(&m) })
}

// convert makes the client library's metric of m, or an invalid one that says what is wrong with it.
func convert(m *Metric) prometheus.Metric {
	metric, err := m.build()
	if err != nil {
		err = fmt.Errorf("metric %q: %w", m.Name, err)
		return prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
	}
	return metric
}

func (m *Metric) build() (prometheus.Metric, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	names, values := make([]string, len(m.Labels)), make([]string, len(m.Labels))
	for i, l := range m.Labels {
		names[i], values[i] = l.Name, l.Value
	}
	desc := prometheus.NewDesc(m.Name, m.Help, names, nil)
	switch m.Kind {
	case Counter:
		return prometheus.NewConstMetric(desc, prometheus.CounterValue, m.Value, values...)
	case Gauge:
		return prometheus.NewConstMetric(desc, prometheus.GaugeValue, m.Value, values...)
	}
	buckets := make(map[float64]uint64, len(m.Bounds))
	var count uint64
	for i, n := range m.Counts {
		count += n
		if i < len(m.Bounds) {
			buckets[m.Bounds[i]] = count
		}
	}
	return prometheus.NewConstHistogram(desc, count, m.Sum, buckets, values...)
}

// check finds what the client library does not mind: names beyond the classic alphabet, counters that cannot be.
func (m *Metric) check() error {
	if !isName(m.Name, ":") {
		return errors.New("not a name")
	}
	if m.Help == "" {
		return errors.New("no help")
	}
	for _, l := range m.Labels {
		if !isName(l.Name, "") || strings.HasPrefix(l.Name, "__") || l.Name == "le" || l.Name == "quantile" {
			return fmt.Errorf("%q is not a label's name", l.Name)
		}
	}
	switch m.Kind {
	case Counter:
		if math.IsNaN(m.Value) || m.Value < 0 {
			return fmt.Errorf("a counter of %v", m.Value)
		}
	case Gauge:
	case Histogram:
		return m.checkHistogram()
	default:
		return fmt.Errorf("unknown kind %d", m.Kind)
	}
	return nil
}

func (m *Metric) checkHistogram() error {
	if len(m.Counts) != len(m.Bounds)+1 {
		return fmt.Errorf("%d counts for %d bounds", len(m.Counts), len(m.Bounds))
	}
	for i, b := range m.Bounds {
		if math.IsNaN(b) || math.IsInf(b, 0) || i > 0 && b <= m.Bounds[i-1] {
			return fmt.Errorf("bound %v does not grow", b)
		}
	}
	return nil
}

// isName reports whether s is of letters, digits, underscores and extra, and does not begin with a digit.
func isName(s, extra string) bool {
	for i, c := range s {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.ContainsRune(extra, c)
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
