package pebble

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/meshtalk/meshtalk/store"
)

// positions holds what moves often and only forward (acknowledged and read positions, last seen) until the flusher writes it:
// rows of one uvarint, of which the largest value counts: of the row, of what is being written and of what waits.
// Taking a position asks neither the database nor the generation, so that event loops may call it at any time: also while a
// failed database is being opened again.
type positions struct {
	seed   maphash.Seed
	shards [16]positionShard
	users  [256]sync.Mutex // by user: creating a terminal and revoking read before they write
	full   chan struct{}   // asks for a flush before its time
	flush  sync.Mutex      // one flush at a time
	writes atomic.Uint64   // flushes that are in the database, counted before they leave the maps
}

type positionShard struct {
	mu       sync.Mutex
	dirty    map[string]uint64
	flushing map[string]uint64 // being written, not changed any more; still to be read
}

const (
	flushEvery = time.Second
	flushOver  = flushEvery / 2 // the pieces of a flush are spread over it
	// flushAbove entries in a shard a flush is asked for; at eight times as many (some 100 MB in all) a move is refused: the disk does not take them.
	flushAbove  = 1 << 13
	refuseAbove = 1 << 16
)

func (p *positions) init() {
	p.seed = maphash.MakeSeed()
	p.full = make(chan struct{}, 1)
	for i := range p.shards {
		p.shards[i].dirty = make(map[string]uint64)
	}
}

func (p *positions) shard(key []byte) *positionShard {
	return &p.shards[maphash.Bytes(p.seed, key)%uint64(len(p.shards))]
}

// user is the lock of a user's rows.
func (p *positions) user(name string) *sync.Mutex {
	return &p.users[maphash.String(p.seed, name)%uint64(len(p.users))]
}

// pending is the value that is not written yet. mu is held.
func (p *positionShard) pending(key []byte) uint64 {
	return max(p.dirty[string(key)], p.flushing[string(key)])
}

// position reads a row as it will be, 0 if there is none.
func (g *generation) position(key []byte) (uint64, error) {
	sh := g.s.positions.shard(key)
	sh.mu.Lock()
	pending := sh.pending(key)
	sh.mu.Unlock()
	v, _, err := g.getNumber(key) // after the map: what has left it is in the database
	return max(v, pending), err
}

// take notes a value for a row. moved tells whether it is above what waits to be written; of the row it knows nothing. The key
// is copied.
func (s *Store) take(key []byte, to uint64) (moved bool, err error) {
	p := &s.positions
	sh := p.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s.closed.Load() { // here, so that what was taken before is in Close's flush
		return false, store.ErrClosed
	}
	if sh.pending(key) >= to {
		return false, nil
	}
	if n := len(sh.dirty); n >= flushAbove {
		if _, waits := sh.dirty[string(key)]; !waits && n >= refuseAbove {
			return false, fmt.Errorf("%w: too many positions wait to be written", store.ErrReadOnly)
		}
		select {
		case p.full <- struct{}{}:
		default:
		}
	}
	sh.dirty[string(key)] = to
	return true, nil
}

// move raises a row; moved is false if it stands there already.
func (g *generation) move(key []byte, to uint64) (moved bool, err error) {
	v, err := g.position(key)
	if err != nil || v >= to {
		return false, err
	}
	return g.s.take(key, to)
}

// flushPositions writes them every second.
func (s *Store) flushPositions() {
	defer s.tasks.Done()
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		over := flushOver
		select {
		case <-s.quit:
			return
		case <-tick.C:
		case <-s.positions.full:
			over = 0
		}
		g, err := s.acquire()
		if err != nil {
			continue
		}
		if err := s.writePositions(g, over); err != nil && !errors.Is(err, store.ErrReadOnly) {
			s.opts.Logf("store: positions: %v", err)
		}
		g.release()
	}
}

// writePositions makes all positions durable, in pieces spread over a time. What cannot be written stays. When it is to be at once, 0, a
// mark is left in the log even if there are none.
func (s *Store) writePositions(g *generation, over time.Duration) error {
	p := &s.positions
	p.flush.Lock()
	defer p.flush.Unlock()
	var rows []positionRow
	for i := range p.shards {
		sh := &p.shards[i]
		sh.mu.Lock()
		if len(sh.dirty) > 0 {
			sh.flushing, sh.dirty = sh.dirty, make(map[string]uint64)
		}
		sh.mu.Unlock()
		for k, v := range sh.flushing {
			rows = append(rows, positionRow{k, v})
		}
	}
	var err error
	if len(rows) > 0 || over == 0 {
		err = g.writePositionRows(rows, over)
	}
	p.writes.Add(1)
	for i := range p.shards {
		sh := &p.shards[i]
		sh.mu.Lock()
		if err != nil {
			for k, v := range sh.flushing {
				sh.dirty[k] = max(sh.dirty[k], v)
			}
		}
		sh.flushing = nil
		sh.mu.Unlock()
	}
	return err
}

type positionRow struct {
	key string
	at  uint64
}

// positionPiece rows are one write: it takes some 0.6 ms, in which commits wait for it. At once, the rows of 10,000 busy users would hold
// up the commits for 10 ms of every second, which was the 99th percentile of the delivery.
const positionPiece = 512

// writePositionRows writes those that are above what the database has, in order: a look-up is cheap after its neighbour's. The last piece is
// synced and with it all.
func (g *generation) writePositionRows(rows []positionRow, over time.Duration) error {
	slices.SortFunc(rows, func(a, b positionRow) int { return strings.Compare(a.key, b.key) })
	pause := over / time.Duration(len(rows)/positionPiece+1)
	for len(rows) > positionPiece {
		if err := g.writePositionPiece(rows[:positionPiece], pebble.NoSync); err != nil {
			return err
		}
		rows = rows[positionPiece:]
		if pause > 0 {
			pause = g.s.positions.rest(g.s.quit, pause)
		}
	}
	if err := g.writePositionPiece(rows, pebble.Sync); err != nil {
		return err
	}
	if g.outbox != nil {
		g.outbox.noted.Store(g.outbox.given)
	}
	return nil
}

// rest pauses between two pieces. The pause is over, and there are no more, when somebody needs the positions written.
func (p *positions) rest(quit <-chan struct{}, pause time.Duration) (next time.Duration) {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return pause
	case <-quit:
	case <-p.full:
	}
	return 0
}

func (g *generation) writePositionPiece(rows []positionRow, o *pebble.WriteOptions) error {
	b := g.db.NewBatch()
	_ = b.LogData(g.mark(), nil)
	if err := g.addPositionRows(b, rows); err != nil {
		_ = b.Close()
		return err
	}
	return g.apply(b, o)
}

func (g *generation) addPositionRows(b *pebble.Batch, rows []positionRow) error {
	if len(rows) == 0 {
		return nil
	}
	it, err := g.iter(nil, nil)
	if err != nil {
		return err
	}
	defer it.Close()
	var key, value []byte
	for _, r := range rows {
		key = append(key[:0], r.key...)
		if key[0] == kDelivered {
			g.note(b, store.EventDelivered, key, r.at)
			continue
		}
		if it.SeekGE(key) && bytes.Equal(it.Key(), key) {
			row, err := it.ValueAndErr()
			if err != nil {
				return g.readError("positions", err)
			}
			v, n := binary.Uvarint(row)
			if n <= 0 {
				return g.rowError(key)
			}
			if v >= r.at {
				continue
			}
		}
		if err := it.Error(); err != nil {
			return g.readError("positions", err)
		}
		value = binary.AppendUvarint(value[:0], r.at)
		_ = b.Set(key, value, nil)
		if key[0] == kRead && g.outbox != nil {
			g.note(b, store.EventRead, key, r.at)
		}
	}
	return nil
}

// Ack implements store.Store.
func (s *Store) Ack(user, terminal string, inbox uint64) error {
	var buf [160]byte
	_, err := s.take(appendPair(buf[:0], kPosition, user, terminal), inbox)
	return err
}

// AckGroup implements store.Store. The position of who has left stays below where a later return begins.
func (s *Store) AckGroup(user, terminal, name string, seq uint64) error {
	var buf [224]byte
	_, err := s.take(appendLarge(buf[:0], user, terminal, name), seq)
	return err
}

// largeKey is a terminal's position in a large group.
func largeKey(user, terminal, group string) []byte {
	return appendLarge(make([]byte, 0, 3+len(user)+len(terminal)+len(group)), user, terminal, group)
}

func appendLarge(key []byte, user, terminal, group string) []byte {
	return append(append(appendPair(key, kLarge, user, terminal), 0), group...)
}

// Read implements store.Store.
func (s *Store) Read(_ context.Context, user, conv string, seq uint64) (moved bool, err error) {
	g, err := s.acquire()
	if err != nil {
		return false, err
	}
	defer g.release()
	g.groups.change.RLock()
	defer g.groups.change.RUnlock()
	floor, err := g.mayRead(user, conv)
	if err != nil {
		return false, err
	}
	box, err := g.convBox(conv)
	if err != nil {
		return false, err
	}
	if seq > box.Head {
		return false, fmt.Errorf("%w: %d above %d", store.ErrPosition, seq, box.Head)
	}
	if seq <= floor {
		return false, nil
	}
	var buf [256]byte
	return g.move(appendPair(buf[:0], kRead, user, conv), seq)
}

// mayRead is where a user's read position begins in a conversation, ErrForbidden if it is not the user's.
func (g *generation) mayRead(user, conv string) (floor uint64, err error) {
	kind, a, b := store.ConvKind(conv)
	switch {
	case kind == 'p' && (a == user || b == user), kind == 'n' && a == user:
		return 0, nil
	case kind == 'g':
		if joined, member, err := g.joinedAt(a, user); err != nil || member {
			return joined, err
		}
	}
	return 0, fmt.Errorf("%w: %s in %s", store.ErrForbidden, user, conv)
}

// readPosition is the user's read position in a conversation that it may read.
func (g *generation) readPosition(user, conv string, floor uint64) (uint64, error) {
	v, err := g.position(pairKey(kRead, user, conv))
	return max(v, floor), err
}

// Positions implements store.Store.
func (s *Store) Positions(_ context.Context, user string) (map[string]uint64, error) {
	g, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer g.release()
	all := make(map[string]uint64)
	err = g.terminals(user, func(terminal []byte, at uint64) { all[string(terminal)] = at })
	return all, err
}

// terminals gives f every terminal of a user and its position.
func (g *generation) terminals(user string, f func(terminal []byte, at uint64)) error {
	var buf [96]byte
	prefix := appendPair(buf[:0], kPosition, user, "")
	p := &g.s.positions
	writes := p.writes.Load()
	it, err := g.iter(prefix, prefixEnd(prefix))
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		sh := p.shard(it.Key())
		sh.mu.Lock()
		at := sh.pending(it.Key())
		sh.mu.Unlock()
		row, err := it.ValueAndErr()
		if err != nil {
			return g.readError("positions", err)
		}
		v, n := binary.Uvarint(row)
		if n <= 0 {
			return g.rowError(it.Key())
		}
		if at = max(at, v); p.writes.Load() != writes {
			// The iterator may be older than what has left the map since.
			if at, err = g.position(it.Key()); err != nil {
				return err
			}
		}
		f(it.Key()[len(prefix):], at)
	}
	return g.readError("positions", it.Error())
}

// furthest is the largest position of a user's terminals.
func (g *generation) furthest(user string) (at uint64, err error) {
	err = g.terminals(user, func(_ []byte, p uint64) { at = max(at, p) })
	return at, err
}

// Seen implements store.Store.
func (s *Store) Seen(user string, ts int64) {
	if ts <= 0 {
		return
	}
	var buf [96]byte
	if _, err := s.take(append(append(buf[:0], kSeen), user...), uint64(ts)); err != nil && !errors.Is(err, store.ErrClosed) {
		s.opts.Logf("store: last seen of a user: %v", err)
	}
}

// LastSeen implements store.Store.
func (s *Store) LastSeen(_ context.Context, user string) (int64, error) {
	g, err := s.acquire()
	if err != nil {
		return 0, err
	}
	defer g.release()
	v, err := g.position(nameKey(kSeen, user))
	return int64(v), err
}

// Revoke implements store.Store.
func (s *Store) Revoke(_ context.Context, user string, before int64) (int64, error) {
	g, err := s.acquireWritable()
	if err != nil {
		return 0, err
	}
	defer g.release()
	mu := s.positions.user(user)
	mu.Lock()
	defer mu.Unlock()
	key := nameKey(kRevoked, user)
	v, _, err := g.getNumber(key)
	if err != nil || int64(v) >= before {
		return int64(v), err
	}
	b := g.db.NewBatch()
	_ = b.Set(key, uvarintBytes(uint64(before)), nil)
	return before, g.apply(b, pebble.Sync)
}

// RevokedBefore implements store.Store.
func (s *Store) RevokedBefore(_ context.Context, user string) (int64, error) {
	g, err := s.acquire()
	if err != nil {
		return 0, err
	}
	defer g.release()
	v, _, err := g.getNumber(nameKey(kRevoked, user))
	return int64(v), err
}
