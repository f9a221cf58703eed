package codec

import (
	"bytes"
	"strconv"
)

// AppendHandshake appends the upgrade request of a client. path begins with '/', key is base64 of 16 random bytes, and
// token, when not empty, goes into the Authorization header.
func AppendHandshake(dst []byte, host, path, key, token string) []byte {
	dst = append(append(dst, "GET "...), path...)
	dst = append(append(dst, " HTTP/1.1\r\nHost: "...), host...)
	dst = append(dst, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	dst = append(dst, key...)
	if token != "" {
		dst = append(append(dst, "\r\nAuthorization: Bearer "...), token...)
	}
	return append(dst, "\r\n\r\n"...)
}

// HandshakeError is a server's refusal of an upgrade, or an answer that is none.
type HandshakeError struct {
	Status int // HTTP status, 0 when there was none to read
	Reason string
}

func (e *HandshakeError) Error() string {
	if e.Status == 0 {
		return "websocket handshake: " + e.Reason
	}
	return "websocket handshake: HTTP " + strconv.Itoa(e.Status) + ": " + e.Reason
}

// ReadHandshakeReply reads the answer to AppendHandshake from the front of buf. n is the length of its head, after
// which frames begin; n 0 and no error = incomplete. An error is a *HandshakeError, after which the connection is of no use.
func ReadHandshakeReply(buf []byte, key string) (n int, err error) {
	head := buf[:min(len(buf), MaxHandshake)]
	const start = "HTTP/1.1 "
	if known := head[:min(len(head), len(start))]; string(known) != start[:len(known)] {
		return 0, &HandshakeError{Reason: "not an HTTP/1.1 answer"}
	}
	end := bytes.Index(head, []byte("\r\n\r\n"))
	if end < 0 {
		if len(buf) >= MaxHandshake {
			return 0, &HandshakeError{Reason: "answer over 8 KiB"}
		}
		return 0, nil
	}
	line, rest, _ := bytes.Cut(head[len(start):end+2], []byte("\r\n"))
	code, phrase, _ := bytes.Cut(line, []byte(" "))
	status, ok := readInt(code)
	if !ok || len(code) != 3 {
		return 0, &HandshakeError{Reason: "malformed status line"}
	}
	if status != 101 {
		return 0, &HandshakeError{Status: int(status), Reason: string(phrase)}
	}
	if reason := checkAccepted(rest, key); reason != "" {
		return 0, &HandshakeError{Status: 101, Reason: reason}
	}
	return end + 4, nil
}

// checkAccepted judges the headers of a 101 answer; "" = fine.
func checkAccepted(headers []byte, key string) (reason string) {
	var upgrade, connection, accept bool
	want := appendAccept(nil, []byte(key))
	for len(headers) > 0 {
		var line []byte
		line, headers, _ = bytes.Cut(headers, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return "malformed header line"
		}
		value = bytes.Trim(value, " \t")
		switch {
		case foldEqual(name, "upgrade"):
			upgrade = foldEqual(value, "websocket")
		case foldEqual(name, "connection"):
			connection = connection || listHas(value, "upgrade")
		case foldEqual(name, "sec-websocket-accept"):
			accept = bytes.Equal(value, want)
		case foldEqual(name, "sec-websocket-extensions"):
			return "an extension that was not offered"
		case foldEqual(name, "sec-websocket-protocol"):
			return "a sub-protocol that was not offered"
		}
	}
	switch {
	case !upgrade || !connection:
		return "not an upgrade to WebSocket"
	case !accept:
		return "wrong Sec-WebSocket-Accept"
	}
	return ""
}
