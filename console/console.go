// Package console is what operators look at: /metrics, /healthz, /readyz, /debug/pprof/ and a small status page.
//
// It imports no other package of the project: what it shows comes through Source and Part, which the wiring fills in.
package console

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options of New.
type Options struct {
	Version string
	Node    string
	Started time.Time

	Sources []Source
	Parts   []Part
	// Draining, when set, tells that the server takes no more connections: it is then not ready.
	Draining func() bool

	// Guard refuses who may not see the metrics, the profiles and the page. /healthz and /readyz are open. nil = all is.
	Guard func(http.Handler) http.Handler
	// Logf gets the errors of scrapes; nil = nowhere.
	Logf func(format string, args ...any)
}

// maxScrapes bounds what several monitors may cost at the same time; more get 503.
const maxScrapes = 4

// New serves the console. The handler is safe for concurrent use and owns nothing that needs closing.
func New(o Options) http.Handler {
	if o.Guard == nil {
		o.Guard = func(h http.Handler) http.Handler { return h }
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	mux := http.NewServeMux()
	const get, head, post = http.MethodGet, http.MethodHead, http.MethodPost
	handle := func(path string, h http.Handler, methods ...string) { mux.Handle(path, only(h, methods...)) }
	guarded := func(path string, h http.Handler, methods ...string) { mux.Handle(path, o.Guard(only(h, methods...))) }

	handle("/healthz", http.HandlerFunc(health), get, head)
	handle("/readyz", o.readiness(), get, head)
	guarded("/metrics", o.metrics(), get, head)
	guarded("/debug/pprof/", http.HandlerFunc(pprof.Index), get, head)
	guarded("/debug/pprof/cmdline", http.HandlerFunc(pprof.Cmdline), get, head)
	guarded("/debug/pprof/profile", http.HandlerFunc(pprof.Profile), get, head)
	guarded("/debug/pprof/symbol", http.HandlerFunc(pprof.Symbol), get, head, post)
	guarded("/debug/pprof/trace", http.HandlerFunc(pprof.Trace), get, head)
	guarded("/{$}", o.page(), get, head)
	mux.Handle("/", o.Guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, 4004, "NOT_FOUND", "no such path")
	})))
	return mux
}

// only refuses other methods. It is not left to the mux, which would not take a profile's path beside that of the list.
func only(h http.Handler, methods ...string) http.Handler {
	allow := strings.Join(methods, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(methods, r.Method) {
			w.Header().Set("Allow", allow)
			refuse(w, http.StatusMethodNotAllowed, 4005, "UNKNOWN_COMMAND", "this path takes "+allow)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// metrics serves the sources and Go's own figures from a registry of their own.
func (o *Options) metrics() http.Handler {
	r := newRegistry(o.Sources)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		Registry:            r, // counts the scrapes that failed
		ErrorLog:            logger(o.Logf),
		ErrorHandling:       promhttp.ContinueOnError, // one bad metric must not hide the others
		MaxRequestsInFlight: maxScrapes,
	})
}

// logger makes a promhttp.Logger of a Logf.
type logger func(format string, args ...any)

func (l logger) Println(v ...any) {
	for _, x := range v {
		l("metrics: %v", x)
	}
}

// refuse answers with an error in the form of the HTTP API.
func refuse(w http.ResponseWriter, status, code int, name, message string) {
	type problem struct {
		Code    int    `json:"code"`
		Name    string `json:"name"`
		Message string `json:"message"`
	}
	writeJSON(w, status, map[string]problem{"error": {code, name, message}})
}

// writeJSON sends v, which always encodes.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	b = append(b, '\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the caller is gone: there is nobody to tell
}
