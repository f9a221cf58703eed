package api

import (
	"context"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
)

// Pages of an inbox, as for PULL, and the longest reason that a kicked client is told, in bytes.
const (
	defaultInbox = 100
	maxInbox     = 500
	maxReason    = 1024

	defaultUsers, maxUsersPage = 50, 200

	defaultConversations, maxConversations = 50, 200 // as for CONVERSATIONS
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
	// Positions in the inbox, of all terminals ever seen.
	Positions map[string]uint64 `json:"positions"`
}

// getUsers is for people who look for somebody: who is online on this node.
func (s *server) getUsers(_ context.Context, in *input) ([]byte, error) {
	prefix, _ := in.param("prefix")
	after, _ := in.param("after")
	limit := in.limit(defaultUsers, maxUsersPage)
	if err := in.done(); err != nil {
		return nil, err
	}
	users, more := s.hub.Online(prefix, after, limit)
	if users == nil {
		users = []string{}
	}
	return encode(map[string]any{"users": users, "more": more})
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
		Positions: info.Positions,
	}
	if u.Positions == nil {
		u.Positions = map[string]uint64{}
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

func (s *server) getConversations(ctx context.Context, in *input) ([]byte, error) {
	name := in.pathName("user")
	cursor, _ := in.param("cursor")
	limit := in.limit(defaultConversations, maxConversations)
	if err := in.done(); err != nil {
		return nil, err
	}
	list, next, err := s.hub.Conversations(ctx, name, cursor, limit)
	if err != nil {
		return nil, err
	}
	return codec.AppendConversationsData(nil, hub.ConversationStates(list), next), nil
}
