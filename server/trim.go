package server

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// trimmer gives memory back to the kernel once things are quiet after a burst. Go's heap may grow to twice what lives,
// and an idle server collects only every two minutes: a hundred thousand logins would leave their garbage resident.
type trimmer struct {
	allocated uint64 // bytes allocated at the last look
	trimmed   uint64 // bytes allocated at the last trim
}

const (
	trimInterval = 5 * time.Second
	// quietBytes is the allocation in one interval below which the server counts as quiet: heartbeats of 100,000
	// connections stay below it.
	quietBytes = 4 << 20
	// worthBytes is the allocation since the last trim from which on one is worth its collection.
	worthBytes = 8 << 20
)

func (t *trimmer) look() {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	now := sample[0].Value.Uint64()
	quiet := now-t.allocated < quietBytes
	t.allocated = now
	if quiet && now-t.trimmed > worthBytes {
		debug.FreeOSMemory()
		t.trimmed = now
	}
}
