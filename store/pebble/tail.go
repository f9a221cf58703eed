package pebble

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A tail holds the durable commits that are not written as tables yet: the newest messages of every conversation and
// the newest entries of every inbox, by position. There is one that grows and at most one that is being written; the
// log has both. Compared with Pebble's memtable nothing is sorted per message: three appends instead of
// searches in a list of a million keys, and the tables are sorted once per tail.
//
// A commit enters when it is durable, so whatever is in a tail may be shown.
type tail struct {
	// Static.
	first uint64 // serial of its first commit
	born  time.Time

	given  atomic.Int64  // bytes of the commits that were given out; counted before they enter
	oldest atomic.Uint32 // bucket of its first commit; later ones are not before it

	shards [tailShards]tailShard

	mu      sync.RWMutex
	slabs   [][]byte // blobs of commits; never changed once here
	newest  uint16   // bucket; known after a replay
	last    uint64   // serial of the last commit that has entered
	slots   []uint64 // ids of messages: open addressing over locations, 0 = free
	ids     int
	patches map[[2]uint64]loc // conversation, seq: how a recall left it, here or in a table
	patched atomic.Bool       // whether patches has any

	arena []loc // owned by whoever settles commits, one at a time
}

const tailShards = 64

type tailShard struct {
	mu    sync.RWMutex
	convs map[uint64]*list
	boxes map[uint64]*list
}

// list is what a tail has of a conversation or an inbox: locations of its messages, from a number on without a hole.
// Guarded by its shard.
type list struct {
	first uint64
	locs  []loc
}

// loc is where an item stands: slab<<32 | offset.
type loc uint64

func newTail(first uint64) *tail {
	t := &tail{first: first, last: first - 1, born: time.Now(), patches: map[[2]uint64]loc{}}
	for i := range t.shards {
		t.shards[i].convs, t.shards[i].boxes = map[uint64]*list{}, map[uint64]*list{}
	}
	return t
}

func (t *tail) shard(id uint64) *tailShard { return &t.shards[id%tailShards] }

// at returns the item at a location.
func (t *tail) at(l loc, it *item) error {
	t.mu.RLock()
	slab := t.slabs[l>>32]
	t.mu.RUnlock()
	return it.parse(slab[uint32(l):])
}

// addSlab takes a blob and returns the location of its first byte.
func (t *tail) addSlab(serial uint64, blob []byte) loc {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.slabs = append(t.slabs, blob)
	t.last = serial
	return loc(len(t.slabs)-1) << 32
}

// push appends to the list of an id in the shard's map m.
func (t *tail) push(sh *tailShard, m map[uint64]*list, id, number uint64, l loc) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	v := m[id]
	if v == nil {
		v = &list{first: number, locs: t.alloc(4)}
		m[id] = v
	}
	if n := len(v.locs); n == cap(v.locs) {
		v.locs = append(t.alloc(2*n), v.locs...)
	}
	v.locs = append(v.locs, l)
}

// alloc cuts small lists from bigger pieces: most conversations have a few messages in a tail.
func (t *tail) alloc(n int) []loc {
	const piece = 1 << 13
	if n > piece/8 {
		return make([]loc, 0, n)
	}
	if len(t.arena) < n {
		t.arena = make([]loc, piece)
	}
	a := t.arena[:0:n]
	t.arena = t.arena[n:]
	return a
}

// pushConv and pushBox add a message to a conversation and to an inbox.
func (t *tail) pushConv(id, seq uint64, l loc) { sh := t.shard(id); t.push(sh, sh.convs, id, seq, l) }
func (t *tail) pushBox(id, n uint64, l loc)    { sh := t.shard(id); t.push(sh, sh.boxes, id, n, l) }

// conv is where a message of a conversation stands.
func (t *tail) conv(id, seq uint64) (loc, bool) {
	sh := t.shard(id)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.convs[id].get(seq)
}

func (v *list) get(number uint64) (loc, bool) {
	if v == nil || number < v.first || number-v.first >= uint64(len(v.locs)) {
		return 0, false
	}
	return v.locs[number-v.first], true
}

// span is the first and the last number that a tail has of a conversation (an inbox).
func (t *tail) span(id uint64, inbox bool) (first, last uint64, ok bool) {
	sh := t.shard(id)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	v := sh.convs[id]
	if inbox {
		v = sh.boxes[id]
	}
	if v == nil {
		return 0, 0, false
	}
	return v.first, v.first + uint64(len(v.locs)) - 1, true
}

// patch is the row of a message as a recall in this tail left it.
func (t *tail) patch(conv, seq uint64) (row []byte, err error) {
	if !t.patched.Load() {
		return nil, nil
	}
	t.mu.RLock()
	l, ok := t.patches[[2]uint64{conv, seq}]
	t.mu.RUnlock()
	if !ok {
		return nil, nil
	}
	var it item
	err = t.at(l, &it)
	return it.row, err
}

// addID notes where the message of an id stands. Under mu.
func (t *tail) addID(id []byte, l loc) {
	if 2*t.ids >= len(t.slots) {
		t.growIDs()
	}
	t.ids++
	t.putID(id, l)
}

func (t *tail) putID(id []byte, l loc) {
	mask := uint64(len(t.slots) - 1)
	i := binary.LittleEndian.Uint64(id) & mask
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = uint64(l) + 1
}

func (t *tail) growIDs() {
	old := t.slots
	t.slots = make([]uint64, max(1024, 4*len(old)))
	var it item
	for _, s := range old {
		if s != 0 {
			l := loc(s - 1)
			_ = it.parse(t.slabs[l>>32][uint32(l):]) // it was parsed or made before
			t.putID(it.row[1:17], l)
		}
	}
}

// findID finds the message of an id.
func (t *tail) findID(id *[16]byte, it *item) (bool, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.slots) == 0 {
		return false, nil
	}
	mask := uint64(len(t.slots) - 1)
	for i := binary.LittleEndian.Uint64(id[:]) & mask; t.slots[i] != 0; i = (i + 1) & mask {
		l := loc(t.slots[i] - 1)
		if err := it.parse(t.slabs[l>>32][uint32(l):]); err != nil {
			return false, err
		}
		if string(it.row[1:17]) == string(id[:]) {
			return true, nil
		}
	}
	return false, nil
}

// replay enters a commit from its row in the database.
func (t *tail) replay(serial uint64, blob []byte) error {
	items, err := parseBlob(blob)
	if err != nil {
		return err
	}
	base := t.addSlab(serial, blob)
	var it item
	for len(items) > 0 {
		l := base + loc(len(blob)-len(items))
		if err := it.parse(items); err != nil {
			return err
		}
		if it.tag == itemMessage {
			t.gave(0, it.bucket)
			t.newest = max(t.newest, it.bucket)
		}
		items = it.rest
		if it.tag == itemPatch {
			t.patches[[2]uint64{it.conv, it.seq}] = l
			t.patched.Store(true)
			continue
		}
		if len(it.row) < 17 {
			return errRow
		}
		t.addID(it.row[1:17], l)
		t.pushConv(it.conv, it.seq, l)
		in := reader{b: it.entries}
		for range it.n {
			user, number := in.uvarint(), in.uvarint()
			t.pushBox(user, number, l)
		}
	}
	t.gave(len(blob), 0)
	return nil
}

// gave counts a commit.
func (t *tail) gave(bytes int, bucket uint16) {
	t.oldest.CompareAndSwap(0, uint32(bucket))
	t.given.Add(int64(bytes))
}

// tails are the tails of a moment, newest first.
type tails []*tail

// locs copies the locations of an inbox from a number on, up to n.
func (t *tail) locs(id, from uint64, n int) []loc {
	sh := t.shard(id)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	v := sh.boxes[id]
	if v == nil || from < v.first || from-v.first >= uint64(len(v.locs)) {
		return nil
	}
	rest := v.locs[from-v.first:]
	return slices.Clone(rest[:min(n, len(rest))])
}

// patch is the newest patch of a message.
func (ts tails) patch(conv, seq uint64) ([]byte, error) {
	for _, t := range ts {
		if row, err := t.patch(conv, seq); row != nil || err != nil {
			return row, err
		}
	}
	return nil, nil
}

// first is the first number of a conversation (an inbox) that is in the tails, otherwise is what it is if none is.
func (ts tails) first(id uint64, inbox bool, otherwise uint64) uint64 {
	for _, t := range ts {
		if first, _, ok := t.span(id, inbox); ok {
			otherwise = min(otherwise, first)
		}
	}
	return otherwise
}

// last is the newest number of a conversation (an inbox) in the tails.
func (ts tails) last(id uint64, inbox bool) (uint64, bool) {
	for _, t := range ts {
		if _, last, ok := t.span(id, inbox); ok {
			return last, true
		}
	}
	return 0, false
}

// message finds the item of a message of a conversation, as it was stored.
func (ts tails) message(conv, seq uint64, it *item) (bool, error) {
	for _, t := range ts {
		if l, ok := t.conv(conv, seq); ok {
			return true, t.at(l, it)
		}
	}
	return false, nil
}

// record reads a message as it stands, if the tails know.
func (ts tails) record(conv, seq uint64, r *record) (bool, error) {
	row, err := ts.patch(conv, seq)
	if err != nil {
		return false, err
	}
	if row == nil {
		var it item
		found, err := ts.message(conv, seq, &it)
		if !found || err != nil {
			return false, err
		}
		row = it.row
	}
	return true, r.decode(row)
}
