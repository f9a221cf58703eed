package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/store"
)

// partition is where this process believes a partition of the log to stand. mu is held by a whole commit.
type partition struct {
	number  int
	mu      sync.Mutex
	loaded  bool
	fenced  bool  // another owner has moved it: nothing is committed until the caller has read Offset
	unsure  bool  // a commit of ours may or may not have been made, and the database could not be asked since
	next    int64 // as in table offsets, after our last commit
	commits int64
	heads   convHeads // as after our last commit: nobody else has made one since, says the fence
}

// convHeads are heads of conversations, by id. When it is full, all are forgotten.
type convHeads struct{ m map[int64]*convHead }

// maxHeads of a partition are kept, some 250 bytes each.
const maxHeads = 100_000

func (h *convHeads) get(id int64) *convHead { return h.m[id] }

func (h *convHeads) put(v *convHead) {
	if h.m == nil || len(h.m) >= maxHeads {
		h.m = make(map[int64]*convHead)
	}
	known := h.m[v.id]
	if known == nil {
		known = new(convHead)
		h.m[v.id] = known
	}
	*known = *v
	known.at, known.a, known.b, known.moved, known.lastPlace = nil, nil, nil, false, -1
}

func (h *convHeads) clear() { h.m = nil }

func (s *Store) partition(n int) *partition {
	s.partitions.Lock()
	defer s.partitions.Unlock()
	p := s.partitions.m[n]
	if p == nil {
		p = &partition{number: n}
		s.partitions.m[n] = p
	}
	return p
}

// offset is a row of table offsets.
type offset struct {
	next, commits int64
	mine          bool // the last commit was this process's
}

func (s *Store) readOffset(ctx context.Context, n int) (o offset, err error) {
	var owner *[16]byte
	const query = `select next, commits, owner from offsets where part = $1`
	err = s.reads.QueryRow(ctx, query, n).Scan(&o.next, &o.commits, &owner)
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err = s.reads.Exec(ctx, `insert into offsets (part) values ($1) on conflict do nothing`, n); err == nil {
			err = s.reads.QueryRow(ctx, query, n).Scan(&o.next, &o.commits, &owner)
		}
	}
	o.mine = owner != nil && *owner == s.owner
	return o, err
}

// Offset implements store.Store. It is for who commits the partition, not for onlookers: the next Commit moves the partition from what was read here.
func (s *Store) Offset(ctx context.Context, n int) (int64, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	p := s.partition(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	o, err := s.readOffset(ctx, n)
	if err != nil {
		return 0, s.failed("offset", err)
	}
	p.take(o)
	return o.next, nil
}

func (p *partition) take(o offset) {
	p.loaded, p.fenced, p.unsure = true, false, false
	p.heads.clear()
	p.next, p.commits = o.next, o.commits
}

// ready makes sure that the partition's place is known.
func (s *Store) ready(ctx context.Context, p *partition, next int64) error {
	if p.fenced || p.unsure && next != 0 {
		return fmt.Errorf("%w: partition %d: its offset is to be read first", store.ErrFenced, p.number)
	}
	if !p.loaded || p.unsure {
		o, err := s.readOffset(ctx, p.number)
		if err != nil {
			return s.failed("offset", err)
		}
		if p.unsure && o.commits != p.commits && !o.mine {
			p.fenced = true
			return fmt.Errorf("%w: partition %d", store.ErrFenced, p.number)
		}
		p.take(o)
	}
	if next != 0 && next <= p.next {
		return fmt.Errorf("%w: partition %d stands at %d, the batch ends at %d", store.ErrFenced, p.number, p.next, next)
	}
	return nil
}
