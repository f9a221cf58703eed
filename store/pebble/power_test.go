package pebble

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/meshtalk/meshtalk/store"
	"github.com/meshtalk/meshtalk/store/storetest"
)

// The power test runs a store on a file system that knows what was synced. Before any operation that writes the power may fail: what
// the disk has then (all that was synced, and some of the rest, block by block) is opened as a store of its own, which must have
// all that was promised before, while the first one goes on. The power also fails while such a store opens.

const powerDir = "/data/store"

// promises is what the store has been answered to have.
type promises struct {
	messages map[int]uint64       // number of crashDraft → seq
	recalled map[int]bool         // of the messages
	told     map[string]bool      // ids of messages whose events may be published
	attached map[[2]string]uint64 // user, terminal → first position
	revoked  map[string]int64
	members  map[string]bool // of the group; missing: it is being changed
	expired  int64           // messages before this time (ms) may be gone
}

func newPromises() promises {
	return promises{map[int]uint64{}, map[int]bool{}, map[string]bool{}, map[[2]string]uint64{}, map[string]int64{}, map[string]bool{}, 0}
}

func (p *promises) clone() promises {
	return promises{maps.Clone(p.messages), maps.Clone(p.recalled), maps.Clone(p.told), maps.Clone(p.attached), maps.Clone(p.revoked), maps.Clone(p.members), p.expired}
}

// blackout is one state of the disk and what was promised before.
type blackout struct {
	disk *vfs.MemFS
	promises
	op string
}

// plug decides when the power fails.
type plug struct {
	disk  *vfs.MemFS
	odds  int          // one in so many operations
	links sync.RWMutex // MemFS takes its locks for Link in another order than for a clone and a sync

	mu    sync.Mutex
	rand  *rand.Rand
	left  int
	known promises
	found []*blackout
}

func (p *plug) String() string { return "plug" }

// MaybeError implements errorfs.Injector. It only looks.
func (p *plug) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpFileClose {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 || p.rand.IntN(p.odds) != 0 {
		return nil
	}
	p.left--
	cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 90, 100}[p.rand.IntN(4)], RNG: p.rand}
	b := &blackout{promises: p.known.clone(), op: fmt.Sprintf("operation %d on %s, %d %%", op.Kind, op.Path, cfg.UnsyncedDataPercent)}
	p.links.Lock()
	b.disk = p.disk.CrashClone(cfg)
	p.links.Unlock()
	b.disk.TestingSetDiskUsage(hugeDisk)
	p.found = append(p.found, b)
	return nil
}

// on is the disk with the plug in it.
func (p *plug) on() vfs.FS { return errorfs.Wrap(linkFS{p.disk, p}, p) }

// linkFS keeps links and clones apart.
type linkFS struct {
	vfs.FS
	plug *plug
}

func (f linkFS) Link(oldname, newname string) error {
	f.plug.links.RLock()
	defer f.plug.links.RUnlock()
	return f.FS.Link(oldname, newname)
}

// promise notes something under the lock that blackouts take.
func (p *plug) promise(f func(*promises)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.known)
}

var hugeDisk = vfs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 1 << 40}

// powerRun is a round: the store's settings, and what is to be known of a failure.
type powerRun struct {
	t     *testing.T
	seed  uint64
	early bool // the store breaks its promises
}

func (r *powerRun) open(fs vfs.FS) (*Store, error) {
	o := testOptions(r.t, powerDir)
	o.fs, o.tailBytes, o.Outbox, o.AckBeforeSync = fs, 3000, true, r.early
	o.DedupeWindow = o.Retention // repeats are recognised as long as their messages are there
	if r.early {
		o.Logf = func(string, ...any) {}
	}
	return open(o)
}

// powerDraft is crashDraft with some days between the first and the last.
func powerDraft(n int) *store.Draft {
	d := crashDraft(n)
	d.TS += int64(n/100) * dayMillis
	return d
}

// gone reports whether retention may have taken a message.
func (p *promises) gone(n int) bool { return powerDraft(n).TS < p.expired }

// worker uses a store.
type worker struct {
	t    *testing.T
	s    *Store
	plug *plug
	n    int
	rand *rand.Rand
}

func (w *worker) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// commit commits some messages, two commits at a time.
func (w *worker) commit() {
	type sent struct {
		store.Pending
		first int
	}
	var all []sent
	for range 2 {
		var drafts []*store.Draft
		first := w.n
		for range 1 + w.rand.IntN(12) {
			drafts = append(drafts, powerDraft(w.n))
			w.n++
		}
		p, err := w.s.Commit(w.t.Context(), 0, 0, drafts)
		w.must(err)
		all = append(all, sent{p, first})
	}
	for _, c := range all {
		results, err := c.Wait()
		w.must(err)
		w.plug.promise(func(p *promises) {
			for i, r := range results {
				p.messages[c.first+i] = r.Seq
			}
		})
		c.Release()
	}
}

func (w *worker) recall() {
	i := w.rand.IntN(w.n)
	target := powerDraft(i)
	d := crashDraft(1_000_000 + i)
	d.Kind, d.From, d.Conv, d.Content, d.TS = store.Recall, "", target.Conv, nil, target.TS
	w.plug.promise(func(p *promises) { d.Target = p.messages[i] })
	p, err := w.s.Commit(w.t.Context(), 0, 0, []*store.Draft{d})
	w.must(err)
	results, err := p.Wait()
	w.must(err)
	if results[0].Outcome == store.Stored { // else retention was first
		w.plug.promise(func(p *promises) { p.recalled[i] = true })
	}
	p.Release()
}

// other does something that is done beside commits.
func (w *worker) other(i int) {
	user := fmt.Sprint("u", w.rand.IntN(crashUsers))
	switch w.rand.IntN(8) {
	case 0:
		terminal := fmt.Sprint("t", i)
		a, err := w.s.Attach(w.t.Context(), user, terminal)
		w.must(err)
		w.plug.promise(func(p *promises) { p.attached[[2]string{user, terminal}] = a.Acked })
		w.must(w.s.Ack(user, terminal, a.Head))
	case 1:
		before, err := w.s.Revoke(w.t.Context(), user, int64(i+1))
		w.must(err)
		w.plug.promise(func(p *promises) { p.revoked[user] = before })
	case 2:
		w.plug.promise(func(p *promises) { delete(p.members, user) })
		_, _, _, err := w.s.PutGroup(w.t.Context(), "team", nil, 100)
		w.must(err)
		add, remove := []string{user}, []string(nil)
		if i%3 == 0 {
			add, remove = remove, add
		}
		_, _, _, err = w.s.ChangeGroup(w.t.Context(), "team", add, remove, 100)
		w.must(err)
		w.plug.promise(func(p *promises) { p.members[user] = len(add) > 0 })
	case 3:
		w.must(w.s.flushTail(1))
	case 4:
		w.must(w.s.gen.Load().db.Flush())
	case 5:
		w.must(w.s.writePositions(w.s.gen.Load(), 0))
	case 6:
		w.publish(1 + w.rand.IntN(20))
	case 7:
		w.expire()
	}
}

// expire lets the days go that end two days before the newest message that was promised.
func (w *worker) expire() {
	newest := int64(0)
	w.plug.promise(func(p *promises) {
		for n := range p.messages {
			newest = max(newest, powerDraft(n).TS)
		}
		if newest -= 2 * dayMillis; newest > p.expired {
			p.expired = newest
		}
	})
	if newest > 0 {
		_, err := w.s.Expire(w.t.Context(), time.UnixMilli(newest).Add(storetest.Retention))
		w.must(err)
	}
}

// publish takes events from the outbox.
func (w *worker) publish(n int) {
	list, err := w.s.Outbox(w.t.Context(), 0, n)
	w.must(err)
	var ids []uint64
	for _, e := range list {
		ids = append(ids, e.ID)
	}
	w.plug.promise(func(p *promises) {
		for _, e := range list {
			if e.Message != nil {
				p.told[e.Message.ID] = true
			}
		}
	})
	w.must(w.s.Published(w.t.Context(), 0, ids))
}

// TestPower fails the power while a store works, and while what is left opens.
func TestPower(t *testing.T) {
	t.Parallel()
	for round := range crashRounds(t, 1) {
		r := powerRun{t: t, seed: uint64(time.Now().UnixNano())}
		if err := r.run(round); err != nil {
			t.Fatalf("seed %d: %v", r.seed, err)
		}
	}
}

// The same test finds a store that promises before the sync.
func TestPowerFindsEarlyPromises(t *testing.T) {
	t.Parallel()
	for round := range 10 {
		r := powerRun{t: t, seed: uint64(time.Now().UnixNano()), early: true}
		if r.run(round) != nil {
			return
		}
	}
	t.Fatal("10 rounds of a store that promises before the sync lost nothing")
}

// run returns what is wrong with what the power left, nil for nothing.
func (r *powerRun) run(round int) error {
	disk := vfs.NewCrashableMem()
	disk.TestingSetDiskUsage(hugeDisk)
	p := &plug{disk: disk, rand: rand.New(rand.NewPCG(r.seed, 1)), odds: 12 + round%20, left: 25, known: newPromises()}
	w := &worker{t: r.t, plug: p, rand: rand.New(rand.NewPCG(r.seed, 2))}
	for range 2 { // and opened again
		s, err := r.open(p.on())
		if err != nil {
			return err
		}
		w.s = s
		w.commit()
		var beside sync.WaitGroup
		o := *w
		o.rand = rand.New(rand.NewPCG(r.seed, 3))
		beside.Go(func() {
			for i := range 60 {
				o.other(i)
			}
		})
		for range 40 {
			if w.commit(); w.rand.IntN(4) == 0 {
				w.recall()
			}
		}
		beside.Wait()
		w.must(s.Close())
	}
	for _, b := range p.found {
		if err := r.check(b, true); err != nil {
			return fmt.Errorf("power off at %s: %w", b.op, err)
		}
	}
	return nil
}

// check opens what was left. again: the power fails while it opens, too.
func (r *powerRun) check(b *blackout, again bool) error {
	p := &plug{disk: b.disk, rand: rand.New(rand.NewPCG(r.seed, 4)), odds: 10, left: 3, known: b.promises}
	if !again {
		p.left = 0
	}
	for range 2 {
		s, err := r.open(p.on())
		if err != nil {
			return err
		}
		if err := errors.Join(b.verify(r.t.Context(), s), s.Close()); err != nil {
			return err
		}
	}
	for _, next := range p.found {
		if err := r.check(next, false); err != nil {
			return fmt.Errorf("power off again at %s: %w", next.op, err)
		}
	}
	return nil
}

func (b *blackout) verify(ctx context.Context, s *Store) error {
	for _, f := range []func(context.Context, *Store) error{b.verifyMessages, b.verifyOutbox, b.verifyInboxes, b.verifyUsers, b.verifyRetries} {
		if err := f(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (b *blackout) verifyMessages(ctx context.Context, s *Store) error {
	for n, seq := range b.messages {
		if b.gone(n) {
			continue
		}
		d := powerDraft(n)
		after := seq - 1
		list, _, err := s.History(ctx, d.Conv, nil, &after, 1)
		switch {
		case err != nil:
			return fmt.Errorf("message %d: %w", n, err)
		case len(list) != 1 || list[0].Seq != seq || list[0].ID != string(d.ID):
			return fmt.Errorf("message %d, %s %d: %+v", n, d.Conv, seq, list)
		case b.recalled[n] && !list[0].Recalled:
			return fmt.Errorf("message %d is not recalled", n)
		case !list[0].Recalled && string(list[0].Content) != string(d.Content):
			return fmt.Errorf("message %d has content %s", n, list[0].Content)
		}
	}
	return nil
}

// verifyOutbox reads all events and publishes them, but for the first page.
func (b *blackout) verifyOutbox(ctx context.Context, s *Store) error {
	told := map[string]bool{}
	for {
		list, err := s.Outbox(ctx, 0, 1000)
		if err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
		if len(list) == 0 {
			break
		}
		var ids []uint64
		for _, e := range list {
			if ids = append(ids, e.ID); e.Message != nil {
				told[e.Message.ID] = true
			}
		}
		if err := s.Published(ctx, 0, ids); err != nil {
			return fmt.Errorf("published: %w", err)
		}
	}
	for n := range b.messages {
		if id := crashID(n); !told[id] && !b.told[id] && !b.gone(n) {
			return fmt.Errorf("message %d is not in the outbox and was not published", n)
		}
	}
	maps.Copy(b.told, told)
	return nil
}

// verifyInboxes reads all inboxes: contiguous, and every promised message once.
func (b *blackout) verifyInboxes(ctx context.Context, s *Store) error {
	found := map[string]int{}
	for u := range crashUsers {
		user := fmt.Sprint("u", u)
		for after, more := uint64(0), true; more; {
			list, box, m, err := s.ReadInbox(ctx, user, after, 100)
			if err != nil {
				return fmt.Errorf("inbox of %s: %w", user, err)
			}
			after = max(after, box.First-1)
			for _, e := range list {
				if after++; e.Inbox != after {
					return fmt.Errorf("inbox of %s: %d, want %d", user, e.Inbox, after)
				}
				found[user+" "+e.ID]++
			}
			more = m
		}
	}
	for n := range b.messages {
		if b.gone(n) {
			continue
		}
		d := powerDraft(n)
		peer, _ := store.Peer(d.Conv, d.From)
		if from, to := found[d.From+" "+crashID(n)], found[peer+" "+crashID(n)]; from != 1 || to != 1 {
			return fmt.Errorf("message %d is %d and %d times in the inboxes", n, from, to)
		}
	}
	return nil
}

func (b *blackout) verifyUsers(ctx context.Context, s *Store) error {
	for u := range crashUsers {
		user := fmt.Sprint("u", u)
		box, err := s.Head(ctx, user)
		if err != nil {
			return err
		}
		positions, err := s.Positions(ctx, user)
		if err != nil {
			return err
		}
		for terminal, at := range positions {
			if at > box.Head {
				return fmt.Errorf("%s %s stands at %d of %d", user, terminal, at, box.Head)
			}
		}
		for key, want := range b.attached {
			if at, ok := positions[key[1]]; key[0] == user && (!ok || at < want) {
				return fmt.Errorf("%v stands at %d, %v, want %d", key, at, ok, want)
			}
		}
		if before, err := s.RevokedBefore(ctx, user); err != nil || before < b.revoked[user] {
			return fmt.Errorf("revoked before %d, want %d (%w)", before, b.revoked[user], err)
		}
		if want, known := b.members[user]; known {
			if _, member, err := s.IsMember(ctx, "team", user); err != nil || member != want {
				return fmt.Errorf("%s: member %v, want %v (%w)", user, member, want, err)
			}
		}
	}
	return nil
}

// verifyRetries sends again what was promised, and something new.
func (b *blackout) verifyRetries(ctx context.Context, s *Store) error {
	var drafts []*store.Draft
	var want []uint64
	for n, seq := range b.messages {
		if b.gone(n) {
			continue
		}
		if drafts, want = append(drafts, powerDraft(n)), append(want, seq); len(drafts) == 100 {
			break
		}
	}
	p, err := s.Commit(ctx, 0, 0, append(drafts, crashDraft(2_000_000)))
	if err != nil {
		return err
	}
	results, err := p.Wait()
	if err != nil {
		return err
	}
	for i, seq := range want {
		if r := results[i]; r.Outcome != store.Duplicate || r.Seq != seq {
			return fmt.Errorf("retry of %s: %+v, want a duplicate of %d", drafts[i].ID, r, seq)
		}
	}
	p.Release()
	return nil
}
