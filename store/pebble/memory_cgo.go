//go:build cgo

package pebble

// outsideHeap: with cgo Pebble takes its memtables and blocks from C.
const outsideHeap = true
