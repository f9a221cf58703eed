package server_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/server"
)

// bytes writes below the framing.
func (p *peer) bytes(b ...byte) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.c.SendBytes(ctx, b); err != nil {
		p.t.Fatal(err)
	}
}

// frame is one masked WebSocket frame with any first byte.
func frame(first byte, payload string) []byte {
	b := codec.AppendMaskedFrame(nil, codec.OpText, []byte(payload), [4]byte{1, 2, 3, 4})
	b[0] = first
	return b
}

// padded is a HEART_BEAT of exactly n bytes.
func padded(n int) string {
	const head, tail = `{"cmd":1,"id":"pad","x":"`, `"}`
	return head + strings.Repeat("x", n-len(head)-len(tail)) + tail
}

const maxFrame = 65535 // the default

func TestTCPFrames(t *testing.T) {
	n := start(t)
	p := n.login("tcp", "alice")
	// N = 0 is a BAD_PACKET, which stays open; so is what is not UTF-8.
	p.bytes(0, 0, 0, 0)
	p.expect(`{"cmd":15,"id":null,"data":{"code":4000,"name":"BAD_PACKET"}}`)
	p.talk("{\"cmd\":1,\"id\":\"\xff\"}", `{"cmd":15,"data":{"code":4000}}`)
	p.talk("{\"cmd\":1,\"x\":\"\xed\xa0\x80\"}", `{"cmd":15,"data":{"code":4000}}`)
	p.talk(padded(maxFrame), `{"cmd":1,"id":"pad"}`)

	// Any split of the bytes, several packets in one write, a binary "opcode" does not exist.
	body := `{"cmd":1,"id":"split"}`
	whole := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	for i := range whole {
		p.bytes(whole[i])
	}
	p.expect(`{"cmd":1,"id":"split"}`)
	p.bytes(append(append(append([]byte{}, whole...), whole...), whole[:7]...)...)
	p.expect(`{"cmd":1,"id":"split"}`)
	p.expect(`{"cmd":1,"id":"split"}`)
	p.bytes(whole[7:]...)
	p.expect(`{"cmd":1,"id":"split"}`)

	// A longer frame is refused from its header: no body follows.
	for _, length := range []uint32{maxFrame + 1, 1 << 31, 1<<32 - 1} {
		p := n.login("tcp", "alice", `"terminal":"long"`)
		p.bytes(binary.BigEndian.AppendUint32(nil, length)...)
		p.expect(`{"cmd":15,"id":null,"data":{"code":4013,"name":"TOO_LARGE","retryable":false}}`)
		p.closed()
	}
	fresh := n.dial("tcp")
	fresh.bytes(0, 0, 0, 0)
	fresh.expect(`{"cmd":15,"data":{"code":4000}}`)
	fresh.closed()
	// Other protocols on this port look like a long frame.
	stray := n.dial("tcp")
	stray.bytes([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")...)
	stray.expect(`{"cmd":15,"data":{"code":4013}}`)
	stray.closed()
	p.quiet()
}

func TestWebSocketFrames(t *testing.T) {
	n := start(t)
	p := n.login("websocket", "alice")
	p.talk(padded(maxFrame), `{"cmd":1,"id":"pad"}`)
	// Fragments, with a ping between them, byte by byte.
	pieces := append(frame(0x01, `{"cmd":1,`), frame(0x89, "hello")...)
	pieces = append(append(pieces, frame(0x00, `"id":"in `)...), frame(0x80, `pieces"}`)...)
	for _, b := range pieces {
		p.bytes(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pong, err := p.c.ReceiveFrame(ctx)
	if err != nil || pong.Op != codec.OpPong || string(pong.Payload) != "hello" {
		t.Fatalf("ping answered by %v %q %v", pong.Op, pong.Payload, err)
	}
	p.expect(`{"cmd":1,"id":"in pieces"}`)
	p.bytes(frame(0x8A, "unasked")...) // a pong is let be
	p.quiet()
	p.talk("", `{"cmd":15,"data":{"code":4000}}`) // an empty text message is no JSON

	const silent = "" // violations of RFC 6455 itself are told by the close code alone
	unmasked := append([]byte{0x81, 2}, "{}"...)
	for name, c := range map[string]struct {
		bytes []byte
		want  string
		code  uint16
	}{
		"binary":                      {frame(0x82, `{"cmd":1}`), silent, 1003},
		"binary in fragments":         {append(frame(0x02, `{"cmd"`), frame(0x80, `:1}`)...), silent, 1003},
		"unmasked":                    {unmasked, silent, 1002},
		"RSV1":                        {frame(0xC1, `{"cmd":1}`), silent, 1002},
		"RSV3":                        {frame(0x91, `{"cmd":1}`), silent, 1002},
		"opcode 3":                    {frame(0x83, `{"cmd":1}`), silent, 1002},
		"opcode 11":                   {frame(0x8B, ``), silent, 1002},
		"long ping":                   {frame(0x89, strings.Repeat("x", 126)), silent, 1002},
		"ping in fragments":           {frame(0x09, "x"), silent, 1002},
		"continuation of nothing":     {frame(0x80, "x"), silent, 1002},
		"text in a fragmented text":   {append(frame(0x01, `{"cmd"`), frame(0x81, `{"cmd":1}`)...), silent, 1002},
		"length not minimal":          {append([]byte{0x81, 0x80 | 126, 0, 2, 0, 0, 0, 0}, "{}"...), silent, 1002},
		"length with the highest bit": {[]byte{0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 1}, silent, 1002},
		"not UTF-8":                   {frame(0x81, "{\"cmd\":1,\"id\":\"\xff\"}"), silent, 1007},
		"half a character":            {frame(0x81, "{\"cmd\":1,\"id\":\"\xc3"), silent, 1007},
		"surrogate":                   {frame(0x81, "\xed\xa0\x80"), silent, 1007},
		"not UTF-8 in a fragment":     {append(frame(0x01, "\"\xc3"), frame(0x80, "\x28\"")...), silent, 1007},
		"close code 1005":             {frame(0x88, "\x03\xed"), silent, 1002},
		"close code 999":              {frame(0x88, "\x03\xe7"), silent, 1002},
		"close of one byte":           {frame(0x88, "\x03"), silent, 1002},
		"close reason not UTF-8":      {frame(0x88, "\x03\xe8\xff"), silent, 1007},
		"over the limit by one": {[]byte{0x81, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4},
			`{"cmd":15,"id":null,"data":{"code":4013,"name":"TOO_LARGE"}}`, 1009},
		"2^63 - 1": {[]byte{0x81, 0x80 | 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
			`{"cmd":15,"data":{"code":4013}}`, 1009},
		"over the limit in fragments": {append(frame(0x01, strings.Repeat("x", 60_000)), frame(0x00, strings.Repeat("x", 5_536))...),
			`{"cmd":15,"data":{"code":4013}}`, 1009},
	} {
		for _, loggedIn := range []bool{true, false} {
			p := n.dial("websocket")
			if loggedIn {
				p.login(n.token("alice", "bad", time.Hour))
			}
			p.bytes(c.bytes...)
			if c.want != silent {
				p.expect(c.want)
			}
			if got, err := p.c.Receive(ctx); err == nil {
				t.Errorf("%s: answered by %s", name, got)
			}
			if code := p.closed(); code != c.code {
				t.Errorf("%s, logged in %v: closed with %d, want %d", name, loggedIn, code, c.code)
			}
		}
	}
	// The peer's own close is echoed.
	for payload, want := range map[string]uint16{"\x03\xe8bye": 1000, "": 1005, "\x0f\xa0": 4000} {
		p := n.login("websocket", "alice", `"terminal":"closer"`)
		p.bytes(frame(0x88, payload)...)
		if code := p.closed(); code != want {
			t.Errorf("close %q echoed with %d", payload, code)
		}
	}
	p.quiet()
}

// The upgrade: one path, any query, the Origin of a browser is checked, anything else is HTTP.
func TestUpgrade(t *testing.T) {
	strict := start(t, func(o *server.Options) { o.WebSocket.AllowedOrigins = []string{"https://app.example"} })
	open := start(t)
	host := func(n *node) string {
		u, err := url.Parse(n.url("websocket"))
		if err != nil {
			t.Fatal(err)
		}
		return u.Host
	}
	const upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	for _, c := range []struct {
		n             *node
		line, headers string
		status        int
	}{
		{open, "GET /im HTTP/1.1", upgrade, 101},
		{open, "GET /im?userId=1&token=x HTTP/1.1", upgrade, 101},
		{open, "GET /im HTTP/1.1", "", 426},
		{open, "GET / HTTP/1.1", upgrade, 404},
		{open, "GET /im/x HTTP/1.1", upgrade, 404},
		{open, "GET /other HTTP/1.1", "", 404},
		{open, "GET /im HTTP/1.1", upgrade + "Origin: http://evil.example\r\n", 403},
		{open, "GET /im HTTP/1.1", upgrade + "Origin: null\r\n", 403},
		{open, "GET /im HTTP/1.1", upgrade + "Origin: http://" + host(open) + "\r\n", 101},
		{strict, "GET /im HTTP/1.1", upgrade + "Origin: https://app.example\r\n", 101},
		{strict, "GET /im HTTP/1.1", upgrade + "Origin: https://app.example.evil.example\r\n", 403},
		{strict, "GET /im HTTP/1.1", upgrade + "Origin: http://app.example\r\n", 403},
		{strict, "GET /im HTTP/1.1", upgrade + "Origin: http://" + host(strict) + "\r\n", 403},
		{strict, "GET /im HTTP/1.1", upgrade, 101},
		{open, "GET /im HTTP/1.1", "X: " + strings.Repeat("x", 9000) + "\r\n" + upgrade, 431},
		{open, "GET /im HTTP/1.1", strings.Replace(upgrade, "13", "12", 1), 426},
		{open, "POST /im HTTP/1.1", upgrade, 405},
		{open, "nonsense", "", 400},
	} {
		res := handshake(t, host(c.n), c.line+"\r\nHost: "+host(c.n)+"\r\n"+c.headers+"\r\n")
		if res.StatusCode != c.status {
			t.Errorf("%s, %.200q: %d, want %d", c.line, c.headers, res.StatusCode, c.status)
		}
		if res.StatusCode == 101 && res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Errorf("accepted with %q", res.Header.Get("Sec-WebSocket-Accept"))
		}
		if res.StatusCode == 426 && res.Header.Get("Sec-WebSocket-Version") != "13" {
			t.Errorf("426 without the version that is spoken: %v", res.Header)
		}
	}
	// The token of the sub-protocol is never echoed.
	res := handshake(t, host(open), "GET /im HTTP/1.1\r\nHost: "+host(open)+"\r\n"+upgrade+"Sec-WebSocket-Protocol: bearer.secret, meshtalk.v1\r\n\r\n")
	if got := res.Header.Get("Sec-WebSocket-Protocol"); got != "meshtalk.v1" {
		t.Errorf("selected %q", got)
	}
}

// handshake writes raw bytes and reads one HTTP answer.
func handshake(t *testing.T, host, request string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%.200q: %v", request, err)
	}
	_ = res.Body.Close()
	return res
}

// A valid dialogue with one byte changed, at every place, never ends the process or another session.
func TestMutations(t *testing.T) {
	t.Parallel()
	n := start(t)
	bystander := n.login("websocket", "bystander")
	sender := n.login("tcp", "sender")
	token := n.token("mutant", "", time.Hour)
	packets := []string{
		`{"cmd":0,"data":{"accessToken":"` + token + `","ack":"client","window":3,"resume":{"inbox":0}}}`,
		`{"cmd":3,"id":"m","data":{"to":"mutant","type":1,"content":{"a":[1,"é"]}}}`,
		`{"cmd":7,"data":{"inbox":1}}`, `{"cmd":13,"data":{"watch":["sender"],"unwatch":[]}}`,
		`{"cmd":9,"data":{"conv":"p:mutant:mutant","before":2,"limit":1}}`, `{"cmd":18}`,
	}
	u, err := url.Parse(n.url("websocket"))
	if err != nil {
		t.Fatal(err)
	}
	ws := []byte("GET /im HTTP/1.1\r\nHost: " + u.Host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	var tcp []byte
	for _, p := range packets {
		ws = append(ws, frame(0x81, p)...)
		tcp = append(binary.BigEndian.AppendUint32(tcp, uint32(len(p))), p...)
	}
	tcpURL, _ := url.Parse(n.url("tcp"))
	for name, dialogue := range map[string]struct {
		host  string
		bytes []byte
	}{"websocket": {u.Host, ws}, "tcp": {tcpURL.Host, tcp}} {
		at := strings.Index(string(dialogue.bytes), token)
		for i := range dialogue.bytes {
			if at >= 0 && i > at+10 && i < at+len(token)-10 && i%16 != 0 {
				continue // one place of a signature is like another
			}
			b := append([]byte{}, dialogue.bytes...)
			b[i] ^= byte(1 << (i % 8))
			if i%3 == 0 {
				b[i] = ^dialogue.bytes[i]
			}
			mutate(t, dialogue.host, b)
		}
		sender.sendN("bystander", 1)
		if got := bystander.next(); got.cmd() != 3 {
			t.Fatalf("%s: got %v", name, got)
		}
	}
	bystander.quiet()
	if _, body := n.request("GET", "/metrics", "", nil); !strings.Contains(string(body), "\nmeshtalk_panics_total 0\n") {
		t.Error("there were panics")
	}
	// The dialogue as it is does what it says: the place that the mutations start from.
	p := n.dial("tcp")
	p.bytes(tcp...)
	p.expect(`{"cmd":0,"data":{"userId":"mutant"}}`)
}

// mutate writes b to a fresh connection and waits until the server has ended it.
func mutate(t *testing.T, host string, b []byte) {
	t.Helper()
	c, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = c.Write(b) // the server may have closed already
	_ = c.(*net.TCPConn).CloseWrite()
	if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Fatalf("the server keeps a connection that has ended: %q", b)
	}
}

// Requests need not wait for the answers before them: each is answered, in order, however they arrive.
func TestPipelined(t *testing.T) {
	t.Parallel()
	n := start(t)
	n.login("tcp", "bob").sendN("alice", 20)
	eachTransport(t, func(t *testing.T, transport string) {
		p := n.on(t).login(transport, "alice", `"ack":"client"`, `"resume":{"inbox":20}`)
		const requests = 500
		sent := make(chan error, 1)
		go func() {
			for i := range requests {
				b := fmt.Appendf(nil, `{"cmd":8,"id":"%d","data":{"after":%d}}`, i, i%20)
				if err := p.c.Send(context.Background(), b); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		for i := range requests {
			got := p.receive()
			if got["id"] != fmt.Sprint(i) || len(got.data("entries").([]any)) != 20-i%20 {
				t.Fatalf("request %d answered by %v", i, got)
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	})
}

// Answers that nobody reads pile up to 1 MiB; then the connection is closed, and no other is disturbed.
func TestTooSlow(t *testing.T) {
	t.Parallel()
	n := start(t)
	alice := n.login("tcp", "alice")
	alice.skip[3] = true
	big := strings.Repeat("x", 60_000)
	for i := range 4 {
		alice.talk(fmt.Sprintf(`{"cmd":3,"id":"b%d","data":{"to":"alice","content":"%s"}}`, i, big), `{"cmd":6}`)
	}
	slow := n.login("websocket", "alice", `"terminal":"slow"`)
	if err := slow.c.NetConn().(*net.TCPConn).SetReadBuffer(256 << 10); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		slow.send(`{"cmd":9,"data":{"conv":"p:alice:alice"}}`)
	}
	eventually(t, "closed for being slow", func() bool {
		_, body := n.request("GET", "/metrics", "", nil)
		return strings.Contains(string(body), "\nmeshtalk_closes_total{reason=\"too_slow\"} 1\n")
	})
	for { // what was under way is read; then it ends, with the code if that got through
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		_, err := slow.c.Receive(ctx)
		cancel()
		if err != nil {
			break
		}
	}
	alice.quiet()
}
