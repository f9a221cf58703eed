package session

import "github.com/meshtalk/meshtalk/codec"

// command is one row of the table: what a packet of a logged-in session does.
type command struct {
	run func(s *Session, p *codec.Packet)
	// free of the rate limit
	free bool
	// needsID: without "id" it is a BAD_PACKET
	needsID bool
}

// commandCount is how many commands the protocol has of its own.
const commandCount = int(codec.Lag) + 1

// commands is the table of what clients may send. A command that is not here is the server's own, or unknown.
var commands = [commandCount]command{
	codec.Login:          {run: (*Session).loginAgain},
	codec.HeartBeat:      {run: (*Session).heartBeat, free: true},
	codec.PrivateMessage: {run: (*Session).privateMessage, needsID: true},
	codec.GroupMessage:   {run: (*Session).groupMessage, needsID: true},
	codec.Ack:            {run: (*Session).ack, free: true},
	codec.Pull:           {run: (*Session).pull},
	codec.History:        {run: (*Session).history},
	codec.Read:           {run: (*Session).read, free: true},
	codec.Typing:         {run: (*Session).typing},
	codec.Presence:       {run: (*Session).presence},
	codec.Recall:         {run: (*Session).recall, needsID: true},
	codec.Refresh:        {run: (*Session).refresh},
	codec.Logout:         {run: (*Session).logout},
	codec.Conversations:  {run: (*Session).conversations},
}

// packet handles one message of the client.
func (s *Session) packet(payload []byte) {
	p := &s.loop().in.packet
	var problem codec.Problem
	if *p, problem = codec.Parse(payload); !problem.OK() {
		s.loop().stats.packets.add(-1)
		if s.state == online {
			s.limit() // it counts, but five in a row are a better end than RATE_LIMITED
		}
		s.refuseBad(p.ID, problem.Message)
		return
	}
	s.loop().stats.packets.add(p.Cmd)
	if s.state != online {
		s.beforeLogin(p)
		return
	}
	c := s.command(p.Cmd)
	if !c.free {
		if wait := s.limit(); wait > 0 {
			s.refuseRetry(p.ID, codec.CodeRateLimited, "too many packets", wait)
			return
		}
	}
	switch {
	case c.run == nil:
		s.refuse(p.ID, codec.CodeUnknownCommand, "unknown command")
		s.bad = 0
	case c.needsID && p.ID == nil:
		s.refuseBad(nil, "id is required")
	default:
		bad := s.bad
		c.run(s, p)
		s.judged(bad)
	}
}

// judged ends a row of BAD_PACKETs if the packet was none: bad is the count from before it. One that is still with the
// pool is judged when its answer is there.
func (s *Session) judged(bad uint8) {
	if s.bad == bad && !s.busy {
		s.bad = 0
	}
}

// command finds the row of a command; its run is nil for an unknown one.
func (s *Session) command(cmd codec.Cmd) command {
	if cmd >= 0 && int(cmd) < commandCount {
		return commands[cmd]
	}
	if cmd >= codec.FirstExtension && s.loop().m.o.Hooks.Commands[cmd] != nil {
		return command{run: (*Session).extension}
	}
	return command{}
}

// beforeLogin: LOGIN, or a HEART_BEAT before it, and nothing else.
func (s *Session) beforeLogin(p *codec.Packet) {
	switch {
	case p.Cmd == codec.HeartBeat:
		s.heartBeat(p)
	case p.Cmd == codec.Login && s.state == fresh:
		s.login(p)
	default:
		s.refuse(p.ID, codec.CodeBadState, "LOGIN must come first")
		s.close(codec.CodeBadState, "LOGIN must come first")
	}
}

// limit takes one token of the session's rate limit. It returns 0, or after how many ms there is one.
func (s *Session) limit() (waitMs int) {
	set := &s.loop().settings
	if set.MessagesPerSecond <= 0 {
		return 0
	}
	now := uint32(s.now())
	rate := float32(set.MessagesPerSecond)
	burst := max(float32(set.MessagesBurst), 1)
	s.tokens = min(s.tokens+float32(now-s.refilled)*rate/1000, burst)
	s.refilled = now
	if s.tokens >= 1 {
		s.tokens--
		return 0
	}
	return int((1-s.tokens)*1000/rate) + 1
}

// heartBeat answers with the newest inbox sequence.
func (s *Session) heartBeat(p *codec.Packet) {
	if problem := codec.DecodeEmpty(p.Data); !problem.OK() {
		s.refuseBad(p.ID, problem.Message)
		return
	}
	l := s.loop()
	l.scratch = codec.AppendHeartBeat(l.scratch[:0], p.ID, s.head)
	s.send(l.scratch)
}

// extension hands a command ≥ 1000 to its handler.
func (s *Session) extension(p *codec.Packet) {
	h, info := s.loop().m.o.Hooks.Commands[p.Cmd], s.info()
	cmd, id, data := p.Cmd, clone(p.ID), clone(p.Data)
	var reply []byte
	var err error
	s.ask(func() {
		ctx, cancel := s.loop().m.deadlines.call()
		defer cancel()
		if reply, err = h(ctx, info, data); err == nil && reply != nil && !codec.ValidContent(reply) {
			err = &Refusal{Code: codec.CodeInternal, Message: "a handler's reply is no JSON"}
		}
	}, func() {
		switch {
		case err != nil:
			s.refuseError(id, refusal(err))
		case reply != nil:
			s.send(codec.AppendPacket(nil, cmd, id, reply))
		}
	})
}
