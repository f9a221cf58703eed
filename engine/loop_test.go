package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

func TestPostOrder(t *testing.T) {
	s := start(t, &script{}, nil)
	l := s.Loops()[0]
	const posters, each = 4, 10_000
	var next [posters]int
	var bad atomic.Int64
	started, release := make(chan struct{}), make(chan struct{})
	l.Post(opFunc(func(*Loop) { close(started); <-release })) // so that all of it piles up behind
	<-started
	var wg sync.WaitGroup
	for p := range posters {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				l.Post(opFunc(func(*Loop) {
					if next[p] != i {
						bad.Add(1)
					}
					next[p]++
				}))
			}
		}()
	}
	wg.Wait()
	if n := l.Backlog(); n != posters*each {
		t.Errorf("backlog %d", n)
	}
	close(release)
	on(t, l, func() {})
	if bad.Load() != 0 || next != [posters]int{each, each, each, each} {
		t.Errorf("%d out of order, ran %v", bad.Load(), next)
	}
	if n := l.Backlog(); n != 0 {
		t.Errorf("backlog %d after all", n)
	}
}

// TestPostOnLoop posts from an operation: never inline, and endless work does not keep sockets waiting.
func TestPostOnLoop(t *testing.T) {
	s := start(t, &script{}, func(o *Options) { o.Loops = 1 })
	l := s.Loops()[0]
	var stop atomic.Bool
	inside, runs := false, 0
	var again opFunc
	again = func(l *Loop) {
		if inside {
			t.Error("ran inside a Post")
		}
		runs++
		inside = true
		if !stop.Load() {
			l.Post(again)
		}
		inside = false
	}
	l.Post(again)
	c := dialTCP(t, s.tcp)
	for range 10 {
		c.send("still there?")
		c.expect(codec.OpText, "still there?")
	}
	stop.Store(true)
	on(t, l, func() {
		if runs < 10 {
			t.Errorf("%d runs", runs)
		}
	})
}

func TestPanicInOp(t *testing.T) {
	s := start(t, &script{}, nil)
	l := s.Loops()[1]
	for range 3 {
		l.Post(opFunc(func(*Loop) { panic("out of order") }))
	}
	ran := false
	on(t, l, func() { ran = true })
	if n := s.Stats().Panics; n != 3 || !ran {
		t.Errorf("%d panics, later operation ran: %v", n, ran)
	}
	if s.log.count("out of order") != 3 || s.log.count("loop_test.go") == 0 {
		t.Errorf("log without the panic or its stack: %q", s.log.lines)
	}
}

// TestStop: what was posted before the end runs, what comes after is refused, and everyone hears of the end.
func TestStop(t *testing.T) {
	var closed atomic.Int64
	s := start(t, &script{closed: func(_ *Conn, why Reason) {
		if why != ReasonShutdown {
			t.Errorf("closed for %v", why)
		}
		closed.Add(1)
	}}, nil)
	tcp, ws := dialTCP(t, s.tcp), dialWS(t, s.ws)
	half := dialTCP(t, s.ws) // never upgrades
	for _, c := range []*client{tcp, ws} {
		c.send("up")
		c.expect(codec.OpText, "up")
	}
	eventually(t, "third connection", func() bool { return s.Stats().Connections[1] == 2 })
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(context.Background()) }()
	tcp.expectEnd()
	ws.expectClose(1001)
	half.expectEnd()
	for _, c := range []*client{tcp, ws} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if closed.Load() != 2 {
		t.Errorf("Closed %d times", closed.Load())
	}
	if s.Loops()[0].Post(opFunc(func(*Loop) { t.Error("ran after the end") })) {
		t.Error("Post after the end was taken")
	}
	if _, err := s.Listen(codec.TCP, "127.0.0.1:0"); err == nil {
		t.Error("Listen after the end worked")
	}
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if n := s.Stats().Connections; n != [2]int64{} {
		t.Errorf("%v connections", n)
	}
}

// TestStopHurry: a peer that does not end its side does not hold up a Stop whose context ends.
func TestStopHurry(t *testing.T) {
	s := start(t, &script{}, func(o *Options) { o.CloseTimeout = time.Hour })
	c := dialWS(t, s.ws)
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(ctx) }()
	c.expectClose(1001) // and no answer
	cancel()
	if err := <-stopped; err != nil && !errors.Is(err, context.Canceled) { // the end may come first
		t.Errorf("Stop: %v", err)
	}
	c.expectEnd()
}

func TestStopNeverStarted(t *testing.T) {
	o := DefaultOptions()
	o.Handler = &script{}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if err := e.Start(); err == nil {
		t.Error("started after Stop")
	}
}

func TestOptions(t *testing.T) {
	for name, change := range map[string]func(o *Options){
		"no handler":       func(o *Options) { o.Handler = nil },
		"too many loops":   func(o *Options) { o.Loops = 257 },
		"negative limit":   func(o *Options) { o.HardLimit = -1 },
		"negative timeout": func(o *Options) { o.CloseTimeout = -1 },
	} {
		o := DefaultOptions()
		o.Handler = &script{}
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	e, err := New(Options{Handler: &script{}})
	if err != nil {
		t.Fatal(err)
	}
	if e.o.MaxFrame != 65535 || e.o.Loops < 1 || e.o.MaxConnections < 1 || e.o.CloseTimeout != 2*time.Second {
		t.Errorf("defaults: %+v", e.o)
	}
}

func TestReserve(t *testing.T) {
	for limit, want := range map[int]int{64: 16, 256: 64, 1024: 256, 20_000: 512, 1_000_000: 512} {
		if got := reserve(limit); got != want {
			t.Errorf("reserve(%d) = %d, want %d", limit, got, want)
		}
	}
}
