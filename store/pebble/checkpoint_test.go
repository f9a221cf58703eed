package pebble

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/store"
)

// Checkpoints beside commits, logs that change and tails that become tables: each copy opens, has all that was promised before it was
// asked for, and goes on.
func TestCheckpointUnderLoad(t *testing.T) {
	t.Parallel()
	o := testOptions(t, t.TempDir())
	o.tailBytes, o.Outbox = 20_000, true
	s := openTest(t, o)
	defer func() { _ = s.Close() }()
	const pause = 20 * time.Millisecond // paces the load, which is bounded: everything that was promised is read again at every checkpoint
	var promised sync.Map               // number → seq
	var done atomic.Bool
	var all sync.WaitGroup
	all.Go(func() {
		for n := 0; !done.Load() && n < 5_000; {
			var drafts []*store.Draft
			for range 10 {
				drafts = append(drafts, crashDraft(n+len(drafts)))
			}
			p, err := s.Commit(t.Context(), 0, 0, drafts)
			if err != nil {
				t.Error(err)
				return
			}
			results, err := p.Wait()
			if err != nil {
				t.Error(err)
				return
			}
			for _, r := range results {
				promised.Store(n, r.Seq)
				n++
			}
			p.Release()
			time.Sleep(pause)
		}
	})
	all.Go(func() {
		for !done.Load() {
			if err := s.gen.Load().db.Flush(); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(pause)
		}
	})
	dir := t.TempDir()
	for i := range 4 {
		c := &sender{t: t, promised: map[int]uint64{}}
		promised.Range(func(n, seq any) bool {
			c.promised[n.(int)] = seq.(uint64)
			return true
		})
		copied := filepath.Join(dir, fmt.Sprint(i))
		if err := s.Checkpoint(t.Context(), copied); err != nil {
			t.Fatal(err)
		}
		o.Dir = copied
		c.s = openTest(t, o)
		c.check()
		c.n = 1_000_000
		c.must(c.send(10))
		c.must(c.s.Checkpoint(t.Context(), copied+"-again"))
		c.must(c.s.Close())
		o.Dir = copied + "-again"
		c.s = openTest(t, o)
		c.check()
		c.must(c.s.Close())
	}
	done.Store(true)
	all.Wait()
}
