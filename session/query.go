package session

import (
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
)

// query runs work in the pool and sends the packet that it makes.
func (s *Session) query(id []byte, work func(m *Manager) (packet []byte, err error)) {
	m := s.loop().m
	var packet []byte
	var err error
	s.ask(func() { packet, err = work(m) }, func() {
		if err != nil {
			s.refuseError(id, err)
			return
		}
		s.send(packet)
	})
}

// pull answers with inbox entries.
func (s *Session) pull(p *codec.Packet) {
	var r codec.PullRequest
	if problem := codec.DecodePull(p.Data, &r); !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	id, user := clone(p.ID), s.user
	s.query(id, func(m *Manager) ([]byte, error) {
		ctx := m.deadlines.context()
		entries, box, more, err := m.hub.Inbox(ctx, user, r.After, r.Limit)
		if err != nil {
			return nil, err
		}
		return codec.AppendPull(nil, id, entries, box.Head, box.First, more), nil
	})
}

// history answers with messages of a conversation that is the user's.
func (s *Session) history(p *codec.Packet) {
	var r codec.HistoryRequest
	if problem := codec.DecodeHistory(p.Data, &r); !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	if !s.loop().m.o.HistoryEnable {
		s.refuse(p.ID, codec.CodeForbidden, "history is off")
		return
	}
	id, user := clone(p.ID), s.user
	var before, after *uint64
	if r.HasBefore {
		before = &r.Before
	}
	if r.HasAfter {
		after = &r.After
	}
	s.query(id, func(m *Manager) ([]byte, error) {
		ctx := m.deadlines.context()
		if err := m.hub.MayRead(ctx, user, r.Conv); err != nil {
			return nil, err
		}
		messages, more, err := m.hub.Messages(ctx, r.Conv, before, after, r.Limit)
		if err != nil {
			return nil, err
		}
		return codec.AppendHistory(nil, id, r.Conv, messages, more), nil
	})
}

// conversations lists what the user has messages in.
func (s *Session) conversations(p *codec.Packet) {
	var r codec.ConversationsRequest
	if problem := codec.DecodeConversations(p.Data, &r); !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	id, user := clone(p.ID), s.user
	s.query(id, func(m *Manager) ([]byte, error) {
		ctx := m.deadlines.context()
		list, next, err := m.hub.Conversations(ctx, user, r.After, r.Limit)
		if err != nil {
			return nil, err
		}
		return codec.AppendConversations(nil, id, hub.ConversationStates(list), next), nil
	})
}

// maxWatched is how many users one connection may watch.
const maxWatched = 1000

// presence changes whom the session watches and answers with their present state.
func (s *Session) presence(p *codec.Packet) {
	var r codec.PresenceRequest
	if problem := codec.DecodePresence(p.Data, &r); !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	watches := make(map[string]struct{})
	if s.x != nil {
		for u := range s.x.watches {
			watches[u] = struct{}{}
		}
	}
	for _, u := range r.Watch {
		watches[u] = struct{}{}
	}
	for _, u := range r.Unwatch {
		delete(watches, u)
	}
	if len(watches) > maxWatched {
		s.refuseBad(p.ID, "more than 1,000 watched users")
		return
	}
	x, h, ref := s.extra(), s.hub(), s.ref()
	for u := range x.watches {
		if _, ok := watches[u]; !ok {
			h.Unwatch(ref, u)
		}
	}
	for u := range watches {
		h.Watch(ref, u)
	}
	x.watches = watches
	s.tellPresence(clone(p.ID), r.Watch)
}

// tellPresence answers PRESENCE. A change that was told while the state was being looked up may be newer than what was
// found, so it is looked up again: the client may take the last it hears for the truth.
func (s *Session) tellPresence(id []byte, users []string) {
	m, told := s.loop().m, s.x.told
	var states []codec.PresenceState
	var err error
	s.ask(func() {
		ctx := m.deadlines.context()
		states, err = m.hub.PresenceOf(ctx, users)
	}, func() {
		switch {
		case err != nil:
			s.refuseError(id, err)
		case s.x.told != told:
			s.tellPresence(id, users)
		default:
			s.send(codec.AppendPresence(nil, id, states))
		}
	})
}

// tellWatched pushes the present state of all watched users: a change was dropped while there was no room.
func (s *Session) tellWatched() {
	users := make([]string, 0, len(s.x.watches))
	for u := range s.x.watches {
		users = append(users, u)
	}
	l, ref := s.loop(), s.ref()
	s.hub().Pool().Go(func() {
		ctx := l.m.deadlines.context()
		states, err := l.m.hub.PresenceOf(ctx, users)
		if err != nil {
			l.m.o.Logf("presence: %v", err)
			return
		}
		packet := codec.AppendPresence(nil, nil, states)
		l.post(func() { l.tell(ref, codec.Presence, packet) })
	})
}
