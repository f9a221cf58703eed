package codec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/packets.json anew")

// packetVector is a packet of the server, byte for byte.
type packetVector struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

var (
	vectorID    = MakeMsgID("alice", []byte("c-17"))
	vectorSent  = ConvMessage{Cmd: PrivateMessage, MsgID: vectorID, Conv: "p:alice:bob", Seq: 7, From: "alice", To: "bob", TS: 1767225600123, Content: []byte(`{ "text": "h\u00e9" }`), ID: "c-17"}
	vectorGroup = ConvMessage{Cmd: GroupMessage, MsgID: vectorID, Conv: "g:team", Seq: 1 << 40, From: "你好", Group: "team", TS: 1, Type: -2, Content: []byte(`null`), ID: "\"\\\n\u0001"}
	vectorSys   = ConvMessage{Cmd: SystemMessage, MsgID: vectorID, Conv: "n:bob", Seq: 1, To: "bob", TS: 2, Type: 9, Content: []byte(`[1,2]`), ID: "job/bob"}
	vectorEvent = ConvMessage{Cmd: Recall, MsgID: vectorID, Conv: "p:alice:bob", Seq: 8, From: "alice", To: "bob", TS: 3, Target: 7, ID: "r-1"}
)

// recalled is m taken back.
func recalled(m ConvMessage) ConvMessage {
	m.Recalled = true
	return m
}

// ephemeral is m that was never stored.
func ephemeral(m ConvMessage) ConvMessage {
	m.Seq = 0
	return m
}

func push(m ConvMessage, inbox uint64) []byte {
	return AppendPushTail(AppendPushHead(nil, m.Cmd, inbox), &m)
}

// serverPackets is every kind of packet that a server sends.
func serverPackets() []packetVector {
	id := []byte("c-17")
	byAPI := vectorEvent
	byAPI.From = ""
	var list []packetVector
	add := func(name string, packet []byte) { list = append(list, packetVector{name, string(packet)}) }

	add("login", AppendLogin(nil, id, &LoginReply{UserID: "alice", Terminal: "web", SessionID: "s-1", ServerTime: 1767225600123,
		ExpiresAt: 1767312000000, Heartbeat: 30, Epoch: "e1", Head: 12, First: 3, Acked: 9, Resumed: true, Node: "node-1"}))
	add("login without id", AppendLogin(nil, nil, &LoginReply{UserID: "10001", Terminal: "web", SessionID: "s", Epoch: "e", First: 1, Node: "n"}))
	add("heartbeat", AppendHeartBeat(nil, nil, 12))
	add("heartbeat with id", AppendHeartBeat(nil, []byte("h"), 0))
	add("force logout", AppendForceLogout(nil, CodeReplaced, "newer login"))
	add("force logout, revoked", AppendForceLogout(nil, CodeRevoked, ""))
	add("private message", push(vectorSent, 17))
	add("private message, large inbox", push(vectorSent, 1<<53-1))
	add("private message, ephemeral", push(ephemeral(vectorSent), 0))
	add("private message, recalled", push(recalled(vectorSent), 17))
	add("group message", push(vectorGroup, 1))
	add("group message of a large group", push(vectorGroup, 0))
	add("system message", push(vectorSys, 5))
	add("recall", push(vectorEvent, 18))
	add("recall by the API, large group", push(byAPI, 0))
	add("send ack", AppendSendAck(nil, id, vectorID, "p:alice:bob", 1767225600123, 7, false))
	add("send ack, duplicate", AppendSendAck(nil, id, vectorID, "p:alice:bob", 1767225600123, 7, true))
	add("send ack without seq", AppendSendAck(nil, []byte("\"é"), vectorID, "g:te\"am", 5, 0, false))
	add("pull", AppendPull(nil, id, []InboxEntry{{17, vectorSent}, {18, vectorEvent}, {19, recalled(vectorGroup)}}, 20, 1, true))
	add("pull of nothing", AppendPull(nil, id, nil, 0, 1, false))
	add("history", AppendHistory(nil, id, "p:alice:bob", []ConvMessage{vectorEvent, recalled(vectorSent), vectorSent}, true))
	add("history of nothing", AppendHistory(nil, nil, "g:team", nil, false))
	add("receipt, delivered", AppendReceipt(nil, "p:alice:bob", "bob", 7, 0))
	add("receipt, read", AppendReceipt(nil, "p:alice:bob", "bob", 0, 6))
	add("receipt, both", AppendReceipt(nil, "p:alice:bob", "bob", 7, 6))
	add("typing", AppendTyping(nil, "g:team", "alice"))
	add("presence", AppendPresence(nil, id, []PresenceState{{"bob", true, []string{"web", "ios"}, 1767225600123}, {"eve", false, nil, 0}}))
	add("presence of nobody", AppendPresence(nil, nil, nil))
	add("error", AppendError(nil, id, CodeBadPacket, "no content", 0))
	add("error, rate limited", AppendError(nil, nil, CodeRateLimited, "slow down", 250))
	add("error, revoked", AppendError(nil, nil, CodeRevoked, "token was revoked", 0))
	add("error, unavailable", AppendError(nil, []byte("x"), CodeUnavailable, "cannot keep messages now", 0))
	add("goaway", AppendGoAway(nil, "the server is restarting", 1500))
	add("refresh", AppendRefresh(nil, id, 1767312000000))
	add("logout", AppendLogout(nil, id))
	add("logout without id", AppendLogout(nil, nil))
	add("conversations", AppendConversations(nil, id, []ConversationState{
		{Conv: "p:alice:bob", Kind: "private", Peer: "bob", Head: 8, Read: 5, Unread: 2, PeerDelivered: 7, PeerRead: 0, Last: &vectorSent},
		{Conv: "g:team", Kind: "group", Group: "team", Head: 4},
		{Conv: "n:alice", Kind: "system", Head: 1, Read: 1, Last: &vectorSys},
	}, "next"))
	add("conversations, none", AppendConversations(nil, id, nil, ""))
	add("lag", AppendLag(nil, 99))
	add("extension", AppendPacket(nil, 1000, id, []byte(`[1]`)))
	add("packet without data", AppendPacket(nil, HeartBeat, nil, nil))
	return list
}

func TestPacketVectors(t *testing.T) {
	list := serverPackets()
	if *rewrite {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		for _, v := range list {
			b.WriteString(map[bool]string{true: "[\n", false: ",\n"}[b.Len() == 0])
			if err := e.Encode(v); err != nil {
				t.Fatal(err)
			}
			b.Truncate(b.Len() - 1)
		}
		b.WriteString("\n]\n")
		if err := os.WriteFile("testdata/packets.json", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept := vectors[packetVector](t, "packets.json")
	if len(kept) != len(list) {
		t.Fatalf("%d vectors, %d packets", len(kept), len(list))
	}
	for i, v := range list {
		if v != kept[i] {
			t.Errorf("%s:\n got %s\nwant %s", v.Name, v.Text, kept[i].Text)
		}
		if p, problem := Parse([]byte(v.Text)); !problem.OK() || !json.Valid([]byte(v.Text)) {
			t.Errorf("%s: %+v %+v", v.Name, p, problem)
		}
	}
}

// Every reader of a push finds in it what was written.
func TestParsePushReadsWhatWasWritten(t *testing.T) {
	for _, m := range []ConvMessage{vectorSent, vectorGroup, vectorSys, vectorEvent, recalled(vectorSent), ephemeral(vectorSent)} {
		p, problem := Parse(push(m, 17))
		got, ok := ParsePush(p.Data)
		if !problem.OK() || !ok || p.Cmd != m.Cmd || got.Inbox != 17 {
			t.Fatalf("%+v %+v", p, got)
		}
		want := m
		if m.Cmd == Recall { // neither has a content, an id or a receiver
			want.MsgID, want.To, want.ID = MsgID{}, "", ""
		} else if id, ok := ParseMsgID(got.MsgID); !ok || id != m.MsgID || id.String() != string(got.MsgID) {
			t.Fatalf("msgId %q", got.MsgID)
		}
		if m.Recalled {
			want.Content = []byte("null")
		}
		read := ConvMessage{Cmd: p.Cmd, MsgID: want.MsgID, Conv: string(got.Conv), Seq: got.Seq, From: string(got.From), To: string(got.To),
			Group: string(got.Group), TS: got.TS, Type: got.Type, Content: got.Content, ID: string(got.ID), Target: got.Target, Recalled: got.Recalled}
		if string(AppendMessageJSON(nil, &read)) != string(AppendMessageJSON(nil, &want)) || read.Recalled != want.Recalled {
			t.Errorf("\n got %+v\nwant %+v", read, want)
		}
	}
}

func TestParsePushRefuses(t *testing.T) {
	for _, data := range []string{``, `null`, `[]`, `{}`, `{"conv":5}`, `{"conv":"a","seq":-1}`, `{"conv":"a","inbox":"1"}`, `{"conv":"a","recalled":1}`} {
		if p, ok := ParsePush([]byte(data)); ok {
			t.Errorf("%s: %+v", data, p)
		}
	}
}

func TestMsgIDVectors(t *testing.T) {
	for _, v := range vectors[msgIDVector](t, "msgids.json") {
		if got := MakeMsgID(v.Sender, []byte(v.ID)).String(); got != v.MsgID {
			t.Errorf("%q %q: %s, not %s", v.Sender, v.ID, got, v.MsgID)
		}
	}
	for _, text := range []string{"", "00", strings.Repeat("g", 32), strings.Repeat("0", 33)} {
		if _, ok := ParseMsgID([]byte(text)); ok {
			t.Errorf("%q is taken for a msgId", text)
		}
	}
}

// tryString checks AppendString by encoding/json: the text comes back, with U+FFFD for what is not UTF-8.
func tryString(t *testing.T, s string) {
	b := AppendString([]byte("x"), s)[1:]
	if string(appendText(nil, []byte(s))) != string(b) {
		t.Fatalf("%q: strings and bytes differ", s)
	}
	var got string
	if err := json.Unmarshal(b, &got); err != nil || got != strings.ToValidUTF8(got, "") || got != string([]rune(s)) {
		t.Fatalf("%q became %s: %v", s, b, err)
	}
	if text, ok := readText(b); !ok || string(text) != got || skipValue(b, 0, 1) != len(b) {
		t.Fatalf("%s is read as %q", b, text)
	}
}

func TestAppendString(t *testing.T) {
	tryString(t, "")
	tryString(t, "plain")
	tryString(t, "\xff\xfe a\xe4\xbd \xed\xa0\x80\xf4\x90\x80\x80\xc0\xaf\xc2")
	tryString(t, "é你😀\U0010FFFF\u2028\uFFFD\uFEFF<>&")
	for c := range 256 {
		tryString(t, string([]byte{byte(c)}))
		tryString(t, "ab"+string(rune(c))+"cd")
	}
}

func TestCodes(t *testing.T) {
	for code, want := range map[Code]string{4000: "BAD_PACKET", 4001: "UNAUTHORIZED", 4003: "FORBIDDEN", 4004: "NOT_FOUND",
		4005: "UNKNOWN_COMMAND", 4006: "BAD_STATE", 4008: "TIMEOUT", 4009: "REPLACED", 4010: "TOKEN_EXPIRED", 4011: "KICKED", 4012: "CONFLICT",
		4013: "TOO_LARGE", 4015: "TOO_SLOW", 4029: "RATE_LIMITED", 5000: "INTERNAL", 5003: "UNAVAILABLE", CodeRevoked: "REVOKED", 4777: "OTHER"} {
		if code.Name() != want || code.Number() != int(code) && code != CodeRevoked {
			t.Errorf("%d: %s, %d", code, code.Name(), code.Number())
		}
		if retry := want == "RATE_LIMITED" || want == "UNAVAILABLE" || want == "INTERNAL"; code.Retryable() != retry {
			t.Errorf("%s: retryable %v", want, !retry)
		}
	}
	if CodeRevoked.Number() != 4010 {
		t.Error(CodeRevoked.Number())
	}
}

func TestCommandNames(t *testing.T) {
	seen := map[string]bool{}
	for cmd := Login; cmd <= Lag; cmd++ {
		if name := cmd.String(); seen[name] || name == "UNKNOWN" || name == "EXTENSION" {
			t.Errorf("%d is called %q", cmd, name)
		} else {
			seen[name] = true
		}
	}
	if TCP.String() != "tcp" || WebSocket.String() != "websocket" {
		t.Error(TCP, WebSocket)
	}
	if Cmd(-1).String() != "UNKNOWN" || Cmd(21).String() != "UNKNOWN" || FirstExtension.String() != "EXTENSION" {
		t.Error("commands that are not of the table")
	}
}
