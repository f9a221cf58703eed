//go:build race

package server_test

// pooled is by how much allocations per message may grow: under the race detector a sync.Pool forgets a part of what it
// is given, on purpose.
const pooled = 2
