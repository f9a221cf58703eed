package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtalk/meshtalk/bench"
)

// suiteOptions are those of the suite.
type suiteOptions struct {
	server string
	dir    string   // where the results are
	table  string   // the document with the table; empty = none
	only   []string // claims to measure; empty = all, "none" = none
	share  float64  // of the times and counts: 1 = those that the claims name
	told   io.Writer
}

func newSuite() *cobra.Command {
	var o suiteOptions
	cmd := &cobra.Command{
		Use:   "suite",
		Short: "A short run of all numbers that the project claims, with their table.",
		Long: "Measures what docs/benchmarks.md claims, each with a server of its own on free ports of this machine, and writes every\n" +
			"result as JSON. The table is made of all results in the folder, so that one claim may be measured again alone.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.told = cmd.ErrOrStderr()
			if err := o.check(); err != nil {
				return err
			}
			if err := os.MkdirAll(o.dir, 0o755); err != nil {
				return err
			}
			if err := o.measure(cmd.Context()); err != nil {
				return err
			}
			text, err := o.tableText()
			if err != nil {
				return err
			}
			if o.table != "" {
				return writeTable(o.table, text)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), text)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "`path` of the server's program; empty = meshtalk beside meshbench, else in $PATH")
	f.StringVar(&o.dir, "out", "bench/results", "`folder` of the results")
	f.StringVar(&o.table, "table", "", "`document` in which the table stands between markers; empty = print it")
	f.StringSliceVar(&o.only, "only", nil, "`claims` to measure, such as P3,P6; none = only make the table")
	f.Float64Var(&o.share, "scale", 1, "share of the numbers of connections and of the times; below 1 nothing is judged")
	return cmd
}

// trial is one run of a scenario, whose result is a file of its own.
type trial struct {
	claim, name string
	transport   string // "" = mix
	floor       bool   // look at the floor before and after
	change      func(o *bench.Options)
	run         func(ctx context.Context, o bench.Options) (*bench.Result, error)
	floorOf     bench.FloorOptions
}

// setting is where a result was measured, in the file beside it.
type setting struct {
	Version string    `json:"version"`
	Taken   time.Time `json:"taken"`
	Scale   float64   `json:"scale"`
}

// saved is the content of a result's file.
type saved struct {
	Setting setting       `json:"setting"`
	Result  *bench.Result `json:"result"`
}

// onlyNone measures nothing.
const onlyNone = "none"

// check finds a claim in only that nothing measures by itself.
func (o *suiteOptions) check() error {
	claims := []string{claimGrowth, claimBaseline, onlyNone}
	for _, t := range o.trials() {
		claims = append(claims, t.claim)
	}
	slices.Sort(claims)
	claims = slices.Compact(claims)
	for _, c := range o.only {
		if !slices.Contains(claims, c) {
			return fmt.Errorf("%w: --only %s: want some of %s", errUsage, c, strings.Join(claims, ", "))
		}
	}
	return nil
}

func (o *suiteOptions) wants(claim string) bool {
	return len(o.only) == 0 || slices.Contains(o.only, claim)
}

// measure runs all trials that are wanted.
func (o *suiteOptions) measure(ctx context.Context) error {
	path, err := serverProgram(o.server)
	if err != nil {
		return err
	}
	var broken []error
	for _, t := range o.trials() {
		if !o.wants(t.claim) {
			continue
		}
		begin := time.Now()
		r, err := o.try(ctx, path, t)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		if err := o.save(t.name, r); err != nil {
			return err
		}
		if !r.OK {
			broken = append(broken, fmt.Errorf("%s: %q", t.name, r.Evidence))
		}
		if _, err := fmt.Fprintf(o.told, "%-16s %5.1f s\n", t.name, time.Since(begin).Seconds()); err != nil {
			return err
		}
	}
	if o.wants(claimGrowth) {
		if err := o.growth(ctx, path); err != nil {
			return err
		}
	}
	if o.wants(claimBaseline) {
		if err := o.baseline(ctx); err != nil {
			return err
		}
	}
	return errors.Join(broken...)
}

// try runs one trial with a server of its own.
func (o *suiteOptions) try(ctx context.Context, path string, t trial) (r *bench.Result, err error) {
	s, err := startServer(ctx, path, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	b, err := o.options(s, t.transport)
	if err != nil {
		return nil, err
	}
	if t.change != nil {
		t.change(&b)
	}
	if !t.floor {
		return t.run(ctx, b)
	}
	f := t.floorOf
	f.Dir, f.Duration = s.dataDir(), o.time(time.Second)
	return bench.WithFloor(ctx, f, func() (*bench.Result, error) { return t.run(ctx, b) })
}

// options are those of all trials.
func (o *suiteOptions) options(s *localServer, transport string) (b bench.Options, err error) {
	b = bench.Options{Addrs: s.addrs, Transport: transport, Admin: s.admin, ServerPID: s.cmd.Process.Pid, AckEvery: bench.ClientAckEvery, AckDelay: bench.ClientAckDelay,
		WarmUp: o.time(2 * time.Second), Duration: o.time(5 * time.Second)}
	if b.Sources, err = bench.ParseSources("127.0.0.1-127.0.0.4"); err != nil {
		return b, err
	}
	b.Secret, err = bench.ReadSecret(s.keyFile())
	return b, err
}

// time and count are d and n in a run of that scale.
func (o *suiteOptions) time(d time.Duration) time.Duration {
	return max(time.Duration(float64(d)*o.share), 50*time.Millisecond)
}
func (o *suiteOptions) count(n int) int { return max(int(float64(n)*o.share), 2) }

// file is where a result is.
func (o *suiteOptions) file(name string) string { return filepath.Join(o.dir, name+".json") }

// save writes a result without its seconds, which are for reports.
func (o *suiteOptions) save(name string, r *bench.Result) error {
	short := *r
	short.Series, short.Distribution = nil, nil
	return o.write(name, saved{o.setting(), &short})
}

func (o *suiteOptions) setting() setting {
	return setting{Version: builtFrom(), Taken: time.Now().UTC().Truncate(time.Second), Scale: o.share}
}

func (o *suiteOptions) write(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.file(name), append(b, '\n'), 0o644)
}

// read is nil when there is no result of that name.
func (o *suiteOptions) read(name string, v any) (bool, error) {
	b, err := os.ReadFile(o.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", o.file(name), err)
	}
	return true, nil
}

// commit is what the program was built from; the Makefile sets it.
var commit string

func builtFrom() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value[:min(len(s.Value), 12)]
			}
		}
	}
	return "unknown"
}

const (
	tableBegin = "<!-- table: meshbench suite -->"
	tableEnd   = "<!-- end of table -->"
)

// writeTable puts text between the markers of a document.
func writeTable(path, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s: no lines %q and %q", path, tableBegin, tableEnd)
	}
	return os.WriteFile(path, []byte(before+tableBegin+"\n"+text+tableEnd+after), 0o644)
}
