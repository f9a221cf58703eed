package pebble

import "encoding/binary"

// A commit is one row, 'l' and its serial number, whose value is its blob:
//
//	1   version of the blob, 1
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

// parseBlob returns the items of a blob.
func parseBlob(b []byte) (items []byte, err error) {
	if len(b) == 0 || b[0] != blobVersion {
		return nil, errRow
	}
	return b[1:], nil
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
