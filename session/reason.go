package session

import (
	"math/rand/v2"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/engine"
)

// Why a session ended, beside the engine's own reasons. ReasonName has the labels.
const (
	ReasonBadPacket engine.Reason = engine.FirstHandlerReason + iota
	ReasonUnauthorized
	ReasonBadState
	ReasonTimeout
	ReasonReplaced
	ReasonTokenExpired
	ReasonRevoked
	ReasonKicked
	ReasonTooLarge
	ReasonUnavailable
	ReasonLogout
	ReasonBinary
)

var reasonNames = map[engine.Reason]string{
	ReasonBadPacket: "bad_packet", ReasonUnauthorized: "unauthorized", ReasonBadState: "bad_state",
	ReasonTimeout: "timeout", ReasonReplaced: "replaced", ReasonTokenExpired: "token_expired",
	ReasonRevoked: "revoked", ReasonKicked: "kicked", ReasonTooLarge: "too_large",
	ReasonUnavailable: "unavailable", ReasonLogout: "logout", ReasonBinary: "binary",
	engine.ReasonPeer: "peer", engine.ReasonError: "error", engine.ReasonHandshake: "handshake",
	engine.ReasonProtocol: "protocol", engine.ReasonTooSlow: "too_slow", engine.ReasonPanic: "panic",
	engine.ReasonShutdown: "shutdown",
}

// ReasonName is the label of meshtalk_closes_total.
func ReasonName(r engine.Reason) string {
	if n, ok := reasonNames[r]; ok {
		return n
	}
	return "other"
}

// codeReasons are the reasons of the codes after which a connection closes.
var codeReasons = map[codec.Code]engine.Reason{
	codec.CodeBadPacket: ReasonBadPacket, codec.CodeUnauthorized: ReasonUnauthorized, codec.CodeBadState: ReasonBadState,
	codec.CodeTimeout: ReasonTimeout, codec.CodeReplaced: ReasonReplaced, codec.CodeTokenExpired: ReasonTokenExpired,
	codec.CodeRevoked: ReasonRevoked, codec.CodeKicked: ReasonKicked, codec.CodeTooLarge: ReasonTooLarge,
	codec.CodeUnavailable: ReasonUnavailable,
}

// jitter spreads d over d … 1.5 d, in ms, so that clients do not come back at once.
func jitter(d time.Duration) int {
	ms := int(d.Milliseconds())
	return ms + rand.IntN(ms/2+1)
}
