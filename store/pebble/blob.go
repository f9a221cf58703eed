package pebble

import "encoding/binary"

// A commit is a blob in the log (logcheck.go):
//
//	1   version of the blob, 2
//	8   serial number of the commit, big-endian
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
// Pebble carries it through its log and forgets it: no memtable holds what the tail (tail.go) holds already. The log is kept until the
// tail is written as tables.
const (
	blobVersion = 2
	blobHeader  = 1 + 8
	itemMessage = 1
	itemPatch   = 2
)

// putSerial makes room for the header of a blob, or fills it in.
func putSerial(b []byte, serial uint64) []byte {
	if len(b) < blobHeader {
		b = append(b[:0], make([]byte, blobHeader)...)
	}
	b[0] = blobVersion
	binary.BigEndian.PutUint64(b[1:], serial)
	return b
}

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

// parseBlob returns the serial and the items of a blob.
func parseBlob(b []byte) (serial uint64, items []byte, err error) {
	if len(b) < blobHeader || b[0] != blobVersion {
		return 0, nil, errRow
	}
	return binary.BigEndian.Uint64(b[1:]), b[blobHeader:], nil
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
