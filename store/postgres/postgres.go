// Package postgres keeps messages in PostgreSQL, for one node or for many on the same database.
//
// A commit is one transaction (commit.go): its first statement moves the partition's offset, then it locks the heads of its
// conversations and of its users, each in the order of their ids, numbers the messages here, and writes everything with a few
// statements over arrays. What is in the tables stands in migrations/, why in docs/postgres.md.
//
// Reads go to the tables. In memory are only ids of names (which never change), members of groups for some seconds, and positions
// until they are written.
package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/meshtalk/meshtalk/store"
)

// Options of Open.
type Options struct {
	// URL is a connection string as libpq reads it (postgres://user:password@host:5432/database, or key=value pairs), with several
	// hosts and target_session_attrs=read-write for a server with standbys. The database is this program's own.
	URL          string
	Retention    time.Duration // of messages; default 30 days
	DedupeWindow time.Duration // default 168 h
	InboxLimit   int           // members above which a group is large; default 500
	// Outbox keeps events for business services until they are Published.
	Outbox bool
	// PartitionOf gives the partition of a conversation, for the events of positions; nil = 0 for all. It does no I/O.
	PartitionOf func(conv string) int
	Logf        func(format string, args ...any)
	// MaxConns is how many connections this process may open: a third of them for commits (as many as are under
	// way at once), the rest for reads. Default 24.
	MaxConns int
	// MemberTTL is how long TryMember answers from memory without word of a change by another node (Forget); default 5 s.
	MemberTTL time.Duration

	// For tests.
	names int // names whose ids are remembered
}

func (o *Options) setDefaults() {
	if o.Retention <= 0 {
		o.Retention = 30 * 24 * time.Hour
	}
	if o.DedupeWindow <= 0 {
		o.DedupeWindow = 168 * time.Hour
	}
	if o.InboxLimit <= 0 {
		o.InboxLimit = 500
	}
	if o.PartitionOf == nil {
		o.PartitionOf = func(string) int { return 0 }
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.MaxConns <= 0 {
		o.MaxConns = NodeConnections
	}
	if o.MemberTTL <= 0 {
		o.MemberTTL = 5 * time.Second
	}
	if o.names <= 0 {
		o.names = 1 << 19 // some 100 MB when full, of users and of conversations
	}
}

// Store implements store.Store.
type Store struct {
	// Static after Open.
	opts    Options
	epoch   string
	owner   [16]byte      // this process, in table offsets
	commits *pgxpool.Pool // for commits
	reads   *pgxpool.Pool // for everything else
	quit    context.CancelFunc
	alive   context.Context // ends with Close
	tasks   sync.WaitGroup

	closed  atomic.Bool
	running sync.RWMutex // held shared by every call, so that Close waits for them

	users   names
	convs   names
	days    days
	members memberCache
	pending positions
	floor   atomic.Int32 // see raiseFloor
	kept    atomic.Int32 // the first day that retention has left, at the last commit, or unknownDay

	partitions struct {
		sync.Mutex
		m map[int]*partition
	}
	gathering gathering
	health    health
	stats     struct {
		messages, entries, duplicates, repeatHits, statements atomic.Int64
		syncNanos, sizeBytes                                  atomic.Int64
	}
}

var _ store.Store = (*Store)(nil)

// Open connects, brings the schema up to date and starts the work in the background. Several processes may open one database at once.
// Its errors are of one line and without the password.
func Open(ctx context.Context, o Options) (*Store, error) {
	o.setDefaults()
	s := &Store{opts: o}
	_, _ = rand.Read(s.owner[:])
	s.alive, s.quit = context.WithCancel(context.Background())
	s.users.init(o.names)
	s.convs.init(o.names)
	s.members.init(o.MemberTTL)
	s.pending.init()
	s.partitions.m = make(map[int]*partition)
	s.gathering.work.New = func() any { return new(commit) }
	s.kept.Store(unknownDay)
	if err := s.open(ctx); err != nil {
		s.quit()
		s.closePools()
		return nil, err
	}
	s.tasks.Add(2)
	go s.flushPositions()
	go s.tend()
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	config, err := pgxpool.ParseConfig(s.opts.URL)
	if err != nil {
		return fmt.Errorf("postgres: %w", oneLine(err))
	}
	config.MaxConnIdleTime = 5 * time.Minute
	config.PingTimeout = 5 * time.Second
	config.AfterConnect = prepareSession
	if _, set := config.ConnConfig.RuntimeParams["application_name"]; !set {
		config.ConnConfig.RuntimeParams["application_name"] = "meshtalk"
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	if err := migrate(ctx, config.ConnConfig.Copy()); err != nil {
		return fmt.Errorf("postgres: %w", oneLine(err))
	}
	writers := config.Copy()
	s.gathering.most = max(s.opts.MaxConns/3, 1)
	writers.MaxConns = int32(s.gathering.most)
	config.MaxConns = int32(max(s.opts.MaxConns, 2)) - writers.MaxConns
	if s.reads, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return fmt.Errorf("postgres: %w", oneLine(err))
	}
	if s.commits, err = pgxpool.NewWithConfig(ctx, writers); err != nil {
		return fmt.Errorf("postgres: %w", oneLine(err))
	}
	if err := s.reads.QueryRow(ctx, `select epoch from meta`).Scan(&s.epoch); err != nil {
		return fmt.Errorf("postgres: %w", oneLine(err))
	}
	if err := s.loadDays(ctx); err != nil {
		return fmt.Errorf("postgres: %w", oneLine(err))
	}
	return s.prepareDays(ctx, time.Now())
}

// sessionSettings hold for every connection. Every query is a look-up by an index, on tables that grow from nothing: a plan that was
// made while they were small must be right when they are big. A transaction whose process stands still must not hold its locks.
var sessionSettings = map[string]string{
	"enable_seqscan":                      "off",
	"enable_hashjoin":                     "off",
	"enable_mergejoin":                    "off",
	"enable_material":                     "off",
	"jit":                                 "off",
	"plan_cache_mode":                     "force_generic_plan", // which days a page is in is seen when it runs
	"default_transaction_isolation":       "read committed",
	"idle_in_transaction_session_timeout": "5000", // ms
}

// prepareSession sets what the server knows of sessionSettings: others that speak the protocol know less.
func prepareSession(ctx context.Context, conn *pgx.Conn) error {
	var names, values []string
	for name, value := range sessionSettings {
		names, values = append(names, name), append(values, value)
	}
	_, err := conn.Exec(ctx, `select set_config(p.name, v.value, false) from unnest($1::text[], $2::text[]) v (name, value)
		join pg_settings p on p.name = v.name`, names, values)
	return err
}

// callTimeout bounds every call: a server that stands still, or a network that swallows, is a failure at some time.
const callTimeout = 30 * time.Second

// begin is called first by every call that asks the database; end by its defer. Calls do not nest.
func (s *Store) begin(ctx context.Context) (_ context.Context, end func(), err error) {
	s.running.RLock()
	if s.closed.Load() {
		s.running.RUnlock()
		return nil, nil, store.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	return ctx, func() {
		cancel()
		s.running.RUnlock()
	}, nil
}

// Epoch implements store.Store. It is read at Open: after NewEpoch every process is to be started anew.
func (s *Store) Epoch() string { return s.epoch }

// NewEpoch gives the database a new epoch, so that clients drop their positions. An operator calls it (or its SQL, see docs/postgres.md)
// after having restored an older backup: the database cannot see that by itself.
func (s *Store) NewEpoch(ctx context.Context) (epoch string, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return "", err
	}
	defer end()
	err = s.reads.QueryRow(ctx, `update meta set epoch = replace(gen_random_uuid()::text, '-', '') returning epoch`).Scan(&epoch)
	return epoch, s.failed("epoch", err)
}

// Checkpoint implements store.Store: a database is copied with its own tools.
func (s *Store) Checkpoint(context.Context, string) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	return errors.New("store: no checkpoint of PostgreSQL: use pg_dump, or pg_basebackup with its log (see docs/postgres.md)")
}

// Stats implements store.Store. SizeBytes is of the whole database, some seconds old.
func (s *Store) Stats() store.Stats {
	return store.Stats{
		Messages: s.stats.messages.Load(), Entries: s.stats.entries.Load(), Duplicates: s.stats.duplicates.Load(),
		SizeBytes: s.stats.sizeBytes.Load(), SyncSeconds: time.Duration(s.stats.syncNanos.Load()).Seconds(),
		FilterHits: s.stats.repeatHits.Load(),
	}
}

// closeTimeout bounds the last flush of a Close while the database does not answer.
const closeTimeout = 10 * time.Second

// Close implements store.Store. Positions that the database does not take any more are lost, with an error.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return store.ErrClosed
	}
	s.running.Lock() // calls that run end first
	s.quit()
	s.running.Unlock()
	s.tasks.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.writePositions(ctx)
	s.closePools()
	return err
}

func (s *Store) closePools() {
	for _, p := range []*pgxpool.Pool{s.commits, s.reads} {
		if p != nil {
			p.Close()
		}
	}
}

// health is what State says.
type health struct {
	mu    sync.Mutex
	err   error
	since time.Time // of the last failure
}

// State implements store.Store.
func (s *Store) State() error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	return s.health.err
}

func (h *health) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err, h.since = err, time.Now()
}

// recovered ends a failure. A database that answers is not yet one that writes (its disk is full), so what tells of no write leaves a
// fresh failure alone.
func (h *health) recovered(wrote bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var refused *pgconn.PgError
	if h.err == nil || wrote || !errors.As(h.err, &refused) || time.Since(h.since) > 5*time.Second {
		h.err = nil
	}
}

const (
	pingEvery = time.Second      // while all is well, and how soon a failure is seen without traffic
	sizeEvery = 30 * time.Second // the size is a walk over the files
	daysEvery = time.Minute
)

// tend asks the database how it is and makes the partitions of the days to come.
func (s *Store) tend() {
	defer s.tasks.Done()
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	var sized, prepared time.Time
	for {
		now := time.Now()
		if s.ping() == nil {
			if now.Sub(sized) >= sizeEvery {
				sized = now
				s.readSize()
			}
			if now.Sub(prepared) >= daysEvery {
				prepared = now
				if err := s.prepareDays(s.alive, now); err != nil && s.alive.Err() == nil {
					s.opts.Logf("store: partitions of the next days: %v", err)
				}
			}
		}
		select {
		case <-s.alive.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Store) ping() error {
	ctx, cancel := context.WithTimeout(s.alive, 5*time.Second)
	defer cancel()
	var readOnly string
	err := s.reads.QueryRow(ctx, `select current_setting('transaction_read_only')`).Scan(&readOnly)
	if err == nil && readOnly == "on" {
		err = errors.New("the server takes no writes: it is a standby")
	}
	switch {
	case s.alive.Err() != nil:
	case err != nil:
		s.health.failed(fmt.Errorf("%w: postgres: %w", store.ErrReadOnly, oneLine(err)))
	default:
		s.health.recovered(false)
	}
	return err
}

func (s *Store) readSize() {
	ctx, cancel := context.WithTimeout(s.alive, 5*time.Second)
	defer cancel()
	var size int64
	if s.reads.QueryRow(ctx, `select pg_database_size(current_database())`).Scan(&size) == nil {
		s.stats.sizeBytes.Store(size)
	}
}

// oneLine keeps an error that a person reads in one line.
func oneLine(err error) error {
	text := err.Error()
	if !strings.Contains(text, "\n") {
		return err
	}
	return &flatError{err: err, text: strings.Join(strings.Fields(text), " ")}
}

type flatError struct {
	err  error
	text string
}

func (e *flatError) Error() string { return e.text }
func (e *flatError) Unwrap() error { return e.err }
