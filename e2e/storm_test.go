package e2e_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/client"
)

const (
	stormOnline = 2_000                  // sessions that stay
	stormLogins = 5_000                  // that come and go meanwhile
	stormBeat   = 500 * time.Millisecond // between the heartbeats of one session
)

// 2,000 sessions keep their heartbeats answered while 5,000 others log in and out: none of them is disturbed, none closed.
func TestLoginStorm(t *testing.T) {
	ctx := patient(t)
	p := spawn(t, t.TempDir())
	online := make([]*client.Conn, stormOnline)
	each(t, len(online), func(i int) (err error) {
		online[i], err = connect(ctx, p, []string{"tcp", "websocket"}[i%2], fmt.Sprintf("online%d", i))
		return err
	})
	var beats atomic.Int64
	var worst atomic.Int64 // ns
	stop := make(chan struct{})
	var hearts sync.WaitGroup
	for i, c := range online {
		t.Cleanup(func() { _ = c.Close() })
		hearts.Go(func() {
			for n := 0; ; n++ {
				begin := time.Now()
				if _, err := exchange(ctx, c, fmt.Sprintf(`{"cmd":1,"id":"%d"}`, n)); err != nil {
					t.Errorf("session %d, heartbeat %d: %v", i, n, err)
					return
				}
				beats.Add(1)
				for took := int64(time.Since(begin)); ; {
					if w := worst.Load(); took <= w || worst.CompareAndSwap(w, took) {
						break
					}
				}
				select {
				case <-stop:
					return
				case <-time.After(stormBeat):
				}
			}
		})
	}
	begin := time.Now()
	each(t, stormLogins, func(i int) error {
		c, err := connect(ctx, p, []string{"tcp", "websocket"}[i%2], fmt.Sprintf("guest%d", i))
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if _, err := exchange(ctx, c, `{"cmd":18,"id":"bye"}`); err != nil {
			return err
		}
		return ended(ctx, c)
	})
	took := time.Since(begin)
	close(stop)
	hearts.Wait()
	t.Logf("%d logins and logouts in %v; meanwhile %d heartbeats, the slowest answered after %v",
		stormLogins, took.Round(time.Millisecond), beats.Load(), time.Duration(worst.Load()).Round(time.Millisecond))
	if n := beats.Load(); n < stormOnline {
		t.Errorf("only %d heartbeats of %d sessions", n, stormOnline)
	}
	m := p.metrics()
	if n := m["meshtalk_sessions"]; n != stormOnline {
		t.Errorf("%v sessions are left of %d", n, stormOnline)
	}
	if n := m[`meshtalk_logins_total{result="ok"}`]; n != stormOnline+stormLogins {
		t.Errorf("%v logins", n)
	}
	p.unharmed()
}

// each calls f for 0 … n-1, 64 at a time.
func each(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var next atomic.Int64
	var workers sync.WaitGroup
	errs := make([]error, 64)
	for w := range errs {
		workers.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1) - 1)
				if i >= n {
					return
				}
				errs[w] = f(i)
			}
		})
	}
	workers.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
