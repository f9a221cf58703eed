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
	Tiles          []tile
	Latencies      []latencyRow
	Summary        []reportRow
	FloorRows      []reportRow
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
	v := &report{Result: r, Tiles: tiles(r), Latencies: latencyRows(r), Summary: summaryRows(r), Plots: plots(r), Samples: r.Series, When: r.Started.UTC().Format("2006-01-02 15:04:05 UTC")}
	v.Machine = machineRows(&r.Machine)
	if r.Floor != nil {
		v.FloorRows = floorRows(r.Floor)
	}
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

// tile is one of the few numbers that a run is about.
type tile struct{ Name, Value, Unit string }

func tiles(r *Result) (all []tile) {
	add := func(name, value, unit string) { all = append(all, tile{name, value, unit}) }
	if m := r.Messages; m != nil && r.Slow == nil {
		add("delivered", Grouped(m.DeliveredRate), "/s")
	}
	if l := r.Delivery; l != nil && l.Count > 0 && r.Slow == nil {
		add("delivery p50", short(l.P50), "ms")
		add("delivery p99", short(l.P99), "ms")
	}
	if s := r.Storm; s != nil && len(s.Rounds) > 0 {
		last := s.Rounds[len(s.Rounds)-1]
		add("caught up", Grouped(float64(last.CaughtUp)), "clients")
		add("all within", short(last.AllCaughtUp), "s")
	}
	if s := r.Slow; s != nil {
		add("others' p99 before", short(s.Before.P99), "ms")
		add("others' p99 during", short(s.During.P99), "ms")
		add("to the stalled", bytesText(float64(s.BulkBytes)), "")
	}
	if r.BytesPerConnection != 0 {
		add("memory", Grouped(r.BytesPerConnection), "bytes a connection")
	}
	if r.Messages == nil && r.Storm == nil {
		add("connections", Grouped(float64(r.Logins.Count)), "logged in")
	}
	if f := r.Floor; f != nil && f.DeliveriesShare > 0 {
		add("of the write floor", short(f.DeliveriesShare), "×")
	}
	if u := r.Server; u != nil && r.Seconds > 0 {
		if u.MicrosPerMessage > 0 {
			add("server CPU", short(u.MicrosPerMessage), "µs a message")
		} else {
			add("server CPU", short(u.CPUShare), "cores")
		}
	}
	return all
}

// latencyRow is a line of the table of latencies.
type latencyRow struct {
	Name string
	Count,
	P50, P90, P99, P999, Max string
}

func latencyRows(r *Result) (rows []latencyRow) {
	add := func(name string, l *Latency) {
		if l != nil && l.Count > 0 {
			rows = append(rows, latencyRow{name, Grouped(float64(l.Count)), short(l.P50), short(l.P90), short(l.P99), short(l.P999), short(l.Max)})
		}
	}
	add("login", &r.Logins.Latency)
	add("delivery", r.Delivery)
	add("accept", r.Accept)
	add("sent late", r.SendLag)
	if s := r.Storm; s != nil {
		add("login again", &s.Login)
		add("caught up", &s.CatchUp)
	}
	if s := r.Slow; s != nil {
		add("others before", &s.Before)
		add("others during", &s.During)
		add("others after", &s.After)
		add("caught up", &s.CatchUp)
	}
	for i := range r.Mix {
		m := &r.Mix[i]
		add(m.Name+": delivery", &m.Delivery)
		add(m.Name+": accept", &m.Accept)
		add(m.Name+": history", &m.History)
		add(m.Name+": login", &m.Login)
	}
	return rows
}

func summaryRows(r *Result) (rows []reportRow) {
	add := func(name, format string, args ...any) {
		rows = append(rows, reportRow{name, fmt.Sprintf(format, args...)})
	}
	add("connections", "%s of %s logged in, %s/s", Grouped(float64(r.Logins.Count)), Grouped(float64(r.Connections)), Grouped(r.Logins.Rate))
	if m := r.Messages; m != nil {
		add("accepted", "%s/s", Grouped(m.AckedRate))
		add("messages", "%s sent, %s accepted, %s delivered in the whole run", Grouped(float64(m.Sent)), Grouped(float64(m.Acked)),
			Grouped(float64(m.Delivered)))
	}
	if c := r.Commits; c != nil {
		add("commits", "%s/s of %s messages", Grouped(c.PerSecond), short(c.Messages))
	}
	if s := r.Storm; s != nil {
		for _, round := range s.Rounds {
			add("storm", "%d caught up within %s s, logged in within %s s", round.CaughtUp, short(round.AllCaughtUp), short(round.LoginSeconds))
		}
	}
	if s := r.Slow; s != nil {
		add("to slow receivers", "%d messages, %s", s.BulkMessages, bytesText(float64(s.BulkBytes)))
		for _, m := range s.Memory {
			add("memory "+m.Part, "from %s, at most %s anonymous", bytesText(float64(m.First)), bytesText(float64(m.Highest)))
		}
	}
	for _, m := range r.Memory {
		add("memory", "%s connections: server %s anonymous, load %s", Grouped(float64(m.Connections)), bytesText(float64(m.RSSAnon)),
			bytesText(float64(m.LoadRSSAnon)))
	}
	if r.LoadBytesPerConnection != 0 {
		add("slope", "%.0f bytes of the server per connection, %.0f of the load", r.BytesPerConnection, r.LoadBytesPerConnection)
	}
	process := func(name string, u *Usage) {
		if u != nil && r.Seconds > 0 {
			add(name, "%s", usageText(u))
		}
	}
	process("server", r.Server)
	process("load", &r.Load)
	add("measured", "%s s", short(r.Seconds))
	return rows
}

func usageText(u *Usage) string {
	text := fmt.Sprintf("%.2f cores", u.CPUShare)
	if u.MicrosPerMessage > 0 {
		text += fmt.Sprintf(", %.2f µs a message", u.MicrosPerMessage)
	}
	switch {
	case u.RSSAnon > 0:
		text += ", " + bytesText(float64(u.RSSAnon)) + " anonymous"
	case u.Resident > 0:
		text += ", " + bytesText(float64(u.Resident)) + " resident"
	}
	return text
}

func floorRows(f *Floor) (rows []reportRow) {
	add := func(name, format string, args ...any) {
		rows = append(rows, reportRow{name, fmt.Sprintf(format, args...)})
	}
	for _, w := range f.Writes {
		threads := "one thread"
		if w.Writers > 1 {
			threads = fmt.Sprintf("%d threads", w.Writers)
		}
		add("writes", "%s/s of %d × %d bytes by %s to %s connections", Grouped(w.Writes), w.Coalesced, f.FrameBytes, threads, Grouped(float64(f.Connections)))
	}
	for _, s := range f.Syncs {
		add("disk", "%s", s)
	}
	if f.DeliveriesShare > 0 {
		add("deliveries", "%.2f of the uncoalesced writes of one thread, %.2f of all cores'", f.DeliveriesShare, f.DeliveriesShareAll)
	}
	if f.CommitsShare > 0 {
		add("commits", "%.2f of the fdatasyncs after 4 KiB", f.CommitsShare)
	}
	if f.Spread > 0 {
		add("spread", "before and after the run it differed by up to %.0f%%", 100*f.Spread)
	}
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
	if memory := memoryLines(r.Series, column); len(memory) > 0 {
		add(with("Server memory", "MB", "Anonymous: what no file backs, from /proc. Resident and heap: from /metrics.", memory...))
	}
	add(with("Processor", "cores", "", column("server", func(s *Sample) float64 {
		return orNone(s.ServerCPU, s.ServerRSSAnon+s.ServerResident != 0 && s.LoadCPU != 0) // the first look has nothing to compare with
	}),
		column("load", func(s *Sample) float64 { return orNone(s.LoadCPU, s.LoadCPU != 0) })))
	return all
}

// memoryLines are those of which something is known.
func memoryLines(series []Sample, column func(string, func(*Sample) float64) line) (lines []line) {
	for _, of := range []struct {
		name string
		get  func(*Sample) int64
	}{
		{"anonymous", func(s *Sample) int64 { return s.ServerRSSAnon }}, {"resident", func(s *Sample) int64 { return s.ServerResident }},
		{"Go heap", func(s *Sample) int64 { return s.ServerHeap }},
	} {
		if slices.ContainsFunc(series, func(s Sample) bool { return of.get(&s) > 0 }) {
			lines = append(lines, column(of.name, func(s *Sample) float64 { return orNone(float64(of.get(s))/1e6, of.get(s) != 0) }))
		}
	}
	return lines
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

// Grouped writes v with three significant digits at least, and its thousands apart.
func Grouped(v float64) string {
	if math.Abs(v) < 1000 {
		if v == math.Trunc(v) {
			return fmt.Sprintf("%.0f", v)
		}
		return short(v)
	}
	digits := fmt.Sprintf("%.0f", math.Abs(v))
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if v < 0 {
		digits = "−" + digits
	}
	return digits
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
