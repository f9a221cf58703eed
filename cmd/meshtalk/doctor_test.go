package main

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/meshtalk/meshtalk/config"
	"github.com/meshtalk/meshtalk/server"
)

// files makes a host of what its files say.
func files(connections int, content map[string]string) *host {
	root := fstest.MapFS{}
	for name, text := range content {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return &host{root: root, connections: connections}
}

// wrong are the checks that found something, each with its remedy.
func wrong(t *testing.T, list ...finding) (names []string) {
	t.Helper()
	for _, f := range list {
		switch {
		case f.Check == "" || f.Value == "":
			t.Errorf("a finding without a name or a value: %+v", f)
		case f.OK && f.Problem+f.Limits+f.Mend != "":
			t.Errorf("right, and yet: %+v", f)
		case !f.OK:
			if f.Problem == "" || f.Limits == "" || f.Mend == "" {
				t.Errorf("what is wrong, what it limits and the command that mends it belong together: %+v", f)
			}
			names = append(names, f.Check)
		}
	}
	return names
}

func TestNetwork(t *testing.T) {
	const sys = "proc/sys/"
	good := map[string]string{
		sys + "net/core/somaxconn": "4096\n", sys + "net/ipv4/tcp_max_syn_backlog": "8192\n",
		sys + "net/ipv4/ip_local_port_range": "10240\t65535\n", sys + "net/ipv4/tcp_mem": "100\t500000\t750000\n",
		sys + "net/netfilter/nf_conntrack_max": "2000000\n",
		sys + "net/ipv4/tcp_rmem":              "4096\t131072\t1048576\n", sys + "net/ipv4/tcp_wmem": "4096\t16384\t1048576\n",
		sys + "net/core/netdev_max_backlog": "16384\n", sys + "net/ipv4/tcp_notsent_lowat": "131072\n",
		sys + "net/ipv4/tcp_keepalive_time": "300\n", sys + "net/ipv4/tcp_keepalive_intvl": "30\n", sys + "net/ipv4/tcp_keepalive_probes": "5\n",
	}
	if got := wrong(t, files(1_000_000, good).network()...); got != nil {
		t.Error(got)
	}
	if got := wrong(t, files(1_000_000, nil).network()...); got != nil {
		t.Error("a kernel without these settings:", got)
	}
	for name, bad := range map[string]string{
		"net.core.somaxconn": "128\n", "net.ipv4.tcp_max_syn_backlog": "512\n", "net.ipv4.ip_local_port_range": "60000 61000\n",
		"net.ipv4.tcp_mem": "100 499999 900000", "net.netfilter.nf_conntrack_max": "65536",
		"net.ipv4.tcp_rmem": "65536 131072 6291456", "net.ipv4.tcp_wmem": "4096 16384 32768",
		"net.core.netdev_max_backlog": "1000", "net.ipv4.tcp_notsent_lowat": "4294967295", "net.ipv4.tcp_keepalive_time": "7200",
		"net.ipv4.tcp_keepalive_intvl": "75", "net.ipv4.tcp_keepalive_probes": "9",
	} {
		content := map[string]string{sys + strings.ReplaceAll(name, ".", "/"): bad}
		list := files(1_000_000, content).network()
		if got := wrong(t, list...); len(got) != 1 || !strings.HasSuffix(name, got[0]) {
			t.Errorf("%s = %s: %v", name, bad, got)
		}
		i := slices.IndexFunc(list, func(f finding) bool { return !f.OK })
		if !strings.HasPrefix(list[i].Mend, "sudo sysctl -w "+name+"=") {
			t.Error(list[i].Mend)
		}
	}
	list := files(1_000_000, map[string]string{sys + "net/ipv4/tcp_mem": "1 2 3"}).network()
	if i := slices.IndexFunc(list, func(f finding) bool { return !f.OK }); !strings.Contains(list[i].Mend, "'375000 500000 750000'") {
		t.Error("thresholds must grow:", list[i].Mend)
	}
}

func TestDescriptors(t *testing.T) {
	h := files(1<<40, map[string]string{"proc/sys/fs/nr_open": "1048576", "proc/sys/fs/file-max": "9223372036854775807"})
	if got := wrong(t, h.descriptors()...); !slices.Equal(got, []string{"RLIMIT_NOFILE", "fs.nr_open"}) {
		t.Error(got)
	}
	if got := roundUp(100_000); got != 131_072 {
		t.Error(got)
	}
}

func TestMemoryOfGroups(t *testing.T) {
	const meminfo = "MemTotal: 99999999 kB\nMemAvailable: 8388608 kB\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  int64 // MiB of the smallest limit
		ok    bool
	}{
		"none": {map[string]string{"proc/meminfo": meminfo}, 0, true},
		"v2": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n",
			"sys/fs/cgroup/a/memory.max": "134217728\n",
		}, 128, false},
		"v1": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "4:memory:/a\n0::/\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1073741824", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
		}, 1024, true},
	} {
		h := files(10_000, c.files)
		if got := h.groupMemory() >> 20; got != c.want {
			t.Errorf("%s: %d MiB, want %d", name, got, c.want)
		}
		f := h.memory()
		if wrong(t, f); f.OK != c.ok {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestProcessors(t *testing.T) {
	for name, c := range map[string]struct {
		cores, used int
		quota       float64
		variable    string
		ok          bool
	}{
		"no group":        {8, 8, 0, "", true},
		"as allowed":      {8, 3, 2.5, "", true},
		"half a core":     {8, 2, 0.5, "", false},
		"too many":        {8, 8, 4, "8", false},
		"too few":         {8, 1, 0, "1", false},
		"Go's least of 2": {8, 2, 1, "", true},
	} {
		f := judgeProcessors(c.cores, c.used, c.quota, c.variable)
		if wrong(t, f); f.OK != c.ok {
			t.Errorf("%s: %+v", name, f)
		}
	}
	v2 := files(1, map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "250000 100000\n", "sys/fs/cgroup/cpu.max": "max 100000"})
	v1 := files(1, map[string]string{
		"proc/self/cgroup": "2:cpu,cpuacct:/a\n", "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "50000", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
		"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
	})
	if a, b := v2.groupCPU(), v1.groupCPU(); a != 2.5 || b != 0.5 {
		t.Error(a, b)
	}
}

func TestClocks(t *testing.T) {
	const dir = "sys/devices/system/clocksource/clocksource0/"
	for source, ok := range map[string]bool{"tsc": true, "kvm-clock": true, "arch_sys_counter": true, "hpet": false, "acpi_pm": false} {
		f := files(1, map[string]string{dir + "current_clocksource": source + "\n", dir + "available_clocksource": "tsc hpet"}).clockSource()
		if wrong(t, f); f.OK != ok || f.Value != source {
			t.Errorf("%+v", f)
		}
	}
	if wrong(t, judgeClock(false, time.Millisecond)) != nil || wrong(t, judgeClock(true, 0)) == nil {
		t.Error("the clock")
	}
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	d, findings := diagnoseDisk(dir + "/not/yet")
	if d == nil || d.Dir != dir || d.Syncs != diskSyncs || d.P50 <= 0 || d.P99 < d.P50 || d.Full <= 0 || d.All <= 0 || d.Waiting <= 0 {
		t.Fatalf("%+v", d)
	}
	wrong(t, findings...)
	times := func(n int, d time.Duration) []time.Duration { return slices.Repeat([]time.Duration{d}, n) }
	slow := summarise("/d", times(200, 20*time.Millisecond), times(50, 20*time.Millisecond), 2)
	if f := slow.judge(); wrong(t, f) == nil || slow.OneAtATime != 50 || slow.All != 50*batch || slow.Bound != "disk" || slow.Waiting != 2*batch {
		t.Errorf("%+v %+v", slow, f)
	}
	fast := summarise("/d", append(times(198, 200*time.Microsecond), times(2, 8*time.Millisecond)...), times(50, 400*time.Microsecond), 8)
	if f := fast.judge(); wrong(t, f) != nil || fast.OneAtATime != 5000 || fast.Slowest != 125 || fast.All != 200_000 || fast.Bound != "CPU" || fast.Waiting != 160 {
		t.Errorf("%+v %+v", fast, f)
	}
	if one := summarise("/d", times(200, time.Millisecond), times(50, time.Millisecond), 1); one.All != 100_000 {
		t.Errorf("%+v", one)
	}
	if wrong(t, judgeFileSystem("/d", 0x01021994)) == nil || wrong(t, judgeFileSystem("/d", 0xef53)) != nil {
		t.Error("file systems")
	}
	if wrong(t, judgeFree("/d", 1<<20)) == nil || wrong(t, judgeFree("/d", 1<<40)) != nil {
		t.Error("free space")
	}
}

func TestServiceAddresses(t *testing.T) {
	o := server.DefaultOptions()
	if got := addresses(o); got != nil {
		t.Error(got)
	}
	o.Postgres.URL = "postgres://bob:secret@db.example/chat"
	o.Redis.Host, o.Redis.Address, o.RocketMQ.NameServer = "r", []string{"a:1"}, "n:9876"
	if got := addresses(o); got != nil {
		t.Error("what is asked more than its address:", got)
	}
	o.Redis.Address = []string{"a:1", "b:2"}
	o.RocketMQ.NameServer = "n:9876; m:9877"
	o.JWT.JWKSURL = "https://id.example/keys"
	want := []service{
		{"redis.address", "a:1", true}, {"redis.address", "b:2", true},
		{"rocketmq.name-server", "n:9876", true}, {"rocketmq.name-server", "m:9877", true}, {"auth.jwt.jwks-url", "id.example:443", false},
	}
	if got := addresses(o); !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// The start's one line names what is short and no more, and is empty on a host that is fit.
func TestHostWarning(t *testing.T) {
	c := &config.Config{Options: server.DefaultOptions()}
	c.Options.DataDir = t.TempDir()
	c.Options.Limits.Connections = 100
	if w := hostWarning(c, files(0, nil).root); w != "" {
		t.Error(w)
	}
	c.Options.Limits.Connections = 1 << 30
	w := hostWarning(c, files(0, map[string]string{
		"proc/sys/net/core/somaxconn": "128\n", "proc/sys/net/ipv4/tcp_max_syn_backlog": "65536\n",
		"proc/sys/net/ipv4/tcp_keepalive_time":                            "7200\n", // minor
		"sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n",
	}).root)
	for _, want := range []string{"with 1073741824 connections", "RLIMIT_NOFILE", "net.core.somaxconn 128 (below 4096)", "clock source hpet", "meshtalk doctor"} {
		if !strings.Contains(w, want) {
			t.Errorf("no %q in %q", want, w)
		}
	}
	if strings.Contains(w, "syn_backlog") || strings.Contains(w, "keepalive") || strings.Contains(w, "\n") {
		t.Error(w)
	}
}
