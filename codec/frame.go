package codec

// Op is what a frame is. TCP frames are always OpText.
type Op uint8

// The opcodes of RFC 6455 §5.2.
const (
	OpText   Op = 1
	OpBinary Op = 2
	OpClose  Op = 8
	OpPing   Op = 9
	OpPong   Op = 10
)

// FrameError is a violation found by a framer. The connection cannot go on after it.
type FrameError struct {
	// Close is the WebSocket close code: 1002 protocol error, 1007 not UTF-8, 1009 too large. On TCP it is 1009
	// for a frame over the limit and nothing else (N = 0 comes out as an empty message, which Parse refuses).
	Close  uint16
	Reason string // for people, at most 100 bytes
}

func (e *FrameError) Error() string { return e.Reason }

// Framer cuts a connection's inbound bytes into messages, whatever the split of the bytes. The zero value of the
// concrete framers is ready; each belongs to one connection and is not safe for concurrent use.
//
// Next looks at the front of buf.
//   - msg.Op != 0: one whole message (text or binary, reassembled from fragments) or one control frame (ping, pong,
//     close). n bytes of buf were taken by it. Payload may alias buf, in which case it was unmasked in place, or the
//     framer's own reassembly buffer: it is valid until the next call.
//   - msg.Op == 0, n > 0: n bytes were taken (a fragment was kept, or part of a large frame); call again with the rest.
//   - msg.Op == 0, n == 0, err == nil: incomplete. need is a lower bound of the length buf must have before another
//     call is of use; the caller keeps buf and calls again, with the same bytes first, when it has as many.
//   - err: a *FrameError; the limit is judged from the header, before the body is there.
type Framer interface {
	Next(buf []byte) (msg Message, n, need int, err error)
}

// Message is what Framer.Next found.
type Message struct {
	Op      Op
	Payload []byte
}
