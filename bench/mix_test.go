package bench

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const testDay = `
users: 24
members: 4
steps:
  - name: night
    for: 100ms
    online: 6
    private: 200
    group: 20
    typing: 20
    history: 40
    reconnects: 20
  - name: morning
    ramp: 200ms
    for: 100ms
    online: 24
    private: 400
`

func TestParseMix(t *testing.T) {
	o, err := ParseMix([]byte(testDay))
	if err != nil {
		t.Fatal(err)
	}
	if o.Users != 24 || o.Members != 4 || o.Size != 64 || len(o.Steps) != 2 || o.length() != 400*time.Millisecond {
		t.Fatalf("got %+v", o)
	}
	for _, tc := range []struct {
		at              time.Duration
		step            int
		online, private float64
		group           float64
	}{{-time.Second, 0, 6, 200, 20}, {0, 0, 6, 200, 20}, {100 * time.Millisecond, 1, 6, 200, 20}, {200 * time.Millisecond, 1, 15, 300, 20},
		{350 * time.Millisecond, 1, 24, 400, 20}, {time.Hour, 1, 24, 400, 20}} {
		if step, l := o.at(tc.at); step != tc.step || l.Online != tc.online || l.Private != tc.private || l.Group != tc.group {
			t.Errorf("at %s: step %d, %+v, want %+v", tc.at, step, l, tc)
		}
	}
	for _, bad := range []string{
		"", "users: 10", "users: [", "user: 10",
		"users: 10\nmembers: 4\nsteps: [{for: 1s}]",
		"users: 9\nmembers: 3\nsteps: [{for: 1s}]",
		"users: 8\nmembers: 4\nsteps: [{for: 1s, online: 9}]",
		"users: 8\nmembers: 4\nsteps: [{for: 1s, private: -1}]",
		"users: 8\nmembers: 4\nsteps: [{online: 8}]",
		"users: 8\nmembers: 4\nsteps: [{for: 1s, lunch: 8}]",
		"users: 8\nmembers: 4\nsize: 3\nsteps: [{for: 1s}]",
	} {
		if o, err := ParseMix([]byte(bad)); err == nil {
			t.Errorf("%q gave %+v", bad, o)
		}
	}
}

// TestExampleMix keeps the example in order.
func TestExampleMix(t *testing.T) {
	o, err := ReadMix("../examples/mix.yaml")
	if err != nil || len(o.Steps) < 4 || o.length() > 5*time.Minute {
		t.Errorf("%+v, %v", o, err)
	}
}

// However seldom the loop looks, an open loop of a changing rate has as many events as the rate's integral, in order, and none
// before its time.
func TestPropertyStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low, high := rapid.Float64Range(0, 5000).Draw(t, "low"), rapid.Float64Range(0, 5000).Draw(t, "high")
		const begin, ramp = int64(5e9), int64(2e9)
		s := stream{rate: func(t int64) float64 { return low + (high-low)*float64(t-begin)/float64(ramp) }}
		n, last := 0, begin
		for now := begin; now < begin+ramp; {
			now = min(now+rapid.Int64Range(1, 3e8).Draw(t, "nap"), begin+ramp)
			s.due(begin, now, func(at int64) {
				if at < last || at > now {
					t.Fatalf("an event of %d after one of %d, now %d", at, last, now)
				}
				n, last = n+1, at
			})
		}
		if want := (low + high) / 2 * 2; float64(n) < want-2 || float64(n) > want+2 {
			t.Errorf("%d events, want %.1f", n, want)
		}
	})
}

// mustMix is the scene of one group of four on a loop without sockets, all online. Users 0 and 1 are partners, 0 sends to
// the group.
func mustMix(t *testing.T) (*loop, *mixScene) {
	t.Helper()
	l := mustLoop(t, 4)
	o := &MixOptions{Users: 4, Members: 4, Size: 64, Steps: []MixStep{{For: time.Hour, Levels: Levels{Online: 4}}}}
	s := newMixScene(l, o)
	l.scene, l.lives, l.now, s.online = s, 4, 1000, 4
	return l, s
}

func TestMixFindsEveryBrokenPromise(t *testing.T) {
	private := func(to int, inbox uint64, number uint32) func(l *loop) { // from user 0
		return func(l *loop) { l.packet(&l.conns[to], pushOfFlow(l, inbox, inbox, 0, number)) }
	}
	acked := func(l *loop) { l.packet(&l.conns[0], ackOf(l, 1)) }
	history := func(seqs string) func(l *loop) {
		return func(l *loop) {
			l.packet(&l.conns[0], []byte(`{"cmd":9,"id":"3e8","data":{"conv":"p:a:b","messages":[`+seqs+`],"more":false}}`))
		}
	}
	read := history(`{"seq":3},{"seq":2}`)
	for name, tc := range map[string]struct {
		packets []func(l *loop)
		want    string
	}{
		"all is well":         {[]func(*loop){acked, private(0, 1, 1), private(1, 1, 1), read}, ""},
		"lost at the partner": {[]func(*loop){acked, private(0, 1, 1), read}, "missing"},
		"lost own copy":       {[]func(*loop){acked, private(1, 1, 1), read}, "missing"},
		"lost SEND_ACK":       {[]func(*loop){private(0, 1, 1), private(1, 1, 1), read}, "missing"},
		"a second SEND_ACK":   {[]func(*loop){acked, acked, private(0, 1, 1), private(1, 1, 1), read}, "SEND_ACK"},
		"repeated":            {[]func(*loop){acked, private(0, 1, 1), private(1, 1, 1), private(1, 2, 1), read}, "order"},
		"at somebody else":    {[]func(*loop){acked, private(0, 1, 1), private(1, 1, 1), private(2, 1, 1), read}, "order"},
		"history with a hole": {[]func(*loop){acked, private(0, 1, 1), private(1, 1, 1), history(`{"seq":3},{"seq":1}`)}, "history"},
		"no history":          {[]func(*loop){acked, private(0, 1, 1), private(1, 1, 1)}, "missing"},
		"an answer too many":  {[]func(*loop){acked, private(0, 1, 1), private(1, 1, 1), read, read}, "unreadable"},
	} {
		t.Run(name, func(t *testing.T) {
			l, s := mustMix(t)
			s.turn = 3 // the next is user 0
			s.sendPrivate(l, l.now)
			s.turn = 3
			s.read(l, l.now)
			for _, packet := range tc.packets {
				packet(l)
			}
			s.closing = true
			if open := s.open(); (open == 0) != (tc.want != "missing") {
				t.Errorf("%d open", open)
			}
			s.finish(l)
			if tc.want == "" && len(l.failures) != 0 || tc.want != "" && l.failures[tc.want] == 0 {
				t.Errorf("failures %v, evidence %q", l.failures, l.evidence)
			}
		})
	}
}

// What was not accepted before the connection went is sent again under its old id, in order, and what comes of it is late.
func TestMixSendsAgain(t *testing.T) {
	l, s := mustMix(t)
	for range 3 {
		s.turn = 3
		s.sendPrivate(l, l.now)
	}
	c := &l.conns[0]
	l.packet(c, ackOf(l, 1))
	sent := string(c.out)
	c.out, l.now = nil, 5000
	s.loggedIn(l, c)
	again := string(c.out)
	if !strings.HasSuffix(sent, again) || strings.Count(again, `"cmd":3`) != 2 || l.stats.resent != 2 {
		t.Errorf("again %q of %q", again, sent)
	}
	for n := range uint32(3) {
		l.packet(&l.conns[1], pushOfFlow(l, uint64(n+1), uint64(n+1), 0, n+1))
	}
	if late := s.hists[mixLate][0].h.TotalCount(); late != 2 {
		t.Errorf("%d late", late)
	}
	if l.stats.delivered != 3 || len(l.failures) != 0 {
		t.Errorf("delivered %d, failures %v", l.stats.delivered, l.failures)
	}
}

// After a reconnect a large group goes on behind what was acknowledged: what is known is dropped, a hole is found.
func TestLargeGroupAfterReconnect(t *testing.T) {
	for name, tc := range map[string]struct {
		before, after []uint64
		want          int // failures
	}{
		"goes on":                 {[]uint64{1, 2, 3}, []uint64{4, 5}, 0},
		"some again":              {[]uint64{1, 2, 3}, []uint64{2, 3, 4}, 0},
		"the last again":          {[]uint64{1, 2, 3}, []uint64{3, 4}, 0},
		"a hole":                  {[]uint64{1, 2, 3}, []uint64{5}, 1},
		"a hole in the known":     {[]uint64{1, 2, 3}, []uint64{1, 3, 4}, 1},
		"again on one connection": {[]uint64{1, 2, 2}, nil, 1},
		"again twice":             {[]uint64{1, 2, 3}, []uint64{3, 4, 4}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			l, s := mustFan(t, 2, 1)
			c := &l.conns[1]
			for i, seqs := range [][]uint64{tc.before, tc.after} {
				c.first = i > 0
				for _, seq := range seqs {
					l.packet(c, pushOf(l, 0, seq, uint32(seq)))
				}
			}
			if n := l.failures["seq not contiguous"]; n != tc.want {
				t.Errorf("%d failures, %q", n, l.evidence)
			}
			if tc.want == 0 && s.got != c.seq {
				t.Errorf("%d messages taken up to seq %d", s.got, c.seq)
			}
		})
	}
}
