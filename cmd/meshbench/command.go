package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshtalk/meshtalk/bench"
)

// errUsage wraps what is wrong with the command line: exit code 2.
var errUsage = errors.New("usage")

// common are the flags of every scenario.
type common struct {
	o                   bench.Options
	sources             string
	secretFile, dataDir string
	asJSON              bool
	report              string
	cpuProfile          string
	floor               bool
	withFloor           func() bench.FloorOptions // what the floor of the scenario is; nil = it has none
}

// floorAlways are the scenarios whose rates mean little without the floor: they are measured with it unless told otherwise.
var floorAlways = []string{"private", "fanout"}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "meshbench",
		Short: "Drives a Mesh-Talk server with load, checks what arrives, and measures.",
		Long: "Drives a Mesh-Talk server with load, checks what arrives, and measures.\n" +
			"Exit code 1: messages were lost, repeated or out of order, or connections failed; the evidence is printed.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.AddCommand(scenarios()...)
	root.AddCommand(newRun(scenarios()), newCompare(), newFloor(), newWorker(), newBaseline(), newSuite(), newFlame())
	return root
}

func scenarios() []*cobra.Command {
	return []*cobra.Command{newIdle(), newPrivate(), newGroup(), newFanout(), newStorm(), newSlow(), newMix(), newEcho()}
}

func (c *common) register(scenario string, f *pflag.FlagSet) {
	f.StringSliceVar(&c.o.Addrs, "addr", []string{"ws://127.0.0.1:8080/im", "tcp://127.0.0.1:8081"}, "server `addresses`; connections take them in turn")
	f.StringVar(&c.o.Transport, "transport", "mix", "which of the addresses: ws, tcp or mix")
	f.StringVar(&c.sources, "sources", "", "source `addresses` of the connections, such as 127.0.1.1-127.0.1.20")
	f.StringVar(&c.secretFile, "secret-file", "", "`file` with the server's HS256 key, to mint tokens")
	f.StringVar(&c.dataDir, "data-dir", "", "the server's data `directory`, whose jwt.key is used to mint tokens")
	f.StringVar(&c.o.TokenCommand, "token-command", "", "shell `command` that prints a token for $USER_NAME and $TERMINAL")
	f.StringVar(&c.o.UserPrefix, "user-prefix", "", "users are `PREFIX`-0, PREFIX-1 …; empty = new ones for this run")
	f.StringVar(&c.o.Ack, "ack", "client", "who acknowledges: client or auto")
	f.IntVar(&c.o.Window, "window", 0, "entries in flight to a connection; 0 = the server's default")
	f.IntVar(&c.o.AckEvery, "ack-every", bench.ClientAckEvery, "a connection acknowledges after so many messages, at most a quarter of the window …")
	f.DurationVar(&c.o.AckDelay, "ack-delay", bench.ClientAckDelay, "… or after this time; 0 = after every read")
	f.IntVar(&c.o.Procs, "procs", 0, "worker processes on this machine, for one has a limit of open files; 0 = this one, or the --workers")
	f.StringSliceVar(&c.o.Workers, "workers", nil, "`addresses` of workers on other machines (meshbench worker --listen), which share the run; they get the key")
	f.StringVar(&c.o.WorkerToken, "worker-token", "", "`token` of these workers")
	f.IntVar(&c.o.Loops, "loops", 1, "event loops; each takes a core when there is much to do")
	f.IntVar(&c.o.Handshakes, "handshakes", 256, "connections of one event loop between connect and the LOGIN answer")
	f.IntVar(&c.o.LoginRate, "login-rate", 0, "new connections per second; 0 = as fast as the server takes them")
	f.DurationVar(&c.o.HeartBeat, "heartbeat", 30*time.Second, "interval of a connection's heartbeats")
	f.DurationVar(&c.o.WarmUp, "warmup", 2*time.Second, "time that is driven but not counted")
	f.DurationVar(&c.o.Duration, "duration", 10*time.Second, "time that is counted")
	f.DurationVar(&c.o.Drain, "drain", 10*time.Second, "how long nothing may arrive at the end before what is open counts as lost")
	f.IntVar(&c.o.ServerPID, "server-pid", 0, "`process` of the server on this machine, to read its CPU and memory")
	f.StringVar(&c.o.Admin, "admin", "", "`URL` of the server's admin port, such as http://127.0.0.1:8090")
	f.StringVar(&c.o.AdminAuth, "admin-token", "", "`token` of the admin port")
	if c.withFloor != nil {
		f.BoolVar(&c.floor, "floor", slices.Contains(floorAlways, scenario),
			"measure what this kernel allows before and after, some 4 s each, and state the run's share of it; for private and fanout the default when the server is here (--server-pid, --local)")
	}
	f.StringVar(&c.o.ServerProfile, "server-profile", "", "`file` for a CPU profile of the server in the measured time (needs --admin)")
	f.StringVar(&c.cpuProfile, "cpuprofile", "", "`file` for a profile of the generator itself")
	f.StringVar(&c.report, "report", "", "`file` for a page with plots, such as out.html; it needs no network")
	f.BoolVar(&c.asJSON, "json", false, "print the result as JSON")
}

// options completes the options from the flags.
func (c *common) options() (o bench.Options, err error) {
	if c.o.Sources, err = bench.ParseSources(c.sources); err != nil {
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	switch {
	case c.o.TokenCommand != "":
	case c.secretFile != "":
		c.o.Secret, err = bench.ReadSecret(c.secretFile)
	case c.dataDir != "":
		c.o.Secret, err = bench.ReadSecret(filepath.Join(c.dataDir, "jwt.key"))
	default:
		err = fmt.Errorf("%w: want --data-dir, --secret-file or --token-command", errUsage)
	}
	return c.o, err
}

type scenarioFunc func(ctx context.Context, o bench.Options) (*bench.Result, error)

// run runs a scenario, between two looks at the floor if that is wanted.
func (c *common) run(ctx context.Context, o bench.Options, run scenarioFunc) (*bench.Result, error) {
	if !c.floor {
		return run(ctx, o)
	}
	fo := c.withFloor()
	fo.Dir = c.dataDir
	return bench.WithFloor(ctx, fo, func() (*bench.Result, error) { return run(ctx, o) })
}

// scenario makes a subcommand of a function that runs it.
func scenario(use, short string, floor func() bench.FloorOptions, flags func(*pflag.FlagSet), run scenarioFunc) *cobra.Command {
	c := &common{withFloor: floor}
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			end, err := c.local(cmd)
			if err != nil {
				return err
			}
			defer func() { err = ended(err, end) }()
			o, err := c.options()
			if err != nil {
				return err
			}
			out, live := &printer{out: cmd.OutOrStdout(), asJSON: c.asJSON}, newLiveLine(cmd.ErrOrStderr())
			o.Progress = live.show()
			if !cmd.Flags().Changed("floor") && o.ServerPID == 0 {
				c.floor = false // the server may be on another machine, whose floor this is not
			}
			result, err := profiled(c.cpuProfile, func() (*bench.Result, error) { return c.run(cmd.Context(), o, run) })
			live.clear()
			if err != nil {
				return err
			}
			if err := errors.Join(out.result(result), writeReport(c.report, result)); err != nil {
				return err
			}
			if !result.OK {
				return errFound
			}
			return nil
		},
	}
	c.register(use, cmd.Flags())
	flags(cmd.Flags())
	return cmd
}

// profiled runs f with a CPU profile, if there is a file for it.
func profiled(file string, f func() (*bench.Result, error)) (*bench.Result, error) {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	result, err := f()
	pprof.StopCPUProfile()
	return result, errors.Join(err, out.Close())
}

func newIdle() *cobra.Command {
	var connections int
	var io bench.IdleOptions
	return scenario("idle", "Connections that only keep their heartbeat, and what one costs the server in memory.", nil,
		func(f *pflag.FlagSet) {
			f.IntVar(&connections, "connections", 10_000, "number of connections, when --steps is not given")
			f.IntSliceVar(&io.Steps, "steps", nil, "numbers of connections at which memory is looked at, such as 2000,15000")
			f.DurationVar(&io.Settle, "settle", 30*time.Second, "rest before a look at memory; the server gives back what a burst needed after some 20 s")
			f.BoolVar(&io.Collect, "gc", false, "ask the server for a garbage collection before a look (needs --admin); the profile that comes with it leaves 2 to 3 MB")
		},
		func(ctx context.Context, o bench.Options) (*bench.Result, error) {
			if len(io.Steps) == 0 {
				io.Steps = []int{connections}
			}
			return bench.Idle(ctx, o, io)
		})
}

func newPrivate() *cobra.Command {
	var po bench.PrivateOptions
	return scenario("private", "Pairs of users, one of which sends to the other.",
		func() bench.FloorOptions { return bench.FloorOptions{Connections: 2 * po.Pairs, Size: po.Size} },
		func(f *pflag.FlagSet) {
			f.IntVar(&po.Pairs, "pairs", 100, "number of pairs")
			f.IntVar(&po.InFlight, "in-flight", 64, "closed loop: messages of a pair on their way")
			f.Float64Var(&po.Rate, "rate", 0, "open loop instead: messages per second over all pairs, on schedule whatever happens")
			f.IntVar(&po.Size, "size", 64, "bytes of a message's content, at least 44")
		},
		func(ctx context.Context, o bench.Options) (*bench.Result, error) { return bench.Private(ctx, o, po) })
}

func newGroup() *cobra.Command {
	var g bench.GroupOptions
	return scenario("group", "Groups of users, in each of which one sends to all. Needs --admin.",
		func() bench.FloorOptions { return bench.FloorOptions{Connections: g.Groups * g.Members, Size: g.Size} },
		func(f *pflag.FlagSet) {
			f.IntVar(&g.Groups, "groups", 100, "number of groups")
			f.IntVar(&g.Members, "members", 100, "members of each group")
			f.IntVar(&g.InFlight, "in-flight", 1, "closed loop: messages of a group on their way")
			f.Float64Var(&g.Rate, "rate", 0, "open loop instead: deliveries per second over all members, on schedule whatever happens")
			f.IntVar(&g.Size, "size", 64, "bytes of a message's content, at least 44")
		},
		func(ctx context.Context, o bench.Options) (*bench.Result, error) { return bench.Group(ctx, o, g) })
}

func newFanout() *cobra.Command {
	g := bench.GroupOptions{Groups: 1}
	return scenario("fanout", "One large group, in which one sends to all. Needs --admin.",
		func() bench.FloorOptions { return bench.FloorOptions{Connections: g.Members, Size: g.Size} },
		func(f *pflag.FlagSet) {
			f.IntVar(&g.Members, "members", 10_000, "members of the group")
			f.IntVar(&g.InFlight, "in-flight", 1, "messages on their way; one is done when it has reached all members")
			f.Float64Var(&g.Rate, "rate", 0, "open loop instead: deliveries per second, on schedule whatever happens")
			f.IntVar(&g.Size, "size", 64, "bytes of a message's content, at least 44")
		},
		func(ctx context.Context, o bench.Options) (*bench.Result, error) { return bench.Fanout(ctx, o, g) })
}

func newEcho() *cobra.Command {
	var eo bench.EchoOptions
	return scenario("echo", "Requests that are answered at once: what the server costs when it has nothing to do.", nil,
		func(f *pflag.FlagSet) {
			f.IntVar(&eo.Connections, "connections", 100, "number of connections")
			f.IntVar(&eo.InFlight, "in-flight", 64, "requests of a connection on their way")
		},
		func(ctx context.Context, o bench.Options) (*bench.Result, error) { return bench.Echo(ctx, o, eo) })
}
