package bench

import (
	"bytes"
	"flag"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/report.html anew")

// reportResult is a result with all that a report shows, and with texts that try to break out of it.
func reportResult() *Result {
	r := &Result{Scenario: `private"><script>alert(1)</script>`, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Connections: 200, Seconds: 10,
		Machine:    Machine{CPUs: 2, Model: "<b>CPU</b>", Memory: 8 << 30, OS: "linux", Arch: "amd64", Go: "go1", Kernel: "6.1"},
		Parameters: map[string]any{"pairs": 100, "note": "</td><img src=http://example.org/x>"}, Configuration: map[string]any{"ack": "client"},
		Transport: map[string]int{"ws": 1, "tcp": 1}, Logins: Logins{Count: 200, Rate: 5000},
		Messages: &Messages{Sent: 1000, Acked: 1000, Delivered: 999, DeliveredRate: 99.9, AckedRate: 100},
		Delivery: &Latency{Count: 999, P50: 1, P90: 2, P99: 30, P999: 40, Max: 41}, Server: &Usage{CPUShare: 0.7, RSSAnon: 30e6},
		Floor: &Floor{Connections: 200, FrameBytes: 308, Writes: []WriteFloor{{Coalesced: 1, Writers: 1, Writes: 150, Frames: 150}}, DeliveriesShare: 0.67}, Failures: map[string]int{"missing": 1}, Evidence: []string{"user <a href=https://example.org> got 1 & 3"}, Limit: "<i>the machine</i>"}
	for i := range 40 {
		q := 1 - math.Pow(10, -float64(i)/10)
		r.Distribution = append(r.Distribution, Quantile{Percent: 100 * q, MS: 0.5 + float64(i*i)/40})
	}
	for i := range 12 {
		s := Sample{At: float64(i + 1), Stage: "measure", Connections: 200, ServerRSSAnon: int64(20e6 + i*1e6), ServerCPU: 0.7, LoadCPU: 0.4,
			ServerResident: 50e6, ServerHeap: 15e6}
		if i < 2 {
			s.Stage = "warm-up"
		}
		if i != 5 { // a second in which nothing came
			s.Delivered, s.Accepted = 100+float64(i), 100
			s.Delivery = &Latency{Count: 100, P50: 1, P90: 2, P99: 3 + float64(i), P999: 20, Max: 21}
		}
		r.Series = append(r.Series, s)
	}
	return r
}

func TestReportIsGolden(t *testing.T) {
	var out bytes.Buffer
	if err := WriteReport(&out, reportResult()); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "report.html")
	if *rewrite {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Error("the report differs from testdata/report.html; look at it and run with -rewrite")
	}
}

// TestReportLoadsNothing looks for whatever would make a browser ask the network.
func TestReportLoadsNothing(t *testing.T) {
	var out bytes.Buffer
	if err := WriteReport(&out, reportResult()); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	tags := regexp.MustCompile(`<[a-zA-Z!][^>]*>`).FindAllString(page, -1)
	if len(tags) < 100 {
		t.Fatalf("%d tags", len(tags))
	}
	bad := regexp.MustCompile(`(?i)https?:|\b(src|href|srcset|action|on[a-z]+)\s*=|<(script|link|iframe|img|a|i|b)\b`)
	for _, tag := range tags {
		if bad.MatchString(tag) {
			t.Errorf("tag %s", tag)
		}
	}
	for _, text := range []string{"@import", "url(", "NaN", "Inf", "<no value>"} {
		if strings.Contains(page, text) {
			t.Errorf("the page has %s", text)
		}
	}
	for _, title := range []string{"Messages per second", "Delivery latency of each second", "Delivery latency distribution", "Connections",
		"Server memory", "Processor"} {
		if !strings.Contains(page, "<h2>"+title+"</h2>\n<svg") {
			t.Errorf("no plot %s", title)
		}
	}
}

func TestReportOfLittle(t *testing.T) {
	for name, r := range map[string]*Result{
		"nothing":   {},
		"one point": {Series: []Sample{{At: 1}}, Distribution: []Quantile{{0, 1}}, OK: true},
		"zeros":     {Series: []Sample{{At: 1}, {At: 2}}, Distribution: []Quantile{{0, 0}, {90, 0}}, Messages: &Messages{}},
	} {
		var out bytes.Buffer
		if err := WriteReport(&out, r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s := out.String(); strings.Contains(s, "NaN") || strings.Contains(s, "Inf") {
			t.Errorf("%s: a number that is none", name)
		}
	}
}
