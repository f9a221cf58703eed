package server

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// trimmer gives memory back to the kernel once things are quiet after a burst. Go's heap may grow to twice what lives,
// and an idle server collects only every two minutes: a hundred thousand logins would leave their garbage resident.
type trimmer struct {
	allocated  uint64 // bytes allocated at the last look
	trimmed    uint64 // bytes allocated at the last trim
	goroutines uint64 // at the last trim
}

const (
	trimInterval = 5 * time.Second
	// quietBytes is the allocation in one interval below which the server counts as quiet: heartbeats of 100,000
	// connections stay below it.
	quietBytes = 4 << 20
	// worthBytes is the allocation since the last trim from which on one is worth its collection; worthGoroutines are so many that
	// ended since, for only a collection gives their stacks back (2 KiB each at least). gnet's workers end 10 s after a burst of connections.
	worthBytes      = 8 << 20
	worthGoroutines = 64
)

func (t *trimmer) look() {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(samples)
	now, goroutines := samples[0].Value.Uint64(), samples[1].Value.Uint64()
	quiet := now-t.allocated < quietBytes
	t.allocated = now
	if quiet && (now-t.trimmed > worthBytes || goroutines+worthGoroutines < t.goroutines) {
		debug.FreeOSMemory()
		t.trimmed, t.goroutines = now, goroutines
	}
}
