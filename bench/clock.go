package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockReading is CLOCK_MONOTONIC of a machine, which all its processes share from boot to boot.
type clockReading struct {
	Boot string `json:"boot,omitempty"`
	Mono int64  `json:"mono_ns,omitempty"`
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail
	return ts.Nano()
}

// bootID names this boot of this machine, "" = unknown.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it, clocks are compared over the link
	return strings.TrimSpace(string(b))
}

func readClock() clockReading { return clockReading{Boot: bootID(), Mono: monotonic()} }

// epochAt is the time, with Go's monotonic reading, at which CLOCK_MONOTONIC was mono.
func epochAt(mono int64) time.Time {
	now := time.Now()
	return now.Add(-time.Duration(monotonic() - mono))
}

// clockOffset is how far a worker's clock is ahead of ours, in ns, as far as the shortest of some round trips tells. The
// error is at most half of that.
type clockOffset struct {
	ahead, err int64
	same       bool // it is the same clock
}

// compareClocks asks a worker for its clock a few times.
func compareClocks(ask func() (*clockReading, error)) (o clockOffset, err error) {
	const rounds = 10
	boot := bootID()
	o.err = math.MaxInt64
	for range rounds {
		before := monotonic()
		r, err := ask()
		if err != nil {
			return o, err
		}
		after := monotonic()
		if r == nil {
			return o, errors.New("no answer to the question for its clock")
		}
		if r.Boot == boot && boot != "" && r.Mono >= before && r.Mono <= after {
			return clockOffset{same: true}, nil
		}
		if half := (after - before + 1) / 2; half < o.err {
			o.ahead, o.err = r.Mono-(before+after)/2, half
		}
	}
	return o, nil
}

// clock asks w for its clock. Nothing else may be on the link.
func (w *worker) clock() (*clockReading, error) {
	if err := w.send(message{Clock: &clockReading{}}); err != nil {
		return nil, err
	}
	m, err := w.receive()
	return m.Clock, err
}

// recheck compares the clocks of other machines again, at the end of a run: they have drifted apart.
func (c *crew) recheck(ctx context.Context) error {
	for i, w := range c.workers {
		if c.offsets[i].same {
			continue
		}
		now, err := compareClocks(func() (*clockReading, error) {
			if err := w.send(message{Clock: &clockReading{}}); err != nil {
				return nil, err
			}
			select {
			case e := <-c.events:
				return e.m.Clock, e.err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		if err != nil {
			return fmt.Errorf("bench: worker %s: %w", w.name, err)
		}
		drift := now.ahead - c.offsets[i].ahead
		c.offsets[i].err = max(c.offsets[i].err, now.err) + max(drift, -drift)
	}
	return nil
}
