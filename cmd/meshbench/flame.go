package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshtalk/meshtalk/bench"
)

func newFlame() *cobra.Command {
	var title string
	cmd := &cobra.Command{
		Use:   "flame PROFILE",
		Short: "Draws a CPU profile (--server-profile, --cpuprofile) as a flame graph, one SVG. Needs the go command.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%w: want one profile, got %d", errUsage, len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := os.Stat(args[0]); err != nil {
				return err
			}
			var problems bytes.Buffer
			pprof := exec.CommandContext(cmd.Context(), "go", "tool", "pprof", "-traces", args[0])
			pprof.Stderr = &problems
			traces, err := pprof.Output()
			if err != nil {
				return fmt.Errorf("go tool pprof: %w: %s", err, strings.TrimSpace(problems.String()))
			}
			if title == "" {
				title = args[0]
			}
			return bench.WriteFlame(cmd.OutOrStdout(), title, bytes.NewReader(traces))
		},
	}
	cmd.Flags().StringVar(&title, "title", "", "`text` above the graph; empty = the file's name")
	return cmd
}
