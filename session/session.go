package session

import (
	"time"
	"unique"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/engine"
	"github.com/meshtalk/meshtalk/hub"
)

// The states of a session, in the order in which it goes through them.
const (
	fresh     uint8 = iota // connected, LOGIN is due
	loggingIn              // LOGIN is being checked; the connection is paused
	online
	gone
)

// Session is one connection and, once logged in, a user's terminal. Everything in it is owned by its event loop. There
// may be a million of them: a field that few need stands in extras.
type Session struct {
	conn *engine.Conn
	x    *extras

	user string
	name unique.Handle[string] // of the terminal: the same few stand everywhere

	issued int64 // ms, iat of the token

	// Where this connection stands in its user's inbox: what it has confirmed, what was written to it, what there is.
	// acked ≤ pushed ≤ head, except that acked may begin above a resume that went back.
	acked, pushed, head uint64
	// taken are the private messages of others that were pushed and not acknowledged, nil if there are none: a RECEIPT is
	// due for each.
	taken *[]taken

	lastSeen uint32  // s since the Unix epoch, rounded up, of the last packet
	expires  uint32  // likewise, exp of the token
	since    uint32  // s, of the login
	tokens   float32 // of the rate limit
	refilled uint32  // ms of the loop's clock, truncated
	window   uint16  // entries in flight with ack: client
	inFlight uint16  // submissions without an answer

	state     uint8
	bad       uint8 // BAD_PACKETs in a row
	clientAck bool
	reading   bool // an inbox read is out
	lagging   bool // LAG was sent since it last was caught up
	held      bool // reading stopped because inFlight reached its limit
	busy      bool // reading stopped because a request is in the pool
}

// extras are the parts of a session that few sessions need.
type extras struct {
	token   string // of the upgrade, until LOGIN has succeeded
	revoked int64  // ms: tokens issued before were revoked while LOGIN was being checked
	unkept  uint64 // a position that the store could not take and that is tried again, 0 = none
	joined  []string
	watches map[string]struct{}
	told    uint // changes of watched users that have come
	stale   bool // one of them was dropped
	follows []*follower
	early   []earlyPush
}

// earlyPush is an entry that came before its predecessor.
type earlyPush struct {
	inbox uint64
	frame *hub.Frame
}

func (s *Session) extra() *extras {
	if s.x == nil {
		s.x = new(extras)
	}
	return s.x
}

// loop is the event loop that owns the session.
func (s *Session) loop() *loop { return s.conn.Loop().Data.(*loop) }

// terminal is the terminal's name, once logged in.
func (s *Session) terminal() string { return s.name.Value() }

func (s *Session) ref() hub.Ref  { return hub.Ref(s.conn.Handle()) }
func (s *Session) hub() *hub.Hub { return s.loop().m.hub }
func (s *Session) now() int64    { return s.loop().el.Now() }

// send queues one packet; b may be reused at once.
func (s *Session) send(b []byte) { s.conn.Send(b, nil) }

// refuse answers the packet id with an ERROR. What closes the connection is end's.
func (s *Session) refuse(id []byte, code codec.Code, message string) {
	s.refuseRetry(id, code, message, 0)
}

func (s *Session) refuseRetry(id []byte, code codec.Code, message string, retryAfterMs int) {
	l := s.loop()
	l.stats.errors.add(code)
	s.observeError(code, message)
	l.scratch = codec.AppendError(l.scratch[:0], id, code, message, retryAfterMs)
	s.send(l.scratch)
}

// refuseError answers with an error of the hub or of a hook.
func (s *Session) refuseError(id []byte, err error) {
	switch e := err.(type) {
	case *hub.Error:
		if e.Code == codec.CodeBadPacket {
			s.refuseBad(id, e.Message)
			return
		}
		s.refuseRetry(id, e.Code, e.Message, e.RetryAfterMs)
	case *Refusal:
		s.refuse(id, e.Code, e.Message)
	default:
		s.loop().m.o.Logf("request of a session: %v", err)
		s.refuse(id, codec.CodeInternal, "internal error")
	}
}

// maxBad is how many BAD_PACKETs in a row close a connection.
const maxBad = 5

// refuseBad answers with BAD_PACKET and closes when there were too many, or before LOGIN.
func (s *Session) refuseBad(id []byte, message string) {
	s.refuse(id, codec.CodeBadPacket, message)
	if s.bad++; s.bad >= maxBad || s.state != online {
		s.close(codec.CodeBadPacket, message)
	}
}

// end tells why and closes: FORCE_LOGOUT for what others decided, else ERROR.
func (s *Session) end(code codec.Code, message string) {
	l := s.loop()
	switch code {
	case codec.CodeReplaced, codec.CodeKicked:
		l.scratch = codec.AppendForceLogout(l.scratch[:0], code, message)
		s.send(l.scratch)
	default:
		s.refuse(nil, code, message)
	}
	s.close(code, message)
}

func (s *Session) close(code codec.Code, message string) {
	s.conn.Close(codeReasons[code], uint16(code.Number()), message)
}

// expiryGrace is how long a session outlives its token, for REFRESH (PROTOCOL §5).
const expiryGrace = 25 * time.Second

func (s *Session) tokenEnd() int64 { return int64(s.expires)*1000 + expiryGrace.Milliseconds() }

// silentSince is when the last packet came, in ms.
func (s *Session) silentSince() int64 { return int64(s.lastSeen) * 1000 }

// ceilSeconds is a time in ms as the next full second: what is compared with it is never early.
func ceilSeconds(ms int64) uint32 { return uint32((ms + 999) / 1000) }

func (s *Session) setDeadline() {
	s.conn.SetDeadline(min(s.tokenEnd(), s.silentSince()+s.loop().m.o.HeartbeatTimeout.Milliseconds()))
}

// info describes the session to hooks.
func (s *Session) info() Info {
	return Info{
		User: s.user, Terminal: s.terminal(), SessionID: s.hub().SessionID(s.ref()),
		Transport: s.conn.Transport().String(), IP: s.conn.Remote().Addr().Unmap().String(),
	}
}

// ask runs work in the pool and then answer on the loop, if the session is still there. Until then nothing more is
// read from the connection: its packets keep their order.
func (s *Session) ask(work func(), answer func()) {
	s.busy = true
	s.conn.Pause()
	ref, l := s.ref(), s.loop()
	s.hub().Pool().Go(func() {
		done := false
		defer func() {
			if !done { // a panic, which the pool logs
				l.post(func() { l.panicked(ref) })
			}
		}()
		work()
		done = true
		l.post(func() {
			if l.session(ref) != s {
				return
			}
			s.busy = false
			bad := s.bad
			answer()
			s.judged(bad)
			s.resume()
		})
	})
}

// panicked ends the session whose request panicked in the pool.
func (l *loop) panicked(ref hub.Ref) {
	if s := l.session(ref); s != nil {
		s.refuse(nil, codec.CodeInternal, "internal error")
		s.conn.Close(engine.ReasonPanic, 1011, "internal error")
	}
}

// resume reads on unless there is still a reason not to.
func (s *Session) resume() {
	if !s.busy && !s.held && !s.loop().draining {
		s.conn.Resume()
	}
}

// clone keeps bytes of a packet beyond its handling.
func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append(make([]byte, 0, len(b)), b...)
}
