package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/meshtalk/meshtalk/bench"
)

func newFloor() *cobra.Command {
	var o bench.FloorOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "floor",
		Short: "What this kernel allows without any server: writes to loopback connections, and syncs of a directory.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := bench.MeasureFloor(cmd.Context(), o)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(f)
			}
			return printFloor(cmd.OutOrStdout(), f)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Connections, "connections", 10_000, "connections that are written to in turn")
	f.IntVar(&o.Size, "size", 64, "bytes of a message's content; a frame is as large as the server's push of it")
	f.StringVar(&o.Dir, "dir", ".", "`directory` whose disk is measured, best the server's data directory; empty = none")
	f.DurationVar(&o.Duration, "duration", 0, "time of each measurement; 0 = 1s")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func printFloor(out io.Writer, f *bench.Floor) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	floor(func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}, f)
	return w.Flush()
}

// floor prints f and a run's share of it.
func floor(line func(string, string, ...any), f *bench.Floor) {
	for _, w := range f.Writes {
		note := ""
		if w.Full > 0 {
			note = fmt.Sprintf(", %d more found the socket full", w.Full)
		}
		line("floor", "%.0f writes/s of %d × %d bytes by %d threads to %d connections: %.0f frames/s%s", w.Writes, w.Coalesced, f.FrameBytes,
			w.Writers, f.Connections, w.Frames, note)
	}
	for _, s := range f.Syncs {
		line("floor", "%s", s)
	}
	line("floor", "other processes used %.2f cores meanwhile", f.Others)
	if f.Spread > 0 {
		line("floor", "before and after the run it differed by up to %.0f%%", 100*f.Spread)
	}
	if f.DeliveriesShare > 0 {
		line("share", "deliveries/s are %.2f of the uncoalesced writes/s of one thread, %.2f of those of all cores", f.DeliveriesShare,
			f.DeliveriesShareAll)
	}
	if f.CommitsShare > 0 {
		line("share", "commits/s are %.3f of the fdatasyncs/s after 4 KiB", f.CommitsShare)
	}
}
