package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/meshtalk/meshtalk/bench"
)

// printer writes the result.
type printer struct {
	out    io.Writer
	asJSON bool
}

func (p *printer) result(r *bench.Result) error {
	if p.asJSON {
		e := json.NewEncoder(p.out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	w := tabwriter.NewWriter(p.out, 0, 8, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("scenario", "%s", scenarioText(r))
	line("connections", "%d of %d logged in in %.2f s, %.0f/s", r.Logins.Count, r.Connections, r.Logins.Seconds, r.Logins.Rate)
	if r.Processes > 0 {
		line("load", "%d processes, whose clocks may differ by %.3f ms", r.Processes, r.ClockError)
	}
	latency(line, "login", &r.Logins.Latency)
	if m := r.Messages; m != nil {
		line("messages", "%.0f/s delivered, %.0f/s accepted, over %s; %d sent, %.1f packets a read", m.DeliveredRate, m.AckedRate,
			time.Duration(r.Seconds*float64(time.Second)).Round(time.Millisecond), m.Sent, m.PerRead)
		latency(line, "delivery", r.Delivery)
		latency(line, "accept", r.Accept)
		latency(line, "sent late", r.SendLag)
	}
	if c := r.Commits; c != nil {
		line("commits", "%.0f/s of %.1f messages, p50 %s  p99 %s", c.PerSecond, c.Messages, atMost(c.P50), atMost(c.P99))
	}
	memory(line, r)
	if r.Seconds > 0 {
		usage(line, "server", r.Server)
		usage(line, "load", &r.Load)
		if r.ServerHere() {
			line("others", "%.2f cores", r.Others)
		}
		line("", "busiest loop awake %.0f%%, longest stall %.1f ms", 100*r.Load.BusyLoop, r.Load.MaxStall)
	}
	if r.Storm != nil {
		storm(line, r.Storm)
	}
	if r.Slow != nil {
		slow(line, r.Slow)
	}
	for i := range r.Mix {
		mix(line, &r.Mix[i])
	}
	if r.Floor != nil {
		floor(line, r.Floor)
	}
	if r.Limit != "" {
		line("limited by", "%s", r.Limit)
	}
	line("client's rule", "%d LAG packets, %d gaps pulled", r.Lags, r.Gaps)
	if r.OK {
		line("checked", "nothing missing, repeated or out of order")
	}
	kinds := make([]string, 0, len(r.Failures))
	for kind := range r.Failures {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		line("FAILED", "%s: %d times", kind, r.Failures[kind])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, e := range r.Evidence {
		if _, err := fmt.Fprintln(p.out, e); err != nil {
			return err
		}
	}
	return nil
}

// scenarioText is the scenario and what was asked of it; a mix has its steps further down.
func scenarioText(r *bench.Result) string {
	text := r.Scenario
	for _, name := range slices.Sorted(maps.Keys(r.Parameters)) {
		if value := fmt.Sprint(r.Parameters[name]); name != "steps" || r.Mix == nil {
			text += ", " + strings.ReplaceAll(name, "_", " ") + " " + value
		}
	}
	return text
}

// atMost is a bound in ms, 0 = none.
func atMost(ms float64) string {
	if ms == 0 {
		return "above all bounds"
	}
	return fmt.Sprintf("≤ %g ms", ms)
}

// memory prints the steps of idle and the slopes.
func memory(line func(string, string, ...any), r *bench.Result) {
	for _, m := range r.Memory {
		text := fmt.Sprintf("%d connections:", m.Connections)
		if m.RSSAnon > 0 {
			text += fmt.Sprintf(" server %.1f MB anonymous,", float64(m.RSSAnon)/1e6)
		}
		line("memory", "%s load %.1f MB", text, float64(m.LoadRSSAnon)/1e6)
	}
	if r.BytesPerConnection != 0 {
		line("slope", "%.0f bytes of the server per connection", r.BytesPerConnection)
	}
	if r.LoadBytesPerConnection != 0 {
		line("", "%.0f bytes of the load per connection", r.LoadBytesPerConnection)
	}
}

func latency(line func(string, string, ...any), name string, l *bench.Latency) {
	if l != nil && l.Count > 0 {
		line(name, "p50 %.2f  p90 %.2f  p99 %.2f  p99.9 %.2f  max %.2f ms", l.P50, l.P90, l.P99, l.P999, l.Max)
	}
}

func usage(line func(string, string, ...any), name string, u *bench.Usage) {
	if u == nil {
		return
	}
	text := fmt.Sprintf("%.2f cores", u.CPUShare)
	if u.MicrosPerMessage > 0 {
		text += fmt.Sprintf(", %.2f µs a message", u.MicrosPerMessage)
	}
	if u.RSSAnon > 0 {
		text += fmt.Sprintf(", %.1f MB anonymous", float64(u.RSSAnon)/1e6)
	} else if u.Resident > 0 {
		text += fmt.Sprintf(", %.1f MB resident", float64(u.Resident)/1e6)
	}
	line(name, "%s", text)
}
