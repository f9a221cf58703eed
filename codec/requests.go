package codec

// The decoders below read the "data" of a packet. They accept unknown fields, accept a JSON integer where a name is
// expected, check names (1–64 bytes of UTF-8, no control characters, no ':' and no '/'), and never allocate except for
// names that need unescaping. Byte slices alias data; strings are copies. Every refusal is BAD_PACKET.

// SendRequest is the data of PRIVATE_MESSAGE and GROUP_MESSAGE.
type SendRequest struct {
	Target    []byte // "to" or "group"
	Type      int64
	Content   []byte // raw JSON, byte for byte
	Ephemeral bool
}

// LoginRequest is the data of LOGIN.
type LoginRequest struct {
	AccessToken string // empty when absent (the token may have come with the upgrade)
	Terminal    string // empty when absent
	ClientAck   bool   // ack: "client"
	Window      int    // 0 when absent; clamped to 1,024; below 1 is BAD_PACKET
	HasResume   bool
	ResumeEpoch string // empty when absent
	ResumeInbox uint64
}

// AckRequest is the data of ACK: either Inbox, or Conv and Seq.
type AckRequest struct {
	Inbox    uint64
	HasInbox bool
	Conv     []byte
	Seq      uint64
}

// PullRequest is the data of PULL.
type PullRequest struct {
	After uint64
	Limit int // default 100, clamped to 500
}

// HistoryRequest is the data of HISTORY. Before and After are exclusive bounds.
type HistoryRequest struct {
	Conv      string
	Before    uint64
	HasBefore bool
	After     uint64
	HasAfter  bool
	Limit     int // default 50, clamped to 200
}

// SeqRequest is the data of READ and RECALL.
type SeqRequest struct {
	Conv string
	Seq  uint64
}

// TypingRequest is the data of TYPING: exactly one of To and Group.
type TypingRequest struct {
	To    string
	Group string
}

// PresenceRequest is the data of PRESENCE.
type PresenceRequest struct {
	Watch   []string
	Unwatch []string
}

// ConversationsRequest is the data of CONVERSATIONS.
type ConversationsRequest struct {
	After string // opaque cursor, empty for the first page
	Limit int    // default 50, clamped to 200
}
