package codec

// Interfaces of this package, to be filled in. Every function below is replaced by its real body in a file of its idea.

// Number is the code on the wire: CodeRevoked is 4010.
func (c Code) Number() int { panic("stub") }

// Name is the name on the wire, such as "BAD_PACKET"; it is also the label of metrics.
func (c Code) Name() string { panic("stub") }

// Retryable reports whether the same packet may succeed later (RATE_LIMITED, UNAVAILABLE, INTERNAL).
func (c Code) Retryable() bool { panic("stub") }

// Parse reads one envelope. It refuses what is not one JSON object with an integer "cmd", what is not UTF-8 and an
// "id" that is no string of 1–64 bytes. When only a later part is wrong, p.ID is still set if it was readable, so that
// the ERROR can carry it.
func Parse(b []byte) (p Packet, problem Problem) { panic("stub") }

// ValidName reports whether s is a user, group or (with max = MaxTerminal) terminal name.
func ValidName(s string, max int) bool { panic("stub") }

func DecodeSend(data []byte, target string, r *SendRequest) Problem    { panic("stub") } // target: "to" or "group"
func DecodeLogin(data []byte, r *LoginRequest) Problem                 { panic("stub") }
func DecodeAck(data []byte, r *AckRequest) Problem                     { panic("stub") }
func DecodePull(data []byte, r *PullRequest) Problem                   { panic("stub") }
func DecodeHistory(data []byte, r *HistoryRequest) Problem             { panic("stub") }
func DecodeSeq(data []byte, r *SeqRequest) Problem                     { panic("stub") }
func DecodeTyping(data []byte, r *TypingRequest) Problem               { panic("stub") }
func DecodePresence(data []byte, r *PresenceRequest) Problem           { panic("stub") }
func DecodeConversations(data []byte, r *ConversationsRequest) Problem { panic("stub") }
func DecodeRefresh(data []byte) (accessToken string, problem Problem)  { panic("stub") }

// MakeMsgID is the id of the message that sender sends with id: the first 128 bits of SHA-256 over
// len(sender) as one byte, sender, id. The API and the system use sender "".
func MakeMsgID(sender string, id []byte) MsgID { panic("stub") }

// AppendPushHead and AppendPushTail make one pushed packet: head, which is per recipient, then tail, which is shared by
// all recipients and both transports. inbox 0 = absent. A recipient's packet is exactly head + tail.
func AppendPushHead(dst []byte, cmd Cmd, inbox uint64) []byte { panic("stub") }
func AppendPushTail(dst []byte, m *ConvMessage) []byte        { panic("stub") }

// The functions below append one whole packet (the JSON text, not its framing). id nil = no "id".
func AppendError(dst, id []byte, code Code, message string, retryAfterMs int) []byte { panic("stub") }
func AppendLogin(dst, id []byte, r *LoginReply) []byte                               { panic("stub") }
func AppendHeartBeat(dst, id []byte, head uint64) []byte                             { panic("stub") }
func AppendForceLogout(dst []byte, code Code, reason string) []byte                  { panic("stub") }

// seq 0 = absent.
func AppendSendAck(dst, id []byte, msgID MsgID, conv string, ts int64, seq uint64, duplicate bool) []byte {
	panic("stub")
}

// InboxEntry is one element of PULL's "entries".
type InboxEntry struct {
	Inbox uint64
	ConvMessage
}

func AppendPull(dst, id []byte, entries []InboxEntry, head, first uint64, more bool) []byte {
	panic("stub")
}
func AppendHistory(dst, id []byte, conv string, messages []ConvMessage, more bool) []byte {
	panic("stub")
}

// delivered, read 0 = absent.
func AppendReceipt(dst []byte, conv, user string, delivered, read uint64) []byte { panic("stub") }
func AppendTyping(dst []byte, conv, from string) []byte                          { panic("stub") }
func AppendPresence(dst, id []byte, states []PresenceState) []byte               { panic("stub") }
func AppendGoAway(dst []byte, reason string, retryAfterMs int) []byte            { panic("stub") }
func AppendRefresh(dst, id []byte, expiresAt int64) []byte                       { panic("stub") }
func AppendLogout(dst, id []byte) []byte                                         { panic("stub") }
func AppendConversations(dst, id []byte, list []ConversationState, cursor string) []byte {
	panic("stub")
}
func AppendLag(dst []byte, head uint64) []byte { panic("stub") }

// AppendPacket is for extension commands and for clients: data is raw JSON, nil = absent.
func AppendPacket(dst []byte, cmd Cmd, id []byte, data []byte) []byte { panic("stub") }

// AppendMessageJSON appends m as the bare object that HISTORY and the HTTP API show.
func AppendMessageJSON(dst []byte, m *ConvMessage) []byte { panic("stub") }

// AppendString appends s as a JSON string.
func AppendString(dst []byte, s string) []byte { panic("stub") }

// TCPFramer frames a TCP connection. Max is the largest body in bytes.
type TCPFramer struct{ Max int }

func (f *TCPFramer) Next(buf []byte) (msg Message, n, need int, err error) { panic("stub") }

// WSFramer frames a WebSocket connection after the handshake. Max is the largest message in bytes, all fragments
// together. Client is set on the client's side, where frames must be unmasked; the server's side requires the mask.
type WSFramer struct {
	Max    int
	Client bool
	// … fragment state, allocated only while a message is in fragments
}

func (f *WSFramer) Next(buf []byte) (msg Message, n, need int, err error) { panic("stub") }

// AppendHeader appends the header of a frame with a payload of n bytes as a server sends it (WebSocket: FIN, unmasked;
// TCP: the length, op is not looked at). AppendMaskedFrame appends a whole frame as a client sends it.
func AppendHeader(dst []byte, t Transport, op Op, n int) []byte                { panic("stub") }
func AppendMaskedFrame(dst []byte, op Op, payload []byte, mask [4]byte) []byte { panic("stub") }

// AppendCloseFrame appends a server's close frame; code 1005 makes an empty one. CloseCode reads a received payload:
// 1005 for an empty one, and an error for what RFC 6455 §7.4 forbids on the wire.
func AppendCloseFrame(dst []byte, code uint16, reason string) []byte { panic("stub") }
func CloseCode(payload []byte) (code uint16, err error)              { panic("stub") }

// Handshake is a parsed upgrade request. Strings are copies.
type Handshake struct {
	Path   string // without the query
	Host   string
	Origin string // empty = no header
	Token  string // from "Authorization: Bearer" or the sub-protocol pair; never from the query
}

// UpgradeRules is what an upgrade is judged by.
type UpgradeRules struct {
	Path           string   // any other gets 404
	AllowedOrigins []string // exact; empty = same host as the request; no Origin header = allowed
}

// MaxHandshake is the largest request head in bytes; a longer one gets 431.
const MaxHandshake = 8 << 10

// Upgrade reads one request head from the front of buf. response is what the server must send, always whole: 101 when
// ok, else an HTTP error (400, 403, 404, 405, 426, 431) after which the connection closes. n is the number of bytes of buf that belong to
// the head; response nil and n 0 = incomplete. Bytes after the head belong to the first frame.
func Upgrade(buf []byte, rules *UpgradeRules) (h Handshake, response []byte, n int, ok bool) {
	panic("stub")
}
