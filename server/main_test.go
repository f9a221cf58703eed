package server_test

import (
	"runtime"
	"testing"

	"go.uber.org/goleak"
)

// TestMain sees to it that no server leaves a goroutine behind.
func TestMain(m *testing.M) {
	runtime.MemProfileRate = 16 << 10 // bytes: a sample in so many; fine enough for serverMemory
	goleak.VerifyTestMain(m,
		// gnet's pool of goroutines is the process's, not an engine's.
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"))
}
