package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshtalk/meshtalk/bench"
)

func newSlow() *cobra.Command {
	var so bench.SlowOptions
	return scenario("slow", "Receivers stop reading for a time while they are sent to, and others go on meanwhile.", nil,
		func(f *pflag.FlagSet) {
			f.IntVar(&so.Receivers, "receivers", 20, "receivers that stop reading")
			f.DurationVar(&so.Stall, "stall", 20*time.Second, "how long; before and after it the others are measured for as long")
			f.Int64Var(&so.Bytes, "bytes", 20_000_000, "bytes of contents to each of them in that time")
			f.IntVar(&so.BulkSize, "bulk-size", 10_000, "bytes of one of these contents, at least 44")
			f.IntVar(&so.Pairs, "pairs", 100, "pairs of other users")
			f.Float64Var(&so.Rate, "rate", 1000, "messages per second over all of the other pairs, on schedule whatever happens")
			f.BoolVar(&so.Collect, "gc", true, "ask the server for a garbage collection at the end of each part (needs --admin)")
			f.IntVar(&so.Size, "size", 64, "bytes of a message's content between them, at least 44")
		},
		func(ctx context.Context, o bench.Options) (*bench.Result, error) { return bench.Slow(ctx, o, so) })
}

// slow prints s.
func slow(line func(string, string, ...any), s *bench.SlowResult) {
	line("stall", "%d messages with %.1f MB of contents were sent to those who did not read", s.BulkMessages, float64(s.BulkBytes)/1e6)
	latency(line, "others before", &s.Before)
	latency(line, "others during", &s.During)
	latency(line, "others after", &s.After)
	latency(line, "caught up", &s.CatchUp)
	for _, m := range s.Memory {
		text := fmt.Sprintf("%s: from %.1f MB to at most %.1f MB anonymous", m.Part, float64(m.First)/1e6, float64(m.Highest)/1e6)
		if m.Live > 0 {
			text += fmt.Sprintf(", %.1f MB of live heap at its end", float64(m.Live)/1e6)
		}
		line("memory", "%s", text)
	}
}
