package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshtalk/meshtalk/bench"
)

func newMix() *cobra.Command {
	var file string
	cmd := scenario("mix", "A day's shape from a YAML file: users come, go, reconnect, talk and read. Needs --admin.", nil,
		func(f *pflag.FlagSet) {
			f.StringVar(&file, "file", "", "YAML `file` with the day's shape")
		},
		func(ctx context.Context, o bench.Options) (*bench.Result, error) {
			if file == "" {
				return nil, fmt.Errorf("%w: want --file", errUsage)
			}
			mo, err := bench.ReadMix(file)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errUsage, err)
			}
			return bench.Mix(ctx, o, mo)
		})
	cmd.Long = "A day's shape from a YAML file. Every user is in one group of --members, whose first one writes, and has one partner for\n" +
		"private messages; who is away gets everything when it comes back. Each step has a time (ramp, for) and levels; a level\n" +
		"that is not named stays as it was. The file's times make the duration, and --duration means nothing.\n\n" + mixExample
	return cmd
}

const mixExample = `  users: 2000         # all that there are, a multiple of members
  members: 50         # of each group
  size: 200           # bytes of a content
  steps:
    - name: night
      for: 10s
      online: 200     # users
      private: 20     # messages per second, over all users
      group: 1        # messages per second to a group
      typing: 5       # per second
      history: 2      # pages read per second
      reconnects: 1   # per second
    - name: morning
      ramp: 20s       # from night's levels to these, evenly
      online: 1800
      private: 400
      group: 20
`

// mix prints one step.
func mix(line func(string, string, ...any), r *bench.MixResult) {
	line("step "+r.Name, "%.0f deliveries/s, %d late; %d pages read, %d logins", float64(r.Delivery.Count)/r.Seconds, r.Late, r.History.Count,
		r.Login.Count)
	latency(line, "  delivery", &r.Delivery)
	latency(line, "  accept", &r.Accept)
	latency(line, "  history", &r.History)
	latency(line, "  login", &r.Login)
}
