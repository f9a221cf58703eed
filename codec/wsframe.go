package codec

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// AppendHeader appends the header of a frame with a payload of n bytes as a server sends it (WebSocket: FIN, unmasked;
// TCP: the length, op is not looked at).
func AppendHeader(dst []byte, t Transport, op Op, n int) []byte {
	if t == TCP {
		return binary.BigEndian.AppendUint32(dst, uint32(n))
	}
	return appendWSHeader(dst, op, n, 0)
}

// AppendMaskedFrame appends a whole frame as a client sends it.
func AppendMaskedFrame(dst []byte, op Op, payload []byte, mask [4]byte) []byte {
	dst = appendWSHeader(dst, op, len(payload), 0x80)
	dst = append(dst, mask[:]...)
	start := len(dst)
	dst = append(dst, payload...)
	ws.Cipher(dst[start:], mask, 0)
	return dst
}

// appendWSHeader appends a header up to the length; masked is 0x80 or 0.
func appendWSHeader(dst []byte, op Op, n int, masked byte) []byte {
	dst = append(dst, 0x80|byte(op))
	switch {
	case n <= maxControl:
		return append(dst, masked|byte(n))
	case n <= 0xFFFF:
		return binary.BigEndian.AppendUint16(append(dst, masked|126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, masked|127), uint64(n))
}

// AppendCloseFrame appends a server's close frame; code 1005 makes an empty one. The reason is cut to the 123 bytes
// that fit, at the border of a character.
func AppendCloseFrame(dst []byte, code uint16, reason string) []byte {
	if code == closeNoStatus {
		return appendWSHeader(dst, OpClose, 0, 0)
	}
	if most := maxControl - 2; len(reason) > most {
		for most > 0 && !utf8.RuneStart(reason[most]) {
			most--
		}
		reason = reason[:most]
	}
	dst = appendWSHeader(dst, OpClose, 2+len(reason), 0)
	return append(binary.BigEndian.AppendUint16(dst, code), reason...)
}

// CloseCode reads the payload of a received close frame: 1005 for an empty one, and a *FrameError for what RFC 6455
// §7.4 forbids on the wire (1002) and for a reason that is not UTF-8 (1007).
func CloseCode(payload []byte) (code uint16, err error) {
	code, refusal := closeCode(payload)
	if refusal != nil {
		return 0, refusal
	}
	return code, nil
}

func closeCode(payload []byte) (code uint16, refusal *FrameError) {
	if len(payload) == 0 {
		return closeNoStatus, nil
	}
	if len(payload) == 1 {
		return 0, violation("close frame of one byte")
	}
	code = binary.BigEndian.Uint16(payload)
	if !sendableClose(code) {
		return 0, violation("close code that may not be sent")
	}
	if !utf8.Valid(payload[2:]) {
		return 0, &FrameError{Close: closeNotUTF8, Reason: "close reason is not UTF-8"}
	}
	return code, nil
}

// sendableClose reports whether a code may be on the wire: those of RFC 6455 and the IANA registry (to 1014), and the
// ranges of frameworks (3000) and applications (4000).
func sendableClose(code uint16) bool {
	switch code {
	case 1004, 1005, 1006:
		return false
	}
	return code >= 1000 && code <= 1014 || code >= 3000 && code <= 4999
}
