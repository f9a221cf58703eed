package bench

import (
	"context"
	"errors"
)

// EchoOptions are those of Echo.
type EchoOptions struct {
	Connections int
	// InFlight is how many requests of a connection are on their way: the next one is sent when one is answered.
	InFlight int
}

// Echo measures what a request and its answer cost when there is nothing to do between them: HEART_BEAT with an id, which
// must come back once and in order.
func Echo(ctx context.Context, o Options, eo EchoOptions) (*Result, error) {
	if eo.Connections < 1 || eo.Connections > maxFlow || eo.InFlight < 1 {
		return nil, errors.New("bench: echo: want at least one connection and one request")
	}
	r, err := newRunner(ctx, o, "echo", eo, eo.Connections, 1)
	if err != nil {
		return nil, err
	}
	r.result.Parameters = map[string]any{"connections": eo.Connections, "in_flight": eo.InFlight}
	for _, l := range r.loops {
		l.scene = newEchoScene(l, eo)
	}
	return r.traffic(ctx)
}

// echoScene is Echo on one loop.
type echoScene struct {
	quiet
	pace  pace
	conns []echoConn
	left  int // requests without an answer
}

type echoConn struct{ sent, answered uint32 }

func newEchoScene(l *loop, o EchoOptions) *echoScene {
	return &echoScene{conns: make([]echoConn, len(l.conns)), pace: pace{units: len(l.conns), inFlight: o.InFlight}}
}

func (s *echoScene) due(l *loop, now int64) int64 {
	return s.pace.due(l, now, func(unit int, intended int64) { s.send(l, &l.conns[unit], intended) })
}

func (s *echoScene) send(l *loop, c *conn, intended int64) {
	if c.phase != live {
		return
	}
	e := &s.conns[c.index]
	e.sent++
	s.left++
	b := append(l.scratch[:0], `{"cmd":1,"id":"`...)
	at := len(b)
	b = b[:at+markLen]
	mark{run: l.o.run, flow: uint32(c.number), number: e.sent, time: intended}.put(b[at:])
	l.send(c, append(b, `","data":{}}`...))
	l.stats.sent++
}

// beat takes an answer; one without a mark is that of an ordinary heartbeat.
func (s *echoScene) beat(l *loop, c *conn, packet []byte) {
	m, ok := findMark(packet)
	if !ok || m.run != l.o.run {
		return
	}
	l.stats.heartBeats-- // it is a message of this scenario
	e := &s.conns[c.index]
	if m.flow != uint32(c.number) || m.number != e.answered+1 {
		l.fail("order", "user %s got the answer to request %d of connection %d after that to %d", l.o.user(c.number), m.number, m.flow, e.answered)
		if m.number <= e.answered {
			return
		}
	}
	s.left -= int(m.number - e.answered)
	e.answered = m.number
	l.arrived(m.time)
	if l.now < l.o.until {
		s.send(l, c, l.now)
	}
}

func (s *echoScene) open() int { return s.left }

func (s *echoScene) finish(l *loop) {
	for i, e := range s.conns {
		if e.answered != e.sent {
			l.fail("missing", "user %s sent %d requests, answers came up to %d", l.o.user(l.conns[i].number), e.sent, e.answered)
		}
	}
}
