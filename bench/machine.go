package bench

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Machine describes where the load ran.
type Machine struct {
	CPUs   int    `json:"cpus"`
	Model  string `json:"cpu_model,omitempty"`
	Memory int64  `json:"memory_bytes,omitempty"`
	Clock  string `json:"clock_source,omitempty"`
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	Go     string `json:"go"`
	Kernel string `json:"kernel"`
}

// ThisMachine is what the kernel tells; what it does not tell stays empty.
func ThisMachine() Machine {
	const clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
	m := Machine{CPUs: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version(), Kernel: kernelRelease()}
	m.Model = firstField("/proc/cpuinfo", "model name")
	if kib, _, ok := strings.Cut(firstField("/proc/meminfo", "MemTotal"), " "); ok {
		n, _ := strconv.ParseInt(kib, 10, 64)
		m.Memory = n << 10
	}
	if b, err := os.ReadFile(clock); err == nil {
		m.Clock = strings.TrimSpace(string(b))
	}
	return m
}

// firstField is the value of the first line "name: value" of a file, "" when there is none.
func firstField(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// configuration is what the load was told, for the reader of a result; no secrets.
func (p *plan) configuration() map[string]any {
	c := map[string]any{
		"transport":              p.Transport,
		"ack":                    p.Ack,
		"ack_every":              p.AckEvery,
		"ack_delay_ms":           float64(p.AckDelay.Microseconds()) / 1000,
		"event_loops":            p.Loops,
		"heartbeat_seconds":      p.HeartBeat.Seconds(),
		"warm_up_seconds":        p.WarmUp.Seconds(),
		"duration_seconds":       p.Duration.Seconds(),
		"source_addresses":       len(p.Sources),
		"server_on_this_machine": p.ServerPID != 0,
	}
	if p.Window > 0 {
		c["window"] = p.Window
	}
	if p.LoginRate > 0 {
		c["logins_per_second"] = p.LoginRate
	}
	return c
}
