package console

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// counting is a source whose counters grow by ten a look and that counts the looks.
type counting struct{ looks atomic.Int64 }

func (c *counting) Metrics(emit func(Metric)) {
	n := float64(c.looks.Add(1))
	emit(Metric{Name: "meshtalk_messages_accepted_total", Help: "h", Kind: Counter, Value: 10 * n, Labels: []Label{{"kind", "private"}}})
	emit(Metric{Name: "meshtalk_connections", Help: "h", Kind: Gauge, Value: 3, Labels: []Label{{"transport", "tcp"}}})
	emit(Metric{Name: "meshtalk_connections", Help: "h", Kind: Gauge, Value: 4, Labels: []Label{{"transport", "websocket"}}})
}

// One look a second for everybody, and none when nobody watches.
func TestLiveIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &counting{}
		c := New(Options{Sources: []Source{source}})
		defer c.Close()
		time.Sleep(time.Minute)
		if n := source.looks.Load(); n != 0 {
			t.Fatalf("%d looks while nobody watched", n)
		}
		const watchers = 20
		streams := make([]chan []byte, watchers)
		for i := range streams {
			_, streams[i] = c.live.watch()
		}
		time.Sleep(5*time.Second + 100*time.Millisecond)
		if n := source.looks.Load(); n != 6 {
			t.Errorf("%d looks in 5 s with %d watchers, want 6", n, watchers)
		}
		for range 6 {
			first := <-streams[0]
			for _, s := range streams[1:] {
				if b := <-s; &b[0] != &first[0] {
					t.Fatal("a frame was made more than once")
				}
			}
		}
		for _, s := range streams {
			c.live.leave(s)
		}
		time.Sleep(liveLinger + 2*time.Second)
		synctest.Wait()
		after := source.looks.Load()
		time.Sleep(time.Hour)
		if n := source.looks.Load(); n != after {
			t.Errorf("%d looks after the last one left", n-after)
		}
		frames, s := c.live.watch() // of an hour ago: of no use any more
		defer c.live.leave(s)
		if len(frames) == 0 {
			t.Error("no history at once")
		}
		time.Sleep(100 * time.Millisecond)
		c.live.mu.Lock()
		defer c.live.mu.Unlock()
		if len(c.live.kept) != 1 {
			t.Errorf("%d frames kept over a gap of an hour, want the new one", len(c.live.kept))
		}
	})
}

func TestLiveIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{Sources: []Source{&counting{}}})
		defer c.Close()
		_, slow := c.live.watch() // never reads
		defer c.live.leave(slow)
		time.Sleep((liveKept + 50) * time.Second)
		frames, s := c.live.watch()
		c.live.leave(s)
		if len(frames) != liveKept || len(slow) != streamLag {
			t.Errorf("%d frames kept, %d wait for a reader that does not read", len(frames), len(slow))
		}
		for range maxStreams {
			if _, s := c.live.watch(); s != nil {
				defer c.live.leave(s)
			}
		}
		if _, s := c.live.watch(); s != nil {
			t.Error("more streams than there may be")
		}
		if a := ask(t, c, "GET", "/console/live"); a.status != 503 {
			t.Errorf("one more console: %d", a.status)
		}
	})
}

// event is one of a stream.
type event struct {
	name string
	data map[string]any
}

// read reads the next event of a stream.
func read(t *testing.T, r *bufio.Reader) (e event) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		switch field, value, _ := strings.Cut(strings.TrimSpace(line), ": "); field {
		case "event":
			e.name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &e.data); err != nil {
				t.Fatalf("%v: %s", err, value)
			}
		case "":
			if e.name != "" {
				return e
			}
		}
	}
}

// client keeps no connection.
func client() *http.Client { return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} }

// open begins a stream on a real server, and ends it with the test.
func open(t *testing.T, url string) *bufio.Reader {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = a.Body.Close()
	})
	if a.StatusCode != 200 || a.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("got %d %v", a.StatusCode, a.Header)
	}
	return bufio.NewReader(a.Body)
}

func TestLiveStream(t *testing.T) {
	c := New(Options{Sources: []Source{&counting{}, panicking{}}, Parts: []Part{{"store", fixed(true, "fine")}}})
	c.live.every = 20 * time.Millisecond
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	t.Cleanup(c.Close) // before the server's, which waits for its streams
	r := open(t, srv.URL+"/console/live")
	if e := read(t, r); e.name != "history" || len(e.data["frames"].([]any)) != 0 {
		t.Fatalf("first comes %v", e)
	}
	first, second := read(t, r), read(t, r)
	if first.name != "frame" || first.data["rates"] != nil || second.data["rates"] == nil {
		t.Errorf("frames %v, %v", first, second)
	}
	connections := second.data["connections"].(map[string]any)
	if connections["tcp"] != 3.0 || connections["websocket"] != 4.0 {
		t.Errorf("connections %v", connections)
	}
	parts := second.data["state"].(map[string]any)["parts"].(map[string]any)
	if parts["store"].(map[string]any)["state"] != "fine" {
		t.Errorf("parts %v", parts)
	}
	late := read(t, open(t, srv.URL+"/console/live"))
	frames := late.data["frames"].([]any)
	if late.name != "history" || len(frames) < 2 {
		t.Fatalf("who comes later gets %v", late)
	}
	if kept := frames[1].(map[string]any); kept["totals"] != nil || kept["rates"] == nil {
		t.Errorf("kept is %v", kept)
	}
}

// Streams end with the console, and who signs out sees no more.
func TestStreamsEnd(t *testing.T) {
	l := NewLogins(secret)
	c := guarded(t, l)
	c.live.every = 10 * time.Millisecond
	srv := httptest.NewServer(c)
	defer srv.Close()
	value := l.add()
	jar := func(r *http.Request) *http.Request {
		r.AddCookie(&http.Cookie{Name: "meshtalk_console_" + srv.URL[strings.LastIndex(srv.URL, ":")+1:], Value: value})
		return r
	}
	r, err := http.NewRequest(http.MethodGet, srv.URL+"/console/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := client().Do(jar(r))
	if err != nil || a.StatusCode != 200 {
		t.Fatalf("%v %v", a, err)
	}
	defer a.Body.Close()
	lines := bufio.NewReader(a.Body)
	read(t, lines)
	out, err := http.NewRequest(http.MethodPost, srv.URL+"/console/logout", nil)
	if err != nil {
		t.Fatal(err)
	}
	out.Header.Set("Origin", srv.URL)
	o, err := client().Do(jar(out))
	if err != nil || o.StatusCode != 200 {
		t.Fatalf("%v %v", o, err)
	}
	_ = o.Body.Close()
	for err == nil { // ends by itself
		_, err = lines.ReadString('\n')
	}
}

func histogramMetric(name string, counts ...uint64) Metric {
	return Metric{Name: name, Help: "h", Kind: Histogram, Bounds: []float64{.001, .01, .1}, Counts: counts}
}

func TestFrame(t *testing.T) {
	labelled := func(name, label, value string, v float64) Metric {
		return Metric{Name: name, Help: "h", Kind: Counter, Value: v, Labels: []Label{{label, value}}}
	}
	at := time.Unix(1000, 0)
	take := func(after time.Duration, metrics ...Metric) *sample {
		o := Options{Sources: []Source{list(metrics)}}
		s := o.look()
		s.at = at.Add(after)
		return s
	}
	before := take(0,
		labelled("meshtalk_logins_total", "result", "ok", 5), labelled("meshtalk_logins_total", "result", "failed", 1),
		labelled("meshtalk_loop_busy_seconds_total", "loop", "1", 1), labelled("meshtalk_loop_busy_seconds_total", "loop", "0", 2),
		labelled("meshtalk_errors_total", "name", "TIMEOUT", 7),
		histogramMetric("meshtalk_commit_seconds", 100, 100, 100, 100), histogramMetric("meshtalk_delivery_seconds", 0, 0, 0, 0))
	now := take(2*time.Second,
		labelled("meshtalk_logins_total", "result", "ok", 25), labelled("meshtalk_logins_total", "result", "failed", 2),
		labelled("meshtalk_loop_busy_seconds_total", "loop", "1", 1.5), labelled("meshtalk_loop_busy_seconds_total", "loop", "0", 9),
		labelled("meshtalk_errors_total", "name", "TIMEOUT", 3), // it cannot: shown as nothing, not as less than nothing
		histogramMetric("meshtalk_commit_seconds", 150, 140, 109, 101), histogramMetric("meshtalk_delivery_seconds", 0, 0, 0, 0))
	f := frameOf(before, now)
	if f.Second != 2 || f.Rates["logins"] != 10 || f.Rates["loginsRefused"] != .5 || f.Rates["errors"] != 0 {
		t.Errorf("rates %v of %v s", f.Rates, f.Second)
	}
	if len(f.Loops.Busy) != 2 || f.Loops.Busy[0] != 1 || f.Loops.Busy[1] != .25 {
		t.Errorf("busy %v", f.Loops.Busy)
	}
	// 50 up to 1 ms, 40 up to 10 ms, 9 up to 100 ms, 1 above.
	if f.Commit == nil || *f.Commit != [3]float64{.001, round(.01 + .09*5/9), .1} {
		t.Errorf("commit %v", f.Commit)
	}
	if f.Delivery != nil || f.Sync != nil {
		t.Errorf("percentiles of nothing: %v %v", f.Delivery, f.Sync)
	}
	if f := frameOf(nil, now); f.Rates != nil || f.Commit != nil {
		t.Errorf("the first frame has rates %v", f.Rates)
	}
	if b, err := json.Marshal(f); err != nil || strings.Contains(string(b), "NaN") {
		t.Errorf("%v %s", err, b)
	}
}
