package bench

import (
	"encoding/binary"
	"testing"

	"github.com/meshtalk/meshtalk/codec"
)

// mustFan is the scene of one group on one loop, with no sockets.
func mustFan(t *testing.T, members, inFlight int) (*loop, *fanScene) {
	t.Helper()
	l := mustLoop(t, members)
	f := &fan{o: GroupOptions{Groups: 1, Members: members, InFlight: inFlight, Size: 64}, team: solo{}, sender: l, parts: make([]part, 1)}
	s := newFanScene(l, f, &f.parts[0])
	l.scene, l.repeats = s, newRepeats(f.window())
	l.now = 1
	return l, s
}

// tcpFrame is packet as TCP carries it.
func tcpFrame(packet []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(packet))), packet...)
}

func TestFanoutSendsWhenAllHaveIt(t *testing.T) {
	l, s := mustFan(t, 3, 2)
	sent := func() int64 { s.due(l, l.now); return l.stats.sent }
	if n := sent(); n != 2 {
		t.Fatalf("%d sent at first", n)
	}
	for i, want := range []int64{2, 2, 3} {
		l.received(&l.conns[i], tcpFrame(pushOf(l, 0, 1, 1)))
		if n := sent(); n != want {
			t.Errorf("%d sent after %d members have the first", n, i+1)
		}
	}
	for i := range l.conns {
		l.received(&l.conns[i], append(tcpFrame(pushOf(l, 0, 2, 2)), tcpFrame(pushOf(l, 0, 3, 3))...))
	}
	l.o.until = 1
	s.sentAll(l)
	for n := range uint32(3) {
		l.packet(s.send, ackOf(l, n+1))
	}
	if s.open() != 0 || l.stats.delivered != 9 || l.stats.acked != 3 {
		t.Errorf("%d open, delivered %d, acked %d", s.open(), l.stats.delivered, l.stats.acked)
	}
	if s.finish(l); len(l.failures) != 0 {
		t.Errorf("failures %v, %q", l.failures, l.evidence)
	}
}

// The comparison with known frames sees what a scan sees.
func TestFanoutFindsEveryBrokenPromise(t *testing.T) {
	for name, tc := range map[string]struct {
		last [][2]uint32 // seq and number that the last member gets; the others have got 1, 2 and 3
		want string
	}{
		"all is well": {[][2]uint32{{1, 1}, {2, 2}, {3, 3}}, ""},
		"lost":        {[][2]uint32{{1, 1}, {2, 2}}, "missing"},
		"a hole":      {[][2]uint32{{1, 1}, {3, 3}}, "seq not contiguous"},
		"repeated":    {[][2]uint32{{1, 1}, {2, 2}, {2, 2}, {3, 3}}, "seq not contiguous"},
		"exchanged":   {[][2]uint32{{1, 1}, {2, 3}, {3, 2}}, "order"},
		"other text":  {[][2]uint32{{1, 1}, {2, 1}, {3, 3}}, "order"},
	} {
		t.Run(name, func(t *testing.T) {
			l, s := mustFan(t, 3, 3)
			s.due(l, 1)
			for n := range uint32(3) {
				l.packet(s.send, ackOf(l, n+1))
				for i := range 2 {
					l.received(&l.conns[i], tcpFrame(pushOf(l, 0, uint64(n+1), n+1)))
				}
			}
			for _, got := range tc.last {
				l.received(&l.conns[2], tcpFrame(pushOf(l, 0, uint64(got[0]), got[1])))
			}
			s.finish(l)
			if tc.want == "" && len(l.failures) != 0 || tc.want != "" && l.failures[tc.want] == 0 {
				t.Errorf("failures %v, evidence %q", l.failures, l.evidence)
			}
		})
	}
}

// A known frame is recognised wherever a read ends, on both transports, and costs no memory.
func TestRepeatsInPieces(t *testing.T) {
	for _, transport := range []codec.Transport{codec.TCP, codec.WebSocket} {
		l, s := mustFan(t, 3, 3)
		s.due(l, 1)
		var stream []byte
		for n := range uint32(3) {
			packet := pushOf(l, 0, uint64(n+1), n+1)
			stream = append(codec.AppendHeader(stream, transport, codec.OpText, len(packet)), packet...)
		}
		for i := range l.conns {
			c := &l.conns[i]
			c.transport, c.ws = transport, codec.WSFramer{Max: maxPacket, Client: true}
			step := []int{len(stream), 1, 100}[i]
			for from := 0; from < len(stream); from += step {
				l.received(c, stream[from:min(from+step, len(stream))])
			}
			if c.seq != 3 || c.flow != 3 || len(c.in) != 0 {
				t.Errorf("%s, member %d: seq %d, number %d, %d bytes left", transport, i, c.seq, c.flow, len(c.in))
			}
		}
		if len(l.failures) != 0 {
			t.Errorf("%s: failures %v, %q", transport, l.failures, l.evidence)
		}
		c := &l.conns[1]
		if n := testing.AllocsPerRun(100, func() { c.seq, c.flow = 0, 0; l.received(c, stream) }); n != 0 {
			t.Errorf("%s: %v allocations for three deliveries", transport, n)
		}
	}
}

func TestLargeGroupIsAcknowledgedRarely(t *testing.T) {
	l, s := mustFan(t, 2, 1)
	s.due(l, 1)
	c := &l.conns[1]
	l.received(c, tcpFrame(pushOf(l, 0, 1, 1)))
	if len(c.out) != 0 {
		t.Errorf("at once: %q", c.out)
	}
	l.lives, l.beatAt = 2, 0
	l.now = int64(l.o.HeartBeat)
	l.beat()
	if want := string(tcpFrame([]byte(`{"cmd":7,"data":{"conv":"g:","seq":1}}`))) + string(tcpFrame(heartBeat)); string(c.out) != want {
		t.Errorf("with the heartbeat: %q, want %q", c.out, want)
	}
}
