package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/meshtalk/meshtalk/codec"
)

const protocolHeader = "Sec-WebSocket-Protocol"

// upgrade runs the WebSocket handshake. Bytes behind the answer's head are the first frames; they stay in c.buf.
func (c *Conn) upgrade(ctx context.Context, t target, header http.Header) error {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	request := codec.AppendHandshake(nil, t.host, t.uri, key, "")
	request = append(appendHeader(request[:len(request)-2], header), "\r\n"...)
	if err := c.SendBytes(ctx, request); err != nil {
		return err
	}
	for {
		head, protocol := cutProtocol(c.buf[c.r:c.w])
		n, err := codec.ReadHandshakeReply(head, key)
		switch {
		case err != nil:
			return fmt.Errorf("client: upgrade: %w", err)
		case n > 0:
			if protocol != "" && !offered(header, protocol) {
				return fmt.Errorf("client: upgrade: the server selected a sub-protocol that was not offered")
			}
			c.proto = protocol
			c.r += n + (c.w - c.r - len(head))
			return nil
		}
		if err := c.fill(ctx, 0); err != nil {
			return fmt.Errorf("client: upgrade: %w", err)
		}
	}
}

// appendHeader appends one line for each value of header.
func appendHeader(dst []byte, header http.Header) []byte {
	for name, values := range header {
		for _, v := range values {
			dst = append(dst, name+": "+v+"\r\n"...)
		}
	}
	return dst
}

// cutProtocol takes the sub-protocol line out of a complete answer: codec offers none and would refuse it.
func cutProtocol(answer []byte) (rest []byte, protocol string) {
	end := bytes.Index(answer, []byte("\r\n\r\n"))
	if end < 0 {
		return answer, ""
	}
	at := 0
	for at < end {
		line, _, _ := bytes.Cut(answer[at:end], []byte("\r\n"))
		name, value, _ := strings.Cut(string(line), ":")
		if strings.EqualFold(name, protocolHeader) {
			rest = append(append(rest, answer[:at]...), answer[min(at+len(line)+2, len(answer)):]...)
			return rest, strings.TrimSpace(value)
		}
		at += len(line) + 2
	}
	return answer, ""
}

// offered reports whether header offers protocol.
func offered(header http.Header, protocol string) bool {
	for name, lists := range header {
		if !strings.EqualFold(name, protocolHeader) {
			continue
		}
		for _, list := range lists {
			if slices.Contains(strings.Split(strings.ReplaceAll(list, " ", ""), ","), protocol) {
				return true
			}
		}
	}
	return false
}
