package server

import (
	"runtime"
	"testing"
)

func TestLoops(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for _, c := range []struct {
		change func(*Options)
		want   int
	}{
		{func(*Options) {}, 0}, // the engine's default
		{func(o *Options) { o.Cluster.Enable = true }, 3},
		{func(o *Options) { o.RocketMQ.NameServer = "127.0.0.1:9876" }, 3},
		{func(o *Options) { o.Postgres.URL = "postgres://127.0.0.1/" }, 3},
		{func(o *Options) { o.Cluster.Enable, o.Performance.WorkerThreads = true, 4 }, 4},
	} {
		var o Options
		c.change(&o)
		if got := o.loops(); got != c.want {
			t.Errorf("%+v: %d, want %d", o, got, c.want)
		}
	}
	runtime.GOMAXPROCS(1)
	if o := (Options{Cluster: ClusterOptions{Enable: true}}); o.loops() != 1 {
		t.Errorf("one core: %d", o.loops())
	}
}
