package codec

import "testing"

// The hot path allocates nothing: this is what keeps the garbage collector out of a message's way.
func TestNoAllocations(t *testing.T) {
	packet := []byte(`{"cmd":3,"id":"c-17","data":{"to":"bob","type":1,"content":{"text":"hello \u00e9 你好","n":[1,2.5e3,null]}}}`)
	ack := []byte(`{"cmd":7,"data":{"inbox":123456}}`)
	groupAck := []byte(`{"cmd":7,"data":{"conv":"g:team","seq":123456}}`)
	history := vectorSent
	room := make([]byte, 0, 4096)
	pushed := push(vectorSent, 17)
	id := []byte("c-17")
	tcp := &TCPFramer{}
	frame := append(AppendHeader(nil, TCP, OpText, len(packet)), packet...)
	ws := &WSFramer{}
	masked := AppendMaskedFrame(nil, OpText, packet, [4]byte{}) // unmasked in place: stays the same
	ping := AppendMaskedFrame(nil, OpPing, []byte("p"), [4]byte{})
	client := &WSFramer{Client: true}
	sent := append(AppendHeader(nil, WebSocket, OpText, len(packet)), packet...)
	var problem Problem
	var err error
	for name, f := range map[string]func(){
		"Parse and DecodeSend": func() {
			var p Packet
			var r SendRequest
			if p, problem = Parse(packet); problem.OK() {
				problem = DecodeSend(p.Data, "to", &r)
			}
		},
		"Parse and DecodeAck": func() {
			var p Packet
			var r AckRequest
			if p, problem = Parse(ack); problem.OK() {
				problem = DecodeAck(p.Data, &r)
			}
		},
		"Parse and DecodeAck of a group": func() {
			var p Packet
			var r AckRequest
			if p, problem = Parse(groupAck); problem.OK() {
				problem = DecodeAck(p.Data, &r)
			}
		},
		"refusal":              func() { Parse(packet[:40]) },
		"ParsePush":            func() { p, _ := Parse(pushed); ParsePush(p.Data) },
		"MakeMsgID":            func() { MakeMsgID("alice", id) },
		"AppendPushHead":       func() { AppendPushHead(room, PrivateMessage, 123456) },
		"AppendPushTail":       func() { AppendPushTail(room, &vectorSent) },
		"AppendPushTail group": func() { AppendPushTail(room, &vectorGroup) },
		"AppendPushTail event": func() { AppendPushTail(room, &vectorEvent) },
		"AppendMessageJSON":    func() { AppendMessageJSON(room, &history) },
		"AppendSendAck":        func() { AppendSendAck(room, id, vectorID, "p:alice:bob", 1767225600123, 7, true) },
		"AppendHeartBeat":      func() { AppendHeartBeat(room, id, 17) },
		"AppendReceipt":        func() { AppendReceipt(room, "p:alice:bob", "bob", 1, 2) },
		"AppendError":          func() { AppendError(room, id, CodeRateLimited, "slow down", 100) },
		"AppendHeader":         func() { AppendHeader(AppendHeader(room, TCP, OpText, 300), WebSocket, OpText, 300) },
		"AppendMaskedFrame":    func() { AppendMaskedFrame(room, OpText, packet, [4]byte{1, 2, 3, 4}) },
		"AppendCloseFrame":     func() { AppendCloseFrame(room, 4009, "REPLACED") },
		"TCPFramer":            func() { _, _, _, err = tcp.Next(frame) },
		"TCPFramer incomplete": func() { _, _, _, err = tcp.Next(frame[:9]) },
		"WSFramer":             func() { _, _, _, err = ws.Next(masked) },
		"WSFramer incomplete":  func() { _, _, _, err = ws.Next(masked[:9]) },
		"WSFramer ping":        func() { _, _, _, err = ws.Next(ping) },
		"WSFramer client":      func() { _, _, _, err = client.Next(sent) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if !problem.OK() || err != nil {
			t.Errorf("%s: %+v, %v", name, problem, err)
		}
	}
}
