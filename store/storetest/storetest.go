// Package storetest is the executable meaning of store.Store: every backend passes Run unchanged.
package storetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/store"
)

// What a backend is opened with for the suite.
const (
	InboxLimit   = 5
	Retention    = 30 * 24 * time.Hour
	DedupeWindow = 7 * 24 * time.Hour
)

// Backend is one empty store for one test. Open opens it, and again after Close; it fails the test if it cannot. OpenCopy opens a
// directory that Checkpoint wrote; nil if the backend has no checkpoints. OpenOutbox is Open with an outbox.
type Backend struct {
	Open       func() store.Store
	OpenCopy   func(dir string) store.Store
	OpenOutbox func() store.Store
	// Offsets: commits move the offset of their partition; an embedded store has none.
	Offsets bool
}

// Run runs the suite. New makes a Backend and cleans it up with the test.
func Run(t *testing.T, New func(t *testing.T) Backend) {
	for name, test := range map[string]func(*testing.T, Backend){
		"sequences":          testSequences,
		"order of a batch":   testBatchOrder,
		"overlapping":        testOverlap,
		"time":               testTime,
		"repeats":            testRepeats,
		"repeats expire":     testRepeatsExpire,
		"kinds":              testKinds,
		"refusals":           testRefusals,
		"promised":           testPromised,
		"offset":             testOffset,
		"groups":             testGroups,
		"group limits":       testGroupLimits,
		"members":            testMembers,
		"membership":         testMembership,
		"large groups":       testLarge,
		"large positions":    testLargePositions,
		"large return":       testLargeReturn,
		"recall":             testRecall,
		"recall in a batch":  testRecallInBatch,
		"recall in groups":   testRecallGroup,
		"inbox pages":        testInboxPages,
		"history":            testHistory,
		"byte limits":        testByteLimits,
		"read and unread":    testUnread,
		"unread in groups":   testUnreadGroup,
		"peer positions":     testPeer,
		"conversations":      testConversations,
		"conversation pages": testConversationPages,
		"positions":          testPositions,
		"acks at once":       testAcksAtOnce,
		"attach":             testAttach,
		"revoke":             testRevoke,
		"seen":               testSeen,
		"expire":             testExpire,
		"expire everything":  testExpireAll,
		"reopen":             testReopen,
		"checkpoint":         testCheckpoint,
		"closed":             testClosed,
		"readers":            testReaders,
		"attach at once":     testAttachAtOnce,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait for syncs most of the time
			test(t, New(t))
		})
	}
	for name, test := range map[string]func(*testing.T, Backend){
		"outbox":           testOutbox,
		"outbox recall":    testOutboxRecall,
		"outbox positions": testOutboxPositions,
		"outbox expire":    testOutboxExpire,
		"outbox bytes":     testOutboxBytes,
		"outbox publisher": testOutboxPublisher,
		"no outbox":        testNoOutbox,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, New(t))
		})
	}
	t.Run("model", func(t *testing.T) {
		t.Parallel()
		testModel(t, New)
	})
}

// noon of a day long ago; day is one of the buckets that retention drops.
const (
	noon = int64(1_700_049_600_000) // 2023-11-15 12:00 UTC
	day  = int64(86_400_000)
)

var ctx = context.Background()

// tb is what the verbs need of a test; the model's tests are rapid's.
type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// box is a store with short verbs.
type box struct {
	store.Store
	t  tb
	ts int64 // of the next draft; moves by one
	n  int   // for ids
}

func open(t *testing.T, b Backend) *box {
	s := &box{Store: b.Open(), t: t, ts: noon}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && err != store.ErrClosed {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func (b *box) reopen(be Backend) {
	b.t.Helper()
	b.must(b.Close())
	b.Store = be.Open()
}

func (b *box) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// draft fills in what a server fills in: an id of its own if none is given, the msgId and the time.
func (b *box) draft(d store.Draft) *store.Draft {
	if d.ID == nil {
		b.n++
		d.ID = fmt.Appendf(nil, "id-%d", b.n)
	}
	if d.Content == nil && d.Kind != store.Recall {
		d.Content = fmt.Appendf(nil, `"content of %s"`, d.ID)
	}
	if d.TS == 0 {
		b.ts++
		d.TS = b.ts
	}
	sum := sha256.Sum256(append([]byte(d.From+"\x00"), d.ID...))
	copy(d.MsgID[:], sum[:])
	return &d
}

func (b *box) private(from, to string) *store.Draft {
	return b.draft(store.Draft{Kind: store.Private, From: from, Conv: store.PrivateConv(from, to)})
}

func (b *box) group(from, group string) *store.Draft {
	kind := store.Group
	if from == "" {
		kind = store.System
	}
	return b.draft(store.Draft{Kind: kind, From: from, Conv: store.GroupConv(group)})
}

func (b *box) system(to string) *store.Draft {
	return b.draft(store.Draft{Kind: store.System, Conv: store.SystemConv(to)})
}

func (b *box) recall(from, conv string, target uint64) *store.Draft {
	return b.draft(store.Draft{Kind: store.Recall, From: from, Conv: conv, Target: target})
}

// commit commits and waits. The results own their memory.
func (b *box) commit(drafts ...*store.Draft) []store.Result {
	b.t.Helper()
	p, err := b.Commit(ctx, 0, 0, drafts)
	b.must(err)
	return b.wait(p)
}

func (b *box) wait(p store.Pending) []store.Result {
	b.t.Helper()
	results, err := p.Wait()
	b.must(err)
	list := make([]store.Result, len(results))
	for i, r := range results {
		r.Entries = append([]store.Entry(nil), r.Entries...)
		list[i] = r
	}
	p.Release()
	return list
}

// stored commits drafts that must all be stored.
func (b *box) stored(drafts ...*store.Draft) []store.Result {
	b.t.Helper()
	results := b.commit(drafts...)
	for i, r := range results {
		if r.Outcome != store.Stored {
			b.t.Fatalf("draft %d of %d: outcome %d, want stored", i, len(drafts), r.Outcome)
		}
	}
	return results
}

func (b *box) one(d *store.Draft) store.Result {
	b.t.Helper()
	return b.stored(d)[0]
}

func (b *box) outcome(d *store.Draft, want store.Outcome) store.Result {
	b.t.Helper()
	r := b.commit(d)[0]
	if r.Outcome != want {
		b.t.Fatalf("outcome %d, want %d", r.Outcome, want)
	}
	if want != store.Stored && (len(r.Entries) > 0 || r.TargetFrom != "") {
		b.t.Fatalf("outcome %d with %+v", want, r)
	}
	return r
}

// inbox reads the whole inbox and checks that it has no hole.
func (b *box) inbox(user string) []store.InboxEntry {
	b.t.Helper()
	return b.inboxAfter(user, 0)
}

func (b *box) inboxAfter(user string, after uint64) (all []store.InboxEntry) {
	b.t.Helper()
	for more := true; more; {
		list, box, m, err := b.ReadInbox(ctx, user, after, 3)
		b.must(err)
		if more = m; m && len(list) == 0 {
			b.t.Fatalf("inbox of %s: more, but nothing after %d", user, after)
		}
		for _, e := range list {
			if e.Inbox != max(after+1, box.First) {
				b.t.Fatalf("inbox of %s: %d after %d", user, e.Inbox, after)
			}
			after = e.Inbox
			all = append(all, e)
		}
		if !m && len(list) > 0 && after < box.Head {
			b.t.Fatalf("inbox of %s ends at %d of %d", user, after, box.Head)
		}
	}
	return all
}

func (b *box) history(conv string) []store.Message {
	b.t.Helper()
	after := uint64(0)
	var all []store.Message
	for more := true; more; {
		list, m, err := b.History(ctx, conv, nil, &after, 3)
		b.must(err)
		if more = m; len(list) > 0 {
			after = list[len(list)-1].Seq
		}
		all = append(all, list...)
	}
	return all
}

// conversations reads all pages, limit lines each.
func (b *box) conversations(user string, limit int) (all []store.Conversation) {
	b.t.Helper()
	for cursor, first := "", true; first || cursor != ""; first = false {
		list, next, err := b.Conversations(ctx, user, cursor, limit)
		b.must(err)
		if len(list) > limit || next != "" && len(list) == 0 {
			b.t.Fatalf("page of %d, next %q", len(list), next)
		}
		all, cursor = append(all, list...), next
	}
	return all
}

// conversation is the user's line of one conversation.
func (b *box) conversation(user, conv string) store.Conversation {
	b.t.Helper()
	for _, c := range b.conversations(user, 100) {
		if c.Conv == conv {
			return c
		}
	}
	b.t.Fatalf("%s has no conversation %s", user, conv)
	return store.Conversation{}
}

func (b *box) putGroup(group string, members ...string) store.GroupInfo {
	b.t.Helper()
	info, _, _, err := b.PutGroup(ctx, group, append([]string{}, members...), 1000)
	b.must(err)
	return info
}

func equal[T comparable](t tb, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func same(t tb, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Fatalf("%s:\n%s, want\n%s", what, g, w)
	}
}
