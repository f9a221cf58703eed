package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/meshtalk/meshtalk/config"
)

// finding is what doctor has to say about one thing.
type finding struct {
	Check   string `json:"check"`
	OK      bool   `json:"ok"`
	Value   string `json:"value"`             // what is
	Problem string `json:"problem,omitempty"` // what is wrong with it
	Limits  string `json:"limits,omitempty"`  // what it limits
	Mend    string `json:"mend,omitempty"`    // the command that mends it
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
			"It writes a file of 4 KiB in the data directory and removes it. Exit code 1 when something is wrong.",
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

// diagnose looks at everything.
func diagnose(ctx context.Context, c *config.Config, connections int) diagnosis {
	if connections == 0 {
		connections = c.Options.Limits.Connections
	}
	if connections == 0 {
		connections = defaultConnections
	}
	d := diagnosis{Connections: connections}
	h := host{root: os.DirFS("/"), connections: connections}
	d.Findings = append(d.Findings, h.descriptors()...)
	d.Findings = append(d.Findings, h.network()...)
	d.Findings = append(d.Findings, h.memory())
	d.Findings = append(d.Findings, h.processors(), h.clockSource(), clockSync())
	disk, findings := diagnoseDisk(c.Options.DataDir)
	d.Disk = disk
	d.Findings = append(d.Findings, findings...)
	d.Findings = append(d.Findings, services(ctx, c.Options)...)
	d.OK = true
	for _, f := range d.Findings {
		d.OK = d.OK && f.OK
	}
	return d
}

// print writes the findings for people.
func (d diagnosis) print(w io.Writer) {
	sayf(w, "For %d connections:\n", d.Connections)
	wrong := 0
	for _, f := range d.Findings {
		if f.OK {
			sayf(w, "ok     %-20s %s\n", f.Check, f.Value)
			continue
		}
		wrong++
		sayf(w, "WRONG  %-20s %s: %s\n", f.Check, f.Value, f.Problem)
		sayf(w, "         it limits: %s\n", f.Limits)
		sayf(w, "         mend it:   %s\n", f.Mend)
	}
	if wrong == 0 {
		say(w, "Nothing is wrong.")
	} else {
		sayf(w, "Wrong: %d of %d.\n", wrong, len(d.Findings))
	}
}
