package pebble

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// A tail holds the durable commits that are not written as tables yet: the newest messages of every conversation and
// the newest entries of every inbox, by position. There is one that grows and at most one that is being written; the
// log has both. Compared with Pebble's memtable nothing is sorted per message: three appends instead of
// searches in a list of a million keys, and the tables are sorted once per tail.
//
// A commit enters when it is durable, so whatever is in a tail may be shown. Commits enter one after another, each with
// the lock of the pending that settles; readers are not kept out by more than the short locks here.
type tail struct {
	// Static.
	first uint64 // serial of its first commit
	born  time.Time

	given  atomic.Int64  // bytes of the commits that were given out; counted before they enter
	oldest atomic.Uint32 // bucket of its first commit; later ones are not before it

	// Appended to by the commit that enters; what is there never changes. Readers learn of a message from a list.
	slabs atomic.Pointer[[][]byte] // blobs of commits
	msgs  atomic.Pointer[[]*msgChunk]

	// Owned by the commit that enters.
	count uint32 // of msgs
	arena []uint32
	last  uint64 // serial of the newest commit here

	shards [tailShards]tailShard

	mu      sync.RWMutex
	slots   []uint32 // ids of messages: open addressing over msgs, index + 1, 0 = free
	ids     int
	patches map[[2]uint64]patch // conversation, seq: how a recall left a message of this tail or of a table
	patched atomic.Bool         // whether patches has any
}

const (
	tailShards = 64
	chunkMsgs  = 1 << 10
)

type msgChunk [chunkMsgs]msg

// msg is what is known of a message without reading its row: one cache line.
type msg struct {
	id                   [16]byte
	conv, seq            uint64
	ts                   int64
	fingerprint          uint64
	slab, offset, length uint32 // of the row
	bucket               uint16
}

type patch struct {
	bucket uint16
	row    []byte
}

// tailShard has the lists of some conversations and inboxes. The maps hold no pointers, so that the collector passes them by.
type tailShard struct {
	mu    sync.RWMutex
	convs map[uint64]int32 // index in lists
	boxes map[uint64]int32
	lists []list
}

// list is what a tail has of a conversation or an inbox: indexes in msgs, from a number on without a hole.
type list struct {
	first uint64
	msgs  []uint32
}

func newTail(first uint64) *tail {
	t := &tail{first: first, last: first - 1, born: time.Now(), patches: map[[2]uint64]patch{}}
	t.slabs.Store(new([][]byte))
	t.msgs.Store(new([]*msgChunk))
	for i := range t.shards {
		t.shards[i].convs, t.shards[i].boxes = map[uint64]int32{}, map[uint64]int32{}
	}
	return t
}

func (t *tail) shard(id uint64) *tailShard { return &t.shards[id%tailShards] }

// msg is a message whose index a list has told.
func (t *tail) msg(i uint32) *msg { return &(*t.msgs.Load())[i/chunkMsgs][i%chunkMsgs] }

// row is the row of a message as it was stored.
func (t *tail) row(m *msg) []byte { return (*t.slabs.Load())[m.slab][m.offset:][:m.length:m.length] }

// addSlab takes a blob and returns its number.
func (t *tail) addSlab(serial uint64, blob []byte) uint32 {
	slabs := append(*t.slabs.Load(), blob)
	t.slabs.Store(&slabs)
	t.last = serial
	return uint32(len(slabs) - 1)
}

// blob is a commit of this tail that has entered.
func (t *tail) blob(serial uint64) []byte { return (*t.slabs.Load())[serial-t.first] }

// addMsg takes a message; lists may tell of it afterwards.
func (t *tail) addMsg(m *msg) uint32 {
	i := t.count
	t.count++
	chunks := *t.msgs.Load()
	if i%chunkMsgs == 0 {
		more := append(chunks, new(msgChunk)) // not chunks: its address would make one of every call
		t.msgs.Store(&more)
		chunks = more
	}
	chunks[i/chunkMsgs][i%chunkMsgs] = *m
	return i
}

// pushConv and pushBox append a message to a conversation and to an inbox.
func (t *tail) pushConv(id, seq uint64, i uint32) {
	sh := t.shard(id)
	t.push(sh, sh.convs, id, seq, i)
}
func (t *tail) pushBox(id, n uint64, i uint32) { sh := t.shard(id); t.push(sh, sh.boxes, id, n, i) }

func (t *tail) push(sh *tailShard, m map[uint64]int32, id, number uint64, i uint32) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	at, ok := m[id]
	if !ok {
		at = int32(len(sh.lists))
		m[id] = at
		sh.lists = append(sh.lists, list{first: number, msgs: t.alloc(4)})
	}
	v := &sh.lists[at]
	if n := len(v.msgs); n == cap(v.msgs) {
		v.msgs = append(t.alloc(2*n), v.msgs...)
	}
	v.msgs = append(v.msgs, i)
}

// alloc cuts small lists from bigger pieces: most conversations have a few messages in a tail.
func (t *tail) alloc(n int) []uint32 {
	const piece = 1 << 14
	if n > piece/8 {
		return make([]uint32, 0, n)
	}
	if len(t.arena) < n {
		t.arena = make([]uint32, piece)
	}
	a := t.arena[:0:n]
	t.arena = t.arena[n:]
	return a
}

// list is a conversation's or an inbox's; its elements do not change. Of the slice itself only a copy of the moment is given.
func (t *tail) list(id uint64, inbox bool) list {
	sh := t.shard(id)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	m := sh.convs
	if inbox {
		m = sh.boxes
	}
	if at, ok := m[id]; ok {
		return sh.lists[at]
	}
	return list{}
}

// from is the part of the list from a number on.
func (v list) from(number uint64) []uint32 {
	if number < v.first || number-v.first >= uint64(len(v.msgs)) {
		return nil
	}
	return v.msgs[number-v.first:]
}

// patch is the row of a message as a recall in this tail left it, nil for no recall.
func (t *tail) patch(conv, seq uint64) []byte {
	if !t.patched.Load() {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.patches[[2]uint64{conv, seq}].row
}

// addPatch and addID are called with mu held.
func (t *tail) addPatch(conv, seq uint64, p patch) {
	t.patches[[2]uint64{conv, seq}] = p
	t.patched.Store(true)
}

func (t *tail) addID(id *[16]byte, i uint32) {
	if 2*t.ids >= len(t.slots) {
		old := t.slots
		t.slots = make([]uint32, max(1024, 4*len(old)))
		for _, s := range old {
			if s != 0 {
				t.putID(&t.msg(s-1).id, s-1)
			}
		}
	}
	t.ids++
	t.putID(id, i)
}

func (t *tail) putID(id *[16]byte, i uint32) {
	mask := uint64(len(t.slots) - 1)
	at := binary.LittleEndian.Uint64(id[:]) & mask
	for t.slots[at] != 0 {
		at = (at + 1) & mask
	}
	t.slots[at] = i + 1
}

// findID finds the message of an id, nil if there is none.
func (t *tail) findID(id *[16]byte) *msg {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.slots) == 0 {
		return nil
	}
	mask := uint64(len(t.slots) - 1)
	for at := binary.LittleEndian.Uint64(id[:]) & mask; t.slots[at] != 0; at = (at + 1) & mask {
		if m := t.msg(t.slots[at] - 1); m.id == *id {
			return m
		}
	}
	return nil
}

// replay enters a commit from its row in the database and returns its newest bucket.
func (t *tail) replay(serial uint64, blob []byte) (newest uint16, err error) {
	_, items, err := parseBlob(blob)
	if err != nil {
		return 0, err
	}
	slab := t.addSlab(serial, blob)
	t.mu.Lock()
	defer t.mu.Unlock()
	var it item
	var rec record
	for len(items) > 0 {
		if err := it.parse(items); err != nil {
			return 0, err
		}
		if err := rec.decode(it.row); err != nil {
			return 0, err
		}
		items = it.rest
		if it.tag == itemPatch {
			t.addPatch(it.conv, it.seq, patch{it.bucket, it.row})
			continue
		}
		newest = max(newest, it.bucket)
		t.gave(0, it.bucket)
		m := msg{id: [16]byte(rec.msgID), conv: it.conv, seq: it.seq, ts: rec.ts, fingerprint: it.fingerprint, bucket: it.bucket,
			slab: slab, offset: uint32(len(blob) - len(items) - len(it.row)), length: uint32(len(it.row))}
		i := t.addMsg(&m)
		t.addID(&m.id, i)
		t.pushConv(it.conv, it.seq, i)
		in := reader{b: it.entries}
		for range it.n {
			user, number := in.uvarint(), in.uvarint()
			t.pushBox(user, number, i)
		}
	}
	t.gave(len(blob), 0)
	return newest, nil
}

// gave counts a commit.
func (t *tail) gave(bytes int, bucket uint16) {
	t.oldest.CompareAndSwap(0, uint32(bucket))
	t.given.Add(int64(bytes))
}

// tails are the tails of a moment, newest first.
type tails []*tail

// patch is the newest patch of a message.
func (ts tails) patch(conv, seq uint64) []byte {
	for _, t := range ts {
		if row := t.patch(conv, seq); row != nil {
			return row
		}
	}
	return nil
}

// first is the first number of a conversation (an inbox) that is in the tails, otherwise is what it is if none is.
func (ts tails) first(id uint64, inbox bool, otherwise uint64) uint64 {
	for _, t := range ts {
		if v := t.list(id, inbox); len(v.msgs) > 0 {
			otherwise = min(otherwise, v.first)
		}
	}
	return otherwise
}

// last is the newest number of a conversation (an inbox) in the tails.
func (ts tails) last(id uint64, inbox bool) (uint64, bool) {
	for _, t := range ts {
		if v := t.list(id, inbox); len(v.msgs) > 0 {
			return v.first + uint64(len(v.msgs)) - 1, true
		}
	}
	return 0, false
}

// row is a message of a conversation as it stands, nil if the tails do not know it.
func (ts tails) row(conv, seq uint64) []byte {
	if row := ts.patch(conv, seq); row != nil {
		return row
	}
	for _, t := range ts {
		if v := t.list(conv, false).from(seq); len(v) > 0 {
			return t.row(t.msg(v[0]))
		}
	}
	return nil
}
