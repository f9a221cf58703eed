package rocketmq

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// message is one message of a queue. Its body is cut from the answer of the pull, or was inflated.
type message struct {
	offset int64
	body   []byte
}

// Bits of a message's flag, and how much a body may grow.
const (
	flagCompressed = 1
	flagBornV6     = 1 << 4
	flagStoreV6    = 1 << 5

	maxInflated = 16 << 20 // bytes
)

// The magic numbers of a message whose topic's length has one byte, and two.
const (
	magicV1 = 0xdaa320a7
	magicV2 = 0xdaa320ab
)

var errMessage = errors.New("rocketmq: a message that cannot be read")

// decodeMessages cuts what a pull answers with: messages as a broker's commit log has them.
//
//	4 length of all of it · 4 magic · 4 CRC of the body · 4 queue · 4 flag · 8 offset in the queue · 8 place in the log ·
//	4 system flag · 8 born · 4 or 16, and 4 born at · 8 stored · 4 or 16, and 4 stored at · 4 times consumed again ·
//	8 place of a prepared transaction · 4 length of the body, body · 1 or 2 length of the topic, topic ·
//	2 length of the properties, properties
func decodeMessages(b []byte) ([]message, error) {
	var list []message
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, errMessage
		}
		size := int(binary.BigEndian.Uint32(b))
		if size < 4 || size > len(b) {
			return nil, fmt.Errorf("%w: %d of %d bytes", errMessage, size, len(b))
		}
		m, err := decodeMessage(b[:size:size])
		if err != nil {
			return nil, err
		}
		list = append(list, m)
		b = b[size:]
	}
	return list, nil
}

func decodeMessage(b []byte) (message, error) {
	const toFlag, toBorn = 36, 48 // bytes before the system flag, before the host
	if len(b) < toBorn {
		return message{}, errMessage
	}
	if magic := binary.BigEndian.Uint32(b[4:]); magic != magicV1 && magic != magicV2 {
		return message{}, fmt.Errorf("%w: magic %x", errMessage, magic)
	}
	flag := binary.BigEndian.Uint32(b[toFlag:])
	at := toBorn + 8 + 8 + 8 + 4 + 8 // two hosts with ports, stored, times, transaction
	if flag&flagBornV6 != 0 {
		at += 12
	}
	if flag&flagStoreV6 != 0 {
		at += 12
	}
	if len(b) < at+4 {
		return message{}, errMessage
	}
	n := int(binary.BigEndian.Uint32(b[at:]))
	at += 4
	if n > len(b)-at {
		return message{}, errMessage
	}
	m := message{offset: int64(binary.BigEndian.Uint64(b[20:])), body: b[at : at+n : at+n]}
	if flag&flagCompressed != 0 {
		m.body = inflate(m.body, flag>>8&7)
	}
	return m, nil
}

// inflate undoes what producers may do to bodies above 4 KiB; ours do not. What is not zlib's stays as it is, for
// the reader to refuse: one such body must not stop its queue.
func inflate(b []byte, kind uint32) []byte {
	const zlibOfOld, zlibOfNew = 0, 3
	if kind != zlibOfOld && kind != zlibOfNew {
		return b
	}
	r, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return b
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxInflated+1))
	if err != nil || len(plain) > maxInflated {
		return b
	}
	return plain
}
