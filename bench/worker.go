package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// WorkerOptions are those of Worker.
type WorkerOptions struct {
	// Token makes the tokens instead of what the coordinator sends, if set.
	Token TokenFunc
	// Remote: the coordinator is somebody on the network, whose shell commands are not run.
	Remote bool
}

// job is a worker's share of a run.
type job struct {
	Scenario string          `json:"scenario"`
	Params   json.RawMessage `json:"params"` // the scenario's own options
	Options  Options         `json:"options"`
	Index    int             `json:"index"`
	Of       int             `json:"of"`
	Run      uint32          `json:"run"`
	Epoch    int64           `json:"epoch_ns"` // zero of the run's clock, as the worker's CLOCK_MONOTONIC
}

// Worker does one piece of work that a coordinator tells it on in, and answers on out: it is what "meshbench worker" runs.
// It ends when in ends, and with it the work.
func Worker(ctx context.Context, in io.Reader, out io.Writer, o WorkerOptions) error {
	k := newLink(in, out)
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := func(f func() error) {
		work.Go(func() {
			if err := f(); err != nil {
				_ = k.send(message{Error: err.Error()}) // or nobody listens any more
			}
		})
	}
	var seat *member
	for {
		m, err := k.receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case m.Clock != nil:
			now := readClock()
			if err := k.send(message{Clock: &now}); err != nil {
				return err
			}
		case m.Sink != nil:
			begin(func() error { return m.Sink.run(ctx, k) })
		case m.Job != nil:
			seat = newMember(k, m.Job)
			begin(func() error { return m.Job.run(ctx, seat, o) })
		case m.Meet != nil && seat != nil:
			seat.met <- *m.Meet
		case m.Note != nil && seat != nil:
			seat.takeNote(*m.Note)
		default:
			return errors.New("bench: worker: do not know what to do: another version?")
		}
	}
}

// run runs the scenario as one of several.
func (j *job) run(ctx context.Context, seat *member, w WorkerOptions) error {
	o := j.Options
	o.seat = seat
	switch {
	case w.Token != nil:
		o.Token = w.Token
	case w.Remote && o.TokenCommand != "":
		return errors.New("bench: worker: a token command is not run for somebody on the network: give it to the worker itself")
	}
	switch j.Scenario {
	case "idle":
		return runJob(ctx, j, o, Idle)
	case "echo":
		return runJob(ctx, j, o, Echo)
	case "private":
		return runJob(ctx, j, o, Private)
	case "group":
		return runJob(ctx, j, o, Group)
	case "fanout":
		return runJob(ctx, j, o, Fanout)
	case "storm":
		return runJob(ctx, j, o, Storm)
	case "slow":
		return runJob(ctx, j, o, Slow)
	case "mix":
		return runJob(ctx, j, o, Mix)
	}
	return fmt.Errorf("bench: worker: no scenario %q", j.Scenario)
}

func runJob[P any](ctx context.Context, j *job, o Options, f func(context.Context, Options, P) (*Result, error)) error {
	var params P
	if err := json.Unmarshal(j.Params, &params); err != nil {
		return fmt.Errorf("bench: worker: %w", err)
	}
	_, err := f(ctx, o, params) // the result's part is sent on the way
	return err
}
