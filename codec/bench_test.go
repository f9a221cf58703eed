package codec

import (
	"bytes"
	"strings"
	"testing"
)

// benchPacket is a send with n bytes of text, mostly ASCII.
func benchPacket(n int) []byte {
	text := strings.Repeat("The quick brown fox. ", n/21+1)[:n]
	return []byte(`{"cmd":3,"id":"c-000017","data":{"to":"user-000123","type":0,"content":"` + text + `"}}`)
}

func BenchmarkParse(b *testing.B) {
	for name, packet := range map[string][]byte{
		"ack":       []byte(`{"cmd":7,"data":{"inbox":123456}}`),
		"send64":    benchPacket(64),
		"send1k":    benchPacket(1024),
		"cjk1k":     []byte(`{"cmd":3,"id":"c-17","data":{"to":"bob","content":"` + strings.Repeat("你好世界", 85) + `"}}`),
		"nested1k":  []byte(`{"cmd":3,"id":"c-17","data":{"to":"bob","content":[` + strings.Repeat(`{"x":1.5,"y":[true,null]},`, 40) + `0]}}`),
		"escapes1k": []byte(`{"cmd":3,"id":"c-17","data":{"to":"bob","content":"` + strings.Repeat(`line\n`, 170) + `"}}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(packet)))
			for b.Loop() {
				if _, problem := Parse(packet); !problem.OK() {
					b.Fatal(problem)
				}
			}
		})
	}
}

func BenchmarkDecodeSend(b *testing.B) {
	for name, n := range map[string]int{"64": 64, "1k": 1024} {
		p, _ := Parse(benchPacket(n))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var r SendRequest
			for b.Loop() {
				if problem := DecodeSend(p.Data, "to", &r); !problem.OK() {
					b.Fatal(problem)
				}
			}
		})
	}
}

func BenchmarkDecodeAck(b *testing.B) {
	b.ReportAllocs()
	data := []byte(`{"inbox":123456}`)
	var r AckRequest
	for b.Loop() {
		if problem := DecodeAck(data, &r); !problem.OK() {
			b.Fatal(problem)
		}
	}
}

func benchMessage() *ConvMessage {
	return &ConvMessage{Cmd: PrivateMessage, MsgID: MakeMsgID("alice", []byte("c-17")), Conv: "p:alice:user-000123",
		Seq: 4711, From: "alice", To: "user-000123", TS: 1767225600000,
		Content: []byte(`"` + strings.Repeat("x", 64) + `"`), ID: "c-17"}
}

func BenchmarkPushHead(b *testing.B) {
	b.ReportAllocs()
	room := make([]byte, 0, 64)
	for b.Loop() {
		room = AppendPushHead(room[:0], PrivateMessage, 123456)
	}
}

func BenchmarkPushTail(b *testing.B) {
	b.ReportAllocs()
	m, room := benchMessage(), make([]byte, 0, 1024)
	for b.Loop() {
		room = AppendPushTail(room[:0], m)
	}
}

func BenchmarkSendAck(b *testing.B) {
	b.ReportAllocs()
	m, id, room := benchMessage(), []byte("c-17"), make([]byte, 0, 1024)
	for b.Loop() {
		room = AppendSendAck(room[:0], id, m.MsgID, m.Conv, m.TS, m.Seq, false)
	}
}

func BenchmarkMakeMsgID(b *testing.B) {
	b.ReportAllocs()
	id := []byte("c-000017")
	for b.Loop() {
		MakeMsgID("user-000123", id)
	}
}

func BenchmarkParsePush(b *testing.B) {
	b.ReportAllocs()
	p, _ := Parse(AppendPushTail(AppendPushHead(nil, PrivateMessage, 17), benchMessage()))
	for b.Loop() {
		if _, ok := ParsePush(p.Data); !ok {
			b.Fatal("refused")
		}
	}
}

func BenchmarkTCPFramer(b *testing.B) {
	b.ReportAllocs()
	packet := benchPacket(64)
	frame := append(AppendHeader(nil, TCP, OpText, len(packet)), packet...)
	var f TCPFramer
	for b.Loop() {
		if _, _, _, err := f.Next(frame); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWSFramer(b *testing.B) {
	for name, n := range map[string]int{"64": 64, "1k": 1024, "64k": 60000} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			packet := benchPacket(n)
			frame := AppendMaskedFrame(nil, OpText, packet, [4]byte{})
			b.SetBytes(int64(len(frame)))
			var f WSFramer
			for b.Loop() {
				if _, _, _, err := f.Next(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A message of 16 MiB as a socket gives it, 64 KiB at a time.
func BenchmarkWSFramerLarge(b *testing.B) {
	b.ReportAllocs()
	frame := AppendMaskedFrame(nil, OpBinary, make([]byte, 16<<20), [4]byte{1, 2, 3, 4})
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		f := WSFramer{Max: 16 << 20}
		for rest := frame; len(rest) > 0; {
			_, n, _, err := f.Next(rest[:min(len(rest), 64<<10)])
			if err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
	}
}

func BenchmarkUpgrade(b *testing.B) {
	b.ReportAllocs()
	request := AppendHandshake(nil, "localhost:8080", "/im", "dGhlIHNhbXBsZSBub25jZQ==", strings.Repeat("t", 200))
	request = bytes.Replace(request, []byte("\r\n\r\n"), []byte("\r\nOrigin: http://localhost:8080\r\n"+
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept-Encoding: gzip, deflate\r\n\r\n"), 1)
	rules := &UpgradeRules{Path: "/im"}
	for b.Loop() {
		if _, _, _, ok := Upgrade(request, rules); !ok {
			b.Fatal("refused")
		}
	}
}
