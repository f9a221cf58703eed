package postgres

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/store"
)

// memberCache remembers answers of IsMember for TryMember. An answer is at most ttl old, and shorter if word comes (forget) that the group has
// changed: a commit judges the membership again unless the log has promised the message.
type memberCache struct {
	ttl    time.Duration
	mu     sync.Mutex
	groups map[string]*memberGroup
	n      int    // answers
	forgot uint64 // calls of forget: an answer that was read before one is not kept
}

type memberGroup struct {
	exists  bool
	until   time.Time
	members map[string]memberAnswer
}

type memberAnswer struct {
	member bool
	until  time.Time
}

// memberAnswers are kept, some 100 bytes each; then all are dropped.
const memberAnswers = 200_000

func (c *memberCache) init(ttl time.Duration) {
	c.ttl, c.groups = ttl, make(map[string]*memberGroup)
}

func (c *memberCache) get(group, user string) (exists, member, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.groups[group]
	if g == nil {
		return false, false, false
	}
	now := time.Now()
	if !g.exists {
		return false, false, now.Before(g.until)
	}
	a, ok := g.members[user]
	return true, a.member, ok && now.Before(a.until)
}

func (c *memberCache) begin() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.forgot
}

// put keeps an answer that was read after begin gave mark.
func (c *memberCache) put(group, user string, exists, member bool, mark uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forgot != mark {
		return
	}
	if c.n >= memberAnswers {
		c.groups, c.n = make(map[string]*memberGroup), 0
	}
	until := time.Now().Add(c.ttl)
	g := c.groups[group]
	if g == nil || g.exists != exists {
		g = &memberGroup{exists: exists, members: make(map[string]memberAnswer)}
		c.groups[group] = g
	}
	g.until = until
	if _, ok := g.members[user]; !ok {
		c.n++
	}
	g.members[user] = memberAnswer{member, until}
}

func (c *memberCache) forget(group string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgot++
	if g := c.groups[group]; g != nil {
		c.n -= len(g.members)
		delete(c.groups, group)
	}
}

// IsMember implements store.Store. It always asks the database.
func (s *Store) IsMember(ctx context.Context, group, user string) (exists, member bool, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return false, false, err
	}
	defer end()
	mark := s.members.begin()
	err = s.reads.QueryRow(ctx, `select m.name is not null from convs c join groups g on g.id = c.id
		left join members m on m.grp = g.id and m.name = $2 where c.name = $1 and not g.deleted`, store.GroupConv(group), user).Scan(&member)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return false, false, s.failed("member", err)
	default:
		exists = true
		s.members.put(group, user, exists, member, mark) // an unknown group is not kept: anybody can ask
	}
	return exists, member, nil
}

// TryMember implements store.Store: the last answer of IsMember, at most Options.MemberTTL old.
func (s *Store) TryMember(group, user string) (exists, member, known bool) {
	if s.closed.Load() {
		return false, false, false
	}
	return s.members.get(group, user)
}

// Forget implements store.Store.
func (s *Store) Forget(group string) { s.members.forget(group) }
