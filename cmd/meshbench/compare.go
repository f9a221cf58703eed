package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/meshtalk/meshtalk/bench"
)

func newCompare() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compare A.json B.json",
		Short: "Ratios of two sides' results, and which differences exceed the noise of their runs.",
		Long: "Compares results that scenarios printed with --json. Several runs of a side stand in one file, one behind the other, or\n" +
			"in several files with commas between them: compare a1.json,a2.json b1.json,b2.json. A difference exceeds the noise when\n" +
			"the sides' intervals, from the least to the largest run, lie apart.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%w: want two sides, got %d", errUsage, len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := readSide(args[0])
			if err != nil {
				return err
			}
			b, err := readSide(args[1])
			if err != nil {
				return err
			}
			c, err := bench.Compare(a, b)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(c)
			}
			return printComparison(cmd.OutOrStdout(), c)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the comparison as JSON")
	return cmd
}

// readSide reads the results of all files of a list.
func readSide(list string) (all []*bench.Result, err error) {
	for path := range strings.SplitSeq(list, ",") {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		some, err := bench.ReadResults(f)
		_ = f.Close() // it was only read
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

func printComparison(out io.Writer, c *bench.Comparison) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "%s\tA, %d runs\tB, %d runs\tB ÷ A\t\n", c.Scenario, c.RunsA, c.RunsB)
	for _, f := range c.Figures {
		ratio := "–"
		if f.Ratio != 0 {
			ratio = fmt.Sprintf("%.3f", f.Ratio)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.Name, spread(f.A, f.Unit), spread(f.B, f.Unit), ratio, f.Verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range c.Notes {
		if _, err := fmt.Fprintln(out, "note:", n); err != nil {
			return err
		}
	}
	return nil
}

// spread is the median and, where runs differ, the interval.
func spread(i bench.Interval, unit string) string {
	number := func(v float64) string {
		if v >= 1000 {
			return fmt.Sprintf("%.0f", v)
		}
		return fmt.Sprintf("%.3g", v)
	}
	text := number(i.Median)
	if i.Min != i.Max {
		text += fmt.Sprintf(" (%s–%s)", number(i.Min), number(i.Max))
	}
	return strings.TrimSpace(text + " " + unit)
}
