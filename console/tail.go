package console

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Event is a connection that ended, or an ERROR that a client got.
type Event struct {
	TS        int64  `json:"ts"` // ms since the Unix epoch
	Closed    bool   `json:"closed"`
	Name      string `json:"name"` // the reason of a close, the name of an error, as metrics have them
	Detail    string `json:"detail"`
	User      string `json:"user"`
	Terminal  string `json:"terminal"`
	Transport string `json:"transport"`
	IP        string `json:"ip"`
}

const (
	tailKept   = 4096                   // events
	tailEvery  = 250 * time.Millisecond // between two looks of a stream at what has come
	tailAtOnce = 200                    // events of one look; of more a reader sees the newest, and how many it missed
	tailLinger = 10 * time.Second       // see liveLinger; a change of the filter is a new stream
)

// tail keeps the newest events while somebody watches. Event loops write, streams read: a writer only takes a place in
// the ring.
type tail struct {
	observe func(func(Event))
	linger  time.Duration
	quit    chan struct{}
	done    sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	on       bool          // events are taken
	ended    chan struct{} // closed when the run before has stopped observing
	watchers int
	alone    time.Time // since when nobody watches
	ring     []Event   // event n stands at n % tailKept
	count    uint64
}

func newTail(observe func(func(Event))) *tail {
	t := &tail{observe: observe, linger: tailLinger, quit: make(chan struct{}), ended: make(chan struct{})}
	close(t.ended)
	return t
}

// add takes an event. It runs on event loops.
func (t *tail) add(e Event) {
	t.mu.Lock()
	if t.on {
		t.ring[t.count%tailKept] = e
		t.count++
	}
	t.mu.Unlock()
}

// watch begins to observe, if nobody did. ok is false when too many watch, or the server ends.
func (t *tail) watch() (ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.watchers >= maxStreams {
		return false
	}
	t.watchers++
	if !t.on {
		before := t.ended
		t.on, t.ring, t.ended = true, make([]Event, tailKept), make(chan struct{})
		t.done.Add(1)
		go t.run(before, t.ended)
	}
	return true
}

func (t *tail) leave() {
	t.mu.Lock()
	t.watchers--
	t.alone = time.Now()
	t.mu.Unlock()
}

// run observes until nobody has watched for a while. What was kept goes then: it would have a gap.
func (t *tail) run(before <-chan struct{}, ended chan<- struct{}) {
	defer t.done.Done()
	defer close(ended)
	<-before
	t.observe(t.add)
	defer t.observe(nil)
	ticker := time.NewTicker(tailEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-t.quit:
			return
		}
		t.mu.Lock()
		if t.watchers == 0 && time.Since(t.alone) > t.linger {
			t.on, t.ring, t.count = false, nil, 0
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
	}
}

func (t *tail) close() {
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	t.mu.Unlock()
	if first {
		close(t.quit)
	}
	t.done.Wait()
}

// since gives the events from number from on that f lets through, the newest tailAtOnce of them, and the number to go on
// from. missed are those that were overwritten before they could be read, or were too many.
func (t *tail) since(from uint64, f *tailFilter) (events []Event, next, missed uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if oldest := max(t.count, tailKept) - tailKept; from < oldest {
		missed, from = oldest-from, oldest
	}
	for ; from < t.count; from++ {
		if e := &t.ring[from%tailKept]; f.lets(e) {
			events = append(events, *e)
		}
	}
	if n := len(events) - tailAtOnce; n > 0 {
		missed += uint64(n)
		events = events[n:]
	}
	return events, t.count, missed
}

// tailFilter is what a watcher wants to see; zero fields want everything.
type tailFilter struct {
	kind  string   // "close" or "error"
	names []string // of reasons and errors
	text  string   // in lower case: somewhere in who and what
}

func filterOf(r *http.Request) *tailFilter {
	q := r.URL.Query()
	f := &tailFilter{kind: q.Get("kind"), text: strings.ToLower(strings.TrimSpace(q.Get("text")))}
	if names := q.Get("names"); names != "" {
		f.names = strings.Split(names, ",")
	}
	return f
}

func (f *tailFilter) lets(e *Event) bool {
	if f.kind == "close" && !e.Closed || f.kind == "error" && e.Closed {
		return false
	}
	if len(f.names) > 0 && !slices.Contains(f.names, e.Name) {
		return false
	}
	if f.text == "" {
		return true
	}
	for _, s := range [...]string{e.User, e.Terminal, e.IP, e.Name, e.Detail, e.Transport} {
		if strings.Contains(strings.ToLower(s), f.text) {
			return true
		}
	}
	return false
}

// serveTail is the stream of events.
func (c *Console) serveTail(w http.ResponseWriter, r *http.Request) {
	if !c.tail.watch() {
		refuse(w, http.StatusServiceUnavailable, 5003, "UNAVAILABLE", "too many consoles are open")
		return
	}
	defer c.tail.leave()
	s, ok := startStream(w)
	if !ok {
		return
	}
	filter := filterOf(r)
	ticker := time.NewTicker(tailEvery)
	defer ticker.Stop()
	said, from := time.Time{}, uint64(0)
	for {
		events, next, missed := c.tail.since(from, filter)
		from = next
		if len(events) > 0 || missed > 0 || time.Since(said) > streamAlive {
			if !c.mayStay(r) || !s.send("events", map[string]any{"events": append([]Event{}, events...), "missed": missed}) {
				return
			}
			said = time.Now()
		}
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		case <-c.tail.quit:
			return
		}
	}
}
