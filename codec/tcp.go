package codec

import (
	"encoding/binary"
	"strconv"
)

// DefaultMaxFrame is the default of performance.max-frame-size: the largest body of one inbound packet in bytes.
const DefaultMaxFrame = 65535

// tcpHeader is the length of a TCP frame's header: N, the body's length, unsigned and big-endian.
const tcpHeader = 4

// TCPFramer frames a TCP connection. Max is the largest body in bytes, 0 = DefaultMaxFrame.
type TCPFramer struct{ Max int }

// Next implements Framer. An empty body comes out as an empty message, which Parse refuses: the connection goes on.
func (f *TCPFramer) Next(buf []byte) (msg Message, n, need int, err error) {
	if len(buf) < tcpHeader {
		return Message{}, 0, tcpHeader, nil
	}
	length := binary.BigEndian.Uint32(buf)
	if uint64(length) > uint64(limit(f.Max)) {
		return Message{}, 0, 0, tooLarge(uint64(length), limit(f.Max))
	}
	end := tcpHeader + int(length)
	if len(buf) < end {
		return Message{}, 0, end, nil
	}
	return Message{Op: OpText, Payload: buf[tcpHeader:end:end]}, end, 0, nil
}

// limit is the Max of a framer, where 0 is the default.
func limit(most int) int {
	if most <= 0 {
		return DefaultMaxFrame
	}
	return most
}

// tooLarge refuses a message of at least n bytes.
func tooLarge(n uint64, most int) *FrameError {
	return &FrameError{Close: closeTooLarge, Reason: "message of " + strconv.FormatUint(n, 10) +
		" bytes is over the limit of " + strconv.Itoa(most)}
}
