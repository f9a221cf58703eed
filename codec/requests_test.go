package codec

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"
)

// decode reads the data of a client's packet by its command, as a session does.
func decode(p *Packet) (request any, problem Problem) {
	switch p.Cmd {
	case Login:
		r := &LoginRequest{}
		return r, DecodeLogin(p.Data, r)
	case PrivateMessage:
		r := &SendRequest{}
		return r, DecodeSend(p.Data, "to", r)
	case GroupMessage:
		r := &SendRequest{}
		return r, DecodeSend(p.Data, "group", r)
	case Ack:
		r := &AckRequest{}
		return r, DecodeAck(p.Data, r)
	case Pull:
		r := &PullRequest{}
		return r, DecodePull(p.Data, r)
	case History:
		r := &HistoryRequest{}
		return r, DecodeHistory(p.Data, r)
	case Read, Recall:
		r := &SeqRequest{}
		return r, DecodeSeq(p.Data, r)
	case Typing:
		r := &TypingRequest{}
		return r, DecodeTyping(p.Data, r)
	case Presence:
		r := &PresenceRequest{}
		return r, DecodePresence(p.Data, r)
	case Conversations:
		r := &ConversationsRequest{}
		return r, DecodeConversations(p.Data, r)
	case Refresh:
		token, problem := DecodeRefresh(p.Data)
		return token, problem
	case HeartBeat, Logout:
		return nil, DecodeEmpty(p.Data)
	}
	return nil, Problem{}
}

func TestRequestVectors(t *testing.T) {
	for _, v := range vectors[requestVector](t, "requests.json") {
		t.Run(v.Name, func(t *testing.T) {
			p, problem := Parse(v.packet())
			if problem.OK() {
				_, problem = decode(&p)
			}
			if problem.OK() != v.OK {
				t.Fatalf("%.200q: %+v", v.packet(), problem)
			}
			if !v.OK && (problem.Code != CodeBadPacket || problem.Message == "") {
				t.Fatalf("refused with %+v", problem)
			}
			if got := string(p.ID); v.ID != nil && got != *v.ID || v.ID == nil && p.ID != nil && v.OK {
				t.Fatalf("id is %q", got)
			}
		})
	}
}

func TestParseEnvelope(t *testing.T) {
	for text, want := range map[string]Packet{
		`{"cmd":3,"id":"a","data": {"x":[1]} }`:       {PrivateMessage, []byte("a"), []byte(`{"x":[1]}`)},
		`{"data":null,"cmd":1}`:                       {HeartBeat, nil, []byte(`null`)},
		`{"cmd":2147483647}`:                          {1<<31 - 1, nil, nil},
		`{"cmd":2147483648}`:                          {-1 << 31, nil, nil},
		`{"cmd":-2147483649}`:                         {-1 << 31, nil, nil},
		`{"cmd":1,"data":1,"data":"two"}`:             {HeartBeat, nil, []byte(`"two"`)},
		`{"cmd":5,"d\u0061ta":-1.5e+7,"id":"\u0061"}`: {SystemMessage, []byte("a"), []byte(`-1.5e+7`)},
	} {
		p, problem := Parse([]byte(text))
		if !problem.OK() || !reflect.DeepEqual(p, want) {
			t.Errorf("%s: %+v %+v", text, p, problem)
		}
	}
}

func TestDecodedRequests(t *testing.T) {
	for text, want := range map[string]any{
		`{"cmd":0}`: &LoginRequest{},
		`{"cmd":0,"data":{"accessToken":"t\u0041","terminal":7,"ack":"client","window":9999,"resume":{"epoch":"e","inbox":7}}}`: &LoginRequest{
			AccessToken: "tA", Terminal: "7", ClientAck: true, Window: 1024, HasResume: true, ResumeEpoch: "e", ResumeInbox: 7},
		`{"cmd":0,"data":{"ack":"auto","window":1,"resume":{"inbox":0}}}`:         &LoginRequest{Window: 1, HasResume: true},
		`{"cmd":3,"data":{"to":42,"content": null , "type":-3,"ephemeral":true}}`: &SendRequest{[]byte("42"), -3, []byte("null"), true},
		`{"cmd":3,"data":{"to":-0,"content":{ "a" : 1 }}}`:                        &SendRequest{[]byte("0"), 0, []byte(`{ "a" : 1 }`), false},
		`{"cmd":4,"data":{"group":"\u4f60\ud83d\ude00","content":"\ud800"}}`:      &SendRequest{[]byte("你😀"), 0, []byte(`"\ud800"`), false},
		`{"cmd":7,"data":{"inbox":9007199254740991}}`:                             &AckRequest{Inbox: 1<<53 - 1, HasInbox: true},
		`{"cmd":7,"data":{"conv":"g:a\/b","seq":5}}`:                              &AckRequest{Conv: []byte("g:a/b"), Seq: 5},
		`{"cmd":8,"data":{"after":3}}`:                                            &PullRequest{3, 100},
		`{"cmd":8,"data":{"after":3,"limit":1000}}`:                               &PullRequest{3, 500},
		`{"cmd":9,"data":{"conv":"g:a"}}`:                                         &HistoryRequest{Conv: "g:a", Limit: 50},
		`{"cmd":9,"data":{"conv":"g:a","before":0,"limit":7}}`:                    &HistoryRequest{Conv: "g:a", HasBefore: true, Limit: 7},
		`{"cmd":9,"data":{"conv":"g:a","after":9,"limit":201}}`:                   &HistoryRequest{Conv: "g:a", HasAfter: true, After: 9, Limit: 200},
		`{"cmd":10,"data":{"conv":"p:a:b","seq":4}}`:                              &SeqRequest{"p:a:b", 4},
		`{"cmd":12,"data":{"to":"b"}}`:                                            &TypingRequest{To: "b"},
		`{"cmd":12,"data":{"group":5}}`:                                           &TypingRequest{Group: "5"},
		`{"cmd":13,"data":{"watch":["a", 5 ,"\u0062"],"unwatch":[]}}`:             &PresenceRequest{Watch: []string{"a", "5", "b"}},
		`{"cmd":17,"data":{"accessToken":"x"}}`:                                   "x",
		`{"cmd":19,"data":null}`:                                                  &ConversationsRequest{Limit: 50},
		`{"cmd":19,"data":{"after":"c","limit":201}}`:                             &ConversationsRequest{"c", 200},
	} {
		p, problem := Parse([]byte(text))
		if !problem.OK() {
			t.Fatal(text, problem)
		}
		if got, problem := decode(&p); !problem.OK() || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v %+v", text, got, problem)
		}
	}
}

// What is aliased is said in the docs: it saves a copy per message.
func TestSlicesAlias(t *testing.T) {
	text := []byte(`{"cmd":3,"id":"abc","data":{"to":"bob","content":"hello"}}`)
	p, _ := Parse(text)
	var r SendRequest
	DecodeSend(p.Data, "to", &r)
	for i := range text {
		text[i] = 'x'
	}
	if string(p.ID) != "xxx" || string(r.Target) != "xxx" || string(r.Content) != "xxxxxxx" {
		t.Fatal("copied")
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{"a": true, "": false, "a:b": false, "a/b": false, "a\x00": false, "a\x7f": false,
		"\u0080": false, "\u009f": false, "\u00a0": true, "\xc2": false, "\xff": false, "你好": true, "a b": true} {
		if got := ValidName(name, 6); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	if ValidName("12345", 4) || !ValidName("1234", 4) || ValidName("你好", 5) {
		t.Error("length is not in bytes")
	}
}

func TestValidContent(t *testing.T) {
	for text, want := range map[string]bool{`null`: true, ` {"a":[1]} `: true, ``: false, ` `: false, `1 2`: false, `"a`: false,
		"\"\xff\"": false, `[`: false} {
		if got := ValidContent([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	deep := bytes.Repeat([]byte("["), 512)
	deep = append(deep, bytes.Repeat([]byte("]"), 512)...)
	if !ValidContent(deep) || ValidContent(append(append([]byte("["), deep...), ']')) {
		t.Error("the limit of nesting")
	}
}

// tryPacket checks Parse and the decoders against encoding/json on any bytes.
func tryPacket(t *testing.T, b []byte) {
	p, problem := Parse(b)
	valid := json.Valid(b) && utf8.Valid(b)
	if problem.OK() && !valid {
		t.Fatalf("took %q", b)
	}
	if problem.Message == notJSON && valid && !deeper(b, maxNesting) && bytes.TrimLeft(b, " \t\r\n")[0] == '{' {
		t.Fatalf("refused %q", b)
	}
	if len(p.ID) > MaxID || p.ID != nil && !utf8.Valid(p.ID) {
		t.Fatalf("id %q", p.ID)
	}
	if !problem.OK() {
		return
	}
	checkMembers(t, b, &p)
	request, problem := decode(&p)
	if send, ok := request.(*SendRequest); ok && problem.OK() {
		if !json.Valid(send.Content) || !ValidName(string(send.Target), MaxName) {
			t.Fatalf("content %q for %q", send.Content, send.Target)
		}
	}
}

// checkMembers compares the members found with those of encoding/json, whose maps keep the last of equal keys too.
func checkMembers(t *testing.T, b []byte, p *Packet) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	if !bytes.Equal(members["data"], p.Data) {
		t.Fatalf("data of %q is %q", b, p.Data)
	}
	if id, ok := members["id"]; ok {
		var text string
		if err := json.Unmarshal(id, &text); err != nil || text != string(p.ID) {
			t.Fatalf("id of %q is %q", b, p.ID)
		}
	}
	var n int64
	if err := json.Unmarshal(members["cmd"], &n); err != nil || int64(int32(n)) == n && Cmd(n) != p.Cmd {
		t.Fatalf("cmd of %q is %d: %v", b, p.Cmd, err)
	}
	if p.Data != nil && passValue(p.Data, 0) != len(p.Data) {
		t.Fatalf("passValue ends %q at %d", p.Data, passValue(p.Data, 0))
	}
}

// deeper reports by encoding/json whether a valid text is nested deeper than limit.
func deeper(b []byte, limit int) bool {
	d := json.NewDecoder(bytes.NewReader(b))
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			return false
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > limit {
				return true
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
}

// Every packet with any one byte replaced is either taken or refused, and never differs from encoding/json.
func TestMutatedPackets(t *testing.T) {
	for _, v := range vectors[requestVector](t, "requests.json") {
		b := v.packet()
		if len(b) > 300 || !v.OK {
			continue
		}
		for i := range b {
			for _, c := range []byte("\x00\x1f \"\\{}[],:0-.eE9tu\x7f\x80\xc2\xed\xf4\xff") {
				mutant := bytes.Clone(b)
				mutant[i] = c
				tryPacket(t, mutant)
			}
			tryPacket(t, b[:i])
			tryPacket(t, append(bytes.Clone(b[:i]), b[i+1:]...))
		}
	}
}

// The decoders of data trust Parse; on other bytes they still stay within bounds and come to an end.
func tryUntrusted(data []byte) {
	for cmd := Login; cmd <= Lag; cmd++ {
		decode(&Packet{Cmd: cmd, Data: data})
	}
	ParsePush(data)
	nestedDeeper(data, 1)
}

func TestUntrustedData(t *testing.T) {
	for _, v := range vectors[requestVector](t, "requests.json") {
		b := v.packet()
		for i := range min(len(b), 200) {
			tryUntrusted(b[i:])
			tryUntrusted(b[:i])
			tryUntrusted(append([]byte{'{'}, b[i:]...))
		}
	}
}
