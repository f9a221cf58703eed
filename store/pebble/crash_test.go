package pebble

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/store"
)

// The crash test runs this test binary again as a process that commits, is killed at a random moment, and is looked
// at: what it was promised must be there, once and in order, and what it did not publish must still be in the outbox. A line of its
// output is one promise, or an event that was published.
const (
	crashChildEnv = "MESHTALK_STORE_CRASH_DIR"
	crashEarlyEnv = "MESHTALK_STORE_CRASH_EARLY" // breaks the promise
	crashUsers    = 7
)

func crashID(n int) string { return fmt.Sprintf("id-%d", n) }

func crashDraft(n int) *store.Draft {
	from, to := fmt.Sprint("u", n%crashUsers), fmt.Sprint("u", (n/crashUsers)%crashUsers)
	d := &store.Draft{Kind: store.Private, From: from, Conv: store.PrivateConv(from, to), ID: []byte(crashID(n)),
		Content: fmt.Appendf(nil, `"message %d %s"`, n, strings.Repeat("x", n%300)), TS: 1_700_000_000_000 + int64(n)}
	sum := sha256.Sum256(d.ID)
	copy(d.MsgID[:], sum[:])
	return d
}

// crashChild commits from where the store stands until it is killed.
func crashChild(dir string) {
	o := Options{Dir: dir, Outbox: true, AckBeforeSync: os.Getenv(crashEarlyEnv) != "", tailBytes: 64 << 10}
	s, err := open(o)
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	out := &lineWriter{w: os.Stdout}
	go crashPublish(s, out)
	begin := 0
	for u := range crashUsers { // go on behind everything that was ever tried
		box, err := s.Head(context.Background(), fmt.Sprint("u", u))
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		begin += int(box.Head)
	}
	type promise struct {
		p     store.Pending
		first int
		n     int
	}
	pendings := make(chan promise, 2)
	go func() {
		for p := range pendings {
			results, err := p.p.Wait()
			if err != nil {
				fmt.Println("failed:", err)
				os.Exit(1)
			}
			var lines []byte
			for i := range results {
				lines = fmt.Appendf(lines, "%d %d\n", p.first+i, results[i].Seq)
			}
			p.p.Release()
			out.write(lines)
		}
	}()
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	for n := begin; ; {
		var drafts []*store.Draft
		first := n
		for range 1 + r.IntN(20) {
			drafts = append(drafts, crashDraft(n))
			n++
		}
		p, err := s.Commit(context.Background(), 0, 0, drafts)
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		pendings <- promise{p, first, len(drafts)}
	}
}

// lineWriter writes lines of several goroutines.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (w *lineWriter) write(lines []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = w.w.Write(lines)
}

// crashPublish publishes what the outbox has, some of it late.
func crashPublish(s *Store, out *lineWriter) {
	for n := 0; ; n++ {
		list, err := s.Outbox(context.Background(), 0, 1+n%50)
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		var lines []byte
		var ids []uint64
		for i, e := range list {
			lines = fmt.Appendf(lines, "%s %d %s\n", e.Conv, e.Seq, e.Message.ID)
			if (n+i)%5 != 0 {
				ids = append(ids, e.ID)
			}
		}
		out.write(lines)
		if err := s.Published(context.Background(), 0, ids); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		if len(list) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// crashes is what is known of a store that is killed again and again.
type crashes struct {
	dir      string
	early    bool // the store breaks its promises
	promised map[int]uint64
	told     map[string]bool   // ids that were published
	order    map[string]uint64 // how far a conversation was
}

func newCrashes(dir string) *crashes {
	return &crashes{dir: dir, promised: map[int]uint64{}, told: map[string]bool{}, order: map[string]uint64{}}
}

// published notes an event. Repeats are fair, a hole is not.
func (c *crashes) published(t *testing.T, conv string, seq uint64, id string) {
	t.Helper()
	if seq > c.order[conv]+1 {
		t.Fatalf("event of %s: %d after %d", conv, seq, c.order[conv])
	}
	c.order[conv] = max(c.order[conv], seq)
	c.told[id] = true
}

// crashRound runs a child until it has made some promises, kills it and notes them.
func (c *crashes) round(t *testing.T, promises int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashChildEnv+"="+c.dir)
	if c.early {
		cmd.Env = append(cmd.Env, crashEarlyEnv+"=1")
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	made := 0
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		var n int
		var seq uint64
		var conv, id string
		if _, err := fmt.Sscanf(line, "p:%s %d %s\n", &conv, &seq, &id); err == nil {
			if !c.early {
				c.published(t, "p:"+conv, seq, id)
			}
			continue
		}
		if _, err := fmt.Sscanf(line, "%d %d\n", &n, &seq); err != nil {
			t.Fatalf("child: %s", line)
		}
		c.promised[n] = seq
		if made++; made == promises {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
}

// drain reads the outbox to its end.
func (c *crashes) drain(t *testing.T, s *Store) {
	t.Helper()
	for {
		list, err := s.Outbox(context.Background(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			return
		}
		var ids []uint64
		for _, e := range list {
			c.published(t, e.Conv, e.Seq, e.Message.ID)
			ids = append(ids, e.ID)
		}
		if err := s.Published(context.Background(), 0, ids); err != nil {
			t.Fatal(err)
		}
	}
}

// lost opens the store after a crash and counts promises that were broken.
func (c *crashes) lost(t *testing.T) (n int) {
	t.Helper()
	s := openTest(t, Options{Dir: c.dir, Outbox: true, Logf: t.Logf})
	defer func() { _ = s.Close() }()
	found := map[string]uint64{} // id → seq
	for u := range crashUsers {
		user := fmt.Sprint("u", u)
		for after, more := uint64(0), true; more; {
			list, _, m, err := s.ReadInbox(context.Background(), user, after, 500)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				if after++; e.Inbox != after {
					t.Fatalf("%s: %d, want %d", user, e.Inbox, after)
				}
				if seq, twice := found[e.ID+user]; twice {
					t.Fatalf("%s has %s twice: %d and %d", user, e.ID, seq, e.Seq)
				}
				found[e.ID+user] = e.Seq
			}
			more = m
		}
	}
	for i, seq := range c.promised {
		d := crashDraft(i)
		to, _ := store.Peer(d.Conv, d.From)
		if found[crashID(i)+d.From] != seq || found[crashID(i)+to] != seq {
			n++
		}
	}
	if n == 0 && !c.early {
		c.drain(t, s)
		for i := range c.promised {
			if !c.told[crashID(i)] {
				t.Fatalf("message %d was never published and is not in the outbox", i)
			}
		}
	}
	// The retry of what was not promised does not double it.
	var drafts []*store.Draft
	for i := range 50 {
		drafts = append(drafts, crashDraft(i))
	}
	p, err := s.Commit(context.Background(), 0, 0, drafts)
	if err != nil {
		t.Fatal(err)
	}
	results, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if seq, kept := found[string(drafts[i].ID)+drafts[i].From]; kept && (r.Outcome != store.Duplicate || r.Seq != seq) {
			t.Fatalf("retry of %s: %+v, want a duplicate of %d", drafts[i].ID, r, seq)
		}
	}
	return n
}

// crashRounds is how many rounds a crash test makes: MESHTALK_STORE_CRASH_ROUNDS, for a long run, or a few.
func crashRounds(t *testing.T, usual int) int {
	text := os.Getenv("MESHTALK_STORE_CRASH_ROUNDS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCrash(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	c := newCrashes(t.TempDir())
	for range crashRounds(t, 3) {
		c.round(t, 1+r.IntN(800))
		if n := c.lost(t); n > 0 {
			t.Fatalf("%d of %d promises broken", n, len(c.promised))
		}
	}
}

// The same test finds a store that promises before the sync.
func TestCrashFindsEarlyPromises(t *testing.T) {
	t.Parallel()
	c := newCrashes(t.TempDir())
	c.early = true
	for range 20 {
		c.promised = map[int]uint64{}
		if c.round(t, 100); c.lost(t) > 0 {
			return
		}
	}
	t.Fatal("20 crashes of a store that promises before the sync lost nothing")
}
