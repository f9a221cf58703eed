package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/meshtalk/meshtalk/bench"
)

const (
	claimGrowth   = "P10"
	claimBaseline = "baseline"
)

// trials are all runs but those of the growth and of the baseline.
func (o *suiteOptions) trials() []trial {
	fanout := func(claim, name string, members, inFlight int) trial {
		g := bench.GroupOptions{Members: members, InFlight: inFlight, Size: 64}
		return trial{claim: claim, name: name, floor: true, floorOf: bench.FloorOptions{Connections: members, Size: g.Size},
			run: func(ctx context.Context, b bench.Options) (*bench.Result, error) { return bench.Fanout(ctx, b, g) }}
	}
	private := func(name string, po bench.PrivateOptions) trial {
		po.Size = 64
		return trial{claim: "P6", name: name, floor: true, floorOf: bench.FloorOptions{Connections: 2 * po.Pairs, Size: po.Size},
			run: func(ctx context.Context, b bench.Options) (*bench.Result, error) { return bench.Private(ctx, b, po) }}
	}
	idle := func(name, transport string) trial {
		io := bench.IdleOptions{Steps: []int{o.count(2000), o.count(15_000)}, Settle: o.time(30 * time.Second)}
		return trial{claim: "P1", name: name, transport: transport, change: func(b *bench.Options) { b.Duration = o.time(15 * time.Second) },
			run: func(ctx context.Context, b bench.Options) (*bench.Result, error) { return bench.Idle(ctx, b, io) }}
	}
	large := o.count(10_000)
	return []trial{
		idle("p1-websocket", "ws"), idle("p1-tcp", "tcp"),
		fanout("P3", "p3", large, 1),
		fanout("P4", "p4-8", large, 8), fanout("P4", "p4-64", large, 64), fanout("P4", "p4-1000", o.count(1000), 16),
		{claim: "P5", name: "p5", run: func(ctx context.Context, b bench.Options) (*bench.Result, error) {
			return bench.Group(ctx, b, bench.GroupOptions{Groups: o.count(100), Members: 100, Rate: 50_000 * o.share, Size: 64})
		}},
		private("p6-100x64", bench.PrivateOptions{Pairs: o.count(100), InFlight: 64}),
		private("p6-100x1", bench.PrivateOptions{Pairs: o.count(100), InFlight: 1}),
		private("p6-2000x8", bench.PrivateOptions{Pairs: o.count(2000), InFlight: 8}),
		private("p6-open", bench.PrivateOptions{Pairs: o.count(100), Rate: 25_000 * o.share}),
		{claim: "P8", name: "p8", run: func(ctx context.Context, b bench.Options) (*bench.Result, error) {
			return bench.Storm(ctx, b, bench.StormOptions{Clients: o.count(15_000), Messages: 10})
		}},
		{claim: "P11", name: "p11", run: func(ctx context.Context, b bench.Options) (*bench.Result, error) {
			return bench.Slow(ctx, b, bench.SlowOptions{Receivers: o.count(20), Stall: o.time(10 * time.Second), Bytes: int64(20_000_000 * o.share),
				BulkSize: 10_000, Pairs: o.count(100), Rate: 1000, Size: 64, Collect: true})
		}},
	}
}

// growthStep is what messages cost with so many conversations in the store.
type growthStep struct {
	Conversations int     `json:"conversations"`
	Stored        int     `json:"messages_stored"` // in them, before the measured ones
	Rate          float64 `json:"messages_per_second"`
	P99           float64 `json:"p99_ms"`
	Others        float64 `json:"others_cpu_share"`
}

// savedGrowth is the file of the growth.
type savedGrowth struct {
	Setting setting       `json:"setting"`
	Machine bench.Machine `json:"machine"`
	Steps   []growthStep  `json:"steps"`
}

// growthMessages are stored before each step, in few conversations or in many: a store without any is faster than one whose tables have
// all their levels, however many conversations these are of.
const growthMessages = 1_000_000

// growthTurns is how often each store is measured.
const growthTurns = 3

// growth measures with more and more conversations, each number of them in a store of its own that holds as many messages as the others. All
// stores are there before the first is measured, and then they take turns: a machine that gets slower or faster meanwhile, as one does that
// others share, is so for all of them.
func (o *suiteOptions) growth(ctx context.Context, path string) (err error) {
	g := savedGrowth{Setting: o.setting(), Machine: bench.ThisMachine()}
	begin := time.Now()
	var stores []*grown
	defer func() {
		for _, s := range stores {
			err = errors.Join(err, s.server.end())
		}
	}()
	for _, n := range []int{1000, 10_000, 100_000, 1_000_000} {
		s, err := o.grow(ctx, path, growthStep{Conversations: o.count(n), Stored: o.count(growthMessages)})
		if err != nil {
			return fmt.Errorf("p10 with %d conversations: %w", n, err)
		}
		stores = append(stores, s)
	}
	for range growthTurns {
		for _, s := range stores {
			if err := s.measure(ctx); err != nil {
				return fmt.Errorf("p10 with %d conversations: %w", s.step.Conversations, err)
			}
		}
		slices.Reverse(stores)
	}
	for _, s := range stores {
		g.Steps = append(g.Steps, s.median())
	}
	slices.SortFunc(g.Steps, func(a, b growthStep) int { return cmp.Compare(a.Conversations, b.Conversations) })
	if err := o.write("p10", g); err != nil {
		return err
	}
	_, err = fmt.Fprintf(o.told, "%-16s %5.1f s\n", "p10", time.Since(begin).Seconds())
	return err
}

// grown is a server whose store has grown.
type grown struct {
	server  *localServer
	options bench.Options
	step    growthStep   // without what is measured
	turns   []growthStep // what was measured
}

// grow starts a server and fills its store.
func (o *suiteOptions) grow(ctx context.Context, path string, step growthStep) (_ *grown, err error) {
	s, err := startServer(ctx, path, nil)
	if err != nil {
		return nil, err
	}
	g := &grown{server: s, step: step}
	if g.options, err = o.options(s, "tcp"); err == nil {
		g.options.WarmUp, g.options.Duration = o.time(time.Second), o.time(3*time.Second)
		err = fill(ctx, s.admin, step.Conversations, step.Stored)
	}
	if err != nil {
		return nil, errors.Join(err, s.end())
	}
	return g, nil
}

// measure runs the load once.
func (g *grown) measure(ctx context.Context) error {
	if err := bench.Rest(ctx, g.options.ServerPID); err != nil {
		return err
	}
	r, err := bench.Private(ctx, g.options, bench.PrivateOptions{Pairs: 100, InFlight: 16, Size: 200})
	if err != nil {
		return err
	}
	if !r.OK {
		return fmt.Errorf("%q", r.Evidence)
	}
	turn := g.step
	turn.Rate, turn.P99, turn.Others = r.Messages.DeliveredRate, r.Delivery.P99, r.Others
	g.turns = append(g.turns, turn)
	return nil
}

// median is the turn whose rate is in the middle.
func (g *grown) median() growthStep {
	slices.SortFunc(g.turns, func(a, b growthStep) int { return cmp.Compare(a.Rate, b.Rate) })
	return g.turns[len(g.turns)/2]
}

// fill sends messages in so many private conversations, one after the other in each, a thousand with each request.
func fill(ctx context.Context, admin string, conversations, messages int) error {
	const chunk = 1000
	content := bytes.Repeat([]byte("x"), 198)
	var users []string
	for at := 0; at < messages; at += len(users) {
		first := at % conversations
		users = users[:0]
		for i := first; i < min(first+chunk, conversations); i++ {
			users = append(users, fmt.Sprintf("fill-%d", i))
		}
		body, err := json.Marshal(map[string]any{"id": fmt.Sprintf("fill-%d", at), "from": fmt.Sprintf("filler-%d", first/chunk), "users": users,
			"content": string(content)})
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, admin+"/v1/messages", bytes.NewReader(body))
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // it was read
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("fill: %s: %.200s", resp.Status, text)
		}
	}
	return nil
}

// savedBaseline is the file of the comparison with the baseline.
type savedBaseline struct {
	Setting    setting     `json:"setting"`
	Comparison *comparison `json:"comparison"`
}

func (o *suiteOptions) baseline(ctx context.Context) error {
	c, err := compareWithBaseline(ctx, &baselineOptions{server: o.server, rounds: 2, idle: max(o.count(8000), 16), duration: o.time(2500 * time.Millisecond)}, o.told)
	if err != nil {
		return err
	}
	if !c.OK {
		return fmt.Errorf("baseline: %q", c.Evidence)
	}
	return o.write("baseline", savedBaseline{o.setting(), c})
}
