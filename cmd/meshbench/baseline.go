package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtalk/meshtalk/bench"
	"github.com/meshtalk/meshtalk/bench/baseline"
)

// baselineOptions are how long a comparison takes.
type baselineOptions struct {
	server   string
	rounds   int
	idle     int           // connections whose memory is looked at
	duration time.Duration // of each measurement of a rate
}

func newBaseline() *cobra.Command {
	var o baselineOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "baseline",
		Short: "This server beside one with a goroutine per connection, under the same load, in turns.",
		Long: "Runs the server and a baseline under the same load, in turns on free ports of this machine. The baseline is net/http, a\n" +
			"WebSocket package and a goroutine per connection; it keeps messages in memory only, where this server syncs them to the\n" +
			"disk before it acknowledges. All connections are WebSockets, because the baseline has nothing else.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := compareWithBaseline(cmd.Context(), &o, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				err = e.Encode(c)
			} else {
				err = c.print(cmd.OutOrStdout())
			}
			if err == nil && !c.OK {
				err = errFound
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "`path` of the server's program; empty = meshtalk beside meshbench, else in $PATH")
	f.IntVar(&o.rounds, "rounds", 2, "how often both are measured, one after the other")
	f.IntVar(&o.idle, "connections", 8000, "idle connections, and members of the large group")
	f.DurationVar(&o.duration, "duration", 3*time.Second, "time of each measurement of a rate")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON, with all runs")
	cmd.AddCommand(newBaselineServe())
	return cmd
}

// newBaselineServe is the baseline's own process.
func newBaselineServe() *cobra.Command {
	return &cobra.Command{
		Use: "serve", Short: "Runs the baseline server alone, on a free port.", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := bench.RaiseFileLimit(); err != nil {
				return err
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(cmd.OutOrStdout(), "admin http://%s\nwebsocket ws://%s/im\nready\n", l.Addr(), l.Addr())
			return serveWorker(cmd.Context(), l, baseline.New().Handler())
		},
	}
}

// comparison is both servers side by side.
type comparison struct {
	Machine bench.Machine `json:"machine"`
	Rows    []*sideBySide `json:"rows"`
	OK      bool          `json:"ok"`
	// Evidence is what a run found that should not be.
	Evidence []string `json:"evidence,omitempty"`
}

// sideBySide is one figure of both.
type sideBySide struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	Higher bool      `json:"higher_is_better"`
	Ours   []float64 `json:"ours"`
	Theirs []float64 `json:"baseline"`
	Better float64   `json:"times_better"` // of the medians

	run scenarioFunc
	of  func(*bench.Result) float64
}

// rows are what is compared.
func (o *baselineOptions) rows() []*sideBySide {
	rate := func(r *bench.Result) float64 { return r.Messages.DeliveredRate }
	fanout := func(members, inFlight int) scenarioFunc {
		return func(ctx context.Context, b bench.Options) (*bench.Result, error) {
			return bench.Fanout(ctx, b, bench.GroupOptions{Members: members, InFlight: inFlight, Size: 64})
		}
	}
	return []*sideBySide{
		{Name: fmt.Sprintf("memory per idle connection, %d to %d", o.idle/8, o.idle), Unit: "B",
			run: func(ctx context.Context, b bench.Options) (*bench.Result, error) {
				b.Duration = 0
				return bench.Idle(ctx, b, bench.IdleOptions{Steps: []int{max(o.idle/8, 1), o.idle}, Settle: min(3*time.Second, o.duration), Collect: true})
			},
			of: func(r *bench.Result) float64 { return r.BytesPerConnection }},
		{Name: "pipelined echo, 100 connections × 64", Unit: "/s", Higher: true, of: rate,
			run: func(ctx context.Context, b bench.Options) (*bench.Result, error) {
				return bench.Echo(ctx, b, bench.EchoOptions{Connections: 100, InFlight: 64})
			}},
		{Name: fmt.Sprintf("fan-out to %d, one message at a time", o.idle), Unit: "deliveries/s", Higher: true, of: rate, run: fanout(o.idle, 1)},
		{Name: "fan-out to 1000 × 16 outstanding", Unit: "deliveries/s", Higher: true, of: rate, run: fanout(1000, 16)},
		{Name: "private, 100 pairs × 64 (ours synced to disk)", Unit: "/s", Higher: true, of: rate,
			run: func(ctx context.Context, b bench.Options) (*bench.Result, error) {
				return bench.Private(ctx, b, bench.PrivateOptions{Pairs: 100, InFlight: 64, Size: 64})
			}},
		{Name: fmt.Sprintf("%d reconnect and resume 10 messages", o.idle), Unit: "s",
			run: func(ctx context.Context, b bench.Options) (*bench.Result, error) {
				return bench.Storm(ctx, b, bench.StormOptions{Clients: o.idle, Messages: 10})
			},
			of: func(r *bench.Result) float64 { return r.Storm.Rounds[0].AllCaughtUp }},
	}
}

// compareWithBaseline measures A B A B, each run with a server of its own.
func compareWithBaseline(ctx context.Context, o *baselineOptions, told io.Writer) (*comparison, error) {
	if o.rounds < 1 || o.idle < 8 {
		return nil, fmt.Errorf("%w: want at least one round and eight connections", errUsage)
	}
	path, err := serverProgram(o.server)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ours := func() (*localServer, error) { return startServer(ctx, path, nil) }
	theirs := func() (*localServer, error) {
		return startProgram(ctx, self, func(string) []string { return []string{"baseline", "serve"} })
	}
	c := &comparison{OK: true, Rows: o.rows(), Machine: bench.ThisMachine()}
	for _, row := range c.Rows {
		for round := range o.rounds {
			for i, start := range []func() (*localServer, error){ours, theirs} {
				if _, err := fmt.Fprintf(told, "%s, round %d of %d, %s\n", row.Name, round+1, o.rounds, []string{"ours", "baseline"}[i]); err != nil {
					return nil, err
				}
				r, err := o.measure(ctx, start, row.run)
				if err != nil {
					return nil, err
				}
				if !r.OK {
					c.OK = false
					c.Evidence = append(c.Evidence, r.Evidence...)
					continue
				}
				if i == 0 {
					row.Ours = append(row.Ours, row.of(r))
				} else {
					row.Theirs = append(row.Theirs, row.of(r))
				}
			}
		}
		row.judge()
	}
	return c, nil
}

// measure runs a scenario against a server that it starts and ends.
func (o *baselineOptions) measure(ctx context.Context, start func() (*localServer, error), run scenarioFunc) (r *bench.Result, err error) {
	s, err := start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	b := bench.Options{Addrs: s.addrs, Transport: "ws", Admin: s.admin, ServerPID: s.cmd.Process.Pid, AckEvery: bench.ClientAckEvery, AckDelay: bench.ClientAckDelay,
		WarmUp: o.duration / 3, Duration: o.duration, Secret: []byte("the baseline does not look at it")}
	if b.Sources, err = bench.ParseSources("127.0.0.1-127.0.0.4"); err != nil {
		return nil, err
	}
	if key, err := bench.ReadSecret(s.keyFile()); err == nil {
		b.Secret = key
	}
	return run(ctx, b)
}

// judge fills in the ratio of the medians.
func (s *sideBySide) judge() {
	if len(s.Ours) == 0 || len(s.Theirs) == 0 {
		return
	}
	ours, theirs := median(s.Ours), median(s.Theirs)
	if !s.Higher {
		ours, theirs = theirs, ours
	}
	if theirs > 0 {
		s.Better = ours / theirs
	}
}

func median(values []float64) float64 {
	v := slices.SortedFunc(slices.Values(values), cmp.Compare[float64])
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func (c *comparison) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "\tours\tbaseline\ttimes better")
	for _, r := range c.Rows {
		_, _ = fmt.Fprintf(w, "%s, %s\t%s\t%s\t%.1f\n", r.Name, r.Unit, all(r.Ours), all(r.Theirs), r.Better)
	}
	for _, e := range c.Evidence {
		_, _ = fmt.Fprintln(w, e)
	}
	return w.Flush()
}

// all writes the values of all rounds.
func all(values []float64) (text string) {
	for _, v := range values {
		if text != "" {
			text += "  "
		}
		if v < 100 {
			text += fmt.Sprintf("%.2f", v)
		} else {
			text += fmt.Sprintf("%.0f", v)
		}
	}
	return text
}
