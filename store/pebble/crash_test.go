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
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/store"
)

// The crash test runs this test binary again as a process that commits, is killed at a random moment, and is looked
// at: what it was promised must be there, once and in order. A line of its output is one promise.
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
	o := Options{Dir: dir, AckBeforeSync: os.Getenv(crashEarlyEnv) != "", tailBytes: 64 << 10}
	s, err := open(o)
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	out := bufio.NewWriter(os.Stdout)
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
			for i := range results {
				_, _ = fmt.Fprintf(out, "%d %d\n", p.first+i, results[i].Seq)
			}
			p.p.Release()
			_ = out.Flush()
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

// crashRound runs a child until it has made some promises, kills it and returns them.
func crashRound(t *testing.T, dir string, promises int, early bool) map[int]uint64 {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashChildEnv+"="+dir)
	if early {
		cmd.Env = append(cmd.Env, crashEarlyEnv+"=1")
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	made := map[int]uint64{}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		var n int
		var seq uint64
		if _, err := fmt.Sscanf(line, "%d %d\n", &n, &seq); err != nil {
			t.Fatalf("child: %s", line)
		}
		made[n] = seq
		if len(made) == promises {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	return made
}

// lost opens the store after a crash and counts promises that were broken.
func lost(t *testing.T, dir string, promised map[int]uint64) (n int) {
	t.Helper()
	s := openTest(t, Options{Dir: dir, Logf: t.Logf})
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
	for i, seq := range promised {
		d := crashDraft(i)
		to, _ := store.Peer(d.Conv, d.From)
		if found[crashID(i)+d.From] != seq || found[crashID(i)+to] != seq {
			n++
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

func TestCrash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	all := map[int]uint64{}
	for range 3 {
		for n, seq := range crashRound(t, dir, 1+r.IntN(800), false) {
			all[n] = seq
		}
		if n := lost(t, dir, all); n > 0 {
			t.Fatalf("%d of %d promises broken", n, len(all))
		}
	}
}

// The same test finds a store that promises before the sync.
func TestCrashFindsEarlyPromises(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 20 {
		if lost(t, dir, crashRound(t, dir, 100, true)) > 0 {
			return
		}
	}
	t.Fatal("20 crashes of a store that promises before the sync lost nothing")
}
