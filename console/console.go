// Package console is what operators look at: /metrics, /healthz, /readyz, /debug/pprof/, and the live console at /.
//
// It imports no other package of the project: what it shows comes through Source, Part and the functions of Options, which the
// wiring fills in. Reading order: sample.go (what one look finds), live.go (one look a second for everybody who watches),
// tail.go (closes and errors as they happen), login.go and assets.go (who may see it, and the page).
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
	// Settings, when set, are the effective configuration. Safe for concurrent use.
	Settings func() []Setting
	// Observe, when set, makes f hear of every close and error until it is called with nil. See Event.
	Observe func(f func(Event))

	// Guard refuses who may not see the metrics, the profiles and the figures. /healthz and /readyz are open. nil = all is.
	Guard func(http.Handler) http.Handler
	// Logins are who has signed in; Guard asks them. nil = nobody has to.
	Logins *Logins
	// Logf gets the errors of scrapes; nil = nowhere.
	Logf func(format string, args ...any)
}

// Setting is one key of the configuration.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
	Help   string `json:"help"`
	Secret bool   `json:"secret,omitempty"` // the value is masked
}

// maxScrapes bounds what several monitors may cost at the same time; more get 503.
const maxScrapes = 4

// Console is the handler of New.
type Console struct {
	o    Options
	mux  *http.ServeMux
	live *live
	tail *tail
}

// New makes the console. The handler is safe for concurrent use. Close ends its streams.
func New(o Options) *Console {
	if o.Guard == nil {
		o.Guard = func(h http.Handler) http.Handler { return h }
	}
	if o.Logins == nil {
		o.Logins = NewLogins("")
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.Observe == nil {
		o.Observe = func(func(Event)) {}
	}
	c := &Console{o: o, mux: http.NewServeMux()}
	c.live = newLive(c.look)
	c.tail = newTail(o.Observe)
	c.route()
	return c
}

// Close ends all streams and waits for what runs beside them. It is called once.
func (c *Console) Close() {
	c.live.close()
	c.tail.close()
}

// ServeHTTP implements http.Handler.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.mux.ServeHTTP(w, r) }

func (c *Console) route() {
	const get, head, post = http.MethodGet, http.MethodHead, http.MethodPost
	handle := func(path string, h http.Handler, methods ...string) { c.mux.Handle(path, only(h, methods...)) }
	guarded := func(path string, h http.Handler, methods ...string) {
		c.mux.Handle(path, c.o.Guard(only(h, methods...)))
	}

	handle("/healthz", http.HandlerFunc(health), get, head)
	handle("/readyz", c.o.readiness(), get, head)
	guarded("/metrics", c.o.metrics(), get, head)
	guarded("/debug/pprof/", http.HandlerFunc(pprof.Index), get, head)
	guarded("/debug/pprof/cmdline", http.HandlerFunc(pprof.Cmdline), get, head)
	guarded("/debug/pprof/profile", http.HandlerFunc(pprof.Profile), get, head)
	guarded("/debug/pprof/symbol", http.HandlerFunc(pprof.Symbol), get, head, post)
	guarded("/debug/pprof/trace", http.HandlerFunc(pprof.Trace), get, head)

	handle("/{$}", http.HandlerFunc(c.page), get, head)
	handle("/console/{file...}", http.HandlerFunc(c.file), get, head)
	handle("/console/login", http.HandlerFunc(c.o.Logins.signIn), post)
	handle("/console/logout", http.HandlerFunc(c.o.Logins.signOut), post)
	guarded("/console/session", http.HandlerFunc(c.session), get)
	guarded("/console/settings", http.HandlerFunc(c.settings), get)
	guarded("/console/live", http.HandlerFunc(c.serveLive), get)
	guarded("/console/tail", http.HandlerFunc(c.serveTail), get)

	c.mux.Handle("/", c.o.Guard(http.HandlerFunc(notFound)))
}

// session tells the page whose console it is.
func (c *Console) session(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"node": c.o.Node, "version": c.o.Version, "started": c.o.Started.UnixMilli(), "signOut": c.o.Logins.needed,
	})
}

func (c *Console) settings(w http.ResponseWriter, _ *http.Request) {
	list := []Setting{}
	if c.o.Settings != nil {
		list = append(list, c.o.Settings()...)
	}
	writeJSON(w, http.StatusOK, map[string]any{"settings": list})
}

// mayStay reports whether the stream of r goes on: who has signed out sees no more.
func (c *Console) mayStay(r *http.Request) bool {
	return !c.o.Logins.needed || r.Header.Get("Authorization") != "" || c.o.Logins.SignedIn(r)
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	refuse(w, http.StatusNotFound, 4004, "NOT_FOUND", "no such path")
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
