package codec

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Close codes that framers judge by, RFC 6455 §7.4.1.
const (
	closeProtocol = 1002
	closeNoStatus = 1005 // stands for an empty close frame, never on the wire
	closeNotUTF8  = 1007
	closeTooLarge = 1009
)

const (
	opContinuation = Op(0)
	maxControl     = 125 // bytes of payload of a control frame, RFC 6455 §5.5

	// wholeFrame is the largest payload that is left in the caller's buffer until the frame is complete. Longer ones
	// are taken as they arrive, so that the caller's buffer need not hold them. It is above DefaultMaxFrame.
	wholeFrame = 64 << 10
)

// WSFramer frames a WebSocket connection after the handshake. Max is the largest message in bytes, all fragments
// together, 0 = DefaultMaxFrame. Client is set on the client's side, where frames must be unmasked; the server's side
// requires the mask.
//
// A message in one frame that is whole in buf is unmasked in place and costs no allocation. Of others a copy grows with
// what has arrived, never with what a header promises; it is let go with the message. A message may have at most
// max(1024, Max/16) fragments, so that empty ones cannot keep a connection busy for nothing.
type WSFramer struct {
	Max    int
	Client bool
	part   *partial // nil unless a message is incomplete: an idle connection pays 24 bytes
}

// partial is a message of which some has been taken.
type partial struct {
	op        Op
	buf       []byte
	checked   int // buf[:checked] is valid UTF-8 (text only)
	fragments int

	// The frame that is being taken as it arrives; left 0 = none, the message waits for its next fragment.
	left int
	fin  bool
	mask [4]byte
	pos  int // bytes of the frame that were taken
}

// header is a parsed frame header.
type header struct {
	op     Op
	fin    bool
	masked bool
	mask   [4]byte
	size   int // of the header
	length int // of the payload
}

// Next implements Framer. Control frames come out between the fragments of a message as they arrive; the payload of a
// close frame has been checked (CloseCode gives its code).
func (f *WSFramer) Next(buf []byte) (msg Message, n, need int, err error) {
	if f.part != nil && f.part.left > 0 {
		if len(buf) == 0 {
			return Message{}, 0, 1, nil
		}
		return f.take(buf, 0)
	}
	h, need, refusal := f.header(buf)
	if refusal != nil {
		return Message{}, 0, 0, refusal
	}
	if need > 0 {
		return Message{}, 0, need, nil
	}
	end := h.size + h.length
	whole := len(buf) >= end
	if !whole && h.length <= wholeFrame {
		return Message{}, 0, end, nil
	}
	if whole && (h.op >= OpClose || h.fin && f.part == nil) {
		payload := buf[h.size:end:end]
		if h.masked {
			ws.Cipher(payload, h.mask, 0)
		}
		if refusal := checkPayload(h.op, payload); refusal != nil {
			return Message{}, 0, 0, refusal
		}
		return Message{Op: h.op, Payload: payload}, end, 0, nil
	}
	f.begin(&h)
	return f.take(buf, h.size)
}

// header reads and judges the header at the front of buf as far as it is there. Everything is judged in the order of
// the bytes, so that the verdict does not depend on how they were split.
func (f *WSFramer) header(buf []byte) (h header, need int, refusal *FrameError) {
	if len(buf) == 0 {
		return h, 2, nil
	}
	h.fin, h.op = buf[0]&0x80 != 0, Op(buf[0]&0x0F)
	if refusal = f.checkFirst(buf[0]&0x70, &h); refusal != nil || len(buf) < 2 {
		return h, 2, refusal
	}
	h.masked = buf[1]&0x80 != 0
	if h.masked == f.Client {
		if f.Client {
			return h, 0, violation("masked frame from a server")
		}
		return h, 0, violation("unmasked frame from a client")
	}
	short := buf[1] & 0x7F
	if h.op >= OpClose && short > maxControl {
		return h, 0, violation("control frame over 125 bytes")
	}
	h.size = 2
	switch short {
	case 126:
		h.size = 4
	case 127:
		h.size = 10
	}
	if len(buf) < h.size {
		return h, h.size, nil
	}
	length := uint64(short)
	switch short {
	case 126:
		length = uint64(binary.BigEndian.Uint16(buf[2:]))
	case 127:
		length = binary.BigEndian.Uint64(buf[2:])
	}
	if refusal = f.checkLength(&h, length); refusal != nil {
		return h, 0, refusal
	}
	h.length = int(length)
	if h.masked {
		h.size += 4
		if len(buf) < h.size {
			return h, h.size, nil
		}
		h.mask = [4]byte(buf[h.size-4 : h.size])
	}
	return h, 0, nil
}

// checkFirst judges the first byte of a header.
func (f *WSFramer) checkFirst(rsv byte, h *header) *FrameError {
	if rsv != 0 {
		return violation("reserved bits are set")
	}
	switch h.op {
	case OpText, OpBinary:
		if f.part != nil {
			return violation("new message inside a fragmented one")
		}
	case opContinuation:
		if f.part == nil {
			return violation("continuation of no message")
		}
	case OpClose, OpPing, OpPong:
		if !h.fin {
			return violation("fragmented control frame")
		}
	default:
		return violation("reserved opcode")
	}
	return nil
}

// checkLength judges the length of a frame: its spelling (h.size tells which) and the limits of the message.
func (f *WSFramer) checkLength(h *header, length uint64) *FrameError {
	switch {
	case h.size == 4 && length <= maxControl, h.size == 10 && length <= 0xFFFF:
		return violation("length is not in its shortest form")
	case length>>63 != 0:
		return violation("length has its highest bit set")
	case h.op >= OpClose:
		return nil
	}
	most := limit(f.Max)
	if f.part != nil {
		length += uint64(len(f.part.buf)) // below 2^63 + 2^63
		if f.part.fragments >= max(1024, most/16) {
			return &FrameError{Close: closeTooLarge, Reason: "message in too many fragments"}
		}
	}
	if length > uint64(most) {
		return tooLarge(length, most)
	}
	return nil
}

// begin makes room for a frame that is copied.
func (f *WSFramer) begin(h *header) {
	if f.part == nil {
		f.part = &partial{op: h.op}
	}
	p := f.part
	p.fragments++
	p.left, p.fin, p.mask, p.pos = h.length, h.fin, h.mask, 0
}

// take copies what is there of the current frame, whose next byte is at buf[skip], and gives the message if that was
// the end of it. The bytes before skip are taken along.
func (f *WSFramer) take(buf []byte, skip int) (msg Message, n, need int, err error) {
	p := f.part
	got := min(p.left, len(buf)-skip)
	start := len(p.buf)
	p.grow(got)
	p.buf = append(p.buf, buf[skip:skip+got]...)
	if !f.Client {
		ws.Cipher(p.buf[start:], p.mask, p.pos)
	}
	p.pos += got
	p.left -= got
	last := p.left == 0 && p.fin
	if p.op == OpText && !p.checkUTF8(last) {
		return Message{}, 0, 0, notUTF8()
	}
	if !last {
		return Message{}, skip + got, 0, nil
	}
	f.part = nil
	if p.buf == nil {
		p.buf = []byte{}
	}
	return Message{Op: p.op, Payload: p.buf}, skip + got, 0, nil
}

// grow makes room for n bytes more: twice what is held, so that a byte is moved about once, but no more than the message
// needs where that is known.
func (p *partial) grow(n int) {
	held := len(p.buf)
	if cap(p.buf)-held >= n {
		return
	}
	room := max(held+n, 2*held)
	if p.fin {
		room = min(room, held+p.left)
	}
	p.buf = slices.Grow(p.buf, room-held)
}

// checkUTF8 reports whether what has come of a text can still become UTF-8, or is when it is the last of it.
func (p *partial) checkUTF8(last bool) bool {
	end := len(p.buf)
	if !last {
		end -= incompleteRune(p.buf[p.checked:])
	}
	if !utf8.Valid(p.buf[p.checked:end]) {
		return false
	}
	p.checked = end
	return true
}

// incompleteRune is the length of the character at the end of b of which only a beginning is there, 0 if there is none.
func incompleteRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if tail := b[len(b)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}

// checkPayload judges the payload of a frame that stands alone.
func checkPayload(op Op, payload []byte) *FrameError {
	switch op {
	case OpText:
		if !utf8.Valid(payload) {
			return notUTF8()
		}
	case OpClose:
		_, refusal := closeCode(payload)
		return refusal
	}
	return nil
}

func violation(reason string) *FrameError { return &FrameError{Close: closeProtocol, Reason: reason} }

func notUTF8() *FrameError { return &FrameError{Close: closeNotUTF8, Reason: "text is not UTF-8"} }
