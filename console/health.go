package console

import "net/http"

// Part is something that the server cannot do without: the store, a listener, the queue.
type Part struct {
	Name string // unique
	// Check tells whether the part works and what it is doing, in words for an operator. It is called at every
	// /readyz and every view of the page, at the same time from several goroutines, and returns at once.
	Check func() (ok bool, state string)
}

// partState is a part as /readyz shows it.
type partState struct {
	OK    bool   `json:"ok"`
	State string `json:"state"`
}

// readiness is the body of /readyz.
type readiness struct {
	Ready    bool                 `json:"ready"`
	Draining bool                 `json:"draining"`
	Parts    map[string]partState `json:"parts"`
}

// health says that the process answers; whether it is of use is /readyz.
func health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]bool{"ok": true})
}

// check asks every part. The server is ready when all of them work and it does not drain.
func (o *Options) check() readiness {
	r := readiness{Ready: true, Parts: make(map[string]partState, len(o.Parts))}
	for _, p := range o.Parts {
		ok, state := p.Check()
		r.Parts[p.Name] = partState{ok, state}
		r.Ready = r.Ready && ok
	}
	if o.Draining != nil && o.Draining() {
		r.Ready, r.Draining = false, true
	}
	return r
}

func (o *Options) readiness() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		r := o.check()
		status := http.StatusOK
		if !r.Ready {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, r)
	})
}
