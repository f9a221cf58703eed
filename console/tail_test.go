package console

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// observed is an Options.Observe that remembers who is told.
type observed struct {
	f       atomic.Pointer[func(Event)]
	changes atomic.Int64
}

func (o *observed) observe(f func(Event)) {
	o.changes.Add(1)
	if f == nil {
		o.f.Store(nil)
		return
	}
	o.f.Store(&f)
}

func (o *observed) tell(e Event) {
	if f := o.f.Load(); f != nil {
		(*f)(e)
	}
}

// Nobody is told of events while nobody watches, and a change of the filter (a new stream) loses none.
func TestTailObservesOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &observed{}
		c := New(Options{Observe: o.observe})
		defer c.Close()
		synctest.Wait()
		if o.changes.Load() != 0 {
			t.Fatal("observed before anybody watched")
		}
		if !c.tail.watch() {
			t.Fatal("nobody may watch")
		}
		synctest.Wait()
		o.tell(Event{Name: "kicked"})
		c.tail.leave()
		time.Sleep(tailLinger / 2)
		if !c.tail.watch() {
			t.Fatal("nobody may watch")
		}
		if events, _, _ := c.tail.since(0, &tailFilter{}); len(events) != 1 {
			t.Errorf("%d events are left after a change of the stream", len(events))
		}
		c.tail.leave()
		time.Sleep(tailLinger + time.Second)
		synctest.Wait()
		if o.f.Load() != nil {
			t.Error("observed after the last one left")
		}
		c.tail.watch()
		synctest.Wait()
		if o.f.Load() == nil {
			t.Error("not observed by who came back")
		}
		if events, _, _ := c.tail.since(0, &tailFilter{}); len(events) != 0 {
			t.Errorf("%d events from before a gap", len(events))
		}
		c.tail.leave()
	})
}

func TestTailIsBounded(t *testing.T) {
	o := &observed{}
	c := consoleOf(t, Options{Observe: o.observe})
	if !c.tail.watch() {
		t.Fatal("nobody may watch")
	}
	defer c.tail.leave()
	until(t, func() bool { return o.f.Load() != nil })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range tailKept {
				o.tell(Event{Name: "peer", Closed: true, User: fmt.Sprint(i)})
			}
		})
	}
	wg.Wait()
	events, next, missed := c.tail.since(0, &tailFilter{})
	if len(events) != tailAtOnce || next != 4*tailKept || missed != 4*tailKept-tailAtOnce {
		t.Errorf("%d events up to %d, %d missed", len(events), next, missed)
	}
	if events, _, missed := c.tail.since(next, &tailFilter{}); len(events) != 0 || missed != 0 {
		t.Errorf("%d again, %d missed", len(events), missed)
	}
	last := fmt.Sprint(tailKept - 1)
	if events, _, _ := c.tail.since(0, &tailFilter{text: last}); len(events) == 0 || events[0].User != last {
		t.Errorf("a filter looks at what is kept, not at what would be shown without it: %v", events)
	}
}

func until(t *testing.T, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to this")
		}
	}
}

func TestTailFilter(t *testing.T) {
	kicked := Event{Closed: true, Name: "kicked", Detail: "House Rules", User: "Alice", IP: "10.1.2.3", Transport: "tcp"}
	limited := Event{Name: "RATE_LIMITED", User: "bob", Terminal: "ios", Transport: "websocket"}
	for query, want := range map[string][2]bool{
		"":                                 {true, true},
		"?kind=close":                      {true, false},
		"?kind=error":                      {false, true},
		"?names=kicked":                    {true, false},
		"?names=kicked,RATE_LIMITED":       {true, true},
		"?names=KICKED":                    {false, false},
		"?text=alice":                      {true, false},
		"?text=%20house+":                  {true, false},
		"?text=10.1.2":                     {true, false},
		"?text=IOS":                        {false, true},
		"?text=rate_":                      {false, true},
		"?text=websocket":                  {false, true},
		"?kind=close&names=kicked&text=xx": {false, false},
	} {
		f := filterOf(httptest.NewRequest(http.MethodGet, "/console/tail"+query, nil))
		if got := [2]bool{f.lets(&kicked), f.lets(&limited)}; got != want {
			t.Errorf("%q: %v, want %v", query, got, want)
		}
	}
}

func TestTailStream(t *testing.T) {
	o := &observed{}
	c := New(Options{Observe: o.observe})
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	t.Cleanup(c.Close)
	r := open(t, srv.URL+"/console/tail?kind=error")
	if e := read(t, r); e.name != "events" || len(e.data["events"].([]any)) != 0 {
		t.Fatalf("at first %v", e)
	}
	until(t, func() bool { return o.f.Load() != nil })
	o.tell(Event{Name: "peer", Closed: true})
	o.tell(Event{Name: "FORBIDDEN", Detail: "<b>not</b> a member", User: "</script>", TS: 5})
	e := read(t, r)
	events := e.data["events"].([]any)
	if len(events) != 1 || e.data["missed"] != 0.0 {
		t.Fatalf("got %v", e)
	}
	got := events[0].(map[string]any)
	if got["name"] != "FORBIDDEN" || got["detail"] != "<b>not</b> a member" || got["user"] != "</script>" || got["closed"] != false || got["ts"] != 5.0 {
		t.Errorf("got %v", got)
	}
}
