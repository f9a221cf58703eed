package client

import (
	"encoding/json"
	"errors"

	"github.com/meshtalk/meshtalk/codec"
)

// The application's side of the golden dialogues.

func (s *stage) handler() Handler {
	tell := func(name string, v any) {
		var plain any
		s.as(object{name: v}, &plain)
		s.mu.Lock()
		s.told = append(s.told, plain)
		s.mu.Unlock()
	}
	return Handler{
		OnMessage: func(m Message) { tell("message", wire(&m)) },
		OnRecall:  func(m Message) { tell("recall", wire(&m)) },
		OnReceipt: func(r Receipt) {
			tell("receipt", sparse(object{"conv": r.Conv, "user": r.User, "delivered": r.Delivered, "read": r.Read}))
		},
		OnTyping:   func(ty Typing) { tell("typing", ty) },
		OnPresence: func(p []PresenceState) { tell("presence", states(p)) },
		OnError:    func(err error) { tell("error", failure(err)) },
		OnState: func(st State) {
			switch {
			case st.Connected:
				tell("state", object{"status": "online"})
			case st.Final:
				tell("state", object{"status": "ended", "reason": failure(st.Err)["reason"]})
			default:
				tell("state", object{"status": "offline"})
			}
		},
	}
}

// sparse leaves out what is zero.
func sparse(o object) object {
	for k, v := range o {
		switch v {
		case "", uint64(0), int64(0), false, nil:
			delete(o, k)
		}
	}
	return o
}

// wire is a message in the fields of the wire.
func wire(m *Message) object {
	if m == nil {
		return nil
	}
	kind := map[codec.Cmd]string{codec.PrivateMessage: "private", codec.GroupMessage: "group", codec.SystemMessage: "system", codec.Recall: "recall"}[m.Cmd]
	o := sparse(object{"kind": kind, "msgId": m.MsgID, "conv": m.Conv, "seq": m.Seq, "inbox": m.Inbox, "from": m.From, "to": m.To, "group": m.Group,
		"ts": m.Time, "type": m.Type, "id": m.ID, "recalled": m.Recalled, "target": m.Target})
	if m.Content != nil {
		o["content"] = m.Content
	}
	return o
}

func states(list []PresenceState) []object {
	all := make([]object, len(list))
	for i, p := range list {
		all[i] = object{"user": p.User, "online": p.Online, "terminals": p.Terminals, "lastSeen": p.LastSeen}
	}
	return all
}

// failure is an error as the dialogues show it.
func failure(err error) object {
	var refusal *ServerError
	if errors.As(err, &refusal) {
		return object{"code": float64(refusal.Code)}
	}
	for reason, sentinel := range map[string]error{"replaced": ErrReplaced, "kicked": ErrKicked, "unauthorized": ErrUnauthorized,
		"revoked": ErrRevoked, "refused": ErrRefused, "closed": ErrClosed, "disconnected": ErrDisconnected} {
		if errors.Is(err, sentinel) {
			return object{"reason": reason}
		}
	}
	return object{"text": err.Error()}
}

// arguments are those of all calls.
type arguments struct {
	To, Group, ID  string
	Type           int64
	Content, Data  json.RawMessage
	Ephemeral      bool
	Conv           string
	Seq            uint64
	Before         *uint64
	After          any
	Limit          int
	Watch, Unwatch []string
	Cmd            codec.Cmd
}

// do makes a call of the application. Sends are in order; all calls are waited for elsewhere.
func (s *stage) do(what, name string, with any) {
	var a arguments
	s.as(with, &a)
	ctx := s.t.Context()
	finish := func(result any, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.errs[name] = failure(err)
			return
		}
		var plain any
		s.as(result, &plain)
		s.results[name] = plain
	}
	if what == "send" {
		pending, err := s.c.SendAsync(ctx, Outgoing{To: a.To, Group: a.Group, Type: a.Type, Content: a.content(with), ID: a.ID, Ephemeral: a.Ephemeral})
		if err != nil {
			finish(nil, err)
			return
		}
		go func() {
			ack, err := s.c.Wait(ctx, pending)
			finish(ackFields(ack), err)
		}()
		return
	}
	go func() { finish(s.call(what, &a)) }()
}

// content is the JSON value, null too.
func (a *arguments) content(with any) json.RawMessage {
	if _, there := with.(object)["content"]; there && a.Content == nil {
		return json.RawMessage("null")
	}
	return a.Content
}

func ackFields(a SendAck) object {
	return sparse(object{"id": a.ID, "msgId": a.MsgID, "conv": a.Conv, "ts": a.Time, "seq": a.Seq, "duplicate": a.Duplicate})
}

func (s *stage) call(what string, a *arguments) (any, error) {
	ctx := s.t.Context()
	switch what {
	case "recall":
		ack, err := s.c.Recall(ctx, a.Conv, a.Seq)
		return ackFields(ack), err
	case "history":
		q := HistoryQuery{Conv: a.Conv, Before: a.Before, Limit: a.Limit}
		if after, ok := a.After.(float64); ok {
			n := uint64(after)
			q.After = &n
		}
		page, err := s.c.History(ctx, q)
		list := make([]object, len(page.Messages))
		for i := range page.Messages {
			list[i] = wire(&page.Messages[i])
		}
		return object{"messages": list, "more": page.More}, err
	case "conversations":
		after, _ := a.After.(string)
		page, cursor, err := s.c.Conversations(ctx, after, a.Limit)
		list := make([]object, len(page))
		for i, c := range page {
			list[i] = sparse(object{"conv": c.Conv, "kind": c.Kind, "peer": c.Peer, "group": c.Group, "head": c.Head, "read": c.Read,
				"unread": c.Unread, "peerDelivered": c.PeerDelivered, "peerRead": c.PeerRead})
			if c.Last != nil {
				list[i]["last"] = wire(c.Last)
			}
		}
		return object{"conversations": list, "cursor": cursor}, err
	case "watch", "unwatch":
		list, err := s.c.Presence(ctx, a.Watch, a.Unwatch)
		if what == "unwatch" {
			return nil, err
		}
		return states(list), err
	case "read":
		return nil, s.c.Read(ctx, a.Conv, a.Seq)
	case "typing":
		return nil, s.c.Typing(ctx, a.To, a.Group)
	case "refresh":
		return nil, s.c.Refresh(ctx)
	case "request":
		return s.c.Do(ctx, a.Cmd, a.Data)
	}
	return nil, errors.New("no such call: " + what)
}
