package codec

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// feedCut gives a stream whole and cut up to two framers, which must agree.
func feedCut(t *testing.T, stream []byte, seed uint64, framer func() Framer) outcome {
	whole := feed(t, framer(), stream)
	r := rand.New(rand.NewPCG(seed, seed))
	if got := feed(t, framer(), cut(r, stream, 1+int(seed%17))...); !got.equal(whole) {
		t.Fatalf("cut up: %v\nwhole:  %v", got, whole)
	}
	return whole
}

func FuzzTCPFramer(f *testing.F) {
	for _, v := range vectors[frameVector](f, "tcp.json") {
		f.Add([]byte(v.Bytes), uint16(v.Max), uint64(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, most uint16, seed uint64) {
		o := feedCut(t, stream, seed, func() Framer { return &TCPFramer{Max: int(most)} })
		var back []byte
		for _, m := range o.messages {
			back = append(AppendHeader(back, TCP, m.Op, len(m.Payload)), m.Payload...)
		}
		if !bytes.HasPrefix(stream, back) {
			t.Fatalf("%v are not the messages of %x", o, stream)
		}
	})
}

func FuzzWSFramer(f *testing.F) {
	for _, v := range vectors[frameVector](f, "websocket.json") {
		f.Add([]byte(v.Bytes), uint32(v.Max), v.Client, uint64(5))
	}
	large := AppendMaskedFrame(nil, OpText, make([]byte, 70000), [4]byte{1, 2, 3, 4})
	f.Add(large, uint32(1<<20), false, uint64(16))
	f.Fuzz(func(t *testing.T, stream []byte, most uint32, client bool, seed uint64) {
		most %= 1 << 24
		got := feedCut(t, stream, seed, func() Framer { return &WSFramer{Max: int(most), Client: client} })
		want, fine := readByGobwas(stream, client)
		if len(got.messages) > len(want.messages) || got.close == 0 && (!fine || len(got.messages) != len(want.messages)) {
			t.Fatalf("got %v\nwant %v, %v", got, want, fine)
		}
		want.messages = want.messages[:len(got.messages)]
		want.close = got.close
		if !got.equal(want) {
			t.Fatalf("got %v\nwant %v", got, want)
		}
	})
}

// readByGobwas reads a stream by the header reader and the checks of gobwas/ws. It is laxer than we are (lengths, limits),
// so what we take it must take too. fine = nothing is wrong, the stream just ends.
func readByGobwas(stream []byte, client bool) (o outcome, fine bool) {
	r := bytes.NewReader(stream)
	state := ws.StateServerSide
	if client {
		state = ws.StateClientSide
	}
	var pending *Message
	for {
		h, err := ws.ReadHeader(r)
		if err != nil {
			return o, errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		}
		now := state
		if pending != nil {
			now = now.Set(ws.StateFragmented)
		}
		if ws.CheckHeader(h, now) != nil || h.Masked == client {
			return o, false
		}
		if h.Length > int64(r.Len()) {
			return o, true
		}
		payload := make([]byte, h.Length)
		_, _ = io.ReadFull(r, payload)
		if h.Masked {
			ws.Cipher(payload, h.Mask, 0)
		}
		if h.OpCode.IsControl() {
			if h.OpCode == ws.OpClose && len(payload) > 0 {
				code, reason := ws.ParseCloseFrameData(payload)
				if code >= 1012 && code <= 1014 { // registered with IANA after RFC 6455; gobwas does not know them
					code = ws.StatusNormalClosure
				}
				if ws.CheckCloseFrameData(code, reason) != nil {
					return o, false
				}
			}
			o.messages = append(o.messages, Message{Op(h.OpCode), payload})
			continue
		}
		if pending == nil {
			pending = &Message{Op: Op(h.OpCode), Payload: []byte{}}
		}
		pending.Payload = append(pending.Payload, payload...)
		if h.Fin {
			if pending.Op == OpText && !utf8.Valid(pending.Payload) {
				return o, false
			}
			o.messages, pending = append(o.messages, *pending), nil
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors[requestVector](f, "requests.json") {
		f.Add(v.packet())
	}
	for _, v := range vectors[packetVector](f, "packets.json") {
		f.Add([]byte(v.Text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tryPacket(t, b)
		tryUntrusted(b)
	})
}

func FuzzUpgrade(f *testing.F) {
	for _, v := range vectors[upgradeVector](f, "upgrades.json") {
		if len(v.Request) < 2000 {
			f.Add([]byte(v.Request))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 1500 {
			tryUpgrade(t, b)
		}
		tryUpgradeAgainstStandard(t, b)
	})
}

func FuzzHandshakeReply(f *testing.F) {
	f.Add([]byte("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"))
	f.Add(appendAccepted(nil, []byte(vectorKey), true))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := ReadHandshakeReply(b, vectorKey); n < 0 || n > len(b) || n > 0 && err != nil {
			t.Fatal(n, err)
		}
	})
}

// FuzzPush writes names, ids and contents of every kind into packets and reads them back.
func FuzzPush(f *testing.F) {
	f.Add("p:a:b", "a", "b", "c-17", []byte(`{"a":[1,"\u00e9"]}`), uint64(5), uint64(7))
	f.Add("g:\"\\", "\x00", "é你😀\u2028", "\xff", []byte(`null`), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, conv, from, to, id string, content []byte, inbox, seq uint64) {
		for _, s := range []string{conv, from, to, id} {
			tryString(t, s)
		}
		if !ValidContent(content) || inbox >= maxSeq || seq >= maxSeq {
			return
		}
		m := ConvMessage{Cmd: PrivateMessage, Conv: conv, From: from, To: to, ID: id, Content: bytes.TrimSpace(content), Seq: seq}
		p, problem := Parse(push(m, inbox))
		got, ok := ParsePush(p.Data)
		if !problem.OK() || !ok || !bytes.Equal(got.Content, m.Content) || got.Inbox != inbox || got.Seq != seq {
			t.Fatalf("%+v %+v", problem, got)
		}
		for read, written := range map[string]string{string(got.Conv): conv, string(got.From): from, string(got.To): to, string(got.ID): id} {
			if read != string([]rune(written)) {
				t.Fatalf("%q became %q", written, read)
			}
		}
	})
}
