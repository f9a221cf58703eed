package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/client"
)

// files is the child's limit of descriptors.
const files = 200

// Out of descriptors new connections wait or are refused; those that are there go on, and when some have closed new ones come in.
// Once by admission, which stops before the last descriptor, and once with a limit of connections that is set too high, so that accept fails.
func TestOutOfDescriptors(t *testing.T) {
	for _, c := range []struct {
		name, options, result string
		least                 int // connections that must come in
	}{
		{"admission", `{}`, "limit", files / 2},
		{"EMFILE", `{"Limits":{"Connections":10000}}`, "emfile", files * 3 / 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
			defer cancel()
			p := spawn(t, t.TempDir(), fmt.Sprintf("%s=%d", envConnections, files), envOptions+"="+c.options)
			p.metrics() // the admin connection is open from here on
			pair := newPair(ctx, t, p)
			crowded := fillUp(ctx, t, p)
			if len(crowded) < c.least {
				t.Fatalf("only %d connections came in", len(crowded))
			}
			refused := p.metrics()[fmt.Sprintf("meshtalk_accepts_total{result=%q}", c.result)]
			t.Logf("%d connections came in; %v times %s", len(crowded), refused, c.result)
			if refused == 0 {
				t.Errorf("nothing counted as %s: %v", c.result, p.metrics())
			}
			pair.talk(ctx, t, 100)
			for _, one := range crowded[:20] {
				_ = one.Close()
			}
			newcomers(ctx, t, p, 10)
			pair.talk(ctx, t, 100)
			for _, one := range crowded[20:] {
				if _, err := exchange(ctx, one, `{"cmd":1,"id":"beat"}`); err != nil {
					t.Fatalf("one of those that were in: %v", err)
				}
			}
			p.unharmed()
		})
	}
}

// hung is how long a connection may be without an answer before it counts as one that did not come in.
const hung = 2 * time.Second

// The store needs descriptors too: without one it cannot go on with its log. Senders get UNAVAILABLE then, nobody loses his
// connection, and when there are descriptors again everything goes on by itself.
func TestStoreOutOfDescriptors(t *testing.T) {
	ctx := patient(t)
	disk := smallDisk(t, 2*diskSize) // a small disk has small memtables, each with a new log
	p := spawn(t, filepath.Join(disk, "data"), fmt.Sprintf("%s=%d", envConnections, files), envOptions+`={"Limits":{"Connections":10000}}`)
	p.metrics()
	users := crowdOf(4, newHistory())
	makeGroup(t, p, users)
	for _, u := range users {
		u.padding = 10_000
		var err error
		if u.conn, err = connect(ctx, p, "tcp", u.name); err != nil {
			t.Fatal(err)
		}
	}
	crowded := fillUp(ctx, t, p)
	l := startLoad(ctx, p, users)
	l.unavailable(t, len(users))
	for _, c := range crowded {
		if _, err := exchange(ctx, c, `{"cmd":1,"id":"beat"}`); err != nil {
			t.Fatalf("one of those that were in: %v", err)
		}
		_ = c.Close()
	}
	keepsAgain(t, p)
	l.acknowledged(t, 100)
	finish(t, p, l)
}

// fillUp logs users in until a connection is refused or not answered, and then a few more, of which none may come in.
func fillUp(ctx context.Context, t *testing.T, p *process) (in []*client.Conn) {
	t.Helper()
	enter := func(i int) (*client.Conn, error) {
		one, cancel := context.WithTimeout(ctx, hung)
		defer cancel()
		return connect(one, p, []string{"tcp", "websocket"}[i%2], fmt.Sprintf("crowd%d", i))
	}
	for {
		if len(in) > files {
			t.Fatalf("%d connections came in with %d descriptors", len(in), files)
		}
		c, err := enter(len(in))
		if err != nil {
			t.Logf("connection %d: %v", len(in)+1, err)
			break
		}
		t.Cleanup(func() { _ = c.Close() })
		in = append(in, c)
	}
	var late sync.WaitGroup
	var came atomic.Int32
	for i := range 8 {
		late.Go(func() {
			if c, err := enter(files + i); err == nil {
				came.Add(1)
				_ = c.Close()
			}
		})
	}
	late.Wait()
	if came.Load() > 2 { // descriptors that were in use for a moment only
		t.Errorf("%d more came in after one did not", came.Load())
	}
	return in
}

// newcomers polls until n more users have come in, who can talk to each other.
func newcomers(ctx context.Context, t *testing.T, p *process, n int) {
	t.Helper()
	for i := range n {
		until(t, "a new connection comes in", func() (any, bool) {
			one, cancel := context.WithTimeout(ctx, hung)
			defer cancel()
			c, err := connect(one, p, "tcp", fmt.Sprintf("new%d", i))
			if err != nil {
				return err, false
			}
			t.Cleanup(func() { _ = c.Close() })
			send := fmt.Sprintf(`{"cmd":3,"id":"hello","data":{"to":"new%d","content":"hello"}}`, i/2)
			if _, err := exchange(ctx, c, send); err != nil {
				t.Fatalf("a newcomer sends: %v", err)
			}
			return nil, true
		})
	}
}

// pair is two users who write to each other, by TCP and by WebSocket.
type pair struct {
	a, b *client.Conn
	name string // of a; b's has a "2" behind it
	said int
}

func newPair(ctx context.Context, t *testing.T, p *process) *pair {
	t.Helper()
	q := &pair{name: "pair"}
	var err, err2 error
	q.a, err = connect(ctx, p, "tcp", q.name)
	q.b, err2 = connect(ctx, p, "websocket", q.name+"2")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = q.a.Close()
		_ = q.b.Close()
	})
	return q
}

// talk is n round trips: a writes and is acknowledged, b gets it and writes back.
func (q *pair) talk(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	if err := q.trips(ctx, n, nil); err != nil {
		t.Fatal(err)
	}
}

// trips is talk for any goroutine; each round trip's time goes to took.
func (q *pair) trips(ctx context.Context, n int, took func(time.Duration)) error {
	for range n {
		q.said++
		begin := time.Now()
		for _, way := range []struct {
			from, to *client.Conn
			name     string
		}{{q.a, q.b, q.name + "2"}, {q.b, q.a, q.name}} {
			content := fmt.Sprintf("%d to %s", q.said, way.name)
			send := fmt.Sprintf(`{"cmd":3,"id":"%d","data":{"to":%q,"content":%q}}`, q.said, way.name, content)
			if _, err := exchange(ctx, way.from, send); err != nil {
				return fmt.Errorf("round trip %d: %w", q.said, err)
			}
			if err := awaitContent(ctx, way.to, fmt.Sprintf("%q", content)); err != nil {
				return fmt.Errorf("round trip %d: %w", q.said, err)
			}
		}
		if took != nil {
			took(time.Since(begin))
		}
	}
	return nil
}
