package bench

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/meshtalk/meshtalk/codec"
)

// A mark identifies one message of one run. It stands as text of fixed width in the content and is the id of the send:
//
//	mb1.RRRRRRRRPPPPPPNNNNNNNNTTTTTTTTTTTTTTTT
//	    run     flow  number  intended time
//
// all in hexadecimal. The flow is a stream of messages that must arrive in order and without a hole (a pair, or a sender
// in a group); numbers count 1, 2, 3 …; the time is in nanoseconds of the run's clock.
type mark struct {
	run    uint32
	flow   uint32 // < 2^24
	number uint32
	time   int64
}

const (
	markStart = "mb1."
	markLen   = len(markStart) + 8 + 6 + 8 + 16
	maxFlow   = 1<<24 - 1
	// minContent is a mark in quotes.
	minContent = markLen + 2
)

const hexDigits = "0123456789abcdef"

// putHex writes the low digits of v over dst.
func putHex(dst []byte, v uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = hexDigits[v&15]
		v >>= 4
	}
}

// hexValue is the value of each byte as a digit, 0xff for none.
var hexValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range len(hexDigits) {
		t[hexDigits[i]] = byte(i)
	}
	return t
}()

func readHex(src []byte) (v uint64, ok bool) {
	var bad byte
	for _, b := range src {
		d := hexValue[b]
		bad |= d
		v = v<<4 | uint64(d&15)
	}
	return v, bad&0xf0 == 0
}

// put writes m over dst[:markLen].
func (m mark) put(dst []byte) {
	copy(dst, markStart)
	putHex(dst[4:12], uint64(m.run))
	putHex(dst[12:18], uint64(m.flow))
	putHex(dst[18:26], uint64(m.number))
	putHex(dst[26:42], uint64(m.time))
}

// findMark reads the first mark in packet.
func findMark(packet []byte) (m mark, ok bool) {
	i := bytes.Index(packet, []byte(markStart))
	if i < 0 || len(packet)-i < markLen {
		return m, false
	}
	b := packet[i:]
	run, ok1 := readHex(b[4:12])
	flow, ok2 := readHex(b[12:18])
	number, ok3 := readHex(b[18:26])
	t, ok4 := readHex(b[26:42])
	return mark{uint32(run), uint32(flow), uint32(number), int64(t)}, ok1 && ok2 && ok3 && ok4
}

// commandOf is the cmd of a packet. The server writes it first; what is written otherwise is parsed.
func commandOf(packet []byte) codec.Cmd {
	const start = `{"cmd":`
	if len(packet) > len(start)+2 && binary.LittleEndian.Uint32(packet) == binary.LittleEndian.Uint32([]byte(start)) {
		if n, rest := leadingNumber(packet[len(start):]); len(rest) > 0 && (rest[0] == ',' || rest[0] == '}') {
			return codec.Cmd(n)
		}
	}
	p, problem := codec.Parse(packet)
	if !problem.OK() {
		return -1
	}
	return p.Cmd
}

// push is what a pushed message is checked by.
type push struct {
	inbox, seq uint64 // 0 = none
	mark       mark
	marked     bool
}

// readPush scans a pushed packet. Where the numbers stand in other places than this server's, it is parsed in full.
func readPush(packet []byte) (p push, ok bool) {
	p.mark, p.marked = findMark(packet)
	const start = `{"cmd":3,"data":{`
	const inbox = `"inbox":`
	if len(packet) > len(start)+len(inbox) && string(packet[:7]) == start[:7] && string(packet[8:len(start)]) == start[8:] {
		rest := packet[len(start):]
		if string(rest[:len(inbox)]) == inbox {
			p.inbox, rest = leadingNumber(rest[len(inbox):])
		}
		if i := bytes.Index(rest, []byte(`,"seq":`)); i >= 0 {
			p.seq, _ = leadingNumber(rest[i+7:])
			return p, true
		}
	}
	envelope, problem := codec.Parse(packet)
	if !problem.OK() {
		return p, false
	}
	full, ok := codec.ParsePush(envelope.Data)
	p.inbox, p.seq = full.Inbox, full.Seq
	return p, ok
}

// leadingNumber reads the digits at the front of b.
func leadingNumber(b []byte) (n uint64, rest []byte) {
	i := 0
	for i < len(b) && b[i]-'0' <= 9 {
		n = n*10 + uint64(b[i]-'0')
		i++
	}
	return n, b[i:]
}

// template is a send with its marks left open, made once per sender and target.
type template struct {
	packet       []byte
	id, content  int // where the marks stand
	flow         uint32
	run, counter uint32
	target       string // user or group
}

// newTemplate makes the packet that sends size bytes of content to the user or group target.
func newTemplate(cmd codec.Cmd, target string, size int, run, flow uint32) *template {
	var blank [markLen]byte
	mark{run: run, flow: flow}.put(blank[:])
	t := &template{run: run, flow: flow, target: target}
	t.packet = strconv.AppendInt([]byte(`{"cmd":`), int64(cmd), 10)
	t.packet = append(t.packet, `,"id":"`...)
	t.id = len(t.packet)
	t.packet = append(t.packet, blank[:]...)
	key := `","data":{"to":`
	if cmd == codec.GroupMessage {
		key = `","data":{"group":`
	}
	t.packet = codec.AppendString(append(t.packet, key...), target)
	t.packet = append(t.packet, `,"content":"`...)
	t.content = len(t.packet)
	t.packet = append(t.packet, blank[:]...)
	for range size - minContent {
		t.packet = append(t.packet, 'x')
	}
	t.packet = append(t.packet, `"}}`...)
	return t
}

// next is the packet of the flow's next message, valid until the next call.
func (t *template) next(intended int64) []byte {
	t.counter++
	return t.write(t.counter, intended)
}

// write is the packet of the flow's message of that number, valid until the next call of either.
func (t *template) write(number uint32, intended int64) []byte {
	putHex(t.packet[t.id+18:t.id+26], uint64(number))
	putHex(t.packet[t.id+26:t.id+42], uint64(intended))
	copy(t.packet[t.content+18:t.content+42], t.packet[t.id+18:t.id+42])
	return t.packet
}
