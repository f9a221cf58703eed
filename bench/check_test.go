package bench

import (
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/codec"
)

// mustLoop is a loop with live connections that have no sockets: what it sends stays in its buffers.
func mustLoop(t *testing.T, conns int) *loop {
	t.Helper()
	p, err := newPlan(t.Context(), Options{Addrs: []string{"tcp://127.0.0.1:1"}, Token: SecretToken([]byte("x"))})
	if err != nil {
		t.Fatal(err)
	}
	p.from, p.until = 1, 1<<62
	l, err := newLoop(p, 1, conns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.poll.close)
	for i := range l.conns {
		l.conns[i].number = i
		l.conns[i].phase = live
	}
	return l
}

// pushOf is a pushed message number of flow 0 of l's run.
func pushOf(l *loop, inbox, seq uint64, number uint32) []byte {
	return pushOfFlow(l, inbox, seq, 0, number)
}

func pushOfFlow(l *loop, inbox, seq uint64, flow, number uint32) []byte {
	var b [markLen]byte
	mark{l.o.run, flow, number, 1}.put(b[:])
	return codec.AppendPushTail(codec.AppendPushHead(nil, codec.PrivateMessage, inbox), &codec.ConvMessage{Cmd: codec.PrivateMessage,
		Conv: "p:a:b", Seq: seq, From: "a", To: "b", TS: 5, Content: []byte(`"` + string(b[:]) + `"`)})
}

// ackOf is a SEND_ACK of message number of flow 0.
func ackOf(l *loop, number uint32) []byte {
	var b [markLen]byte
	mark{l.o.run, 0, number, 1}.put(b[:])
	return codec.AppendSendAck(nil, b[:], codec.MsgID{}, "p:a:b", 5, uint64(number), false)
}

// A server that breaks a promise is found out, whatever promise it is.
func TestPrivateFindsEveryBrokenPromise(t *testing.T) {
	const sender, receiver = 0, 1
	type step struct {
		conn   int
		packet func(l *loop) []byte
	}
	pushed := func(conn int, inbox uint64, number uint32) step {
		return step{conn, func(l *loop) []byte { return pushOf(l, inbox, inbox, number) }}
	}
	acked := func(number uint32) step { return step{sender, func(l *loop) []byte { return ackOf(l, number) }} }
	right := []step{acked(1), pushed(sender, 1, 1), pushed(receiver, 1, 1), pushed(receiver, 2, 2), acked(2), pushed(sender, 2, 2)}
	for name, tc := range map[string]struct {
		steps []step
		want  string // kind of failure; empty = none
	}{
		"all is well":           {right, ""},
		"an inbox repeated":     {append(right, pushed(receiver, 2, 2)), "inbox repeated"},
		"a message repeated":    {append(right, pushed(receiver, 3, 2)), "order"},
		"out of order":          {[]step{pushed(receiver, 1, 2)}, "order"},
		"lost at the receiver":  {right[:3], "missing"},
		"lost own copy":         {right[:5], "missing"},
		"lost SEND_ACK":         {append(right[:4:4], right[5]), "missing"},
		"a second SEND_ACK":     {append(right, acked(1)), "SEND_ACK"},
		"SEND_ACK of no send":   {append(right, acked(9)), "SEND_ACK"},
		"an ERROR":              {append(right, step{sender, func(*loop) []byte { return codec.AppendError(nil, nil, codec.CodeUnavailable, "x", 0) }}), "error UNAVAILABLE"},
		"sent away":             {append(right, step{sender, func(*loop) []byte { return codec.AppendForceLogout(nil, codec.CodeKicked, "x") }}), "sent away"},
		"what is no packet":     {append(right, step{sender, func(*loop) []byte { return []byte(`{"cmd":`) }}), "unreadable"},
		"another pair's stream": {append(right, step{receiver, func(l *loop) []byte { return pushOfFlow(l, 3, 3, 1, 3) }}), "order"},
	} {
		t.Run(name, func(t *testing.T) {
			l := mustLoop(t, 2)
			s := newPrivateScene(l, PrivateOptions{Pairs: 1, InFlight: 2, Size: 64})
			l.scene = s
			s.due(l, 1) // sends two
			l.o.until, l.now = 1, 2
			for _, st := range tc.steps {
				l.packet(&l.conns[st.conn], st.packet(l))
			}
			s.finish(l)
			if tc.want == "" && len(l.failures) != 0 || tc.want != "" && l.failures[tc.want] == 0 {
				t.Errorf("failures %v, evidence %q", l.failures, l.evidence)
			}
			if tc.want == "" && s.open() != 0 || tc.want == "missing" && s.open() == 0 {
				t.Errorf("%d open", s.open())
			}
		})
	}
}

// The client's rule fills a gap, and a server that left it is found out all the same.
func TestGapIsPulled(t *testing.T) {
	l := mustLoop(t, 2)
	s := newPrivateScene(l, PrivateOptions{Pairs: 1, InFlight: 3, Size: 64})
	l.scene = s
	s.due(l, 1)
	l.o.until, l.now = 1, 2
	c := &l.conns[1]
	l.packet(c, pushOf(l, 1, 1, 1))
	l.packet(c, pushOf(l, 3, 3, 3))
	if l.stats.gaps != 1 || !strings.Contains(string(c.out), `"after":1`) {
		t.Fatalf("%d gaps, sent %q", l.stats.gaps, c.out)
	}
	entries := []byte(`{"cmd":8,"id":"pull","data":{"entries":[` + string(pushOf(l, 2, 2, 2)) + `,` + string(pushOf(l, 3, 3, 3)) +
		`],"head":3,"first":1,"more":false}}`)
	l.packet(c, entries)
	if c.inbox != 3 || s.pairs[0].received != 3 || len(l.failures) != 1 || l.failures["inbox not contiguous"] != 1 {
		t.Errorf("inbox %d, received %d, failures %v", c.inbox, s.pairs[0].received, l.failures)
	}
}

func TestGroupCountsDeliveries(t *testing.T) {
	l := mustLoop(t, 3)
	s := newGroupScene(l, GroupOptions{Groups: 1, Members: 3, InFlight: 1, Size: 64})
	l.scene = s
	s.due(l, 1)
	for i := range l.conns {
		l.now = int64(i + 2)
		l.packet(&l.conns[i], pushOf(l, 0, 1, 1))
	}
	l.packet(&l.conns[0], ackOf(l, 1))
	if l.stats.sent != 2 || l.stats.delivered != 3 || l.stats.acked != 1 {
		t.Errorf("sent %d (want the next one too), delivered %d, acked %d", l.stats.sent, l.stats.delivered, l.stats.acked)
	}
	l.packet(&l.conns[1], pushOf(l, 0, 3, 2)) // a hole in the group's seq
	if l.failures["seq not contiguous"] != 1 {
		t.Errorf("failures %v", l.failures)
	}
	l.o.until = 1
	s.finish(l)
	if l.failures["missing"] != 3 { // SEND_ACK of the second, and two members
		t.Errorf("failures %v, %q", l.failures, l.evidence)
	}
}

func TestStormFindsEveryBrokenPromise(t *testing.T) {
	answer := func(resumed string) func(l *loop) []byte {
		return func(*loop) []byte {
			return []byte(`{"cmd":0,"id":"login","data":{"epoch":"e","resumed":` + resumed + `,"inbox":{"head":3,"first":1,"acked":1}}}`)
		}
	}
	pushed := func(inbox uint64, number uint32) func(l *loop) []byte {
		return func(l *loop) []byte { return pushOf(l, inbox, inbox, number) }
	}
	for name, tc := range map[string]struct {
		packets []func(l *loop) []byte
		want    string // kind of failure; empty = none
	}{
		"all is well":     {[]func(l *loop) []byte{answer("true"), pushed(2, 2), pushed(3, 3)}, ""},
		"not resumed":     {[]func(l *loop) []byte{answer("false"), pushed(2, 2), pushed(3, 3)}, "not resumed"},
		"lost":            {[]func(l *loop) []byte{answer("true"), pushed(2, 2)}, "missing"},
		"from the start":  {[]func(l *loop) []byte{answer("true"), pushed(1, 1), pushed(2, 2), pushed(3, 3)}, "inbox repeated"},
		"another message": {[]func(l *loop) []byte{answer("true"), pushed(2, 3), pushed(3, 3)}, "order"},
	} {
		t.Run(name, func(t *testing.T) {
			l := mustLoop(t, 1)
			s := &stormScene{}
			l.scene, l.epoch, l.handshakes = s, "e", 1
			c := &l.conns[0]
			c.resumes, c.inbox, c.flow, c.phase = true, 1, 1, loggingIn
			s.begin(1, 3)
			for _, packet := range tc.packets {
				l.packet(c, packet(l))
			}
			if complete := s.complete(l); complete != (tc.want != "missing") {
				t.Errorf("complete: %v", complete)
			}
			s.check(l)
			if tc.want == "" && len(l.failures) != 0 || tc.want != "" && l.failures[tc.want] == 0 {
				t.Errorf("failures %v, evidence %q", l.failures, l.evidence)
			}
		})
	}
}
