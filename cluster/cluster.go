// Package cluster is what nodes tell each other: who is on which node, and that something was committed for users that
// are elsewhere. cluster/local is a cluster of one.
package cluster

import (
	"context"

	"github.com/meshtalk/meshtalk/codec"
)

// Route says that a terminal of a user is logged in at a node. Epoch orders the logins of one (user, terminal): the
// larger one is the newer.
type Route struct {
	User, Terminal, Node string
	Epoch                uint64
}

// Wake tells another node what was committed for a user that is there: the inbox number and the message, so that the
// common case needs no read. For a large group Group is set and User is empty.
type Wake struct {
	User, Group string
	Inbox       uint64
	Message     *codec.ConvMessage
}

// Signal is something that is kept nowhere: a packet for a user's sessions (typing, receipt, an ephemeral message) or
// a change of presence.
type Signal struct {
	User   string
	Packet []byte               // nil for a change of presence
	State  *codec.PresenceState // of User, for those who watch it
}

// Receiver is a node as the others reach it. Its methods must not block.
type Receiver interface {
	Woken(wakes []Wake)
	Signalled(signals []Signal)
	// Superseded: a newer login of the route's (user, terminal) happened elsewhere.
	Superseded(r Route)
	// Ordered: close sessions of a user (terminal "" = all); with code CodeRevoked those whose token was issued before the time (ms).
	Ordered(user, terminal string, code codec.Code, reason string, before int64)
	// Resync: wake-ups may have been lost; compare the heads of the users here with what was pushed.
	Resync()
}

// Node describes one live node.
type Node struct {
	ID, Incarnation, Address string
	Since                    int64 // ms since the Unix epoch
}

// Cluster is this node's view of the others. Safe for concurrent use. What it keeps can be rebuilt by the nodes: losing it
// loses no message.
type Cluster interface {
	// Self is this node. Alone tells that there can be no others: nothing needs to be sent.
	Self() Node
	Alone() bool
	// Run receives for r until ctx ends.
	Run(ctx context.Context, r Receiver) error
	// Join publishes a login; the older session of the same (user, terminal), if another node has one, gets Superseded there. Leave removes it if it still is the newest.
	Join(ctx context.Context, r Route) error
	Leave(r Route)
	// Wake, Send and Order are hints: best effort, batched, never blocking.
	Wake(wakes []Wake)
	Send(signals []Signal)
	Order(user, terminal string, code codec.Code, reason string, before int64)
	// Routes are where users are logged in on other nodes.
	Routes(ctx context.Context, users []string) ([]Route, error)
	// Nodes are the live nodes, this one first.
	Nodes(ctx context.Context) ([]Node, error)
	// State is nil when the others can be reached.
	State() error
}
