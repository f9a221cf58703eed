package session

import (
	"testing"
	"unsafe"
)

// There may be a million sessions: one is an object of 128 bytes, the next size that the allocator has is 144.
func TestSessionSize(t *testing.T) {
	if n := unsafe.Sizeof(Session{}); n > 128 {
		t.Errorf("a Session has %d bytes", n)
	}
}
