package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshtalk/meshtalk/bench"
)

func newStorm() *cobra.Command {
	var so bench.StormOptions
	return scenario("storm", "Clients lose their connections at once, are sent to, and all come back at once. Needs --admin.", nil,
		func(f *pflag.FlagSet) {
			f.IntVar(&so.Clients, "clients", 15_000, "number of clients")
			f.IntVar(&so.Messages, "messages", 10, "messages to each client while it is away")
			f.IntVar(&so.Rounds, "rounds", 1, "storms, one after the other")
			f.IntVar(&so.Size, "size", 64, "bytes of a message's content, at least 44")
		},
		func(ctx context.Context, o bench.Options) (*bench.Result, error) { return bench.Storm(ctx, o, so) })
}

// storm prints s.
func storm(line func(string, string, ...any), s *bench.StormResult) {
	for _, r := range s.Rounds {
		line("storm", "%d clients caught up within %.3f s, logged in within %.3f s; sending to them took %.3f s", r.CaughtUp, r.AllCaughtUp,
			r.LoginSeconds, r.SendSeconds)
	}
	latency(line, "login again", &s.Login)
	latency(line, "caught up", &s.CatchUp)
}
