package bench_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meshtalk/meshtalk/bench"
	"github.com/meshtalk/meshtalk/server"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "worker" { // the tests' own worker process
		if err := bench.Worker(context.Background(), os.Stdin, os.Stdout, bench.WorkerOptions{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"))
}

// options start a server for the test and are what reaches it.
func options(t *testing.T) bench.Options {
	t.Helper()
	o := server.DefaultOptions()
	o.DataDir = t.TempDir()
	o.WebSocket.Host, o.WebSocket.Port = "127.0.0.1", 0
	o.TCP.Host, o.TCP.Port = "127.0.0.1", 0
	o.Admin.Port = 0
	o.Limits.MessagesPerSecond = 0
	o.Group.InboxLimit = 10
	o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	srv, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	b := bench.Options{WarmUp: 50 * time.Millisecond, Duration: 200 * time.Millisecond, ServerPID: os.Getpid(), AckDelay: time.Millisecond,
		AckEvery: 64, Loops: 2}
	for _, a := range srv.Addresses() {
		switch a.Name {
		case "admin":
			b.Admin = a.URL
		default:
			b.Addrs = append(b.Addrs, a.URL)
		}
	}
	if b.Secret, err = bench.ReadSecret(filepath.Join(o.DataDir, "jwt.key")); err != nil {
		t.Fatal(err)
	}
	if b.Sources, err = bench.ParseSources("127.0.1.1-127.0.1.3"); err != nil {
		t.Fatal(err)
	}
	return b
}

// mustPass checks what every good run has.
func mustPass(t *testing.T, r *bench.Result, err error, connections int) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK || r.Logins.Count != connections {
		t.Fatalf("failures %v with %d of %d connections: %q", r.Failures, r.Logins.Count, connections, r.Evidence)
	}
}

// longer calls run with a duration that grows until it has seen enough. A stall of the disk or of the machine may last longer than the
// shortest run, and one in which nothing happened says nothing.
func longer(t *testing.T, o bench.Options, run func(bench.Options) (enough bool)) {
	t.Helper()
	const longest = 10 * time.Second
	for ; o.Duration <= longest; o.Duration *= 3 {
		if run(o) {
			return
		}
	}
	t.Fatalf("nothing came by in %s that the test could look at", longest)
}

// passing is a good run in which enough was measured.
func passing(t *testing.T, o bench.Options, connections int, run func(bench.Options) (*bench.Result, error), enough func(*bench.Result) bool) (r *bench.Result) {
	t.Helper()
	longer(t, o, func(o bench.Options) bool {
		var err error
		r, err = run(o)
		mustPass(t, r, err, connections)
		return enough(r)
	})
	return r
}

// measured tells that messages were sent and came within the time that counts.
func measured(r *bench.Result) bool {
	return r.Messages != nil && r.Messages.DeliveredRate > 0 && r.Delivery != nil && r.Delivery.Count > 0
}

func TestPrivate(t *testing.T) {
	o := options(t)
	for name, po := range map[string]bench.PrivateOptions{
		"closed loop": {Pairs: 5, InFlight: 8, Size: 100},
		"open loop":   {Pairs: 3, Rate: 500},
	} {
		t.Run(name, func(t *testing.T) {
			var sending time.Duration
			r := passing(t, o, 2*po.Pairs, func(o bench.Options) (*bench.Result, error) {
				sending = o.WarmUp + o.Duration
				return bench.Private(t.Context(), o, po)
			}, measured)
			if r.Messages.Delivered != r.Messages.Sent || r.Messages.Acked != r.Messages.Sent {
				t.Errorf("messages %+v, delivery %+v", r.Messages, r.Delivery)
			}
			want := int64(po.Rate * sending.Seconds())
			if po.Rate > 0 && (r.Messages.Sent < want || r.Messages.Sent > want+int64(o.Loops)) {
				t.Errorf("the open loop sent %d", r.Messages.Sent)
			}
			if r.Server == nil || r.Server.RSSAnon == 0 || r.Load.CPUSeconds == 0 {
				t.Errorf("server %+v, load %+v", r.Server, r.Load)
			}
		})
	}
}

func TestGroups(t *testing.T) {
	o := options(t)
	for name, g := range map[string]bench.GroupOptions{
		"small": {Groups: 3, Members: 4, InFlight: 2},
		"large": {Groups: 1, Members: 30, InFlight: 3},
		"rate":  {Groups: 2, Members: 5, Rate: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := bench.Group(t.Context(), o, g)
			mustPass(t, r, err, g.Groups*g.Members)
			if r.Messages == nil || r.Messages.Delivered != r.Messages.Sent*int64(g.Members) || r.Messages.Acked != r.Messages.Sent {
				t.Errorf("messages %+v", r.Messages)
			}
		})
	}
}

func TestFanout(t *testing.T) {
	o := options(t)
	for name, g := range map[string]bench.GroupOptions{
		"in inboxes": {Members: 8, InFlight: 3},
		"large":      {Members: 31, InFlight: 1},
		"in flight":  {Members: 31, InFlight: 64},
		"rate":       {Members: 20, Rate: 2000},
	} {
		t.Run(name, func(t *testing.T) {
			r := passing(t, o, g.Members, func(o bench.Options) (*bench.Result, error) { return bench.Fanout(t.Context(), o, g) },
				func(r *bench.Result) bool { return measured(r) && r.Messages.Sent >= 2 })
			if r.Messages.Delivered != r.Messages.Sent*int64(g.Members) || r.Messages.Acked != r.Messages.Sent {
				t.Errorf("messages %+v", r.Messages)
			}
		})
	}
}

func TestEcho(t *testing.T) {
	o := options(t)
	for name, procs := range map[string]int{"one process": 0, "processes": 2} {
		t.Run(name, func(t *testing.T) {
			o := o
			o.Procs = procs
			r := passing(t, o, 5, func(o bench.Options) (*bench.Result, error) {
				return bench.Echo(t.Context(), o, bench.EchoOptions{Connections: 5, InFlight: 8})
			}, func(r *bench.Result) bool { return measured(r) && r.Messages.Sent >= 40 })
			if r.Messages.Delivered != r.Messages.Sent {
				t.Errorf("messages %+v, delivery %+v", r.Messages, r.Delivery)
			}
		})
	}
}

func TestIdle(t *testing.T) {
	o := options(t)
	o.Duration, o.HeartBeat = 100*time.Millisecond, 20*time.Millisecond
	r, err := bench.Idle(t.Context(), o, bench.IdleOptions{Steps: []int{20, 60}, Collect: true})
	mustPass(t, r, err, 60)
	if len(r.Memory) != 2 || r.Memory[0].Connections != 20 || r.Memory[1].Connections != 60 || r.Memory[1].RSSAnon == 0 {
		t.Errorf("memory %+v", r.Memory)
	}
}

func TestBadTokenIsFound(t *testing.T) {
	o := options(t)
	o.Secret = []byte("0123456789abcdef0123456789abcdef")
	r, err := bench.Private(t.Context(), o, bench.PrivateOptions{Pairs: 2, InFlight: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r.OK || r.Failures["login failed"] != 4 || r.Failures["error UNAUTHORIZED"] != 4 {
		t.Errorf("failures %v, %q", r.Failures, r.Evidence)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	o := options(t)
	o.Duration = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if r, err := bench.Private(ctx, o, bench.PrivateOptions{Pairs: 2, InFlight: 1}); err == nil {
		t.Errorf("got %+v", r)
	}
}

func TestMix(t *testing.T) {
	o := options(t)
	day, err := bench.ParseMix([]byte(`
users: 48
members: 4
steps:
  - {name: night, for: 200ms, online: 12, private: 300, group: 30, typing: 50, history: 50, reconnects: 40}
  - {name: day, ramp: 200ms, for: 200ms, online: 48, private: 600}
  - {name: evening, ramp: 100ms, online: 8}
`))
	if err != nil {
		t.Fatal(err)
	}
	for name, how := range map[string]struct{ members, procs int }{"in inboxes": {4, 0}, "large": {24, 0}, "processes": {6, 2}} {
		t.Run(name, func(t *testing.T) {
			o, day := o, day
			day.Members, o.Procs = how.members, how.procs
			r, err := bench.Mix(t.Context(), o, day)
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK || len(r.Mix) != 3 || r.Logins.Count != day.Users {
				t.Fatalf("failures %v, %d logins: %q", r.Failures, r.Logins.Count, r.Evidence)
			}
			pages, logins := int64(0), int64(0)
			for _, s := range r.Mix {
				pages, logins = pages+s.History.Count, logins+s.Login.Count
				if s.Delivery.Count+s.Late == 0 || s.Accept.Count == 0 {
					t.Errorf("step %+v", s)
				}
			}
			if pages == 0 || logins == 0 {
				t.Errorf("%d pages read, %d logins", pages, logins)
			}
			if r.Messages == nil || r.Messages.Acked != r.Messages.Sent {
				t.Errorf("messages %+v", r.Messages)
			}
		})
	}
}
