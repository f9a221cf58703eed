package codec

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"unsafe"
)

// outcome is all that a framer found in a stream.
type outcome struct {
	messages []Message
	close    uint16 // of the violation at the end, 0 = none
}

func (o outcome) String() string {
	s := fmt.Sprintf("close %d", o.close)
	for _, m := range o.messages {
		s += fmt.Sprintf("; %d %.40q (%d bytes)", m.Op, m.Payload, len(m.Payload))
	}
	return s
}

func (o outcome) equal(other outcome) bool { return o.String() == other.String() && o.same(other) }

func (o outcome) same(other outcome) bool {
	for i, m := range o.messages {
		if !bytes.Equal(m.Payload, other.messages[i].Payload) {
			return false
		}
	}
	return true
}

// feed gives a stream to f in chunks, as a connection's loop does: bytes that were not taken stay in front of the next
// ones, and there is no call before need bytes are there. It fails where f breaks the contract of Framer.
func feed(t testing.TB, f Framer, chunks ...[]byte) (o outcome) {
	t.Helper()
	var buf []byte
	need := 0
	for _, chunk := range chunks {
		buf = append(buf, chunk...)
		for len(buf) >= need {
			before := len(buf)
			msg, n, more, err := f.Next(buf)
			if err != nil {
				var violation *FrameError
				if !errors.As(err, &violation) || violation.Close == 0 || len(err.Error()) > 100 || n != 0 || msg.Op != 0 {
					t.Fatalf("Next gave %v with n = %d, op = %d", err, n, msg.Op)
				}
				o.close = violation.Close
				return o
			}
			if n < 0 || n > before || msg.Op != 0 && (n == 0 || msg.Payload == nil) || n == 0 && more <= before {
				t.Fatalf("Next of %d bytes gave op %d, n = %d, need = %d", before, msg.Op, n, more)
			}
			if msg.Op != 0 {
				o.messages = append(o.messages, Message{msg.Op, bytes.Clone(msg.Payload)})
			}
			buf, need = buf[n:], 0
			if n == 0 {
				need = more
			}
			if len(buf) == 0 {
				break
			}
		}
	}
	return o
}

// cut divides b at random into chunks of at most most bytes.
func cut(r *rand.Rand, b []byte, most int) (chunks [][]byte) {
	for len(b) > 0 {
		n := min(len(b), 1+r.IntN(most))
		chunks, b = append(chunks, b[:n]), b[n:]
	}
	return chunks
}

func (v *frameVector) want() (o outcome) {
	for _, m := range v.Messages {
		o.messages = append(o.messages, Message{m.Op, m.Payload})
	}
	o.close = v.Close
	return o
}

// testVectors gives every vector to a new framer whole, byte by byte, cut once at every place, and cut at random.
func testVectors(t *testing.T, file string, framer func(v *frameVector) Framer) {
	for _, v := range vectors[frameVector](t, file) {
		t.Run(v.Name, func(t *testing.T) {
			try := func(how string, chunks ...[]byte) {
				if got := feed(t, framer(&v), chunks...); !got.equal(v.want()) {
					t.Fatalf("%s:\n got %v\nwant %v", how, got, v.want())
				}
			}
			try("whole", v.Bytes)
			r := rand.New(rand.NewPCG(1, 2))
			try("byte by byte", cut(r, v.Bytes, 1)...)
			for i := range min(len(v.Bytes), 400) {
				try(fmt.Sprintf("cut at %d", i), v.Bytes[:i], v.Bytes[i:])
			}
			for range 50 {
				try("cut at random", cut(r, v.Bytes, 9)...)
			}
		})
	}
}

func wsFramer(v *frameVector) Framer  { return &WSFramer{Max: v.Max, Client: v.Client} }
func tcpFramer(v *frameVector) Framer { return &TCPFramer{Max: v.Max} }

func TestWebSocketVectors(t *testing.T) { testVectors(t, "websocket.json", wsFramer) }

func TestTCPVectors(t *testing.T) { testVectors(t, "tcp.json", tcpFramer) }

// Frames beyond wholeFrame are taken as they arrive, whatever is mixed in.
func TestLargeFrames(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	text := bytes.Repeat([]byte("0123456789é你😀"), 20000) // 380,000 bytes
	mask := [4]byte{9, 8, 7, 6}
	stream := AppendMaskedFrame(nil, OpText, []byte("small"), mask)
	stream = AppendMaskedFrame(stream, OpText, text, mask)
	fragmented := len(stream)
	stream = AppendMaskedFrame(stream, OpBinary, text, mask)
	stream[fragmented] &^= 0x80
	stream = AppendMaskedFrame(stream, OpPing, []byte("ping"), mask)
	stream = AppendMaskedFrame(stream, 0, text[:100001], mask)
	stream = AppendMaskedFrame(stream, OpText, []byte("end"), mask)
	want := outcome{messages: []Message{{OpText, []byte("small")}, {OpText, text}, {OpPing, []byte("ping")},
		{OpBinary, append(bytes.Clone(text), text[:100001]...)}, {OpText, []byte("end")}}}
	for _, most := range []int{1, 7, 1000, 4096, 70000, len(stream)} {
		f := &WSFramer{Max: 1 << 20}
		if got := feed(t, f, cut(r, stream, most)...); !got.equal(want) {
			t.Fatalf("chunks of %d: %v", most, got)
		}
		if f.part != nil {
			t.Fatal("an idle framer keeps a message")
		}
	}
}

// A text that is wrong is refused while its frame is still arriving.
func TestLargeFrameFailsFast(t *testing.T) {
	f := &WSFramer{Max: 1 << 20}
	frame := AppendMaskedFrame(nil, OpText, append([]byte("abc\xff"), make([]byte, 200000)...), [4]byte{1, 2, 3, 4})
	if _, _, _, err := f.Next(frame[:1000]); err == nil || err.(*FrameError).Close != 1007 {
		t.Fatal(err)
	}
}

// Memory follows what has arrived, never what a header promises.
func TestHeaderBuysNoMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	framers := make([]*WSFramer, 100)
	for i := range framers {
		framers[i] = &WSFramer{Max: 1 << 30}
		frame := append(appendWSHeader(nil, OpText, 1<<30, 0x80), 1, 2, 3, 4, 'x')
		if _, n, _, err := framers[i].Next(frame); n != len(frame) || err != nil {
			t.Fatal(n, err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 100<<10 {
		t.Fatalf("%d bytes for 100 promises", grown)
	}
	runtime.KeepAlive(framers)
}

func TestIdleFramerIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(WSFramer{}); size > 24 {
		t.Fatalf("%d bytes", size)
	}
}

// The body that is promised beyond the limit is never waited for, whatever the limit.
func TestTCPLimit(t *testing.T) {
	for _, most := range []int{0, 1, 100, 65535, 1 << 24} {
		f := &TCPFramer{Max: most}
		head := AppendHeader(nil, TCP, OpText, limit(most))
		if _, n, need, err := f.Next(head); err != nil || n != 0 || need != 4+limit(most) {
			t.Fatal(most, n, need, err)
		}
		head = AppendHeader(nil, TCP, OpText, limit(most)+1)
		if _, _, _, err := f.Next(head); err == nil || err.(*FrameError).Close != 1009 {
			t.Fatal(most, err)
		}
	}
}

// What one side writes the other side reads.
func TestFramesRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 200000} {
		text := bytes.Repeat([]byte("x"), n)
		want := outcome{messages: []Message{{OpText, text}}}
		masked := AppendMaskedFrame(nil, OpText, text, [4]byte{1, 2, 3, 4})
		if got := feed(t, &WSFramer{Max: 1 << 20}, masked); !got.equal(want) {
			t.Errorf("client's frame of %d: %v", n, got)
		}
		if got := feed(t, &WSFramer{Max: 1 << 20, Client: true}, append(AppendHeader(nil, WebSocket, OpText, n), text...)); !got.equal(want) {
			t.Errorf("server's frame of %d: %v", n, got)
		}
		if got := feed(t, &TCPFramer{Max: 1 << 20}, append(AppendHeader(nil, TCP, OpText, n), text...)); !got.equal(want) {
			t.Errorf("TCP frame of %d: %v", n, got)
		}
	}
	closing := AppendCloseFrame(nil, 4009, "REPLACED")
	if got := feed(t, &WSFramer{Client: true}, closing); len(got.messages) != 1 || string(got.messages[0].Payload) != "\x0f\xa9REPLACED" {
		t.Error(got)
	}
}

func TestAppendHeader(t *testing.T) {
	for n, want := range map[int]string{0: "8100", 125: "817d", 126: "817e007e", 65535: "817effff", 65536: "817f0000000000010000"} {
		if got := fmt.Sprintf("%x", AppendHeader(nil, WebSocket, OpText, n)); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
	if got := fmt.Sprintf("%x", AppendHeader(nil, TCP, OpText, 258)); got != "00000102" {
		t.Error(got)
	}
}

func TestAppendCloseFrame(t *testing.T) {
	for _, c := range []struct {
		code   uint16
		reason string
		want   string
	}{
		{1005, "ignored", "\x88\x00"},
		{1000, "", "\x88\x02\x03\xe8"},
		{4009, "REPLACED", "\x88\x0a\x0f\xa9REPLACED"},
		{1000, strings.Repeat("x", 200), "\x88\x7d\x03\xe8" + strings.Repeat("x", 123)},
		// 1 + 40 characters of 3 bytes are 121 bytes, one more would be 124
		{1000, "x" + strings.Repeat("你", 50), "\x88\x7b\x03\xe8x" + strings.Repeat("你", 40)},
	} {
		got := string(AppendCloseFrame(nil, c.code, c.reason))
		if got != c.want {
			t.Errorf("%d %.20q: %q", c.code, c.reason, got)
		}
	}
}

func TestCloseCode(t *testing.T) {
	if code, err := CloseCode(nil); code != 1005 || err != nil {
		t.Error(code, err)
	}
	if code, err := CloseCode([]byte("\x0f\xa9REPLACED")); code != 4009 || err != nil {
		t.Error(code, err)
	}
	for payload, want := range map[string]uint16{"\x03": 1002, "\x03\xec": 1002, "\x03\xe8\xff": 1007} {
		code, err := CloseCode([]byte(payload))
		if violation, ok := err.(*FrameError); !ok || violation.Close != want || code != 0 {
			t.Errorf("%q: %d %v", payload, code, err)
		}
	}
}
