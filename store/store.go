// Package store is where messages are kept: sequences, repeats, inboxes, positions, history and groups. It holds the
// interface and its words; store/pebble is the embedded backend and store/storetest the suite that every backend passes.
package store

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Kind is what a stored entry of a conversation is.
type Kind uint8

// The kinds. Their numbers are kept on disk.
const (
	Private Kind = 1 // a user to a user, conversation p:<a>:<b>
	Group   Kind = 2 // a member to a group, conversation g:<group>
	System  Kind = 3 // the system to a user (n:<user>) or to a group (g:<group>)
	Recall  Kind = 4 // the event that takes a message back, in the message's conversation
)

// Errors that callers branch on. Others are wrapped I/O errors.
var (
	// ErrReadOnly: nothing can be kept now (disk full, I/O error). Nothing of the call was kept, except that a Commit
	// whose Wait gives it may still appear. The store recovers by itself.
	ErrReadOnly = errors.New("store: read-only")
	ErrClosed   = errors.New("store: closed")
	ErrNotFound = errors.New("store: not found")
	ErrTooMany  = errors.New("store: too many members")
	// ErrForbidden: the user is no member of the conversation.
	ErrForbidden = errors.New("store: forbidden")
	// ErrPosition: a position above the head.
	ErrPosition = errors.New("store: position above head")
	// ErrFenced: Commit's partition stands at another offset; another owner has moved it.
	ErrFenced = errors.New("store: fenced")
)

// Draft is a message that was accepted and is to be committed. It must not change until the commit is done; the
// backend copies what it keeps.
type Draft struct {
	MsgID   [16]byte // first 128 bits of SHA-256 over (From, ID)
	Kind    Kind
	From    string // "" = the system, the API
	ID      []byte // the sender's id, unique per sender within the dedupe window
	Conv    string // see PrivateConv, GroupConv, SystemConv
	Type    int64
	Content []byte // raw JSON
	Target  uint64 // Recall: the seq of the message to take back
	// TS is the server's time in ms since the Unix epoch. The message gets the larger of it and the last TS of its conversation.
	TS int64
	// RecallAfter: Recall only: a target whose TS is before it is Forbidden (0 = no window, the API). A From of "" may recall anybody's.
	RecallAfter int64
	// Promised: the log has kept it and the sender was told so. Membership was judged then and is not judged again: a message to a
	// group that was deleted or left since is stored all the same (for the members of now, if there are any, and the
	// sender). Only Duplicate and Conflict keep it from being stored.
	Promised bool
}

// Outcome is what a commit made of one draft.
type Outcome uint8

// The outcomes. Only Stored writes anything.
const (
	Stored    Outcome = iota // new: everything in Result is set
	Duplicate                // the same (From, ID) and content was stored before: Seq and TS are the first one's. A Recall, by the sender or the API, of an already recalled target: the first event's, also after the window.
	Conflict                 // the same (From, ID) with other content
	NotFound                 // unknown group, or Recall of an unknown message or of an event
	Forbidden                // From is no member of the group, or Recall by another than the sender or after its window
)

// Entry is one inbox entry that a commit made.
type Entry struct {
	User  string
	Inbox uint64
}

// Result answers one Draft.
type Result struct {
	Outcome Outcome
	Seq     uint64 // in the conversation
	TS      int64
	// MsgID is the first event's when a Recall under another id is its Duplicate; else it is zero and the draft's counts.
	MsgID [16]byte
	// Large: the message went to a group above the inbox limit: it has no inbox entries.
	Large bool
	// Entries are the inbox entries, the sender's own among them. Valid until the Pending is released.
	Entries []Entry
	// TargetFrom is the sender of the message that a Recall took back (Stored only).
	TargetFrom string
}

// Pending is a commit that has its place in the order and may not be durable yet.
type Pending interface {
	// Wait returns when the batch is durable, with one Result per draft, in order; or with an error, when none of it
	// was promised. It is called once.
	Wait() ([]Result, error)
	// Release gives the results' memory back. No Result is used after it.
	Release()
}

// Message is one stored message or recall event.
type Message struct {
	Kind     Kind
	MsgID    [16]byte
	Conv     string
	Seq      uint64
	From     string // "" = the system
	ID       string
	TS       int64
	Type     int64
	Content  []byte // nil when Recalled
	Target   uint64 // Recall events
	Recalled bool
	// Large: it went to a group above the inbox limit and has no inbox entries.
	Large bool
}

// InboxEntry is a message as it stands in a user's inbox.
type InboxEntry struct {
	Inbox uint64
	Message
}

// Inbox describes a user's inbox. Head is the newest number given, 0 if none; First is the oldest still kept, Head+1 when none is.
type Inbox struct {
	Head, First uint64
}

// LargePosition is where a terminal stands in a large group.
type LargePosition struct {
	Group              string
	Acked, Head, First uint64 // conversation sequences; First as for Inbox
}

// Attachment is what a login needs to know.
type Attachment struct {
	Inbox
	Acked    uint64 // the terminal's position
	Furthest uint64 // the largest position of all terminals ever seen of the user
	// Large: the user's large groups (above the limit now, or still holding messages without inbox entries).
	Large []LargePosition
	// RevokedBefore: tokens issued before it (ms) are refused; 0 = none.
	RevokedBefore int64
}

// GroupInfo describes a group.
type GroupInfo struct {
	Group string
	Size  int
	// Large: above the inbox limit now, or still holding messages without inbox entries.
	Large bool
	Head  uint64
}

// Conversation is one line of a user's conversation list.
type Conversation struct {
	Conv, Kind, Peer, Group string // Kind: private, group, system
	Head, Read, Unread      uint64
	PeerDelivered, PeerRead uint64 // private only
	Last                    *Message
}

// EventKind is what an Event tells of.
type EventKind uint8

// The kinds of events. Their numbers are kept on disk.
const (
	EventStored    EventKind = 1 // Message
	EventRecalled  EventKind = 2 // Message is the recall's event
	EventDelivered EventKind = 3 // User, Conv, Seq: as RECEIPT says it
	EventRead      EventKind = 4 // User, Conv, Seq
)

// Event is one entry of the outbox, for business services.
type Event struct {
	ID      uint64 // within the partition; opaque but for its order
	Kind    EventKind
	TS      int64 // ms
	User    string
	Conv    string
	Seq     uint64
	Message *Message // as it stood when it was stored: its content is there though it was recalled since; nil if retention removed it
}

// Store is the contract. All methods are safe for concurrent use unless they say otherwise. Reads never show what is
// not durable, and see every commit whose Wait has returned. Names are valid (see PROTOCOL §2); backends need not check them again. Limits of
// bytes cut a page at about 256 KiB of content, but never below one entry. Every method gives ErrClosed after Close.
type Store interface {
	// Epoch is the store's identity, random, new for a store that was restored from an older backup.
	Epoch() string

	// Commit takes drafts in order: recognises repeats (also within the batch), gives each new one the next sequence
	// of its conversation and of each recipient's inbox, and makes all of it one atomic write. Commit is called by one
	// goroutine at a time per partition and returns as soon as the batch has its place; a second Commit may follow before the
	// first one's Wait, and becomes durable after it or not at all. partition and next are the log's offset: an
	// embedded store has one partition 0 and ignores next; others move the partition's offset to next in the same transaction (ErrFenced).
	Commit(ctx context.Context, partition int, next int64, drafts []*Draft) (Pending, error)

	// Attach makes the terminal known: a terminal never seen before starts where the furthest terminal of its user
	// stands, in large groups too (else where the group stood when the user joined). What it creates is durable when it returns.
	Attach(ctx context.Context, user, terminal string) (Attachment, error)
	// AttachGroup is Attach for one large group that the user has just come to; ErrForbidden if no member.
	AttachGroup(ctx context.Context, user, terminal, group string) (LargePosition, error)

	// Head is the user's inbox.
	Head(ctx context.Context, user string) (Inbox, error)
	// Heads are the newest inbox numbers of users, in the order asked.
	Heads(ctx context.Context, users []string) ([]uint64, error)
	// ReadInbox returns the entries after a number, oldest first, at most limit, and whether there are more. after below First−1 begins at First.
	ReadInbox(ctx context.Context, user string, after uint64, limit int) (entries []InboxEntry, box Inbox, more bool, err error)
	// ConvHead is the newest and the oldest kept sequence of a conversation (0 and 1 for one without messages).
	ConvHead(ctx context.Context, conv string) (Inbox, error)
	// History: with after ≠ nil oldest first from after+1, else newest first from below before (nil = from the head).
	History(ctx context.Context, conv string, before, after *uint64, limit int) (messages []Message, more bool, err error)
	// Conversations pages through what the user has a message in and may read now, newest activity first (of the same ms, the later commit first). cursor "" begins; next "" ends. A malformed cursor is ErrNotFound.
	Conversations(ctx context.Context, user, cursor string, limit int) (list []Conversation, next string, err error)

	// Ack moves the terminal's inbox position forward (never back). Durable within 3 s and at Close. It is called on event loops
	// and does no I/O: the caller has seen that the entry exists and that the terminal was attached. ErrReadOnly, ErrClosed.
	Ack(user, terminal string, inbox uint64) error
	// AckGroup is Ack in a large group, by the same rules; a position of who has left the group has no effect on a later return.
	AckGroup(user, terminal, group string, seq uint64) error
	// Read moves the user's read position in a conversation; moved tells whether it did. ErrPosition above the head, ErrForbidden if the conversation is not the user's. Durable as Ack.
	Read(ctx context.Context, user, conv string, seq uint64) (moved bool, err error)
	// Positions are the acknowledged positions of all terminals ever seen of a user.
	Positions(ctx context.Context, user string) (map[string]uint64, error)

	// Seen keeps the time (ms) at which a user was last online. Durable as Ack, and like it without I/O. LastSeen is 0 for never.
	Seen(user string, ts int64)
	LastSeen(ctx context.Context, user string) (int64, error)
	// Revoke keeps the latest time given and returns it; durable when it returns.
	Revoke(ctx context.Context, user string, before int64) (int64, error)
	RevokedBefore(ctx context.Context, user string) (int64, error)

	// PutGroup creates the group or revives a deleted one (its sequence goes on). members nil leaves the list as it is, else it replaces
	// it. ErrTooMany above max changes nothing. added and removed are what changed.
	PutGroup(ctx context.Context, group string, members []string, max int) (info GroupInfo, added, removed []string, err error)
	// ChangeGroup adds and removes members; ErrNotFound, ErrTooMany.
	ChangeGroup(ctx context.Context, group string, add, remove []string, max int) (info GroupInfo, added, removed []string, err error)
	// DeleteGroup removes the group and its members; history stays. ErrNotFound.
	DeleteGroup(ctx context.Context, group string) (members []string, err error)
	Group(ctx context.Context, group string) (GroupInfo, error)
	// Members pages in byte order.
	Members(ctx context.Context, group, cursor string, limit int) (members []string, next string, err error)
	// IsMember: exists is false for an unknown or deleted group. It may be called on an event loop if ok is true from
	// memory: TryMember never does I/O and reports known=false when it would have to.
	IsMember(ctx context.Context, group, user string) (exists, member bool, err error)
	TryMember(group, user string) (exists, member, known bool)
	// Forget drops what is remembered of a group's members: another node has changed them. It does no I/O.
	Forget(group string)
	// GroupsOf are the groups of a user, in byte order.
	GroupsOf(ctx context.Context, user string) ([]string, error)

	// Offset is the partition's offset: the next of its last commit, 0 before the first. An embedded store has none: 0.
	Offset(ctx context.Context, partition int) (int64, error)

	// Delivered notes, for the outbox, that the furthest terminal of user has moved over seq of a private conversation. Durable as
	// Ack, and like it without I/O. It does nothing in a store without an outbox.
	Delivered(user, conv string, seq uint64)
	// Outbox is what happened and was not Published yet, oldest first, in order per conversation; a partition's events are those of the
	// conversations whose messages are committed by it. Entries are written in the transaction of what they tell of. Without
	// an outbox (an option of the backend) it is empty.
	Outbox(ctx context.Context, partition, limit int) ([]Event, error)
	// Published drops events that Outbox gave, by their ids.
	Published(ctx context.Context, partition int, ids []uint64) error

	// Expire drops messages whose day bucket ended before now − retention, and repeats older than the dedupe window.
	// It is called every few minutes; it returns how many buckets went.
	Expire(ctx context.Context, now time.Time) (int, error)
	// Checkpoint writes a consistent copy that opens as a store of its own (with a new epoch) to dir, which must not exist.
	Checkpoint(ctx context.Context, dir string) error
	// State is nil when the store can keep messages, else why it cannot.
	State() error
	Stats() Stats
	// Close makes positions durable and ends the store.
	Close() error
}

// Stats is a snapshot for metrics.
type Stats struct {
	Messages, Entries, Duplicates int64 // committed since the start
	SizeBytes                     int64
	SyncSeconds                   float64 // the last sync
	FilterHits                    int64   // look-ups that the repeat filter could not spare
	MemoryBytes                   int64   // what it holds in this process for speed: caches and what is not written as tables yet; about
	HeapBytes                     int64   // the part of it that is in Go's heap
	HeadBytes                     int64   // the part of that which is many small objects, each to be marked by every collection; about
	FreeBytes                     int64   // what its disk has left; 0 = not known here
	Syncs                         SyncHistogram
}

// SyncBounds are the upper bounds of SyncHistogram's buckets, in seconds: from a disk with a cache of its own to one that hangs.
var SyncBounds = []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5}

// SyncHistogram counts how long commits waited for the disk, or for the database that keeps them: Counts[i] up to SyncBounds[i]
// and above the bound before, the last one above all. Its zero value is empty.
type SyncHistogram struct {
	Counts [16]uint64
	Sum    float64 // seconds
}

// Observe counts one. The caller serialises.
func (h *SyncHistogram) Observe(d time.Duration) {
	i, _ := slices.BinarySearch(SyncBounds, d.Seconds())
	h.Counts[i]++
	h.Sum += d.Seconds()
}
