package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/store"
)

// positions holds what moves often and only forward until it is written, every second: a move is a map entry and no I/O. Of two values the larger
// counts, here, in the tables and between nodes.
type positions struct {
	seed   maphash.Seed
	shards [16]positionShard
	full   chan struct{} // asks for a flush before its time
	flush  sync.Mutex    // one flush at a time
}

type positionShard struct {
	mu       sync.Mutex
	closed   bool
	n        int // values in dirty
	dirty    map[string][]posMove
	flushing map[string][]posMove // being written; still to be read
}

// posMove is a value of a user: few wait for one user, so a list is searched.
type posMove struct {
	posKey
	value uint64
}

// posKey names a position: what it is of a user, and of which terminal, group or conversation.
type posKey struct {
	kind posKind
	user string
	a, b string
}

type posKind uint8

const (
	posAck       posKind = iota // a: terminal
	posLarge                    // a: terminal, b: group
	posRead                     // a: conversation
	posSeen                     // value: ms
	posDelivered                // a: conversation; only for the outbox
	posKinds
)

const (
	flushEvery = time.Second
	// flushAbove entries in a shard a flush is asked for; at refuseAbove (some 200 MB in all) a move is refused: the database does not take them.
	flushAbove  = 1 << 13
	refuseAbove = 1 << 16
	// flushRows in one transaction: it holds locks on them.
	flushRows = 10_000
)

func (p *positions) init() {
	p.seed = maphash.MakeSeed()
	p.full = make(chan struct{}, 1)
	for i := range p.shards {
		p.shards[i].dirty = make(map[string][]posMove)
	}
}

func (p *positions) shard(user string) *positionShard {
	return &p.shards[maphash.String(p.seed, user)%uint64(len(p.shards))]
}

// pending is the value that is not written yet, 0 for none.
func (sh *positionShard) pending(k posKey) (v uint64) {
	for _, list := range [][]posMove{sh.dirty[k.user], sh.flushing[k.user]} {
		for i := range list {
			if list[i].posKey == k {
				v = max(v, list[i].value)
			}
		}
	}
	return v
}

// put keeps the larger value.
func (sh *positionShard) put(k posKey, v uint64) {
	list := sh.dirty[k.user]
	for i := range list {
		if list[i].posKey == k {
			list[i].value = max(list[i].value, v)
			return
		}
	}
	sh.dirty[k.user] = append(list, posMove{posKey: k, value: v})
	sh.n++
}

// get is the value that may not be written yet, 0 for none. A caller asks before it reads the table: what has left the map since is there.
func (p *positions) get(k posKey) uint64 {
	sh := p.shard(k.user)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.pending(k)
}

// of gives f all pending values of a user.
func (p *positions) of(user string, f func(k posKey, v uint64)) {
	sh := p.shard(user)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, list := range [][]posMove{sh.dirty[user], sh.flushing[user]} {
		for _, m := range list {
			f(m.posKey, m.value)
		}
	}
}

// move raises a value from what is known to be in the table (0 = not known). moved is false if it stands there already.
func (p *positions) move(k posKey, known, to uint64) (moved bool, err error) {
	sh := p.shard(k.user)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.closed {
		return false, store.ErrClosed
	}
	if to <= max(known, sh.pending(k)) {
		return false, nil
	}
	if sh.n >= flushAbove {
		if sh.n >= refuseAbove {
			return false, fmt.Errorf("%w: too many positions wait to be written", store.ErrReadOnly)
		}
		select {
		case p.full <- struct{}{}:
		default:
		}
	}
	sh.put(k, to)
	return true, nil
}

// flushPositions writes them every second.
func (s *Store) flushPositions() {
	defer s.tasks.Done()
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-s.alive.Done():
			return
		case <-tick.C:
		case <-s.pending.full:
			if failing { // the full map asks at every move
				continue
			}
		}
		err := s.writePositions(s.alive)
		if err != nil && !failing && s.alive.Err() == nil {
			s.opts.Logf("store: positions wait to be written: %v", err)
		}
		failing = err != nil
	}
}

// writePositions writes what waits. What cannot be written stays.
func (s *Store) writePositions(ctx context.Context) error {
	p := &s.pending
	p.flush.Lock()
	defer p.flush.Unlock()
	var kinds [posKinds][]posEntry
	for i := range p.shards {
		sh := &p.shards[i]
		sh.mu.Lock()
		sh.closed = s.closed.Load()
		if sh.n > 0 {
			sh.flushing, sh.dirty, sh.n = sh.dirty, make(map[string][]posMove), 0
		}
		for _, list := range sh.flushing {
			for _, m := range list {
				kinds[m.kind] = append(kinds[m.kind], posEntry{posMove: m})
			}
		}
		sh.mu.Unlock()
	}
	err := s.writeKinds(ctx, &kinds)
	for i := range p.shards {
		sh := &p.shards[i]
		sh.mu.Lock()
		if err != nil {
			for _, list := range sh.flushing {
				for _, m := range list {
					sh.put(m.posKey, m.value)
				}
			}
		}
		sh.flushing = nil
		sh.mu.Unlock()
	}
	return err
}

// posEntry is one position on its way to the tables.
type posEntry struct {
	posMove
	usr int64
	id  int64 // of the group or conversation
}

func (s *Store) writeKinds(ctx context.Context, kinds *[posKinds][]posEntry) error {
	for kind, list := range kinds {
		if len(list) == 0 {
			continue
		}
		list, err := s.identify(ctx, posKind(kind), list)
		if err != nil {
			return err
		}
		for piece := range slices.Chunk(list, flushRows) {
			if err := s.writePiece(ctx, posKind(kind), piece); err != nil {
				return err
			}
		}
	}
	return nil
}

// identify finds the ids and sorts: two nodes that write the same rows take them in the same order. What has no conversation is dropped.
func (s *Store) identify(ctx context.Context, kind posKind, list []posEntry) ([]posEntry, error) {
	users, convs := make(map[string]int64, len(list)), make(map[string]int64)
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].user
	}
	if err := s.userIDs(ctx, names, users); err != nil {
		return nil, err
	}
	conv := func(e *posEntry) string {
		switch kind {
		case posLarge:
			return store.GroupConv(e.b)
		case posRead, posDelivered:
			return e.a
		}
		return ""
	}
	if conv(&list[0]) != "" {
		for i := range list {
			names[i] = conv(&list[i])
		}
		if err := s.findConvIDs(ctx, names, convs); err != nil {
			return nil, err
		}
		list = slices.DeleteFunc(list, func(e posEntry) bool { return convs[conv(&e)] == 0 })
	}
	for i := range list {
		list[i].usr, list[i].id = users[list[i].user], convs[conv(&list[i])]
	}
	slices.SortFunc(list, func(x, y posEntry) int {
		return cmp.Or(cmp.Compare(x.usr, y.usr), cmp.Compare(x.id, y.id), cmp.Compare(x.a, y.a))
	})
	return list, nil
}

// The flushes. A row that stands further already is left alone: no dead row, no event.
const (
	flushAcks = `insert into positions (usr, terminal, pos) select * from unnest($1::bigint[], $2::text[], $3::bigint[])
		on conflict (usr, terminal) do update set pos = excluded.pos where positions.pos < excluded.pos`
	flushLarge = `insert into large_positions (usr, terminal, pos, grp) select * from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[])
		on conflict (usr, grp, terminal) do update set pos = excluded.pos where large_positions.pos < excluded.pos`
	flushReads = `insert into reads (usr, pos, conv) select * from unnest($1::bigint[], $2::bigint[], $3::bigint[])
		on conflict (usr, conv) do update set pos = excluded.pos where reads.pos < excluded.pos`
	// With an outbox: the event of every row that moved, in the same statement. $4 partition, $5 now.
	flushReadEvents = `with moved as (` + flushReads + ` returning usr, conv, pos)
		insert into outbox (part, kind, ts, usr, conv, seq, bucket, target)
		select e.part, 4, $5, m.usr, m.conv, m.pos, 0, 0 from moved m
		join unnest($1::bigint[], $3::bigint[], $4::int[]) e (usr, conv, part) on e.usr = m.usr and e.conv = m.conv`
	flushSeen = `insert into marks (usr, seen) select * from unnest($1::bigint[], $2::bigint[])
		on conflict (usr) do update set seen = excluded.seen where marks.seen < excluded.seen`
	flushDelivered = `insert into outbox (part, kind, ts, usr, conv, seq, bucket, target)
		select part, 3, $5, usr, conv, pos, 0, 0 from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::int[]) e (usr, pos, conv, part)`
)

func (s *Store) writePiece(ctx context.Context, kind posKind, list []posEntry) error {
	usr, value, id := make([]int64, len(list)), make([]int64, len(list)), make([]int64, len(list))
	terminal, part := make([]string, len(list)), make([]int32, len(list))
	for i, e := range list {
		usr[i], value[i], id[i], terminal[i] = e.usr, int64(e.value), e.id, e.a
		if kind == posRead || kind == posDelivered {
			part[i] = int32(s.opts.PartitionOf(e.a))
		}
	}
	now := time.Now().UnixMilli()
	var query string
	var args []any
	switch kind {
	case posAck:
		query, args = flushAcks, []any{usr, terminal, value}
	case posLarge:
		query, args = flushLarge, []any{usr, terminal, value, id}
	case posRead:
		query, args = flushReads, []any{usr, value, id}
		if s.opts.Outbox {
			query, args = flushReadEvents, []any{usr, value, id, part, now}
		}
	case posSeen:
		query, args = flushSeen, []any{usr, value}
	case posDelivered:
		query, args = flushDelivered, []any{usr, value, id, part, now}
	}
	return s.again(ctx, "positions", func() error {
		_, err := s.reads.Exec(ctx, query, args...)
		return err
	})
}

// again runs a transaction that may lose against others.
func (s *Store) again(ctx context.Context, op string, f func() error) error {
	for attempt := 0; ; attempt++ {
		err := f()
		if err == nil {
			return nil
		}
		if causeOf(err) != causeRetry || attempt >= maxAttempts || ctx.Err() != nil {
			return s.failed(op, err)
		}
	}
}

// Ack implements store.Store.
func (s *Store) Ack(user, terminal string, inbox uint64) error {
	_, err := s.pending.move(posKey{kind: posAck, user: user, a: terminal}, 0, inbox)
	return err
}

// AckGroup implements store.Store. Who has left and comes back begins at the join, which is not before any older position.
func (s *Store) AckGroup(user, terminal, group string, seq uint64) error {
	_, err := s.pending.move(posKey{kind: posLarge, user: user, a: terminal, b: group}, 0, seq)
	return err
}

// Seen implements store.Store.
func (s *Store) Seen(user string, ts int64) {
	if ts > 0 {
		_, _ = s.pending.move(posKey{kind: posSeen, user: user}, 0, uint64(ts))
	}
}

// Delivered implements store.Store.
func (s *Store) Delivered(user, conv string, seq uint64) {
	if s.opts.Outbox {
		_, _ = s.pending.move(posKey{kind: posDelivered, user: user, a: conv}, 0, seq)
	}
}

// Read implements store.Store. moved is by what this process knows: two nodes may both move a position that one of them has not written yet.
func (s *Store) Read(ctx context.Context, user, conv string, seq uint64) (moved bool, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return false, err
	}
	defer end()
	kind, a, b := store.ConvKind(conv)
	mine := kind == 'n' && a == user || kind == 'p' && (a == user || b == user)
	var head, floor, at int64
	var member bool
	err = s.reads.QueryRow(ctx, `select c.head, coalesce(m.joined, 0), m.grp is not null, coalesce(r.pos, 0)
		from convs c
		left join members m on m.grp = c.id and m.name = $2
		left join users u on u.name = $2
		left join reads r on r.usr = u.id and r.conv = c.id
		where c.name = $1`, conv, user).Scan(&head, &floor, &member, &at)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return false, s.failed("read", err)
	}
	if !mine && (kind != 'g' || !member) {
		return false, fmt.Errorf("%w: %s in %s", store.ErrForbidden, user, conv)
	}
	if seq > uint64(head) {
		return false, fmt.Errorf("%w: %d above %d", store.ErrPosition, seq, head)
	}
	return s.pending.move(posKey{kind: posRead, user: user, a: conv}, uint64(max(floor, at)), seq)
}

// Positions implements store.Store.
func (s *Store) Positions(ctx context.Context, user string) (map[string]uint64, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	all := make(map[string]uint64)
	s.pendingAcks(user, all)
	rows, err := s.reads.Query(ctx, `select p.terminal, p.pos from users u join positions p on p.usr = u.id where u.name = $1`, user)
	return all, s.takeAcks(rows, err, all)
}

// pendingAcks puts what waits of a user's inbox positions into all.
func (s *Store) pendingAcks(user string, all map[string]uint64) {
	s.pending.of(user, func(k posKey, v uint64) {
		if k.kind == posAck {
			all[k.a] = max(all[k.a], v)
		}
	})
}

func (s *Store) takeAcks(rows pgx.Rows, err error, all map[string]uint64) error {
	if err == nil {
		var terminal string
		var at int64
		_, err = pgx.ForEachRow(rows, []any{&terminal, &at}, func() error {
			all[terminal] = max(all[terminal], uint64(at))
			return nil
		})
	}
	return s.failed("positions", err)
}

// LastSeen implements store.Store.
func (s *Store) LastSeen(ctx context.Context, user string) (int64, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	pending := int64(s.pending.get(posKey{kind: posSeen, user: user}))
	seen, err := s.number(ctx, `select m.seen from users u join marks m on m.usr = u.id where u.name = $1`, user)
	return max(seen, pending), err
}

// RevokedBefore implements store.Store.
func (s *Store) RevokedBefore(ctx context.Context, user string) (int64, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	return s.number(ctx, `select m.revoked from users u join marks m on m.usr = u.id where u.name = $1`, user)
}

// number reads one number, 0 if there is no row.
func (s *Store) number(ctx context.Context, query string, args ...any) (n int64, err error) {
	if err = s.reads.QueryRow(ctx, query, args...).Scan(&n); errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return n, s.failed("read", err)
}

// Revoke implements store.Store.
func (s *Store) Revoke(ctx context.Context, user string, before int64) (latest int64, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	ids := make(map[string]int64, 1)
	if err := s.userIDs(ctx, []string{user}, ids); err != nil {
		return 0, err
	}
	err = s.reads.QueryRow(ctx, `insert into marks (usr, revoked) values ($1, $2)
		on conflict (usr) do update set revoked = greatest(marks.revoked, excluded.revoked) returning revoked`, ids[user], before).Scan(&latest)
	return latest, s.failed("revoke", err)
}
