package codec

import (
	"bytes"
	"crypto/sha1" // RFC 6455 §1.3 asks for it; it proves nothing and protects nothing
	"encoding/base64"
	"strconv"
)

// Handshake is a parsed upgrade request. Strings are copies.
type Handshake struct {
	Path   string // without the query
	Host   string
	Origin string // empty = no header
	Token  string // from "Authorization: Bearer" or the sub-protocol pair; never from the query

	Method, Query string // of a page only
}

// UpgradeRules is what an upgrade is judged by.
type UpgradeRules struct {
	Path           string   // any other gets 404; empty = any path
	AllowedOrigins []string // exact; empty = same host as the request; no Origin header = allowed
	OwnOrigin      bool     // the same host is allowed beside AllowedOrigins
	Pages          string   // a path; plain requests for it and what is below are pages; empty = there are none
}

const (
	// MaxHandshake is the largest request head in bytes; a longer one gets 431.
	MaxHandshake = 8 << 10

	// SubProtocol is the one sub-protocol that is ever selected. A client that offers it may offer "bearer.<jwt>" too.
	SubProtocol = "meshtalk.v1"

	bearerPrefix = "bearer."
	acceptGUID   = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455 §1.3
	maxMethod    = 32                                     // bytes; the longest registered one has 17
)

// refused is an upgrade that ends in an HTTP error.
type refused struct {
	status int
	text   string // one line, for people
}

// Upgrade reads one request head from the front of buf. response is what the server must send, always whole: 101 when
// ok, else an HTTP error (400, 403, 404, 405, 426, 431) after which the connection closes. n is the number of bytes of buf that belong to
// the head; response nil and n 0 = incomplete. Bytes after the head belong to the first frame.
//
// A plain request for a page is neither: response is nil and n is not 0. h tells what is asked for, and the caller answers.
//
// Bytes that can never become a request are refused as soon as they are there. Query strings are accepted and not read;
// extensions that are offered are not accepted.
func Upgrade(buf []byte, rules *UpgradeRules) (h Handshake, response []byte, n int, ok bool) {
	head := buf[:min(len(buf), MaxHandshake)]
	end := bytes.Index(head, []byte("\r\n\r\n"))
	if end >= 0 {
		head = head[:end+4]
	}
	if no := checkStart(head); no != nil {
		return h, no.response(), len(head), false
	}
	if end < 0 {
		if len(buf) < MaxHandshake {
			return h, nil, 0, false
		}
		no := refused{431, "request head over 8 KiB"}
		return h, no.response(), len(head), false
	}
	n = end + 4
	r, no := parseRequest(head[:end+2])
	if no == nil && r.isPage(rules.Pages) {
		return Handshake{Path: string(r.path), Host: string(r.host), Origin: string(r.origin), Method: string(r.method), Query: string(r.query)},
			nil, n, false
	}
	if no == nil {
		no = r.check(rules)
	}
	if no != nil {
		return Handshake{Path: string(r.path), Host: string(r.host), Origin: string(r.origin)}, no.response(), n, false
	}
	h = Handshake{Path: rules.Path, Host: string(r.host), Origin: string(r.origin), Token: string(r.token)}
	return h, appendAccepted(make([]byte, 0, 192), r.key, r.selected), n, true
}

// checkStart refuses what no further byte can make a request: a method that is none, and a line feed without its
// carriage return (such a head would never end).
func checkStart(head []byte) *refused {
	space := bytes.IndexByte(head, ' ')
	method := head[:min(len(head), maxMethod+1)]
	if space >= 0 && space <= maxMethod {
		method = head[:space]
	}
	if len(method) > maxMethod || space == 0 || !isToken(method) {
		return &refused{400, "not an HTTP request"}
	}
	for i := 0; ; i++ {
		j := bytes.IndexByte(head[i:], '\n')
		if j < 0 {
			return nil
		}
		if i += j; head[i-1] != '\r' { // the method is in front, so i > 0
			return &refused{400, "line feed without carriage return"}
		}
	}
}

// check judges a well-formed request.
func (r *request) check(rules *UpgradeRules) *refused {
	switch {
	case rules.Path != "" && string(r.path) != rules.Path:
		return &refused{404, "no such path"}
	case string(r.method) != "GET":
		return &refused{405, "only GET"}
	case !r.upgrade:
		return &refused{426, "this path speaks WebSocket"}
	case !r.connection:
		return &refused{400, "Upgrade without Connection: Upgrade"}
	case r.version == nil:
		return &refused{400, "no Sec-WebSocket-Version"}
	case string(r.version) != "13":
		return &refused{426, "only version 13 of WebSocket"}
	case !validKey(r.key):
		return &refused{400, "Sec-WebSocket-Key is not 16 bytes in base64"}
	case !originAllowed(r.origin, r.host, rules):
		return &refused{403, "origin not allowed"}
	}
	return nil
}

// isPage reports whether a well-formed request is one for a page.
func (r *request) isPage(pages string) bool {
	rest, below := bytes.CutPrefix(r.path, []byte(pages))
	return pages != "" && below && (len(rest) == 0 || rest[0] == '/') && !r.upgrade
}

// validKey reports whether key is base64 of 16 bytes.
func validKey(key []byte) bool {
	var raw [18]byte
	if len(key) != 24 {
		return false
	}
	n, err := base64.StdEncoding.Decode(raw[:], key)
	return err == nil && n == 16
}

// appendAccepted appends the 101 answer.
func appendAccepted(dst, key []byte, selected bool) []byte {
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: "...)
	dst = appendAccept(dst, key)
	if selected {
		dst = append(dst, "\r\nSec-WebSocket-Protocol: "+SubProtocol...)
	}
	return append(dst, "\r\n\r\n"...)
}

// appendAccept appends the answer to a key.
func appendAccept(dst, key []byte) []byte {
	var room [24 + len(acceptGUID)]byte
	sum := sha1.Sum(append(append(room[:0], key...), acceptGUID...))
	return base64.StdEncoding.AppendEncode(dst, sum[:])
}

// response is the HTTP answer, after which the connection closes.
func (r *refused) response() []byte {
	dst := append(append(make([]byte, 0, 256), "HTTP/1.1 "...), statusLine(r.status)...)
	dst = append(dst, "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"...)
	switch r.status {
	case 405:
		dst = append(dst, "Allow: GET\r\n"...)
	case 426: // RFC 9110 §15.5.22: with Upgrade, which has to be named in Connection; a line of its own keeps "close" plain
		dst = append(dst, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"...)
	}
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(r.text)+1), 10)
	dst = append(append(dst, "\r\n\r\n"...), r.text...)
	return append(dst, '\n')
}

func statusLine(status int) string {
	switch status {
	case 403:
		return "403 Forbidden"
	case 404:
		return "404 Not Found"
	case 405:
		return "405 Method Not Allowed"
	case 426:
		return "426 Upgrade Required"
	case 431:
		return "431 Request Header Fields Too Large"
	}
	return "400 Bad Request"
}
