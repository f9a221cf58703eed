package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	html "html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
)

// WriteReport writes r as one self-contained HTML page: plots as SVG, no script, nothing loaded from anywhere. Every text of
// r is escaped.
func WriteReport(w io.Writer, r *Result) error {
	page, err := html.New("report").Parse(reportPage)
	if err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	if err := page.Execute(w, newReport(r)); err != nil {
		return fmt.Errorf("bench: report: %w", err)
	}
	return nil
}

// report is what the page shows.
type report struct {
	*Result
	Summary        []reportRow
	Plots          []plotView
	Machine        []reportRow
	Configuration  []reportRow
	FailureList    []reportRow
	Samples        []Sample
	When, Duration string
}

type reportRow struct{ Name, Value string }

// plotView is a drawn plot.
type plotView struct {
	Title, Note string
	SVG         html.HTML // made of numbers and escaped text
	Legend      []string
}

func newReport(r *Result) *report {
	v := &report{Result: r, Summary: summaryRows(r), Plots: plots(r), Samples: r.Series, When: r.Started.UTC().Format("2006-01-02 15:04:05 UTC")}
	v.Machine = machineRows(&r.Machine)
	v.Configuration = append(rowsOf(r.Parameters), rowsOf(r.Configuration)...)
	for _, kind := range slices.Sorted(maps.Keys(r.Transport)) {
		v.Configuration = append(v.Configuration, reportRow{kind + " addresses", fmt.Sprint(r.Transport[kind])})
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Failures)) {
		v.FailureList = append(v.FailureList, reportRow{kind, fmt.Sprintf("%d times", r.Failures[kind])})
	}
	return v
}

// rowsOf is a map in the order of its keys.
func rowsOf(m map[string]any) (rows []reportRow) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		text := fmt.Sprint(m[k])
		if b, err := json.Marshal(m[k]); err == nil {
			text = strings.Trim(string(b), `"`)
		}
		if text != "" {
			rows = append(rows, reportRow{strings.ReplaceAll(k, "_", " "), text})
		}
	}
	return rows
}

func machineRows(m *Machine) []reportRow {
	rows := []reportRow{{"CPUs", fmt.Sprint(m.CPUs)}, {"CPU model", m.Model}, {"memory", ""}, {"clock", m.Clock},
		{"system", m.OS + "/" + m.Arch}, {"kernel", m.Kernel}, {"Go", m.Go}}
	if m.Memory > 0 {
		rows[2].Value = bytesText(float64(m.Memory))
	}
	return slices.DeleteFunc(rows, func(r reportRow) bool { return r.Value == "" })
}

func summaryRows(r *Result) (rows []reportRow) {
	add := func(name, format string, args ...any) {
		rows = append(rows, reportRow{name, fmt.Sprintf(format, args...)})
	}
	lat := func(name string, l *Latency) {
		if l != nil && l.Count > 0 {
			add(name, "p50 %s · p90 %s · p99 %s · p99.9 %s · max %s ms", short(l.P50), short(l.P90), short(l.P99), short(l.P999), short(l.Max))
		}
	}
	add("connections", "%d of %d logged in, %s/s", r.Logins.Count, r.Connections, short(r.Logins.Rate))
	lat("login", &r.Logins.Latency)
	if m := r.Messages; m != nil {
		add("delivered", "%s/s", short(m.DeliveredRate))
		add("accepted", "%s/s", short(m.AckedRate))
		add("messages", "%d sent, %d accepted, %d delivered in the whole run", m.Sent, m.Acked, m.Delivered)
		lat("delivery", r.Delivery)
		lat("accept", r.Accept)
	}
	if s := r.Storm; s != nil {
		for _, round := range s.Rounds {
			add("storm", "%d caught up within %s s, logged in within %s s", round.CaughtUp, short(round.AllCaughtUp), short(round.LoginSeconds))
		}
		lat("login again", &s.Login)
		lat("caught up", &s.CatchUp)
	}
	if s := r.Slow; s != nil {
		add("to slow receivers", "%d messages, %s", s.BulkMessages, bytesText(float64(s.BulkBytes)))
		lat("others before", &s.Before)
		lat("others during", &s.During)
		lat("others after", &s.After)
		lat("caught up", &s.CatchUp)
		for _, m := range s.Memory {
			add("memory "+m.Part, "from %s, at most %s anonymous", bytesText(float64(m.First)), bytesText(float64(m.Highest)))
		}
	}
	for _, m := range r.Memory {
		add("memory", "%d connections: %s anonymous", m.Connections, bytesText(float64(m.RSSAnon)))
	}
	if r.BytesPerConnection != 0 {
		add("slope", "%.0f bytes per connection", r.BytesPerConnection)
	}
	process := func(name string, u *Usage) {
		if u == nil || r.Seconds == 0 {
			return
		}
		text := fmt.Sprintf("%.2f cores", u.CPUShare)
		if u.MicrosPerMessage > 0 {
			text += fmt.Sprintf(", %.2f µs a message", u.MicrosPerMessage)
		}
		if u.RSSAnon > 0 {
			text += ", " + bytesText(float64(u.RSSAnon)) + " anonymous"
		}
		add(name, "%s", text)
	}
	process("server", r.Server)
	process("load", &r.Load)
	if f := r.Floor; f != nil {
		if f.DeliveriesShare > 0 {
			add("share of the floor", "%.2f of the uncoalesced writes of one thread, %.2f of all cores'", f.DeliveriesShare, f.DeliveriesShareAll)
		}
		if f.CommitsShare > 0 {
			add("share of the floor", "%.2f of the fdatasyncs", f.CommitsShare)
		}
	}
	add("measured", "%s s", short(r.Seconds))
	return rows
}

// plots are those for which there is something to draw.
func plots(r *Result) (all []plotView) {
	add := func(p plot) {
		if svg, ok := p.draw(); ok {
			v := plotView{Title: p.title, Note: p.note, SVG: svg}
			for _, l := range p.lines {
				v.Legend = append(v.Legend, l.name)
			}
			all = append(all, v)
		}
	}
	n := len(r.Series)
	x := make([]float64, n)
	column := func(name string, f func(*Sample) float64) line {
		l := line{name: name, y: make([]float64, n)}
		for i := range r.Series {
			l.y[i] = f(&r.Series[i])
		}
		return l
	}
	latency := func(name string, of func(*Latency) float64) line {
		return column(name, func(s *Sample) float64 {
			if s.Delivery == nil {
				return math.NaN()
			}
			return of(s.Delivery)
		})
	}
	for i, s := range r.Series {
		x[i] = s.At
	}
	overTime := plot{x: x, xUnit: "s", bands: stages(r.Series)}
	with := func(title, unit, note string, lines ...line) plot {
		p := overTime
		p.title, p.unit, p.note, p.lines = title, unit, note, lines
		return p
	}
	if r.Messages != nil {
		add(with("Messages per second", "/s", "Shaded: not counted in the summary.",
			column("delivered", func(s *Sample) float64 { return s.Delivered }), column("accepted", func(s *Sample) float64 { return s.Accepted })))
		p := with("Delivery latency of each second", "ms", "From the intended time of the send to the arrival.",
			latency("p50", func(l *Latency) float64 { return l.P50 }), latency("p90", func(l *Latency) float64 { return l.P90 }),
			latency("p99", func(l *Latency) float64 { return l.P99 }), latency("p99.9", func(l *Latency) float64 { return l.P999 }))
		p.logY = true
		add(p)
	}
	add(distributionPlot(r.Distribution))
	add(with("Connections", "", "", column("logged in", func(s *Sample) float64 { return float64(s.Connections) })))
	if slices.ContainsFunc(r.Series, func(s Sample) bool { return s.ServerRSSAnon > 0 }) {
		add(with("Server memory", "MB", "Anonymous: what no file backs.",
			column("RssAnon", func(s *Sample) float64 { return orNone(float64(s.ServerRSSAnon)/1e6, s.ServerRSSAnon != 0) })))
	}
	add(with("Processor", "cores", "", column("server", func(s *Sample) float64 { return orNone(s.ServerCPU, s.ServerRSSAnon != 0) }),
		column("load", func(s *Sample) float64 { return orNone(s.LoadCPU, s.LoadCPU != 0) })))
	return all
}

func distributionPlot(d []Quantile) plot {
	p := plot{title: "Delivery latency distribution", unit: "ms", note: "Each step to the right is one more nine.", percentiles: true}
	l := line{name: "delivery"}
	for _, q := range d {
		p.x = append(p.x, -math.Log10(1-q.Percent/100))
		l.y = append(l.y, q.MS)
	}
	p.lines, p.logY = []line{l}, true
	return p
}

// stages are the times that are not measured.
func stages(series []Sample) (bands [][2]float64) {
	from := 0.0
	for _, s := range series {
		if s.Stage == "connect" || s.Stage == "warm-up" || s.Stage == "drain" {
			if n := len(bands); n > 0 && bands[n-1][1] == from {
				bands[n-1][1] = s.At
			} else {
				bands = append(bands, [2]float64{from, s.At})
			}
		}
		from = s.At
	}
	return bands
}

// orNone is v if it is known. The last second of a run, of which only a part has passed, has no look at the processes.
func orNone(v float64, known bool) float64 {
	if !known {
		return math.NaN()
	}
	return v
}

// short writes v with three significant digits or all of those before the point.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || a == 0:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.01:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

// axis writes v for an axis: 1.5k, 2M.
func axis(v float64) string {
	for _, s := range []struct {
		by   float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if math.Abs(v) >= s.by {
			return fmt.Sprintf("%.4g%s", v/s.by, s.name)
		}
	}
	return fmt.Sprintf("%.4g", v)
}

func bytesText(v float64) string {
	switch {
	case v >= 1e9:
		return fmt.Sprintf("%.2f GB", v/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%.1f MB", v/1e6)
	}
	return fmt.Sprintf("%.0f KB", v/1e3)
}

// bounds are the least and the largest number of all, NaN left out; ok is false when there is none.
func bounds(all ...[]float64) (low, high float64, ok bool) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, values := range all {
		for _, v := range values {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	return low, high, cmp.Compare(low, high) <= 0
}
