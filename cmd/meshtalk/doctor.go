package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/meshtalk/meshtalk/config"
)

// finding is what doctor has to say about one thing.
type finding struct {
	Check   string `json:"check"`
	OK      bool   `json:"ok"`
	Warn    bool   `json:"warn,omitempty"`    // not OK, but only in some cases: no failure of the whole
	Value   string `json:"value"`             // what is
	Problem string `json:"problem,omitempty"` // what is wrong with it
	Limits  string `json:"limits,omitempty"`  // what it limits
	Mend    string `json:"mend,omitempty"`    // the command that mends it

	minor bool // it hurts only in the case that Limits names: not worth a line at every start
}

// diagnosis is all of it.
type diagnosis struct {
	OK          bool      `json:"ok"`
	Connections int       `json:"connections"` // that the host is judged for
	Findings    []finding `json:"findings"`
	Disk        *diskSync `json:"disk,omitempty"`
}

// defaultConnections is what a host is judged for unless --connections or limits.connections say otherwise: where the
// defaults of distributions begin to be short.
const defaultConnections = 10_000

func newDoctor(e environment) *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check this host: descriptors, kernel, CPU, clock, disk, services",
		Long: "Check this host for a server with this configuration: what is wrong, what it limits, and the command that mends it.\n" +
			"It writes a file of at most 7 MiB in the data directory and removes it. Services of the configuration are asked what they are and how they\n" +
			"are set. A line for each thing: ok, warn or fail. Exit code 1 when something fails.",
		Args: cobra.NoArgs,
	}
	s := addSettings(cmd, e.env)
	asJSON := cmd.Flags().Bool("json", false, "print the findings as JSON")
	connections := cmd.Flags().Int("connections", 0, fmt.Sprintf("how many connections it is for; 0 = limits.connections, or %d", defaultConnections))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := s.load()
		if err != nil {
			return err
		}
		if *connections < 0 {
			return usage("--connections: %d (expected a number above zero)", *connections)
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		d := diagnose(ctx, c, *connections)
		if *asJSON {
			b, err := encodeJSON(d)
			if err == nil {
				_, err = cmd.OutOrStdout().Write(b)
			}
			if err != nil {
				return failure(err)
			}
		} else {
			d.print(cmd.OutOrStdout())
		}
		if !d.OK {
			return &exitError{exitFailure, nil} // the findings say it
		}
		return nil
	}
	return cmd
}

// judgedFor is how many connections a host is judged for when nobody says it.
func judgedFor(c *config.Config) int {
	if n := c.Options.Limits.Connections; n > 0 {
		return n
	}
	return defaultConnections
}

// hostWarning is one line of what will hurt a server with this configuration on this host, "" = nothing. It looks at what can
// be read at once: not at the disk's latency, at services, or at who keeps the clock right.
func hostWarning(c *config.Config, root fs.FS) string {
	h := host{root: root, connections: judgedFor(c)}
	findings := h.all()
	if dir, err := existing(c.Options.DataDir); err == nil && c.Options.Postgres.URL == "" {
		findings = append(findings, judgeStorage(dir)...)
	}
	var short []string
	for _, f := range findings {
		if !f.OK && !f.minor {
			short = append(short, fmt.Sprintf("%s %s (%s)", f.Check, f.Value, f.Problem))
		}
	}
	if len(short) == 0 {
		return ""
	}
	return fmt.Sprintf("this host will hurt with %d connections: %s; meshtalk doctor says what each limits and mends it", h.connections, strings.Join(short, "; "))
}

// all is what the host says of itself.
func (h *host) all() []finding {
	list := append(h.descriptors(), h.network()...)
	return append(list, h.memory(), h.processors(), h.clockSource())
}

// diagnose looks at everything.
func diagnose(ctx context.Context, c *config.Config, connections int) diagnosis {
	if connections == 0 {
		connections = judgedFor(c)
	}
	d := diagnosis{Connections: connections}
	h := host{root: os.DirFS("/"), connections: connections}
	d.Findings = append(h.all(), clockSync())
	disk, findings := diagnoseDisk(c.Options.DataDir)
	d.Disk = disk
	d.Findings = append(d.Findings, findings...)
	d.Findings = append(d.Findings, serviceFindings(ctx, c.Options)...)
	d.judge()
	return d
}

// judge says whether nothing fails.
func (d *diagnosis) judge() {
	d.OK = !slices.ContainsFunc(d.Findings, func(f finding) bool { return !f.OK && !f.Warn })
}

// print writes the findings for people, a line each.
func (d diagnosis) print(w io.Writer) {
	sayf(w, "For %d connections:\n", d.Connections)
	failed, warned := 0, 0
	for _, f := range d.Findings {
		state, remedy := "ok", ""
		if !f.OK {
			remedy = fmt.Sprintf(": %s; it limits: %s; mend it: %s", f.Problem, f.Limits, f.Mend)
		}
		switch {
		case f.OK:
		case f.Warn:
			state = "warn"
			warned++
		default:
			state = "fail"
			failed++
		}
		sayf(w, "%-6s %-20s %s%s\n", state, f.Check, oneLine(f.Value), oneLine(remedy))
	}
	sayf(w, "%d failed, %d warnings, of %d.\n", failed, warned, len(d.Findings))
}
