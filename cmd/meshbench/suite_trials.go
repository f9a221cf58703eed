package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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

// growth measures with more and more conversations, each number of them in a store of its own that holds as many messages as the others.
func (o *suiteOptions) growth(ctx context.Context, path string) error {
	g := savedGrowth{Setting: o.setting(), Machine: bench.ThisMachine()}
	begin := time.Now()
	for _, n := range []int{1000, 10_000, 100_000, 1_000_000} {
		s, err := o.grown(ctx, path, o.count(n), o.count(growthMessages))
		if err != nil {
			return fmt.Errorf("p10 with %d conversations: %w", n, err)
		}
		g.Steps = append(g.Steps, s)
	}
	if err := o.write("p10", g); err != nil {
		return err
	}
	_, err := fmt.Fprintf(o.told, "%-16s %5.1f s\n", "p10", time.Since(begin).Seconds())
	return err
}

// grown measures with so many messages in so many conversations.
func (o *suiteOptions) grown(ctx context.Context, path string, conversations, messages int) (g growthStep, err error) {
	s, err := startServer(ctx, path, nil)
	if err != nil {
		return g, err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	b, err := o.options(s, "tcp")
	if err != nil {
		return g, err
	}
	if err := fill(ctx, s.admin, conversations, messages); err != nil {
		return g, err
	}
	if err := bench.Rest(ctx, b.ServerPID); err != nil {
		return g, err
	}
	r, err := bench.Private(ctx, b, bench.PrivateOptions{Pairs: 100, InFlight: 16, Size: 200})
	if err != nil {
		return g, err
	}
	if !r.OK {
		return g, fmt.Errorf("%q", r.Evidence)
	}
	return growthStep{conversations, messages, r.Messages.DeliveredRate, r.Delivery.P99, r.Others}, nil
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
