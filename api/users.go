package api

import (
	"context"

	"github.com/meshtalk/meshtalk/codec"
)

// Pages of an inbox, as for PULL, and the longest reason that a kicked client is told, in bytes.
const (
	defaultInbox = 100
	maxInbox     = 500
	maxReason    = 1024
)

// terminal and user are what GET /v1/users/{user} shows.
type terminal struct {
	Terminal  string `json:"terminal"`
	SessionID string `json:"sessionId"`
	Node      string `json:"node"`
	Transport string `json:"transport"`
	IP        string `json:"ip"`
	Since     int64  `json:"since"`
	Acked     uint64 `json:"acked"`
	Lagging   bool   `json:"lagging"`
}

type inbox struct {
	Head  uint64 `json:"head"`
	First uint64 `json:"first"`
}

type user struct {
	User      string     `json:"user"`
	Online    bool       `json:"online"`
	LastSeen  int64      `json:"lastSeen"`
	Inbox     inbox      `json:"inbox"`
	Terminals []terminal `json:"terminals"`
}

func (s *server) getUser(ctx context.Context, in *input) ([]byte, error) {
	name := in.pathName("user")
	if err := in.done(); err != nil {
		return nil, err
	}
	info, err := s.hub.User(ctx, name)
	if err != nil {
		return nil, err
	}
	u := user{
		User: info.User, Online: info.Online, LastSeen: info.LastSeen,
		Inbox:     inbox{info.Inbox.Head, info.Inbox.First},
		Terminals: make([]terminal, len(info.Terminals)),
	}
	for i, t := range info.Terminals {
		u.Terminals[i] = terminal(t)
	}
	return encode(u)
}

func (s *server) postPresence(ctx context.Context, in *input) ([]byte, error) {
	if !in.has("users") {
		in.missing("users")
	}
	users := in.names("users")
	if len(users) > maxUsers {
		in.wrong(bad(`"users" holds at most %d names`, maxUsers))
	}
	if err := in.done(); err != nil {
		return nil, err
	}
	states, err := s.hub.PresenceOf(ctx, users)
	if err != nil {
		return nil, err
	}
	return codec.AppendPresenceData(nil, states), nil
}

func (s *server) postKick(ctx context.Context, in *input) ([]byte, error) {
	name := in.pathName("user")
	terminal, reason := in.name("terminal", codec.MaxTerminal), in.text("reason", maxReason)
	if err := in.done(); err != nil {
		return nil, err
	}
	closed, err := s.hub.Kick(ctx, name, terminal, reason)
	if err != nil {
		return nil, err
	}
	return encode(map[string]int{"closed": closed})
}

func (s *server) postRevoke(ctx context.Context, in *input) ([]byte, error) {
	name := in.pathName("user")
	before, given := in.integer("before")
	if before < 0 {
		in.wrong(bad(`"before" is not a time`))
	}
	if err := in.done(); err != nil {
		return nil, err
	}
	if given {
		before = max(before, 1) // 0 is now to the hub
	}
	stands, err := s.hub.Revoke(ctx, name, before)
	if err != nil {
		return nil, err
	}
	return encode(map[string]int64{"before": stands})
}

func (s *server) getInbox(ctx context.Context, in *input) ([]byte, error) {
	name := in.pathName("user")
	after, limit := in.seqParam("after"), in.limit(defaultInbox, maxInbox)
	if err := in.done(); err != nil {
		return nil, err
	}
	if after == nil {
		after = new(uint64)
	}
	entries, box, more, err := s.hub.Inbox(ctx, name, *after, limit)
	if err != nil {
		return nil, err
	}
	return codec.AppendPullData(nil, entries, box.Head, box.First, more), nil
}
