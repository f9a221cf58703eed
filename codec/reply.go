package codec

// ConvMessage is a message as clients see it: pushed (cmd 3, 4, 5, 14), in PULL entries, in HISTORY and as "last" of a
// conversation.
type ConvMessage struct {
	Cmd      Cmd // PrivateMessage, GroupMessage, SystemMessage or Recall
	MsgID    MsgID
	Conv     string
	Seq      uint64 // 0 = absent (ephemeral)
	From     string // empty = absent
	To       string // empty = absent
	Group    string // empty = absent
	TS       int64  // ms since the Unix epoch
	Type     int64
	Content  []byte // raw JSON; ignored when Recalled
	ID       string // the sender's id; empty = absent
	Target   uint64 // Recall only: the seq of the message that was taken back
	Recalled bool   // content: null, recalled: true
}

// LoginReply is the data of the LOGIN answer.
type LoginReply struct {
	UserID, Terminal, SessionID string
	ServerTime, ExpiresAt       int64 // ms
	Heartbeat                   int   // s
	Epoch                       string
	Head, First, Acked          uint64
	Resumed                     bool
	Node                        string
}

// PresenceState is one element of "states".
type PresenceState struct {
	User      string
	Online    bool
	Terminals []string
	LastSeen  int64 // ms, 0 = never
}

// ConversationState is one element of "conversations".
type ConversationState struct {
	Conv, Kind, Peer, Group string // Kind: private, group or system; Peer, Group empty = absent
	Head, Read, Unread      uint64
	PeerDelivered, PeerRead uint64 // sent for private conversations only
	Last                    *ConvMessage
}

// InboxEntry is one element of PULL's "entries".
type InboxEntry struct {
	Inbox uint64
	ConvMessage
}
