package rocketmq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A composite is the body of one message of the log: many records.
//
//	2 bytes  "MT"
//	1 byte   version, 1
//	1 byte   0
//	4 bytes  number of records
//	4 bytes  CRC-32C of the 8 bytes before and of all that follow
//	records: length 4, bytes
//
// All integers are big-endian. A composite without records says only that its queue takes messages.
const (
	compositeVersion = 1
	compositeHead    = 12
)

const (
	maxRecords   = 512       // of one composite: what a store likes to commit at once
	maxComposite = 256 << 10 // bytes from which on no more is added
	maxRecord    = 3 << 20   // bytes; a message has 4 MiB at most
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Why a body is no composite.
var (
	errForeign  = errors.New("rocketmq: not a message of the log")           // somebody else's: dropped
	errNewer    = errors.New("rocketmq: written by a newer version")         // waits for a newer node
	errChecksum = errors.New("rocketmq: an accepted message is damaged")     // waits for an operator
	errTooLarge = errors.New("rocketmq: a record larger than a message may") // to its sender alone
)

// composite is one that is being written. The zero value is empty.
type composite struct {
	b []byte
	n int // records
}

func (c *composite) reset() {
	c.b = append(c.b[:0], "MT\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	c.n = 0
}

// add appends a record as encode writes it; false: too large, nothing was added.
func (c *composite) add(encode func([]byte) []byte) bool {
	start := len(c.b)
	c.b = encode(append(c.b, 0, 0, 0, 0))
	size := len(c.b) - start - 4
	if size > maxRecord {
		c.b = c.b[:start]
		return false
	}
	binary.BigEndian.PutUint32(c.b[start:], uint32(size))
	c.n++
	return true
}

func (c *composite) full() bool { return c.n >= maxRecords || len(c.b) >= maxComposite }

// seal finishes it; the body is good until the next reset.
func (c *composite) seal() []byte {
	binary.BigEndian.PutUint32(c.b[4:], uint32(c.n))
	binary.BigEndian.PutUint32(c.b[8:], checksum(c.b))
	return c.b
}

func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:8], castagnoli), castagnoli, b[compositeHead:])
}

// appendRecords cuts the records of a body, which share its memory.
func appendRecords(dst [][]byte, b []byte) ([][]byte, error) {
	if len(b) < compositeHead || b[0] != 'M' || b[1] != 'T' {
		return dst, errForeign
	}
	if b[2] != compositeVersion {
		return dst, fmt.Errorf("%w, %d", errNewer, b[2])
	}
	if binary.BigEndian.Uint32(b[8:]) != checksum(b) {
		return dst, errChecksum
	}
	n, at := binary.BigEndian.Uint32(b[4:]), compositeHead
	for range n {
		if len(b)-at < 4 {
			return dst, errChecksum
		}
		size := int(binary.BigEndian.Uint32(b[at:]))
		at += 4
		if size > len(b)-at {
			return dst, errChecksum
		}
		dst = append(dst, b[at:at+size:at+size])
		at += size
	}
	if at != len(b) {
		return dst, errChecksum
	}
	return dst, nil
}
