package session

import (
	"testing"
	"unsafe"
)

// There may be a million sessions: one is an object of 112 bytes, the next size that the allocator has is 128.
func TestSessionSize(t *testing.T) {
	if n := unsafe.Sizeof(Session{}); n > 112 {
		t.Errorf("a Session has %d bytes", n)
	}
}
