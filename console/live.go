package console

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

const (
	liveEvery  = time.Second
	liveKept   = 600              // frames for who comes later: ten minutes
	liveLinger = 10 * time.Second // looking goes on for so long after the last watcher has left, who may just be reloading
	maxStreams = 64               // of each kind; more get 503
	streamLag  = 8                // frames that may wait for a slow reader, who then misses some

	writeTimeout = 10 * time.Second // of one event of a stream
	streamAlive  = 15 * time.Second // a stream with nothing to say says so, for proxies
)

// live looks at the sources once a second while somebody watches, however many, and hands everybody the same bytes.
type live struct {
	// Static after construction.
	look  func(before *sample) (*sample, *frame)
	every time.Duration
	quit  chan struct{}
	done  sync.WaitGroup

	mu       sync.Mutex
	watchers map[chan []byte]struct{}
	running  bool
	closed   bool
	alone    time.Time // since when nobody watches
	last     *sample
	full     []byte            // its frame
	kept     []json.RawMessage // frames without what is not kept
}

func newLive(look func(before *sample) (*sample, *frame)) *live {
	return &live{look: look, every: liveEvery, quit: make(chan struct{}), watchers: map[chan []byte]struct{}{}}
}

// look is one sample and its frame, with what only the live ones have.
func (c *Console) look(before *sample) (*sample, *frame) {
	now := c.o.look()
	f := frameOf(before, now)
	f.Totals = now.totals()
	state := c.o.check()
	f.State = &state
	return now, f
}

// watch gives the frames so far and a channel of those to come, the newest among them; frames nil = too many watch, or the server ends.
func (l *live) watch() (frames []json.RawMessage, next chan []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.watchers) >= maxStreams {
		return nil, nil
	}
	next = make(chan []byte, streamLag)
	l.watchers[next] = struct{}{}
	if l.last != nil && time.Since(l.last.at) < 2*l.every {
		next <- l.full // with what the frames so far lack
	}
	if !l.running {
		l.running = true
		l.done.Add(1)
		go l.run()
	}
	return append([]json.RawMessage{}, l.kept...), next
}

func (l *live) leave(next chan []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.watchers, next)
	l.alone = time.Now()
}

// run looks until nobody has watched for a while.
func (l *live) run() {
	defer l.done.Done()
	l.mu.Lock()
	if l.last != nil && time.Since(l.last.at) > liveKept*liveEvery {
		l.last, l.kept = nil, nil // too old to be one picture with what comes
	}
	last := l.last
	l.mu.Unlock()
	t := time.NewTicker(l.every)
	defer t.Stop()
	for {
		if last == nil || time.Since(last.at) >= l.every/2 {
			var f *frame
			last, f = l.look(last)
			if !l.publish(last, f) {
				return
			}
		}
		select {
		case <-t.C:
		case <-l.quit:
			return
		}
	}
}

// publish keeps a frame and sends it. more is false when nobody has watched for a while.
func (l *live) publish(s *sample, f *frame) (more bool) {
	full, err := json.Marshal(f)
	if err != nil {
		return true // a map of numbers always encodes
	}
	kept := *f
	kept.Totals, kept.State = nil, nil
	short, _ := json.Marshal(&kept)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last, l.full = s, full
	if len(l.kept) >= liveKept {
		l.kept = append(l.kept[:0], l.kept[1:]...)
	}
	l.kept = append(l.kept, short)
	for next := range l.watchers {
		select {
		case next <- full:
		default: // it misses this one
		}
	}
	if len(l.watchers) == 0 && time.Since(l.alone) > liveLinger {
		l.running = false
	}
	return l.running
}

func (l *live) close() {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if first {
		close(l.quit)
	}
	l.done.Wait()
}

// serveLive is the stream of frames: first "history" with those of the last minutes, then "frame" each second.
func (c *Console) serveLive(w http.ResponseWriter, r *http.Request) {
	frames, next := c.live.watch()
	if next == nil {
		refuse(w, http.StatusServiceUnavailable, 5003, "UNAVAILABLE", "too many consoles are open")
		return
	}
	defer c.live.leave(next)
	s, ok := startStream(w)
	if !ok || !s.send("history", map[string]any{"frames": frames}) {
		return
	}
	for {
		select {
		case b := <-next:
			if !c.mayStay(r) || !s.sendBytes("frame", b) {
				return
			}
		case <-r.Context().Done():
			return
		case <-c.live.quit:
			return
		}
	}
}

// stream writes server-sent events.
type stream struct {
	w http.ResponseWriter
	c *http.ResponseController
}

// startStream answers with the head of a stream; ok is false when this connection cannot carry one.
func startStream(w http.ResponseWriter) (s stream, ok bool) {
	s = stream{w, http.NewResponseController(w)}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // a proxy is to pass it on as it comes
	w.WriteHeader(http.StatusOK)
	return s, s.write([]byte("retry: 1000\n\n"))
}

func (s stream) send(event string, v any) bool {
	b, err := json.Marshal(v)
	return err == nil && s.sendBytes(event, b)
}

// sendBytes sends one line of JSON as an event; false = the reader is gone or does not read.
func (s stream) sendBytes(event string, line []byte) bool {
	b := make([]byte, 0, len(line)+len(event)+16)
	b = append(append(append(b, "event: "...), event...), "\ndata: "...)
	return s.write(append(append(b, line...), "\n\n"...))
}

func (s stream) write(b []byte) bool {
	_ = s.c.SetWriteDeadline(time.Now().Add(writeTimeout)) // a recorder in a test has none
	if _, err := s.w.Write(b); err != nil {
		return false
	}
	return s.c.Flush() == nil
}
