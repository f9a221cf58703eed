// Package codec turns bytes into packets and packets into bytes: the framers of both transports, the JSON
// envelope, the data of every command and the frames the server pushes. It is pure: no I/O, no clock, no
// goroutine, no lock. The wire itself is described in docs/PROTOCOL.md.
package codec

// Cmd is the number of a command, the "cmd" of a packet.
type Cmd int32

// The commands of protocol version 1. C is the client, S the server.
const (
	Login          Cmd = 0  // C→S credentials, S→C the session
	HeartBeat      Cmd = 1  // C→S alive, S→C the newest inbox sequence
	ForceLogout    Cmd = 2  // S→C this session ends
	PrivateMessage Cmd = 3  // C→S send, S→C push
	GroupMessage   Cmd = 4  // C→S send, S→C push
	SystemMessage  Cmd = 5  // S→C push
	SendAck        Cmd = 6  // S→C a send is durable
	Ack            Cmd = 7  // C→S cumulative acknowledgement, no reply
	Pull           Cmd = 8  // C→S inbox entries after a number
	History        Cmd = 9  // C→S messages of a conversation
	Read           Cmd = 10 // C→S cumulative read position, no reply
	Receipt        Cmd = 11 // S→C delivered or read position moved
	Typing         Cmd = 12 // both, never stored
	Presence       Cmd = 13 // C→S watch, S→C states
	Recall         Cmd = 14 // C→S take a message back, S→C the event
	Error          Cmd = 15 // S→C
	GoAway         Cmd = 16 // S→C reconnect later
	Refresh        Cmd = 17 // C→S new token, S→C new expiry
	Logout         Cmd = 18 // both
	Conversations  Cmd = 19 // C→S list of conversations
	Lag            Cmd = 20 // S→C pushes are paused

	// FirstExtension is the first command that belongs to extension handlers.
	FirstExtension Cmd = 1000
)

// Limits of names and ids, in bytes of UTF-8.
const (
	MaxName     = 64 // user and group names
	MaxTerminal = 32
	MaxID       = 64
)

// Code is an error code of PROTOCOL §6. 0 is no error.
type Code int

// The codes of PROTOCOL §6. On WebSocket a connection that is closed for one of them closes with the same number.
const (
	CodeBadPacket      Code = 4000
	CodeUnauthorized   Code = 4001
	CodeForbidden      Code = 4003
	CodeNotFound       Code = 4004
	CodeUnknownCommand Code = 4005
	CodeBadState       Code = 4006
	CodeTimeout        Code = 4008
	CodeReplaced       Code = 4009
	CodeTokenExpired   Code = 4010 // its name is TOKEN_EXPIRED; CodeRevoked shares the number
	CodeKicked         Code = 4011
	CodeConflict       Code = 4012
	CodeTooLarge       Code = 4013
	CodeTooSlow        Code = 4015
	CodeRateLimited    Code = 4029
	CodeInternal       Code = 5000
	CodeUnavailable    Code = 5003

	// CodeRevoked is sent as 4010 with the name REVOKED. The value is internal: Number() gives 4010.
	CodeRevoked Code = -4010
)

// Transport is how a connection frames its packets.
type Transport uint8

// The transports.
const (
	TCP       Transport = iota // 4-byte big-endian length, then the body
	WebSocket                  // RFC 6455, one text message per packet
)

// String is the value of the transport label in metrics and of "transport" in the HTTP API: "tcp" or "websocket".
func (t Transport) String() string {
	if t == WebSocket {
		return "websocket"
	}
	return "tcp"
}
