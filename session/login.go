package session

import (
	"context"
	"errors"
	"unique"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
	"github.com/meshtalk/meshtalk/store"
)

// loginAgain refuses a second LOGIN.
func (s *Session) loginAgain(p *codec.Packet) {
	s.refuse(p.ID, codec.CodeBadState, "already logged in")
}

// defaultTerminal is the terminal of who names none (PROTOCOL §5); defaultWindow is that of LOGIN.
const (
	defaultTerminal = "web"
	defaultWindow   = 256
)

// errRevoked refuses a token that was issued before a revocation.
var errRevoked = &hub.Error{Code: codec.CodeUnauthorized, Message: "token revoked"}

// loginResult is what the pool found out for a LOGIN.
type loginResult struct {
	identity auth.Identity
	terminal string
	store.Attachment
	err error
}

// login checks the token and registers the session, in the pool; welcome goes on with the answer.
func (s *Session) login(p *codec.Packet) {
	var r codec.LoginRequest
	if problem := codec.DecodeLogin(p.Data, &r); !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	token := r.AccessToken
	if token == "" && s.x != nil {
		token = s.x.token
	}
	s.state = loggingIn
	m, id, ref := s.loop().m, clone(p.ID), s.ref()
	var result loginResult
	// Not ask: the answer must be seen even when the connection is gone by then, to undo the registration.
	s.busy = true
	s.conn.Pause()
	l, order := s.loop(), m.hub.NextLogin()
	m.hub.Pool().Go(func() {
		result = m.authenticate(token, r.Terminal, ref, order)
		l.post(func() {
			if l.session(ref) != s || s.state == gone {
				if result.err == nil {
					m.hub.Logout(result.identity.User, result.terminal, ref)
				}
				return
			}
			s.busy = false
			if result.err == nil && s.x != nil && result.identity.IssuedAt < s.x.revoked {
				m.hub.Logout(result.identity.User, result.terminal, ref)
				result.err = errRevoked
			}
			if result.err != nil {
				s.loginRefused(id, result.err)
			} else {
				s.welcome(id, &r, &result)
			}
			s.resume()
		})
	})
}

// authenticate is the part of a login that may block.
func (m *Manager) authenticate(token, terminal string, ref hub.Ref, order uint64) (r loginResult) {
	ctx := m.deadlines.context()
	if token == "" {
		r.err = &hub.Error{Code: codec.CodeUnauthorized, Message: "no token"}
		return r
	}
	defer func() {
		if p := recover(); p != nil {
			m.hub.Pool().Panicked(p)
			r.err = errors.New("authentication panicked")
		}
	}()
	if r.identity, r.err = m.o.Auth.Authenticate(ctx, token); r.err != nil {
		return r
	}
	if !codec.ValidName(r.identity.User, codec.MaxName) ||
		r.identity.Terminal != "" && !codec.ValidName(r.identity.Terminal, codec.MaxTerminal) {
		r.err = &hub.Error{Code: codec.CodeUnauthorized, Message: "the token names no valid user or terminal"}
		return r
	}
	for _, t := range []string{r.identity.Terminal, terminal, defaultTerminal} {
		if t != "" {
			r.terminal = t
			break
		}
	}
	r.Attachment, r.err = m.hub.Login(ctx, r.identity.User, r.terminal, ref, r.identity.IssuedAt, order)
	return r
}

// loginRefused answers a LOGIN that failed and closes.
func (s *Session) loginRefused(id []byte, err error) {
	var e *hub.Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, auth.ErrUnauthorized):
		e = &hub.Error{Code: codec.CodeUnauthorized, Message: err.Error()}
	case errors.Is(err, auth.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		e = &hub.Error{Code: codec.CodeUnavailable, Message: "authentication is unavailable", RetryAfterMs: 1000}
	default:
		s.loop().m.o.Logf("login: %v", err)
		e = &hub.Error{Code: codec.CodeInternal, Message: "internal error"}
	}
	s.loop().stats.logins.failed.Add(1)
	if e.Code == codec.CodeUnavailable || e.Code == codec.CodeInternal { // the client may try again on this connection
		s.state, s.head = fresh, 0
		s.refuseRetry(id, e.Code, e.Message, e.RetryAfterMs)
		return
	}
	if e.Code == codec.CodeReplaced { // by a later LOGIN that was faster
		s.end(e.Code, e.Message)
		return
	}
	s.refuse(id, e.Code, e.Message)
	s.close(e.Code, e.Message)
}

// welcome answers LOGIN and begins to push.
func (s *Session) welcome(id []byte, r *codec.LoginRequest, a *loginResult) {
	m := s.loop().m
	s.state = online
	if s.x != nil {
		s.x.token = ""
	}
	s.user, s.name = a.identity.User, unique.Make(a.terminal)
	s.expires, s.issued = ceilSeconds(a.identity.ExpiresAt), a.identity.IssuedAt
	s.since = uint32(s.now() / 1000)
	s.clientAck, s.window = r.ClientAck, defaultWindow
	if r.Window > 0 {
		s.window = uint16(r.Window)
	}
	s.tokens, s.refilled = float32(s.loop().settings.MessagesBurst), uint32(s.now())
	s.head = max(s.head, a.Head) // a push may have overtaken the answer
	resumed := s.place(r, &a.Attachment)
	s.setDeadline()
	s.loop().stats.logins.ok.Add(1)
	s.loop().stats.sessions.Add(1)
	l := s.loop()
	l.scratch = codec.AppendLogin(l.scratch[:0], id, &codec.LoginReply{
		UserID: s.user, Terminal: s.terminal(), SessionID: m.hub.SessionID(s.ref()),
		ServerTime: s.now(), ExpiresAt: a.identity.ExpiresAt, Heartbeat: int(m.o.HeartbeatInterval.Seconds()),
		Epoch: m.epoch, Head: s.head, First: a.First, Acked: a.Acked, Resumed: resumed, Node: m.hub.NodeID(),
	})
	s.send(l.scratch)
	for i := range a.Large {
		s.follow(&a.Large[i])
	}
	if s.x != nil {
		for _, g := range s.x.joined {
			s.join(g)
		}
		s.x.joined = nil
	}
	if hook := m.o.Hooks.SessionOnline; hook != nil {
		info := s.info()
		m.hub.Pool().Go(func() { hook(info) })
	}
	s.catchUp()
}

// place decides from where to push: resume if it can be honoured, else the terminal's position, else what is left.
func (s *Session) place(r *codec.LoginRequest, a *store.Attachment) (resumed bool) {
	start := a.Acked
	if r.HasResume {
		resumed = (r.ResumeEpoch == "" || r.ResumeEpoch == s.loop().m.epoch) &&
			r.ResumeInbox <= s.head && r.ResumeInbox+1 >= a.First
		if resumed {
			start = r.ResumeInbox
		} else {
			start = a.First - 1
		}
	}
	s.pushed = max(start, a.First-1)
	s.acked = s.pushed
	if resumed && r.ResumeInbox > a.Acked {
		a.Acked = r.ResumeInbox
		if from, furthest, err := s.hub().Acked(s.user, s.terminal(), r.ResumeInbox); err == nil && furthest {
			s.receipts(from, r.ResumeInbox)
		}
	}
	return resumed
}

// offline ends a logged-in session; its connection is closed.
func (s *Session) offline(reason string) {
	s.loop().stats.sessions.Add(-1)
	if s.lagging {
		s.loop().stats.lagging.Add(-1)
	}
	ref := s.ref()
	if s.x != nil {
		for u := range s.x.watches {
			s.hub().Unwatch(ref, u)
		}
		s.unfollowAll()
	}
	s.hub().Logout(s.user, s.terminal(), ref)
	if hook := s.loop().m.o.Hooks.SessionOffline; hook != nil {
		info := s.info()
		s.hub().Pool().Go(func() { hook(info, reason) })
	}
}

// refresh takes a newer token of the same user and terminal.
func (s *Session) refresh(p *codec.Packet) {
	token, problem := codec.DecodeRefresh(p.Data)
	if !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	id, m, user, terminal := clone(p.ID), s.loop().m, s.user, s.terminal()
	var identity auth.Identity
	var err error
	s.ask(func() {
		ctx := m.deadlines.context()
		identity, err = m.reauthenticate(ctx, token, user, terminal)
	}, func() {
		if err != nil {
			if errors.Is(err, auth.ErrUnauthorized) {
				err = &hub.Error{Code: codec.CodeUnauthorized, Message: err.Error()}
			} else if errors.Is(err, auth.ErrUnavailable) {
				err = &hub.Error{Code: codec.CodeUnavailable, Message: "authentication is unavailable", RetryAfterMs: 1000}
			}
			s.refuseError(id, err)
			return
		}
		s.expires, s.issued = ceilSeconds(identity.ExpiresAt), identity.IssuedAt
		s.setDeadline()
		s.send(codec.AppendRefresh(nil, id, identity.ExpiresAt))
	})
}

func (m *Manager) reauthenticate(ctx context.Context, token, user, terminal string) (auth.Identity, error) {
	i, err := m.o.Auth.Authenticate(ctx, token)
	if err != nil {
		return i, err
	}
	if i.User != user || i.Terminal != "" && i.Terminal != terminal {
		return i, &hub.Error{Code: codec.CodeUnauthorized, Message: "token of another user or terminal"}
	}
	revoked, err := m.hub.Store().RevokedBefore(ctx, user)
	if err == nil && i.IssuedAt < revoked {
		err = errRevoked
	}
	return i, err
}

// logout answers and closes.
func (s *Session) logout(p *codec.Packet) {
	if problem := codec.DecodeEmpty(p.Data); !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	l := s.loop()
	l.scratch = codec.AppendLogout(l.scratch[:0], p.ID)
	s.send(l.scratch)
	s.conn.Close(ReasonLogout, 1000, "logged out")
}
