package codec

// Number is the code on the wire: CodeRevoked is 4010.
func (c Code) Number() int {
	if c == CodeRevoked {
		return int(CodeTokenExpired)
	}
	return int(c)
}

// Name is the name on the wire, such as "BAD_PACKET"; it is also the label of metrics. A code that is not of PROTOCOL §6
// (an extension's own) is "OTHER", so that labels stay few.
func (c Code) Name() string {
	switch c {
	case CodeBadPacket:
		return "BAD_PACKET"
	case CodeUnauthorized:
		return "UNAUTHORIZED"
	case CodeForbidden:
		return "FORBIDDEN"
	case CodeNotFound:
		return "NOT_FOUND"
	case CodeUnknownCommand:
		return "UNKNOWN_COMMAND"
	case CodeBadState:
		return "BAD_STATE"
	case CodeTimeout:
		return "TIMEOUT"
	case CodeReplaced:
		return "REPLACED"
	case CodeTokenExpired:
		return "TOKEN_EXPIRED"
	case CodeRevoked:
		return "REVOKED"
	case CodeKicked:
		return "KICKED"
	case CodeConflict:
		return "CONFLICT"
	case CodeTooLarge:
		return "TOO_LARGE"
	case CodeTooSlow:
		return "TOO_SLOW"
	case CodeRateLimited:
		return "RATE_LIMITED"
	case CodeInternal:
		return "INTERNAL"
	case CodeUnavailable:
		return "UNAVAILABLE"
	}
	return "OTHER"
}

// Retryable reports whether the same packet may succeed later (RATE_LIMITED, UNAVAILABLE, INTERNAL).
func (c Code) Retryable() bool {
	return c == CodeRateLimited || c == CodeUnavailable || c == CodeInternal
}

// String is the command's name as in PROTOCOL §3, for labels and logs: "EXTENSION" for every command from
// FirstExtension on and "UNKNOWN" for the rest, so that a client cannot make up labels.
func (c Cmd) String() string {
	switch c {
	case Login:
		return "LOGIN"
	case HeartBeat:
		return "HEART_BEAT"
	case ForceLogout:
		return "FORCE_LOGOUT"
	case PrivateMessage:
		return "PRIVATE_MESSAGE"
	case GroupMessage:
		return "GROUP_MESSAGE"
	case SystemMessage:
		return "SYSTEM_MESSAGE"
	case SendAck:
		return "SEND_ACK"
	case Ack:
		return "ACK"
	case Pull:
		return "PULL"
	case History:
		return "HISTORY"
	case Read:
		return "READ"
	}
	return c.laterName()
}

// laterName is String for the second half of the table.
func (c Cmd) laterName() string {
	switch c {
	case Receipt:
		return "RECEIPT"
	case Typing:
		return "TYPING"
	case Presence:
		return "PRESENCE"
	case Recall:
		return "RECALL"
	case Error:
		return "ERROR"
	case GoAway:
		return "GOAWAY"
	case Refresh:
		return "REFRESH"
	case Logout:
		return "LOGOUT"
	case Conversations:
		return "CONVERSATIONS"
	case Lag:
		return "LAG"
	}
	if c >= FirstExtension {
		return "EXTENSION"
	}
	return "UNKNOWN"
}
