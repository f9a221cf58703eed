package redis

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
)

// sample is a payload with every kind of record, and what it says.
func sample() (text string, want payload) {
	first := &codec.ConvMessage{
		Cmd: codec.PrivateMessage, MsgID: codec.MakeMsgID("alice", []byte("1")), Conv: "p:alice:bob", Seq: 1 << 60, From: "alice", To: "bob",
		TS: 1_700_000_000_000, Type: -7, Content: []byte(`{"text":"héllo"}`), ID: "1",
	}
	second := &codec.ConvMessage{Cmd: codec.Recall, Conv: "g:team", Group: "team", Seq: 3, Target: 2, Recalled: true}
	want = payload{
		sender: "abc", number: 300,
		wakes: []cluster.Wake{
			{User: "alice", Inbox: 5, Message: first}, {User: "bob", Inbox: 1 << 40, Message: first},
			{Group: "team", Message: second}, {User: "carol", Inbox: 9},
		},
		signals: []cluster.Signal{
			{User: "bob", Packet: []byte(`{"cmd":12}`)}, {User: "carol", Packet: []byte(`{"cmd":12}`)},
			{User: "dan", State: &codec.PresenceState{User: "dan", Online: true, Terminals: []string{"web", "ios"}, LastSeen: 12}},
			{User: "eve", State: &codec.PresenceState{User: "eve", LastSeen: -1}},
			{Group: "big", Except: "alice", Packet: []byte(`{"cmd":13}`)},
			{Broadcast: first},
		},
		members: []cluster.MembersChange{{Group: "team", Added: []string{"x", "y"}, Removed: []string{"z"}, Large: true, BecameLarge: true}, {Group: "small"}},
		answers: []cluster.Answer{{
			Ref: 1 << 63, Token: 4, ID: []byte("id"), Code: codec.CodeRevoked, Message: "no", MsgID: first.MsgID, Seq: 8, TS: 9, Duplicate: true,
		}, {}},
		orders:     []order{{user: "bob", terminal: "web", code: codec.CodeKicked, reason: "why", before: 77}},
		superseded: []superseded{{user: "bob", terminal: "ios", ref: 1<<64 - 1}},
		asked:      []question{{number: 3, text: []byte("who?")}, {number: 1 << 50}},
		told:       []question{{number: 2, text: []byte("me")}},
		hello:      true, bye: true, lost: true,
	}
	var e encoder
	e.begin("abc", 300)
	for _, w := range want.wakes {
		e.wake(w.User, w.Group, w.Inbox, w.Message)
	}
	shared := want.signals[0].Packet
	e.signal("bob", "", "", shared)
	e.signal("carol", "", "", shared)
	for _, s := range want.signals[2:] {
		write(&e, s)
	}
	for _, m := range want.members {
		e.members(m)
	}
	for _, a := range want.answers {
		e.answer(a)
	}
	e.order(want.orders[0])
	e.superseded(want.superseded[0])
	e.question(kindAsk, want.asked[0])
	e.question(kindAsk, want.asked[1])
	e.question(kindTold, want.told[0])
	e.notice(kindHello)
	e.notice(kindBye)
	e.notice(kindLost)
	return string(e.b), want
}

// write appends any signal.
func write(e *encoder, s cluster.Signal) {
	switch {
	case s.Broadcast != nil:
		e.broadcast(s.Broadcast)
	case s.State != nil:
		e.state(s.User, s.State)
	default:
		e.signal(s.User, s.Group, s.Except, s.Packet)
	}
}

func TestPayload(t *testing.T) {
	text, want := sample()
	got, err := readPayload(text)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read\n%+v\nwant\n%+v", got, want)
	}
	if n := strings.Count(text, "héllo"); n != 2 { // the second time as a broadcast after another message
		t.Errorf("a message with two recipients is carried %d times", n)
	}
	if n := strings.Count(text, `"cmd":12`); n != 1 {
		t.Errorf("a packet with two recipients is carried %d times", n)
	}
}

// A later version may add kinds: they are skipped. It may add to the end of a record's body as well.
func TestPayloadOfLater(t *testing.T) {
	var e encoder
	e.begin("abc", 1)
	e.body = []byte("what is this")
	e.record(99)
	e.wake("bob", "", 4, nil)
	e.body = append(appendText(nil, "carol"), 0, 7, 1, 2, 3)
	e.record(kindWake)
	p, err := readPayload(string(e.b))
	if want := []cluster.Wake{{User: "bob", Inbox: 4}, {User: "carol", Inbox: 7}}; err != nil || !reflect.DeepEqual(p.wakes, want) {
		t.Errorf("read %+v, %v; want %+v", p.wakes, err, want)
	}
}

// Cut anywhere, a payload is refused or is the records before the cut; and it never panics.
func TestPayloadCut(t *testing.T) {
	text, _ := sample()
	refused := 0
	for n := range len(text) {
		if _, err := readPayload(text[:n]); err != nil {
			refused++
		}
	}
	if whole := len(text) - refused; whole < 10 || whole > 50 { // between two records it is whole
		t.Errorf("%d of %d cuts were refused", refused, len(text))
	}
}

func TestPayloadMalformed(t *testing.T) {
	long := strings.Repeat("\xff", 9)
	head := "\x01\x00\x01"
	for name, text := range map[string]string{
		"empty":                       "",
		"another version":             "\x02\x00\x01",
		"a sender longer than all":    "\x01\x7fabc",
		"a number beyond 64 bits":     "\x01\x00" + long + "\x02",
		"a record longer than all":    head + "\x02" + long + "\x01",
		"a wake of no message":        head + "\x02\x03\x00\x01\x00",
		"a broadcast of no message":   head + "\x0e\x00",
		"a list longer than its body": head + "\x06\x08\x00\x00\x00\x00\xff\xff\xff\x7f",
	} {
		if p, err := readPayload(text); err == nil {
			t.Errorf("%s: read %+v", name, p)
		}
	}
}

func FuzzPayload(f *testing.F) {
	text, _ := sample()
	f.Add(text)
	f.Add("\x01\x00\x01\x02\x03\x00\x01\x00")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := readPayload(text)
		if err != nil {
			return
		}
		// What was read says the same when it is written and read again.
		var e encoder
		e.begin(p.sender, p.number)
		for _, w := range p.wakes {
			e.wake(w.User, w.Group, w.Inbox, w.Message)
		}
		for _, s := range p.signals {
			write(&e, s)
		}
		for _, m := range p.members {
			e.members(m)
		}
		for _, a := range p.answers {
			e.answer(a)
		}
		for _, o := range p.orders {
			e.order(o)
		}
		for _, s := range p.superseded {
			e.superseded(s)
		}
		for _, q := range p.asked {
			e.question(kindAsk, q)
		}
		for _, q := range p.told {
			e.question(kindTold, q)
		}
		again, err := readPayload(string(e.b))
		p.hello, p.bye, p.lost = false, false, false
		if err != nil || fmt.Sprintf("%+v", flat(again)) != fmt.Sprintf("%+v", flat(p)) {
			t.Fatalf("read\n%+v\nthen %v\n%+v", flat(p), err, flat(again))
		}
	})
}

// flat puts what is behind pointers into the open, for a comparison by text.
func flat(p payload) []any {
	list := []any{p.sender, p.number, p.members, p.answers, p.orders, p.superseded, p.asked, p.told}
	for _, w := range p.wakes {
		if list = append(list, w.User, w.Group, w.Inbox); w.Message != nil {
			list = append(list, *w.Message)
		}
	}
	for _, s := range p.signals {
		if list = append(list, s.User, s.Group, s.Except, s.Packet); s.State != nil {
			list = append(list, *s.State)
		}
		if s.Broadcast != nil {
			list = append(list, *s.Broadcast)
		}
	}
	return list
}

func BenchmarkPayload(b *testing.B) {
	m := &codec.ConvMessage{Cmd: codec.PrivateMessage, Conv: "p:alice:bob", Seq: 7, From: "alice", To: "bob", TS: 1_700_000_000_000, Content: make([]byte, 128), ID: "c-17"}
	messages := make([]codec.ConvMessage, 100)
	var e encoder
	b.ReportAllocs()
	for b.Loop() {
		e.begin("abcdefghijklm", 1)
		for i := range messages {
			messages[i] = *m
			e.wake("bob", "", 5, &messages[i])
		}
		if _, err := readPayload(string(e.b)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/wake")
}
