package codec

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// readAnswer reads the answer to an upgrade by the standard library and checks what holds for all of them.
func readAnswer(t *testing.T, response []byte) *http.Response {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(response))
	answer, err := http.ReadResponse(r, &http.Request{Method: "GET"})
	if err != nil {
		t.Fatalf("%v in %q", err, response)
	}
	if answer.StatusCode == http.StatusSwitchingProtocols {
		if r.Buffered() != 0 {
			t.Fatalf("%d bytes after the head", r.Buffered())
		}
		return answer
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil || len(body) < 2 || bytes.IndexByte(body, '\n') != len(body)-1 || answer.ContentLength != int64(len(body)) {
		t.Fatalf("body %q, %v", body, err)
	}
	if r.Buffered() != 0 || !answer.Close || answer.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Fatalf("headers %v", answer.Header)
	}
	if allow := answer.Header.Get("Allow"); (allow == "GET") != (answer.StatusCode == 405) {
		t.Fatalf("Allow is %q", allow)
	}
	upgrade, version := answer.Header.Get("Upgrade"), answer.Header.Get("Sec-WebSocket-Version")
	if (upgrade == "websocket" && version == "13") != (answer.StatusCode == 426) {
		t.Fatalf("Upgrade is %q, version %q", upgrade, version)
	}
	return answer
}

func TestUpgradeVectors(t *testing.T) {
	for _, v := range vectors[upgradeVector](t, "upgrades.json") {
		t.Run(v.Name, func(t *testing.T) {
			rules := &UpgradeRules{Path: "/im", AllowedOrigins: v.Allowed}
			h, response, n, ok := Upgrade([]byte(v.Request), rules)
			if v.Status == 0 {
				if response != nil || n != 0 || ok {
					t.Fatalf("not incomplete: %q", response)
				}
				return
			}
			if response == nil {
				t.Fatal("incomplete")
			}
			answer := readAnswer(t, response)
			if answer.StatusCode != v.Status || ok != (v.Status == 101) {
				t.Fatalf("%q", response)
			}
			if h.Token != v.Token || ok && h.Origin != v.Origin {
				t.Fatalf("%+v", h)
			}
			if ok && (h.Path != "/im" || h.Host == "" || n != len(v.Request)-len(v.Rest)) {
				t.Fatalf("%+v, n = %d", h, n)
			}
			if answer.Header.Get("Sec-WebSocket-Accept") != v.Accept || answer.Header.Get("Sec-WebSocket-Protocol") != v.Protocol {
				t.Fatalf("%q", response)
			}
			if answer.Header.Get("Sec-WebSocket-Extensions") != "" || v.Token != "" && bytes.Contains(response, []byte(v.Token)) {
				t.Fatalf("%q", response)
			}
		})
	}
}

// However a head arrives, the verdict is the same; it may come early, but never differ.
func TestUpgradeByteByByte(t *testing.T) {
	for _, v := range vectors[upgradeVector](t, "upgrades.json") {
		if len(v.Request) < 2000 {
			tryUpgrade(t, []byte(v.Request))
		}
	}
}

// tryUpgrade checks that every beginning of buf gets no answer or the answer that all of it gets.
func tryUpgrade(t *testing.T, buf []byte) {
	rules := &UpgradeRules{Path: "/im"}
	_, whole, n, ok := Upgrade(buf, rules)
	if n > len(buf) || n > MaxHandshake || (whole == nil) != (n == 0 && !ok) {
		t.Fatalf("n = %d, ok = %v for %q", n, ok, buf)
	}
	for i := range buf {
		_, response, n, part := Upgrade(buf[:i], rules)
		if response == nil && n == 0 && !part {
			continue
		}
		if !bytes.Equal(response, whole) || part != ok {
			t.Fatalf("%q at %d of %q, later %q", response, i, buf, whole)
		}
		return
	}
}

func TestRefusedAsSoonAsPossible(t *testing.T) {
	for _, start := range []string{"\x16", "{", "\x00", "\r", "\n", " ", "GET\x00", "GET /im HTTP/1.1\n", strings.Repeat("A", 33)} {
		if _, response, _, _ := Upgrade([]byte(start), &UpgradeRules{Path: "/im"}); response == nil {
			t.Errorf("waits after %q", start)
		}
	}
}

// The standard library agrees that a head we take is an upgrade request.
func tryUpgradeAgainstStandard(t *testing.T, buf []byte) {
	h, _, n, ok := Upgrade(buf, &UpgradeRules{Path: "/im"})
	if !ok {
		return
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(buf[:n])))
	if err != nil {
		// It also judges the host and cookies of a request, which do not matter here.
		if strings.Contains(err.Error(), "malformed Host") || strings.Contains(err.Error(), "invalid URL") ||
			strings.Contains(err.Error(), "parse ") {
			return
		}
		t.Fatalf("%v for %q", err, buf[:n])
	}
	if r.Method != "GET" || r.URL.EscapedPath() != "/im" || r.Header.Get("Origin") != h.Origin || r.ContentLength > 0 {
		t.Fatalf("%+v for %q", h, buf[:n])
	}
}

func TestUpgradeAgainstStandard(t *testing.T) {
	for _, v := range vectors[upgradeVector](t, "upgrades.json") {
		tryUpgradeAgainstStandard(t, []byte(v.Request))
	}
}

const vectorKey = "dGhlIHNhbXBsZSBub25jZQ=="

func TestHandshakeOfAClient(t *testing.T) {
	for _, token := range []string{"", "a.b.c"} {
		request := AppendHandshake(nil, "localhost:8080", "/im?x=1", vectorKey, token)
		h, response, n, ok := Upgrade(request, &UpgradeRules{Path: "/im"})
		if !ok || n != len(request) || h != (Handshake{Path: "/im", Host: "localhost:8080", Token: token}) {
			t.Fatalf("%+v %q", h, response)
		}
		for i := range response {
			if n, err := ReadHandshakeReply(response[:i], vectorKey); n != 0 || err != nil {
				t.Fatal(i, n, err)
			}
		}
		if n, err := ReadHandshakeReply(append(response, "frame"...), vectorKey); n != len(response) || err != nil {
			t.Fatal(n, err)
		}
	}
}

func TestReadHandshakeReplyRefuses(t *testing.T) {
	good := string(appendAccepted(nil, []byte(vectorKey), false))
	for name, c := range map[string]struct {
		reply  string
		status int
	}{
		"not HTTP":         {"SSH-2.0-x\r\n", 0},
		"HTTP/1.0":         {strings.Replace(good, "1.1", "1.0", 1), 0},
		"403":              {"HTTP/1.1 403 Forbidden\r\n\r\n", 403},
		"status of words":  {"HTTP/1.1 abc x\r\n\r\n", 0},
		"long":             {"HTTP/1.1 101 x\r\nX: " + strings.Repeat("x", MaxHandshake), 0},
		"other key":        {strings.Replace(good, "s3pP", "xxxx", 1), 101},
		"no accept":        {"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 101},
		"no upgrade":       {strings.Replace(good, "Upgrade: websocket\r\n", "", 1), 101},
		"no connection":    {strings.Replace(good, "Connection: Upgrade\r\n", "", 1), 101},
		"extension":        {strings.Replace(good, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n", 1), 101},
		"sub-protocol":     {strings.Replace(good, "\r\n\r\n", "\r\nSec-WebSocket-Protocol: x\r\n\r\n", 1), 101},
		"header, no colon": {strings.Replace(good, "\r\n\r\n", "\r\nx\r\n\r\n", 1), 101},
	} {
		n, err := ReadHandshakeReply([]byte(c.reply), vectorKey)
		refusal, ok := err.(*HandshakeError)
		if n != 0 || !ok || refusal.Status != c.status || refusal.Error() == "" {
			t.Errorf("%s: %d %v", name, n, err)
		}
	}
}
