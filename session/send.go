package session

import (
	"errors"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
	"github.com/meshtalk/meshtalk/store"
)

// maxInFlight is how many submissions of one connection may wait for their answer before it is not read any further: enough to
// fill a commit batch, few enough that one client cannot fill the queue.
const maxInFlight = 512

func (s *Session) privateMessage(p *codec.Packet) { s.message(p, "to") }
func (s *Session) groupMessage(p *codec.Packet)   { s.message(p, "group") }

// message takes a PRIVATE_MESSAGE or GROUP_MESSAGE.
func (s *Session) message(p *codec.Packet, target string) {
	r := &s.loop().in.send
	*r = codec.SendRequest{}
	if problem := codec.DecodeSend(p.Data, target, r); !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	switch hook := s.loop().m.o.Hooks.BeforeSend; {
	case hook != nil:
		s.beforeSend(p, r)
	case r.Ephemeral:
		s.ephemeral(s.outgoing(p, r))
	default:
		s.admit(p.ID, s.placed(p.Cmd, r.Target), r.Type, r.Content)
	}
}

// admit submits a message that may be promised. Where that takes a read, nothing more is read from the connection meanwhile.
func (s *Session) admit(id []byte, d store.Draft, typ int64, content []byte) {
	known, refusal := s.hub().TryAdmit(&d)
	switch {
	case refusal != nil:
		s.refuseError(id, refusal)
	case known:
		s.submit(id, d, typ, content)
	default:
		s.admitLater(clone(id), d, typ, clone(content))
	}
}

func (s *Session) admitLater(id []byte, d store.Draft, typ int64, content []byte) {
	m := s.loop().m
	var err error
	s.ask(func() {
		ctx := m.deadlines.context()
		err = m.hub.Admit(ctx, &d)
	}, func() {
		if err != nil {
			s.refuseError(id, err)
			return
		}
		s.submit(id, d, typ, content)
	})
}

// placed is a draft with the kind and the conversation of a send.
func (s *Session) placed(cmd codec.Cmd, target []byte) (d store.Draft) {
	d.From = s.user
	if cmd == codec.GroupMessage {
		d.Kind, d.Conv = store.Group, store.GroupConv(string(target))
	} else {
		d.Kind, d.Conv = store.Private, store.PrivateConv(s.user, string(target))
	}
	return d
}

// submit hands a message to the hub; answered goes on.
func (s *Session) submit(id []byte, d store.Draft, typ int64, content []byte) {
	sub := s.hub().NewSubmission(id, content)
	sub.Ref = s.ref()
	sub.Draft.From, sub.Draft.Kind, sub.Draft.Conv = d.From, d.Kind, d.Conv
	sub.Draft.Target, sub.Draft.RecallAfter = d.Target, d.RecallAfter
	sub.Draft.Type = typ
	if err := s.hub().Submit(sub); err != nil {
		s.hub().Free(sub)
		s.refuseError(id, err)
		return
	}
	if s.inFlight++; s.inFlight >= maxInFlight {
		s.held = true
		s.conn.Pause()
	}
}

// answered tells the sender what became of a submission.
func (s *Session) answered(sub *hub.Submission) {
	s.inFlight--
	if s.held && s.inFlight < maxInFlight/2 {
		s.held = false
		s.resume()
	}
	if sub.Err != nil {
		s.refuseError(sub.Draft.ID, sub.Err)
		return
	}
	l := s.loop()
	l.scratch = codec.AppendSendAck(l.scratch[:0], sub.Draft.ID, codec.MsgID(sub.Draft.MsgID),
		sub.Draft.Conv, sub.TS, sub.Seq, sub.Duplicate)
	s.send(l.scratch)
}

func (s *Session) outgoing(p *codec.Packet, r *codec.SendRequest) Outgoing {
	o := Outgoing{
		From: s.user, Kind: p.Cmd, ID: string(p.ID),
		Type: r.Type, Content: clone(r.Content), Ephemeral: r.Ephemeral,
	}
	if p.Cmd == codec.GroupMessage {
		o.Group = string(r.Target)
	} else {
		o.To = string(r.Target)
	}
	return o
}

// ephemeral pushes a message that is kept nowhere.
func (s *Session) ephemeral(o Outgoing) {
	var sent hub.Sent
	var err error
	s.ask(func() {
		ctx := s.loop().m.deadlines.context()
		sent, err = s.hub().SendEphemeral(ctx, hub.Outgoing{
			From: o.From, To: o.To, Group: o.Group, ID: o.ID, Type: o.Type, Content: o.Content, Ephemeral: true,
		})
	}, func() {
		if err != nil {
			s.refuseError([]byte(o.ID), err)
			return
		}
		s.send(codec.AppendSendAck(nil, []byte(o.ID), sent.MsgID, sent.Conv, sent.TS, 0, false))
	})
}

// beforeSend asks the hook first.
func (s *Session) beforeSend(p *codec.Packet, r *codec.SendRequest) {
	o, cmd, ephemeral := s.outgoing(p, r), p.Cmd, r.Ephemeral
	var err error
	s.ask(func() {
		ctx, cancel := s.loop().m.deadlines.call()
		defer cancel()
		if err = s.loop().m.o.Hooks.BeforeSend(ctx, &o); err == nil && !codec.ValidContent(o.Content) {
			err = &Refusal{Code: codec.CodeInternal, Message: "a hook made the content invalid"}
		}
	}, func() {
		switch {
		case err != nil:
			s.refuseError([]byte(o.ID), refusal(err))
		case ephemeral:
			s.ephemeral(o)
		default:
			target := o.To
			if cmd == codec.GroupMessage {
				target = o.Group
			}
			s.admit([]byte(o.ID), s.placed(cmd, []byte(target)), o.Type, o.Content)
		}
	})
}

// refusal makes a hook's error an answer: its own code, or FORBIDDEN.
func refusal(err error) error {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Code: codec.CodeForbidden, Message: err.Error()}
}

// recall takes a message back.
func (s *Session) recall(p *codec.Packet) {
	var r codec.SeqRequest
	if problem := codec.DecodeSeq(p.Data, &r); !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	switch kind, _, _ := store.ConvKind(r.Conv); kind {
	case 0:
		s.refuse(p.ID, codec.CodeNotFound, "no such conversation")
		return
	case 'p':
		if _, mine := store.Peer(r.Conv, s.user); !mine {
			s.refuse(p.ID, codec.CodeForbidden, "not a member of this conversation")
			return
		}
	}
	s.submit(p.ID, store.Draft{
		From: s.user, Kind: store.Recall, Conv: r.Conv, Target: r.Seq,
		RecallAfter: s.now() - s.loop().m.o.RecallWindow.Milliseconds(),
	}, 0, nil)
}

// typing tells the others of a conversation; it is kept nowhere and has no answer.
func (s *Session) typing(p *codec.Packet) {
	var r codec.TypingRequest
	if problem := codec.DecodeTyping(p.Data, &r); !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	if r.Group == "" {
		if r.To != s.user {
			s.hub().Tell(r.To, 0, codec.Typing, codec.AppendTyping(nil, store.PrivateConv(s.user, r.To), s.user))
		}
		return
	}
	id, m, user := clone(p.ID), s.loop().m, s.user
	var err error
	s.ask(func() {
		ctx := m.deadlines.context()
		if err = m.hub.Member(ctx, r.Group, user); err == nil {
			packet := codec.AppendTyping(nil, store.GroupConv(r.Group), user)
			err = m.hub.TellGroup(ctx, r.Group, user, codec.Typing, packet)
		}
	}, func() {
		if err != nil {
			s.refuseError(id, err)
		}
	})
}
