package pebble

import (
	"encoding/binary"
	"errors"
)

// The key space. Names have no control characters, so 0x00 ends a name. Numbers are big-endian so that byte order is
// their order. Bulk rows (m, i, k, d) begin with the day bucket: retention is one range tombstone per bucket and kind, and
// the files of old days are never rewritten by new traffic. Users and conversations are interned to 40-bit ids, so
// that a bulk key is 14 bytes whatever the names are.
//
//	l serial                 a commit that is not published yet          outbox.go
//	m bucket conv seq        a message                                   record.go
//	i bucket user inbox      up to 128 inbox entries, the last is inbox  flush.go
//	d bucket msgid           what recognises a repeat                    record.go
//	k bucket user conv       the user has a message of that day in that private conversation
//	c name                   a conversation: id and its days             entity
//	u name                   a user's inbox: id and its days             entity
//	n conv                   a conversation's name
//	g group                  a group: size, state                        groupRow
//	G group 0 user           a member: the sequence at which it joined
//	U user 0 group           the same from the other side
//	p user 0 terminal        inbox position
//	q user 0 terminal 0 group  position in a large group
//	r user 0 conv            read position
//	s user                   last seen (ms)
//	e, o, O                  the outbox                                  outbox.go
//	v user                   tokens before it are revoked (ms)
//	! name                   the store's own: ids, first live buckets, newest commit, newest commit in tables
const (
	kCommit   = 'l'
	kMessage  = 'm'
	kInbox    = 'i'
	kRepeat   = 'd'
	kIndex    = 'k'
	kConv     = 'c'
	kUser     = 'u'
	kName     = 'n'
	kGroup    = 'g'
	kMember   = 'G'
	kMemberOf = 'U'
	kPosition = 'p'
	kLarge    = 'q'
	kRead     = 'r'
	kSeen     = 's'
	kRevoked  = 'v'
	kNote     = 'e'
	kDone     = 'o'
	kPart     = 'O'

	kDelivered = 'D' // a position that is never a row: only its note is written
)

// The store's own rows.
const (
	rowNextID      = "!nextid"  // uvarint: the next id of a user or conversation
	rowFirstBucket = "!first"   // uvarint: the oldest bucket with messages
	rowFirstRepeat = "!firstd"  // uvarint: the oldest bucket with repeats
	rowSerial      = "!serial"  // uvarint: the newest commit that is in tables
	rowCommit      = "!commit"  // uvarint: the newest commit
	rowOldLog      = "!log"     // uvarint: the newest log of earlier openings
	maxID          = 1<<40 - 1  // ids of users and conversations
	maxSeq         = 1<<48 - 1  // sequences and inbox numbers
	dayMillis      = 86_400_000 // a bucket is a UTC day
	bulkKeyLen     = 1 + 2 + 5 + 6
	repeatKeyLen   = 1 + 2 + 16
	indexKeyLen    = 1 + 2 + 5 + 5
)

var keyCommit = []byte(rowCommit)

var errRow = errors.New("malformed row")

// bucketOf is the UTC day of a time. 16 bits reach the year 2149; times before 1970 are day 0.
func bucketOf(ms int64) uint16 {
	return uint16(min(max(ms/dayMillis, 0), 1<<16-1))
}

func put40(b []byte, v uint64) {
	b[0], b[1], b[2], b[3], b[4] = byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
}

func put48(b []byte, v uint64) {
	b[0], b[1], b[2], b[3], b[4], b[5] = byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
}

func get40(b []byte) uint64 {
	return uint64(b[0])<<32 | uint64(b[1])<<24 | uint64(b[2])<<16 | uint64(b[3])<<8 | uint64(b[4])
}

func get48(b []byte) uint64 {
	return uint64(b[0])<<40 | uint64(b[1])<<32 | uint64(b[2])<<24 | uint64(b[3])<<16 | uint64(b[4])<<8 | uint64(b[5])
}

// putBulk writes a key of m or i. key has bulkKeyLen bytes.
func putBulk(key []byte, kind byte, bucket uint16, id, seq uint64) {
	key[0] = kind
	binary.BigEndian.PutUint16(key[1:], bucket)
	put40(key[3:], id)
	put48(key[8:], seq)
}

// bulkKey is a key of m or i on the caller's stack.
func bulkKey(kind byte, bucket uint16, id, seq uint64) (key [bulkKeyLen]byte) {
	putBulk(key[:], kind, bucket, id, seq)
	return key
}

// bulkSeq is the last part of a key of m or i.
func bulkSeq(key []byte) uint64 { return get48(key[8:]) }

func putRepeat(key []byte, bucket uint16, id [16]byte) {
	key[0] = kRepeat
	binary.BigEndian.PutUint16(key[1:], bucket)
	copy(key[3:], id[:])
}

func putIndex(key []byte, bucket uint16, user, conv uint64) {
	key[0] = kIndex
	binary.BigEndian.PutUint16(key[1:], bucket)
	put40(key[3:], user)
	put40(key[8:], conv)
}

// bucketKey is the first key of a bucket of a bulk kind.
func bucketKey(kind byte, bucket uint16) []byte {
	return []byte{kind, byte(bucket >> 8), byte(bucket)}
}

// afterBucket is the first key after a bucket of a bulk kind.
func afterBucket(kind byte, bucket uint16) []byte {
	if bucket == 1<<16-1 {
		return []byte{kind + 1}
	}
	return bucketKey(kind, bucket+1)
}

func nameKey(kind byte, name string) []byte {
	return append(append(make([]byte, 0, 1+len(name)), kind), name...)
}

// pairKey is kind a 0 b.
func pairKey(kind byte, a, b string) []byte {
	return appendPair(make([]byte, 0, 2+len(a)+len(b)), kind, a, b)
}

func appendPair(key []byte, kind byte, a, b string) []byte {
	key = append(append(key, kind), a...)
	return append(append(key, 0), b...)
}

func convNameKey(id uint64) []byte {
	key := make([]byte, 6)
	key[0] = kName
	put40(key[1:], id)
	return key
}

// prefixEnd is the first key after all keys with the prefix. The last byte of every prefix here is below 0xff.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	end[len(end)-1]++
	return end
}

// reader takes varints off a row; bad is set when the row ends early.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
