package console

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is a Source made of a list.
type list []Metric

func (l list) Metrics(emit func(Metric)) {
	for _, m := range l {
		emit(m)
	}
}

// answer is what a GET, or another method, gets.
type answer struct {
	status int
	header http.Header
	body   string
}

// consoleOf is a console that ends with the test.
func consoleOf(t *testing.T, o Options) *Console {
	c := New(o)
	t.Cleanup(c.Close)
	return c
}

func ask(t *testing.T, h http.Handler, method, path string) answer {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "http://127.0.0.1:8090"+path, nil))
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{w.Code, w.Result().Header, string(b)}
}

func fixed(ok bool, state string) func() (bool, string) {
	return func() (bool, string) { return ok, state }
}

func TestReadyz(t *testing.T) {
	fine := Part{"store", fixed(true, "1,024 messages")}
	broken := Part{"queue", fixed(false, "no <broker>")}
	for name, c := range map[string]struct {
		parts    []Part
		draining bool
		status   int
		body     string
	}{
		"nothing to ask": {nil, false, 200, `{"ready":true,"draining":false,"parts":{}}`},
		"all fine":       {[]Part{fine}, false, 200, `{"ready":true,"draining":false,"parts":{"store":{"ok":true,"state":"1,024 messages"}}}`},
		"one broken": {[]Part{fine, broken}, false, 503, `{"ready":false,"draining":false,"parts":{
			"store":{"ok":true,"state":"1,024 messages"},"queue":{"ok":false,"state":"no <broker>"}}}`},
		"draining": {[]Part{fine}, true, 503, `{"ready":false,"draining":true,"parts":{"store":{"ok":true,"state":"1,024 messages"}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			h := New(Options{Parts: c.parts, Draining: func() bool { return c.draining }})
			a := ask(t, h, "GET", "/readyz")
			if a.status != c.status || !sameJSON(t, a.body, c.body) {
				t.Errorf("got %d %s, want %d %s", a.status, a.body, c.status, c.body)
			}
			if got := a.header.Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type %q", got)
			}
		})
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Fatalf("%v: %s", err, a)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return reflect.DeepEqual(x, y)
}

func TestHealthzAnswersWhileNotReady(t *testing.T) {
	h := New(Options{Parts: []Part{{"store", fixed(false, "gone")}}})
	if a := ask(t, h, "GET", "/healthz"); a.status != 200 || a.body != "{\"ok\":true}\n" {
		t.Errorf("got %d %q", a.status, a.body)
	}
}

// Everything but health and readiness asks the guard, unknown paths and wrong methods too.
func TestGuard(t *testing.T) {
	var asked atomic.Int64
	h := New(Options{Guard: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
		})
	}})
	for path, guarded := range map[string]bool{
		"/": true, "/metrics": true, "/nothing": true,
		"/console/live": true, "/console/tail": true, "/console/settings": true, "/console/session": true,
		"/console/app.js": false, "/console/nothing": false,
		"/debug/pprof/": true, "/debug/pprof/heap": true, "/debug/pprof/cmdline": true,
		"/debug/pprof/profile": true, "/debug/pprof/symbol": true, "/debug/pprof/trace": true,
		"/healthz": false, "/readyz": false,
	} {
		before := asked.Load()
		a := ask(t, h, "GET", path)
		if got := asked.Load() > before; got != guarded || guarded != (a.status == http.StatusUnauthorized) {
			t.Errorf("%s: guarded %v, status %d; want guarded %v", path, got, a.status, guarded)
		}
	}
}

func TestRefusals(t *testing.T) {
	h := New(Options{})
	for _, c := range []struct {
		method, path string
		status       int
		allow, body  string
	}{
		{"GET", "/nothing", 404, "", `{"error":{"code":4004,"name":"NOT_FOUND","message":"no such path"}}`},
		{"GET", "/index.html", 404, "", `{"error":{"code":4004,"name":"NOT_FOUND","message":"no such path"}}`},
		{"POST", "/metrics", 405, "GET, HEAD", `{"error":{"code":4005,"name":"UNKNOWN_COMMAND","message":"this path takes GET, HEAD"}}`},
		{"DELETE", "/", 405, "GET, HEAD", `{"error":{"code":4005,"name":"UNKNOWN_COMMAND","message":"this path takes GET, HEAD"}}`},
		{"PUT", "/readyz", 405, "GET, HEAD", `{"error":{"code":4005,"name":"UNKNOWN_COMMAND","message":"this path takes GET, HEAD"}}`},
	} {
		a := ask(t, h, c.method, c.path)
		if a.status != c.status || a.header.Get("Allow") != c.allow || !sameJSON(t, a.body, c.body) {
			t.Errorf("%s %s: %d %q %s", c.method, c.path, a.status, a.header.Get("Allow"), a.body)
		}
	}
}

func TestProfiles(t *testing.T) {
	h := New(Options{})
	for path, want := range map[string]string{
		"/debug/pprof/":                  "goroutine",
		"/debug/pprof/goroutine?debug=1": "goroutine profile:",
		"/debug/pprof/cmdline":           "console.test",
		"/debug/pprof/symbol":            "num_symbols",
	} {
		if a := ask(t, h, "GET", path); a.status != 200 || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d, %q is not in it", path, a.status, want)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	h := New(Options{Sources: []Source{everything()}, Parts: []Part{{"store", fixed(true, "")}}})
	var wg sync.WaitGroup
	for _, path := range []string{"/metrics", "/readyz", "/", "/healthz"} {
		for range maxScrapes {
			wg.Go(func() {
				for range 20 {
					if a := ask(t, h, "GET", path); a.status != 200 {
						t.Errorf("%s: %d", path, a.status)
					}
				}
			})
		}
	}
	wg.Wait()
}
