package session

import (
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/engine"
)

// Event is something that went wrong or came to its end on a connection: an ERROR that its client got, or its close.
type Event struct {
	TS     int64  // ms since the Unix epoch
	Closed bool   // the connection's end; else an ERROR
	Name   string // the label of meshtalk_closes_total or meshtalk_errors_total
	Detail string // in words, "" = the name says it all. Parts of it may be the client's own words
	// Who: user and terminal are empty before the login.
	User, Terminal string
	Transport, IP  string
}

// Observe sets who is told of events; nil = nobody. f is called on event loops, from several at the same time, and must
// return at once. While nobody is told an event costs one load.
func (m *Manager) Observe(f func(Event)) {
	if f == nil {
		m.observer.Store(nil)
		return
	}
	m.observer.Store(&f)
}

// ConnClosed is engine.Options.OnClosed.
func (m *Manager) ConnClosed(c *engine.Conn, why engine.Reason, detail string) {
	if f := m.observer.Load(); f != nil {
		tell(*f, c, Event{Closed: true, Name: ReasonName(why), Detail: detail})
	}
}

// observeError tells of an ERROR.
func (s *Session) observeError(code codec.Code, message string) {
	if f := s.loop.m.observer.Load(); f != nil {
		tell(*f, s.conn, Event{Name: code.Name(), Detail: message})
	}
}

// tell adds to e when it was and whose.
func tell(f func(Event), c *engine.Conn, e Event) {
	e.TS = c.Loop().Now()
	e.Transport, e.IP = c.Transport().String(), c.Remote().Addr().String()
	if s, ok := c.State.(*Session); ok {
		e.User, e.Terminal = s.user, s.terminal
	}
	f(e)
}
