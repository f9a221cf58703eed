package bench

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/codec"
)

func TestPropertyMarks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := mark{rapid.Uint32().Draw(t, "run"), rapid.Uint32Max(maxFlow).Draw(t, "flow"), rapid.Uint32().Draw(t, "number"),
			rapid.Int64Min(0).Draw(t, "time")}
		var b [markLen]byte
		want.put(b[:])
		if got, ok := findMark(append([]byte(`{"content":"`), b[:]...)); !ok || got != want {
			t.Fatalf("%+v came back as %+v, %v", want, got, ok)
		}
	})
}

func TestTemplateIsAPacket(t *testing.T) {
	for _, cmd := range []codec.Cmd{codec.PrivateMessage, codec.GroupMessage} {
		tpl := newTemplate(cmd, `odd "name"`, 200, 7, 9)
		for number := uint32(1); number < 4; number++ {
			p, problem := codec.Parse(tpl.next(int64(number) * 1000))
			if !problem.OK() || p.Cmd != cmd {
				t.Fatalf("%q: %v", tpl.packet, problem)
			}
			target := map[codec.Cmd]string{codec.PrivateMessage: "to", codec.GroupMessage: "group"}[cmd]
			var r codec.SendRequest
			if problem := codec.DecodeSend(p.Data, target, &r); !problem.OK() || string(r.Target) != `odd "name"` || len(r.Content) != 200 {
				t.Fatalf("%+v: %v", r, problem)
			}
			want := mark{7, 9, number, int64(number) * 1000}
			if m, ok := findMark(r.Content); !ok || m != want {
				t.Errorf("content has %+v", m)
			}
			if m, ok := findMark(p.ID); !ok || m != want {
				t.Errorf("id has %+v", m)
			}
		}
	}
}

func TestReadPush(t *testing.T) {
	var b [markLen]byte
	m := mark{1, 2, 3, 4}
	m.put(b[:])
	content := []byte(`"` + string(b[:]) + `"`)
	encode := func(inbox, seq uint64) []byte {
		return codec.AppendPushTail(codec.AppendPushHead(nil, codec.PrivateMessage, inbox), &codec.ConvMessage{Cmd: codec.PrivateMessage,
			Conv: "p:a:b", Seq: seq, From: "a", To: "b", TS: 5, Content: content, ID: "x"})
	}
	for name, tc := range map[string]struct {
		packet     []byte
		inbox, seq uint64
	}{
		"inbox":           {encode(12345, 678), 12345, 678},
		"large group":     {encode(0, 678), 0, 678},
		"ephemeral":       {encode(0, 0), 0, 0},
		"another order":   {[]byte(`{"data":{"seq":2,"content":` + string(content) + `,"conv":"p:a:b","inbox":9},"cmd":3}`), 9, 2},
		"with whitespace": {[]byte(`{ "cmd": 3, "data": {"conv":"p:a:b", "inbox": 9, "seq": 2, "content":` + string(content) + `}}`), 9, 2},
	} {
		t.Run(name, func(t *testing.T) {
			p, ok := readPush(tc.packet)
			if !ok || p.inbox != tc.inbox || p.seq != tc.seq || !p.marked || p.mark != m {
				t.Errorf("%s: got %+v, %v", tc.packet, p, ok)
			}
			if cmd := commandOf(tc.packet); cmd != codec.PrivateMessage {
				t.Errorf("cmd %d", cmd)
			}
		})
	}
	packet := encode(12345, 678)
	if n := testing.AllocsPerRun(100, func() { _ = commandOf(packet); _, _ = readPush(packet) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func TestSecretTokenIsValid(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	j, err := auth.NewJWT(t.Context(), auth.JWTOptions{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	token, err := SecretToken(secret)("alice", "bench")
	if err != nil {
		t.Fatal(err)
	}
	id, err := j.Authenticate(t.Context(), token)
	if err != nil || id.User != "alice" || id.Terminal != "bench" || id.IssuedAt < time.Now().Add(-time.Hour).UnixMilli() {
		t.Errorf("got %+v, %v", id, err)
	}
}

func TestParseSources(t *testing.T) {
	got, err := ParseSources("127.0.1.254-127.0.2.1, 10.0.0.5")
	if err != nil || len(got) != 5 || got[0].String() != "127.0.1.254" || got[3].String() != "127.0.2.1" || got[4].String() != "10.0.0.5" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, list := range []string{"x", "127.0.0.1-", "0.0.0.0-255.255.255.255"} {
		if got, err := ParseSources(list); err == nil {
			t.Errorf("%q gave %d addresses", list, len(got))
		}
	}
}

func TestFlowTakesEachNumberOnce(t *testing.T) {
	var f flow
	for i, want := range []struct {
		n     uint32
		first bool
		done  uint32
	}{{1, true, 1}, {1, false, 1}, {3, true, 1}, {3, false, 1}, {4, true, 1}, {2, true, 4}, {4, false, 4}, {5, true, 5}} {
		if first := f.add(want.n); first != want.first || f.done != want.done {
			t.Errorf("step %d, number %d: first %v, done %d", i, want.n, first, f.done)
		}
	}
}

func TestParseMetrics(t *testing.T) {
	m := parseMetrics([]byte("# HELP x y\nx{a=\"b c\"} 1\nx{a=\"d\"} 2.5\ny 3e6\n\n"))
	if m["x"] != 3.5 || m["y"] != 3e6 {
		t.Errorf("got %v", m)
	}
}
