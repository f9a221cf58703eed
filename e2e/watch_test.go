package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What can be seen of a server from outside: its admin port and its entry in /proc.

// until polls for what no packet tells of. state is what a failure shows.
func until(t *testing.T, what string, f func() (state any, ok bool)) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		state, ok := f()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never: %s; at last: %v", what, state)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// request makes a request of the admin port. The first connection stays open: one opened later may not come in.
func (p *process) request(method, path, body string) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, p.urls["admin"]+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := p.admin.RoundTrip(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// call is request for what must succeed.
func (p *process) call(method, path, body string) []byte {
	p.t.Helper()
	status, answer, err := p.request(method, path, body)
	if err != nil || status != http.StatusOK {
		p.t.Fatalf("%s %s: %d %.300s %v", method, path, status, answer, err)
	}
	return answer
}

// metrics are the server's own, by name with labels as they stand in the text.
func (p *process) metrics() map[string]float64 {
	p.t.Helper()
	values := map[string]float64{}
	for line := range strings.Lines(string(p.call(http.MethodGet, "/metrics", ""))) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(name, "meshtalk_") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			p.t.Fatalf("metric %q: %v", line, err)
		}
		values[name] = v
	}
	return values
}

// connections is what the server counts as open, of both transports.
func (p *process) connections() int {
	p.t.Helper()
	m := p.metrics()
	return int(m[`meshtalk_connections{transport="tcp"}`] + m[`meshtalk_connections{transport="websocket"}`])
}

// unharmed fails if anything panicked.
func (p *process) unharmed() {
	p.t.Helper()
	if n := p.metrics()["meshtalk_panics_total"]; n != 0 {
		p.t.Errorf("%v panics", n)
	}
}

// readiness is the answer of /readyz.
type readiness struct {
	status int
	Parts  map[string]struct {
		OK    bool
		State string
	}
}

func (p *process) readiness() (r readiness) {
	p.t.Helper()
	status, body, err := p.request(http.MethodGet, "/readyz", "")
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err != nil {
		p.t.Fatalf("/readyz: %d %s %v", status, body, err)
	}
	r.status = status
	return r
}

// goroutines is how many there are.
func (p *process) goroutines() (n int) {
	p.t.Helper()
	profile := string(p.call(http.MethodGet, "/debug/pprof/goroutine?debug=1", ""))
	if _, err := fmt.Sscanf(profile, "goroutine profile: total %d", &n); err != nil {
		p.t.Fatalf("goroutine profile %.100q: %v", profile, err)
	}
	return n
}

// descriptors counts the open ones by what they are. The files of the store are not among them: it opens as many as it likes.
func (p *process) descriptors() (total int, kinds map[string]int) {
	p.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		p.t.Fatal(err)
	}
	kinds = map[string]int{}
	for _, e := range list {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || strings.HasPrefix(to, p.dir) {
			continue // closed meanwhile, or the store's
		}
		kind, _, _ := strings.Cut(to, ":")
		kinds[kind]++
		total++
	}
	return total, kinds
}
