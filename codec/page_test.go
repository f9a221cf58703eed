package codec

import "testing"

func TestUpgradePages(t *testing.T) {
	const rest = " HTTP/1.1\r\nHost: h:1\r\n"
	rules := &UpgradeRules{Path: "/im", Pages: "/demo"}
	for request, want := range map[string]Handshake{
		"GET /demo" + rest + "\r\n":                                    {Path: "/demo", Host: "h:1", Method: "GET"},
		"GET /demo/app.js?v=1" + rest + "Origin: http://h:1\r\n\r\n":   {Path: "/demo/app.js", Host: "h:1", Origin: "http://h:1", Method: "GET", Query: "v=1"},
		"POST /demo/token?user=a" + rest + "Content-Length: 0\r\n\r\n": {Path: "/demo/token", Host: "h:1", Method: "POST", Query: "user=a"},
	} {
		h, response, n, ok := Upgrade([]byte(request+"more"), rules)
		if h != want || response != nil || n != len(request) || ok {
			t.Errorf("%q: got %+v, %q, %d, %v", request, h, response, n, ok)
		}
		if _, response, n, _ := Upgrade([]byte(request[:len(request)-1]), rules); response != nil || n != 0 {
			t.Errorf("%q without its end: %q, %d", request, response, n)
		}
		if _, response, _, _ := Upgrade([]byte(request), &UpgradeRules{Path: "/im"}); readAnswer(t, response).StatusCode != 404 {
			t.Errorf("%q without pages: %q", request, response)
		}
	}
	for request, status := range map[string]int{
		"GET /demonstration" + rest + "\r\n": 404,
		"GET /" + rest + "\r\n":              404,
		"GET /im" + rest + "\r\n":            426,
		"GET /demo" + rest + "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n": 404,
		"POST /demo/token" + rest + "Content-Length: 5\r\n\r\n":                  400,
		"GET /demo HTTP/1.0\r\nHost: h\r\n\r\n":                                  400,
	} {
		_, response, _, ok := Upgrade([]byte(request), rules)
		if response == nil || ok || readAnswer(t, response).StatusCode != status {
			t.Errorf("%q: %q, want %d", request, response, status)
		}
	}
}

func TestOwnOrigin(t *testing.T) {
	const head = "GET /im HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: "
	rules := &UpgradeRules{Path: "/im", AllowedOrigins: []string{"https://a"}, OwnOrigin: true}
	for origin, want := range map[string]bool{"https://a": true, "http://h:1": true, "http://h:2": false, "https://b": false} {
		if _, _, _, ok := Upgrade([]byte(head+origin+"\r\n\r\n"), rules); ok != want {
			t.Errorf("origin %s: %v", origin, ok)
		}
	}
	rules.OwnOrigin = false
	if _, _, _, ok := Upgrade([]byte(head+"http://h:1\r\n\r\n"), rules); ok {
		t.Error("the own host is allowed beside a list although the rules do not say so")
	}
}
