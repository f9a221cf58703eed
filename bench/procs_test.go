package bench_test

import (
	"context"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/bench"
)

// Every scenario gives the same counts when it is spread over processes.
func TestProcs(t *testing.T) {
	o := options(t)
	o.Procs, o.Duration = 2, 1200*time.Millisecond
	t.Run("private", func(t *testing.T) {
		r, err := bench.Private(t.Context(), o, bench.PrivateOptions{Pairs: 5, Rate: 500})
		mustPass(t, r, err, 10)
		if r.Processes != 2 || r.Messages == nil || r.Messages.Sent < 550 || r.Messages.Delivered != r.Messages.Sent || r.Delivery.Count < 500 {
			t.Errorf("%d processes, messages %+v, delivery %+v", r.Processes, r.Messages, r.Delivery)
		}
		if r.Load.CPUSeconds == 0 || r.Load.MaxStall == 0 || r.Server == nil || len(r.Metrics) == 0 {
			t.Errorf("load %+v, server %+v", r.Load, r.Server)
		}
		if !slices.ContainsFunc(r.Series, func(s bench.Sample) bool { return s.Delivery != nil && s.Connections == 10 }) {
			t.Errorf("series %+v", r.Series)
		}
	})
	o.Duration = 200 * time.Millisecond
	t.Run("group", func(t *testing.T) {
		g := bench.GroupOptions{Groups: 3, Members: 4, InFlight: 2}
		r, err := bench.Group(t.Context(), o, g)
		mustPass(t, r, err, 12)
		if r.Messages == nil || r.Messages.Sent == 0 || r.Messages.Delivered != r.Messages.Sent*int64(g.Members) {
			t.Errorf("messages %+v", r.Messages)
		}
	})
	for name, g := range map[string]bench.GroupOptions{"fanout": {Members: 31, InFlight: 2}, "fanout at a rate": {Members: 15, Rate: 1000}} {
		t.Run(name, func(t *testing.T) {
			r := passing(t, o, g.Members, func(o bench.Options) (*bench.Result, error) { return bench.Fanout(t.Context(), o, g) },
				func(r *bench.Result) bool { return measured(r) && r.Messages.Sent >= 3 })
			if r.Messages.Delivered != r.Messages.Sent*int64(g.Members) || r.Messages.Acked != r.Messages.Sent {
				t.Errorf("messages %+v", r.Messages)
			}
		})
	}
	t.Run("idle", func(t *testing.T) {
		r, err := bench.Idle(t.Context(), o, bench.IdleOptions{Steps: []int{10, 30}})
		mustPass(t, r, err, 30)
		if len(r.Memory) != 2 || r.Memory[0].Connections != 10 || r.Memory[1].Connections != 30 {
			t.Errorf("memory %+v", r.Memory)
		}
	})
	t.Run("storm", func(t *testing.T) {
		r, err := bench.Storm(t.Context(), o, bench.StormOptions{Clients: 25, Messages: 3, Rounds: 2})
		mustPass(t, r, err, 25)
		if s := r.Storm; s == nil || len(s.Rounds) != 2 || s.Rounds[1].CaughtUp != 25 || s.Rounds[1].AllCaughtUp <= 0 || s.CatchUp.Count != 50 {
			t.Errorf("got %+v", s)
		}
	})
	t.Run("slow", func(t *testing.T) {
		r, err := bench.Slow(t.Context(), o, bench.SlowOptions{Receivers: 3, Stall: 100 * time.Millisecond, Bytes: 20_000, Pairs: 3, Rate: 100})
		mustPass(t, r, err, 12)
		if r.Slow == nil || r.Slow.CatchUp.Count != 3 || r.Slow.BulkMessages == 0 || r.Slow.During.Count == 0 {
			t.Errorf("got %+v", r.Slow)
		}
	})
}

// A failure in a worker is the run's, and its evidence says which worker saw it.
func TestProcsTellFailures(t *testing.T) {
	o := options(t)
	o.Procs, o.Secret = 2, []byte("0123456789abcdef0123456789abcdef")
	r, err := bench.Private(t.Context(), o, bench.PrivateOptions{Pairs: 2, InFlight: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r.OK || r.Failures["login failed"] != 4 || len(r.Evidence) == 0 || !strings.Contains(r.Evidence[0], "worker") {
		t.Errorf("failures %v, %q", r.Failures, r.Evidence)
	}
}

func TestWorkersThatFail(t *testing.T) {
	o := options(t)
	o.Procs = 2
	po := bench.PrivateOptions{Pairs: 2, InFlight: 1}
	for name, command := range map[string][]string{
		"no such program": {"/nowhere/meshbench"},
		"ends at once":    {"/bin/true"},
		"something else":  {"/bin/echo", "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			o.WorkerCommand = command
			if r, err := bench.Private(t.Context(), o, po); err == nil {
				t.Errorf("got %+v", r)
			}
		})
	}
	t.Run("the context ends", func(t *testing.T) {
		o.WorkerCommand, o.Duration = nil, time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if r, err := bench.Private(ctx, o, po); err == nil {
			t.Errorf("got %+v", r)
		}
	})
}

func TestRemoteWorkers(t *testing.T) {
	o := options(t)
	remote := httptest.NewServer(bench.WorkerHandler("geheim", bench.WorkerOptions{}))
	defer remote.Close()
	addr := strings.TrimPrefix(remote.URL, "http://")
	o.Workers, o.WorkerToken = []string{addr, addr}, "geheim"
	r, err := bench.Fanout(t.Context(), o, bench.GroupOptions{Members: 21, InFlight: 2})
	mustPass(t, r, err, 21)
	if r.Processes != 2 || r.Messages == nil || r.Messages.Delivered != r.Messages.Sent*21 {
		t.Errorf("%d processes, messages %+v", r.Processes, r.Messages)
	}
	o.TokenCommand, o.Secret = "echo x", nil
	if r, err := bench.Private(t.Context(), o, bench.PrivateOptions{Pairs: 2, InFlight: 1}); err == nil || !strings.Contains(err.Error(), "token command") {
		t.Errorf("a command from the network: %+v, %v", r, err)
	}
	o.WorkerToken = "wrong"
	if r, err := bench.Private(t.Context(), o, bench.PrivateOptions{Pairs: 2, InFlight: 1}); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("a wrong token: %+v, %v", r, err)
	}
}
