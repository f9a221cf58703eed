package pebble

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

func uvarintBytes(v uint64) []byte { return binary.AppendUvarint(nil, v) }

// get returns a copy of a row, nil if there is none.
func (g *generation) get(key []byte) ([]byte, error) {
	v, closer, err := g.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, g.readError("read", err)
	}
	row := append(make([]byte, 0, len(v)), v...)
	return row, closer.Close()
}

// getNumber reads a row that is one uvarint.
func (g *generation) getNumber(key []byte) (v uint64, found bool, err error) {
	b, closer, err := g.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, g.readError("read", err)
	}
	v, n := binary.Uvarint(b)
	if err := closer.Close(); err != nil {
		return 0, false, g.readError("read", err)
	}
	if n <= 0 {
		return 0, false, g.rowError(key)
	}
	return v, true, nil
}

// getEntity reads the row of a user's inbox or a conversation into e.
func (g *generation) getEntity(key []byte, e *entity) (found bool, err error) {
	b, closer, err := g.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		*e = entity{days: e.days[:0]}
		return false, nil
	}
	if err != nil {
		return false, g.readError("read", err)
	}
	err = e.decode(b)
	if e := closer.Close(); e != nil {
		return false, g.readError("read", e)
	}
	if err != nil {
		return false, g.rowError(key)
	}
	return true, nil
}

func (g *generation) iter(lower, upper []byte) (*pebble.Iterator, error) {
	it, err := g.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, g.readError("read", err)
	}
	return it, nil
}

// lastRow finds the newest row of a bulk kind of an entity in a bucket. f sees the row before it goes away.
func (g *generation) lastRow(kind byte, bucket uint16, id uint64, f func(number uint64, row []byte) error) error {
	lower, upper := bulkKey(kind, bucket, id, 0), bulkKey(kind, bucket, id, maxSeq)
	it, err := g.iter(lower[:], upper[:])
	if err != nil {
		return err
	}
	defer it.Close()
	if !it.Last() {
		if err := it.Error(); err != nil {
			return g.readError("read", err)
		}
		return g.rowError(lower[:])
	}
	row, err := it.ValueAndErr()
	if err != nil {
		return g.readError("read", err)
	}
	if f(bulkSeq(it.Key()), row) != nil {
		return g.rowError(it.Key())
	}
	return nil
}

// lastInbox is the newest durable number of an inbox whose newest day is bucket.
func (g *generation) lastInbox(ts tails, user uint64, bucket uint16) (head uint64, err error) {
	if n, ok := ts.last(user, true); ok {
		return n, nil
	}
	err = g.lastRow(kInbox, bucket, user, func(n uint64, _ []byte) error {
		head = n
		return nil
	})
	return head, err
}

// lastMessage gives f the newest durable message of a conversation whose newest day is bucket.
func (g *generation) lastMessage(ts tails, conv uint64, bucket uint16, f func(seq uint64, r *record)) error {
	var r record
	if seq, ok := ts.last(conv, false); ok {
		if err := r.decode(ts.row(conv, seq)); err != nil {
			return err
		}
		f(seq, &r)
		return nil
	}
	return g.lastRow(kMessage, bucket, conv, func(seq uint64, row []byte) error {
		err := r.decode(row)
		if err == nil {
			f(seq, &r)
		}
		return err
	})
}

// messageRow gives f the row of a message as it stands; found is false if there is none. ts must be loaded before: what has
// left the tails since is in tables.
func (g *generation) messageRow(ts tails, bucket uint16, conv, seq uint64, f func(r *record) error) (found bool, err error) {
	var r record
	if row := ts.row(conv, seq); row != nil {
		if err := r.decode(row); err != nil {
			return false, err
		}
		return true, f(&r)
	}
	key := bulkKey(kMessage, bucket, conv, seq)
	b, closer, err := g.db.Get(key[:])
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, g.readError("read", err)
	}
	defer closer.Close()
	if r.decode(b) != nil {
		return false, g.rowError(key[:])
	}
	return true, f(&r)
}

// messageSeeker reads many messages of one bucket: one iterator instead of a Get each.
type messageSeeker struct {
	g      *generation
	ts     tails
	bucket uint16
	it     *pebble.Iterator // opened when the first table is needed
}

// find reads a message as it stands. The record lives until the next call.
func (s *messageSeeker) find(conv, seq uint64, r *record) error {
	if row := s.ts.row(conv, seq); row != nil {
		return r.decode(row)
	}
	if s.it == nil {
		var err error
		if s.it, err = s.g.iter(bucketKey(kMessage, s.bucket), afterBucket(kMessage, s.bucket)); err != nil {
			return err
		}
	}
	key := bulkKey(kMessage, s.bucket, conv, seq)
	if !s.it.SeekGE(key[:]) || !bytes.Equal(s.it.Key(), key[:]) {
		if err := s.it.Error(); err != nil {
			return s.g.readError("read", err)
		}
		return s.g.rowError(key[:])
	}
	row, err := s.it.ValueAndErr()
	if err != nil {
		return s.g.readError("read", err)
	}
	if r.decode(row) != nil {
		return s.g.rowError(key[:])
	}
	return nil
}

func (s *messageSeeker) close() {
	if s.it != nil {
		_ = s.it.Close()
	}
}

// names remembers which conversation an id stands for; ids never change their meaning.
type names struct {
	mu sync.RWMutex
	m  map[uint64]string
}

// maxNames bounds names at a few MiB; beyond it the map begins anew.
const maxNames = 1 << 15

func (n *names) init() { n.m = make(map[uint64]string) }

// convName is the name of a conversation id.
func (g *generation) convName(id uint64) (string, error) {
	g.names.mu.RLock()
	name, ok := g.names.m[id]
	g.names.mu.RUnlock()
	if ok {
		return name, nil
	}
	key := convNameKey(id)
	b, err := g.get(key)
	if err != nil {
		return "", err
	}
	if b == nil {
		return "", g.rowError(key)
	}
	name = string(b)
	g.names.mu.Lock()
	if len(g.names.m) >= maxNames {
		clear(g.names.m)
	}
	g.names.m[id] = name
	g.names.mu.Unlock()
	return name, nil
}
