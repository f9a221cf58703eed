package pebble

import (
	"encoding/binary"
	"fmt"
)

// A commit is one row, 'l' and its serial number, whose value is its blob:
//
//	1   version of the blob, 1
//	    uvarint: the serial of the newest commit that was known to be durable
//	then items:
//	1   itemMessage
//	    uvarint conversation id, seq, bucket
//	8   fingerprint, little-endian
//	    uvarint number of inbox entries, each: uvarint user id, inbox number
//	    uvarint length of the row, row (record.go)
//	1   itemPatch: a message as a recall leaves it
//	    uvarint conversation id, seq, bucket
//	    uvarint length of the row, row
//
// The row goes through the log into memory; once the tail (tail.go) that holds the same bytes is written as tables it is deleted.
const (
	blobVersion = 1
	itemMessage = 1
	itemPatch   = 2
)

func commitKey(serial uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kCommit}, serial)
}

// item is a decoded item of a blob. Its slices point into the blob.
type item struct {
	tag         byte
	conv, seq   uint64
	bucket      uint16
	fingerprint uint64
	entries     []byte // of n entries, see nextEntry
	n           uint64
	row         []byte
	rest        []byte // of the blob
}

func blobHeader(b []byte, durable uint64) []byte {
	return binary.AppendUvarint(append(b, blobVersion), durable)
}

func parseBlobHeader(b []byte) (durable uint64, items []byte, err error) {
	in := reader{b: b}
	version := in.byte()
	durable = in.uvarint()
	if in.bad {
		return 0, nil, errRow
	}
	if version != blobVersion {
		return 0, nil, fmt.Errorf("commit of version %d: %w", version, errRow)
	}
	return durable, in.b, nil
}

// parse reads the item at the beginning of b.
func (it *item) parse(b []byte) error {
	in := reader{b: b}
	*it = item{tag: in.byte(), conv: in.uvarint(), seq: in.uvarint(), bucket: uint16(in.uvarint())}
	if it.tag == itemMessage {
		if fp := in.bytes(8); fp != nil {
			it.fingerprint = binary.LittleEndian.Uint64(fp)
		}
		it.n = in.uvarint()
		it.entries = in.b
		for range it.n {
			if in.uvarint(); in.bad {
				return errRow
			}
			in.uvarint()
		}
	}
	it.row = in.bytes(in.uvarint())
	it.rest = in.b
	if in.bad || it.tag != itemMessage && it.tag != itemPatch {
		return errRow
	}
	return nil
}

// appendRow appends the length of a record and the record.
func appendRow(b []byte, r *record) []byte {
	n := r.size()
	b = binary.AppendUvarint(b, uint64(n))
	at := len(b)
	if cap(b)-at < n {
		b = append(b, make([]byte, n)...)
	} else {
		b = b[:at+n]
	}
	r.encode(b[at:])
	return b
}
