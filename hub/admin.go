package hub

import (
	"context"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/store"
)

// Error is a refusal with a code of the protocol. The HTTP API and the sessions answer with it.
type Error struct {
	Code         codec.Code
	Message      string
	RetryAfterMs int
}

func (e *Error) Error() string { return e.Code.Name() + ": " + e.Message }

// Outgoing is a message for Send. From "" is the system. Exactly one of To and Group is set.
type Outgoing struct {
	From, To, Group string
	ID              string
	Type            int64
	Content         []byte // raw JSON, proven valid by the caller
	Ephemeral       bool
}

// Sent is Send's answer, after the message is durable. Seq is 0 for an ephemeral one.
type Sent struct {
	MsgID     codec.MsgID
	Conv      string
	Seq       uint64
	TS        int64
	Duplicate bool
}

// TerminalInfo is one logged-in terminal.
type TerminalInfo struct {
	Terminal, SessionID, Node, Transport, IP string
	Since                                    int64 // ms
	Acked                                    uint64
	Lagging                                  bool
}

// UserInfo is what GET /v1/users/{user} shows.
type UserInfo struct {
	User      string
	Online    bool
	LastSeen  int64
	Inbox     store.Inbox
	Terminals []TerminalInfo
}

// Stats is a snapshot of the hub's counters.
type Stats struct {
	Sessions          int64
	UsersOnline       int64
	Accepted          map[string]int64 // by kind: private, group, system, recall, ephemeral
	PushDeliveries    int64
	PullDeliveries    int64
	Lagging           int64
	QueuedSubmissions int64
	CommitSeconds     HistogramSnapshot
	CommitBatch       HistogramSnapshot
	DeliverySeconds   HistogramSnapshot
	Store             store.Stats
	ReadOnly          bool
}

// HistogramSnapshot is a histogram: Counts[i] are the values ≤ Bounds[i] and above the bound before, the last count is of those above all bounds.
type HistogramSnapshot struct {
	Bounds []float64
	Counts []uint64
	Sum    float64
}

// NodeInfo is one node of the cluster.
type NodeInfo struct {
	Node, Incarnation, Address string
	Since                      int64 // ms
	Connections, Sessions      int64
}

// The methods below serve the HTTP API. They are safe for concurrent use, block until ctx ends at most, and give an
// *Error for what the caller did wrong and for UNAVAILABLE; any other error is INTERNAL.

// Send commits m and returns when it is durable.
func (h *Hub) Send(ctx context.Context, m Outgoing) (Sent, error) { panic("stub") }

// Broadcast pushes an ephemeral system message to every session here and on other nodes; it returns to how many.
func (h *Hub) Broadcast(ctx context.Context, typ int64, content []byte) (online int, err error) {
	panic("stub")
}

func (h *Hub) User(ctx context.Context, user string) (UserInfo, error) { panic("stub") }
func (h *Hub) PresenceOf(ctx context.Context, users []string) ([]codec.PresenceState, error) {
	panic("stub")
}

// Kick closes the user's sessions (terminal "" = all) with KICKED and returns how many.
func (h *Hub) Kick(ctx context.Context, user, terminal, reason string) (closed int, err error) {
	panic("stub")
}

// Revoke refuses tokens issued before (ms; 0 or a later time = now) and closes their sessions; it returns the time that stands.
func (h *Hub) Revoke(ctx context.Context, user string, before int64) (int64, error) { panic("stub") }

func (h *Hub) PutGroup(ctx context.Context, group string, members []string) (store.GroupInfo, error) {
	panic("stub")
}
func (h *Hub) Group(ctx context.Context, group string) (store.GroupInfo, error) { panic("stub") }
func (h *Hub) DeleteGroup(ctx context.Context, group string) error              { panic("stub") }
func (h *Hub) Members(ctx context.Context, group, cursor string, limit int) (members []string, next string, err error) {
	panic("stub")
}
func (h *Hub) ChangeMembers(ctx context.Context, group string, add, remove []string) (size int, err error) {
	panic("stub")
}

// Messages is a conversation's history (before, after nil = absent).
func (h *Hub) Messages(ctx context.Context, conv string, before, after *uint64, limit int) (messages []codec.ConvMessage, more bool, err error) {
	panic("stub")
}

// RecallMessage takes a message back without a window and returns the event's sequence.
func (h *Hub) RecallMessage(ctx context.Context, conv string, seq uint64) (uint64, error) {
	panic("stub")
}

func (h *Hub) Inbox(ctx context.Context, user string, after uint64, limit int) (entries []codec.InboxEntry, box store.Inbox, more bool, err error) {
	panic("stub")
}

// Backup writes a checkpoint of the embedded store to dir.
func (h *Hub) Backup(ctx context.Context, dir string) error { panic("stub") }

func (h *Hub) Stats() Stats                                  { panic("stub") }
func (h *Hub) Nodes(ctx context.Context) ([]NodeInfo, error) { panic("stub") }
