package rocketmq

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RocketMQ's ACL signs with it
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Request codes of the remoting protocol (org.apache.rocketmq.remoting.protocol.RequestCode).
const (
	reqPull          = 11
	reqQueryOffset   = 14
	reqUpdateOffset  = 15
	reqCreateTopic   = 17
	reqBrokerConfig  = 26
	reqBrokerRuntime = 28
	reqMaxOffset     = 30
	reqMinOffset     = 31
	reqRoute         = 105
	reqCluster       = 106
	reqSend          = 310
)

// Response codes (…remoting.protocol.ResponseCode).
const (
	resSuccess       = 0
	resFlushTimeout  = 10 // stored, but not on the disk in time
	resNoSlave       = 11 // stored, but no slave has it (SYNC_MASTER)
	resSlaveTimeout  = 12
	resTopicNotExist = 17
	resPullNotFound  = 19 // nothing came while the pull waited
	resPullRetry     = 20
	resPullMoved     = 21 // no message can be at this offset
	resQueryNotFound = 22
)

// Constants of a frame:
//
//	4 bytes  length of what follows
//	1 byte   how the header is written: 0 JSON, 1 binary
//	3 bytes  length of the header
//	header   binary: code 2, language 1, version 2, opaque 4, flag 4, length of the remark 4, remark,
//	         length of the fields 4, fields: length of the name 2, name, length of the value 4, value
//	body
//
// All integers are big-endian. We write binary headers; a broker answers in kind, but to a pull that has waited in its own, which is
// JSON unless it runs with -Drocketmq.serialize.type=ROCKETMQ.
const (
	headerJSON, headerBinary = 0, 1

	languageGo      = 9
	protocolVersion = 317 // what Go clients say
	flagResponse    = 1

	maxFrame = 32 << 20 // bytes; a pull answers with some 256 KiB, one message has 4 MiB at most
)

// field is one named value of a header. The value is never empty: a broker would read it as missing, and sign "null".
type field struct{ name, value string }

// command is a request or a response.
type command struct {
	code   int
	opaque int32 // ties a response to its request
	flag   int32
	remark string
	fields []field
	body   []byte
}

// get is the value of a field, "" if there is none.
func (c *command) get(name string) string {
	for _, f := range c.fields {
		if f.name == name {
			return f.value
		}
	}
	return ""
}

// appendHead appends everything of the frame before the body.
func (c *command) appendHead(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, headerBinary, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(c.code))
	dst = append(dst, languageGo)
	dst = binary.BigEndian.AppendUint16(dst, protocolVersion)
	dst = binary.BigEndian.AppendUint32(dst, uint32(c.opaque))
	dst = binary.BigEndian.AppendUint32(dst, uint32(c.flag))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(c.remark)))
	dst = append(dst, c.remark...)
	fields := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	for _, f := range c.fields {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(f.name)))
		dst = append(dst, f.name...)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(f.value)))
		dst = append(dst, f.value...)
	}
	binary.BigEndian.PutUint32(dst[fields:], uint32(len(dst)-fields-4))
	header := len(dst) - start - 8
	binary.BigEndian.PutUint32(dst[start:], uint32(4+header+len(c.body)))
	binary.BigEndian.PutUint32(dst[start+4:], headerBinary<<24|uint32(header))
	return dst
}

var errFrame = errors.New("rocketmq: a frame that cannot be read")

// readCommand reads one frame. The body is memory of its own.
func readCommand(r io.Reader) (*command, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size, word := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
	header := word & 0xffffff
	if size > maxFrame || size < 4+header {
		return nil, fmt.Errorf("%w: %d bytes, header of %d", errFrame, size, header)
	}
	b := make([]byte, size-4)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	c, err := decodeHeader(word>>24, b[:header])
	if err != nil {
		return nil, err
	}
	c.body = b[header:]
	return c, nil
}

func decodeHeader(kind uint32, b []byte) (*command, error) {
	switch kind {
	case headerBinary:
		return decodeBinary(b)
	case headerJSON:
		var h struct {
			Code      int
			Opaque    int32
			Flag      int32
			Remark    string
			ExtFields map[string]string
		}
		if err := json.Unmarshal(b, &h); err != nil {
			return nil, fmt.Errorf("%w: %w", errFrame, err)
		}
		c := &command{code: h.Code, opaque: h.Opaque, flag: h.Flag, remark: h.Remark}
		for name, value := range h.ExtFields {
			c.fields = append(c.fields, field{name, value})
		}
		return c, nil
	}
	return nil, fmt.Errorf("%w: header of kind %d", errFrame, kind)
}

func decodeBinary(b []byte) (*command, error) {
	const fixed = 17 // bytes before the remark
	if len(b) < fixed {
		return nil, errFrame
	}
	c := &command{
		code:   int(int16(binary.BigEndian.Uint16(b))),
		opaque: int32(binary.BigEndian.Uint32(b[5:])),
		flag:   int32(binary.BigEndian.Uint32(b[9:])),
	}
	text := string(b) // one copy that all the strings are cut from
	cut := func(at, width int) (string, int, bool) {
		if len(b)-at < width {
			return "", 0, false
		}
		n := int(binary.BigEndian.Uint32(append(make([]byte, 4-width, 4), b[at:at+width]...)))
		at += width
		if n > len(b)-at {
			return "", 0, false
		}
		return text[at : at+n], at + n, true
	}
	remark, at, ok := cut(fixed-4, 4)
	if !ok {
		return nil, errFrame
	}
	c.remark = remark
	if len(b)-at < 4 {
		return nil, errFrame
	}
	for at += 4; at < len(b); {
		var f field
		if f.name, at, ok = cut(at, 2); ok {
			f.value, at, ok = cut(at, 4)
		}
		if !ok {
			return nil, errFrame
		}
		c.fields = append(c.fields, f)
	}
	return c, nil
}

// sign adds the fields of RocketMQ's ACL: an HMAC-SHA1 over the values in the order of their names, then the body.
func (c *command) sign(accessKey, secretKey string) {
	c.fields = append(c.fields, field{"AccessKey", accessKey})
	sorted := slices.Clone(c.fields)
	slices.SortFunc(sorted, func(a, b field) int { return strings.Compare(a.name, b.name) })
	var values bytes.Buffer
	for _, f := range sorted {
		values.WriteString(f.value)
	}
	mac := hmac.New(sha1.New, []byte(secretKey))
	mac.Write(values.Bytes())
	mac.Write(c.body)
	c.fields = append(c.fields, field{"Signature", base64.StdEncoding.EncodeToString(mac.Sum(nil))})
}
