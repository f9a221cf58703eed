package bench

import (
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

// compareClocks asks w for its clock a few times. Nothing else may be on the link.
func compareClocks(w *worker) (o clockOffset, err error) {
	const rounds = 10
	boot := bootID()
	o.err = math.MaxInt64
	for range rounds {
		before := monotonic()
		if err := w.send(message{Clock: &clockReading{}}); err != nil {
			return o, err
		}
		m, err := w.receive()
		if err != nil {
			return o, err
		}
		after := monotonic()
		if m.Clock == nil {
			return o, fmt.Errorf("bench: worker %s: no answer to the question for its clock", w.name)
		}
		ahead := m.Clock.Mono - (before+after)/2
		if m.Clock.Boot == boot && boot != "" && m.Clock.Mono >= before && m.Clock.Mono <= after {
			return clockOffset{same: true}, nil
		}
		if half := (after - before + 1) / 2; half < o.err {
			o.ahead, o.err = ahead, half
		}
	}
	return o, nil
}
