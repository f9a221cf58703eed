//go:build !cgo

package pebble

// outsideHeap: without cgo Pebble takes its memtables and blocks from Go's heap.
const outsideHeap = false
