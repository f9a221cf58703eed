package codec

import (
	"encoding/json"
	"testing"
)

func TestParse(t *testing.T) {
	p, problem := Parse([]byte(` {"cmd":3,"id":"c-17","data":{"to":"bob","content":{"a":[1,2,{"x":"é\u00e9"}]}}} `))
	if !problem.OK() || p.Cmd != PrivateMessage || string(p.ID) != "c-17" {
		t.Fatalf("got %+v, %+v", p, problem)
	}
	var r SendRequest
	if problem := DecodeSend(p.Data, "to", &r); !problem.OK() {
		t.Fatal(problem)
	}
	if string(r.Target) != "bob" || string(r.Content) != `{"a":[1,2,{"x":"é\u00e9"}]}` {
		t.Fatalf("got %q %q", r.Target, r.Content)
	}
}

func TestPushIsJSON(t *testing.T) {
	b := AppendPushHead(nil, PrivateMessage, 17)
	b = AppendPushTail(b, &ConvMessage{Cmd: PrivateMessage, Conv: "p:a:b", Seq: 1, From: "a", To: "b", TS: 5, Content: []byte(`{"x":1}`), ID: "q\"1"})
	if !json.Valid(b) {
		t.Fatalf("%s", b)
	}
	p, problem := Parse(b)
	m, ok := ParsePush(p.Data)
	if !problem.OK() || !ok || m.Inbox != 17 || string(m.ID) != `q"1` || string(m.Content) != `{"x":1}` {
		t.Fatalf("%+v", m)
	}
}

func TestFramesRoundTrip(t *testing.T) {
	text := []byte(`{"cmd":1}`)
	server, client := WSFramer{}, WSFramer{Client: true}
	m, n, _, err := server.Next(AppendMaskedFrame(nil, OpText, text, [4]byte{1, 2, 3, 4}))
	if err != nil || string(m.Payload) != string(text) || n != len(text)+6 {
		t.Fatal(m, n, err)
	}
	m, n, _, err = client.Next(append(AppendHeader(nil, WebSocket, OpText, len(text)), text...))
	if err != nil || string(m.Payload) != string(text) || n != len(text)+2 {
		t.Fatal(m, n, err)
	}
	tcp := TCPFramer{}
	m, n, _, err = tcp.Next(append(AppendHeader(nil, TCP, OpText, len(text)), text...))
	if err != nil || string(m.Payload) != string(text) || n != len(text)+4 {
		t.Fatal(m, n, err)
	}
}

func TestUpgradeRoundTrip(t *testing.T) {
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	req := AppendHandshake(nil, "localhost:8080", "/im?x=1", key, "tok")
	h, response, n, ok := Upgrade(req, &UpgradeRules{Path: "/im"})
	if !ok || n != len(req) || h.Token != "tok" || h.Path != "/im" || h.Host != "localhost:8080" {
		t.Fatalf("%+v %s", h, response)
	}
	if n, err := ReadHandshakeReply(response, key); err != nil || n != len(response) {
		t.Fatal(n, err)
	}
}
