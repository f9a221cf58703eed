// Package cluster is what nodes tell each other: who is on which node, and that something was committed for users that
// are elsewhere. cluster/local is a cluster of one.
package cluster

import (
	"context"

	"github.com/meshtalk/meshtalk/codec"
)

// Route says that a terminal of a user is logged in at a node.
type Route struct {
	User, Terminal, Node string
}

// Wake tells another node what was committed for a user that is there: the inbox number and the message, so that the
// common case needs no read. Message never changes; entries of one message share it. For a large group Group is set and User is empty.
type Wake struct {
	User, Group string
	Inbox       uint64
	Message     *codec.ConvMessage
}

// Signal is something that is kept nowhere. Exactly one of User, Group and Broadcast says for whom.
type Signal struct {
	// User's sessions get Packet (typing, receipt, an ephemeral message); without one, State is a change of the user's presence for
	// all nodes, whose sessions may watch it.
	User   string
	Packet []byte
	State  *codec.PresenceState
	// Group: Packet is for the followers of this large group on all nodes, without the sessions of the user Except.
	Group, Except string
	// Broadcast is an ephemeral system message for every session of all nodes, each of which puts its user in.
	Broadcast *codec.ConvMessage
}

// Receiver is a node as the others reach it. Its methods must not block, but for Asked.
type Receiver interface {
	Woken(wakes []Wake)
	Signalled(signals []Signal)
	// Superseded: a newer login of the (user, terminal) that was joined here as ref happened elsewhere.
	Superseded(user, terminal string, ref uint64)
	// MembersChanged: another node has changed a group.
	MembersChanged(c MembersChange)
	// Answered: owners of partitions answer submissions that were made here.
	Answered(answers []Answer)
	// NodesChanged: nodes came or went; this one first, the others by ID.
	NodesChanged(nodes []Node)
	// Ordered: close sessions of a user (terminal "" = all); with code CodeRevoked those whose token was issued before the time (ms).
	Ordered(user, terminal string, code codec.Code, reason string, before int64)
	// Asked answers a question of another node's hub; it may block and is called from a goroutine of its own.
	Asked(ctx context.Context, question []byte) (answer []byte)
	// Resync: wake-ups may have been lost; compare the heads of the users here with what was pushed.
	Resync()
}

// MembersChange is what a node did to a group. Users are named when it is large, now or before: sessions of theirs elsewhere begin or
// cease to follow it.
type MembersChange struct {
	Group          string
	Added, Removed []string
	// Large tells that the group is large now, BecameLarge that it was not before: every member begins to follow it.
	Large, BecameLarge bool
}

// Answer is what a commit made of a submission of another node. Ref and Token are the submitter's own.
type Answer struct {
	Ref       uint64
	Token     uint64
	ID        []byte // the submission's id
	Code      codec.Code
	Message   string
	MsgID     [16]byte
	Seq       uint64
	TS        int64
	Duplicate bool
}

// Node describes one live node.
type Node struct {
	ID, Incarnation, Address string
	Since                    int64 // ms since the Unix epoch
	Load                     Load
}

// Load is what a node says of itself, some seconds old.
type Load struct {
	Connections, Sessions int64
	Queues                []int         // partitions that it consumes
	Unfit                 bool          // it cannot consume: log or store do not answer it
	Lag                   map[int]int64 // see mq.Log.Lag
}

// Stats are counters of a cluster that keeps any, through a method Stats() Stats.
type Stats struct {
	Routes            int64 // of terminals of this node, as published
	WakesIn, WakesOut int64 // users that others told this node of, and the other way
}

// Cluster is this node's view of the others. Safe for concurrent use. What it keeps can be rebuilt by the nodes: losing it
// loses no message.
type Cluster interface {
	// Self is this node. Alone tells that there can be no others: nothing needs to be sent.
	Self() Node
	Alone() bool
	// Run receives for r until ctx ends. An error before that tells that this node cannot be part of the cluster any more: it is to stop.
	Run(ctx context.Context, r Receiver) error
	// Join publishes a login as the newest of its (user, terminal); the older session, if another node has one, gets Superseded
	// there. When the others cannot be reached it succeeds all the same: the route is published as soon as they can be, and the newer
	// login wins then. elsewhere tells that the older session was on another node. ref is the caller's name for the session.
	Join(ctx context.Context, user, terminal string, ref uint64) (elsewhere bool, err error)
	// Leave removes the route of a Join if it still is the newest. It does not block.
	Leave(user, terminal string, ref uint64)
	// What follows is best effort, batched and never blocks: to the nodes where the users are, or for a large group to all.
	Wake(wakes []Wake)
	Send(signals []Signal)
	Members(c MembersChange)
	Reply(node string, a Answer)
	Order(user, terminal string, code codec.Code, reason string, before int64)
	// Ask asks the hub of another node; an error when it does not answer before ctx ends.
	Ask(ctx context.Context, node string, question []byte) (answer []byte, err error)
	// Routes are where users are logged in on other nodes.
	Routes(ctx context.Context, users []string) ([]Route, error)
	// Nodes are the live nodes, this one first.
	Nodes(ctx context.Context) ([]Node, error)
	// State is nil when the others can be reached.
	State() error
}
