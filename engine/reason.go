package engine

import "strconv"

// Reason is why a connection ended. Its string is the label of meshtalk_closes_total.
type Reason uint8

// Reasons the engine itself gives. A Handler closes with these or with Reason values from FirstHandlerReason on.
const (
	ReasonPeer         Reason = iota // the peer closed or reset
	ReasonError                      // a socket error
	ReasonHandshake                  // no whole upgrade request in time, or a refused one
	ReasonProtocol                   // the framer refused the bytes
	ReasonTooSlow                    // more than the hard limit unread
	ReasonPanic                      // the handler panicked
	ReasonShutdown                   // the engine stops
	ReasonPage                       // a page was answered
	FirstHandlerReason Reason = 32
)

// String is the label of the engine's own reasons; a Handler's are numbers here, it has the names.
func (r Reason) String() string {
	switch r {
	case ReasonPeer:
		return "peer"
	case ReasonError:
		return "error"
	case ReasonHandshake:
		return "handshake"
	case ReasonProtocol:
		return "protocol"
	case ReasonTooSlow:
		return "too_slow"
	case ReasonPanic:
		return "panic"
	case ReasonShutdown:
		return "shutdown"
	case ReasonPage:
		return "page"
	}
	return "reason_" + strconv.Itoa(int(r))
}

// Close codes that the engine gives on WebSocket, RFC 6455 §7.4.1.
const (
	closeGoingAway = 1001
	closeProtocol  = 1002
	closePolicy    = 1008
	closeInternal  = 1011
)
