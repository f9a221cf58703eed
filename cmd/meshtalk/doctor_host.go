package main

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// host is the machine as /proc and /sys show it.
type host struct {
	root        fs.FS // of the file system
	connections int
}

// Memory of an idle connection in bytes: docs/operations.md, Limits and sizing. The rest is the store's caches.
const (
	processPerConnection = 1 << 10
	kernelPerConnection  = 4 << 10
	processBase          = 512 << 20
)

// numbers reads a file of numbers; nil when it is not there or has something else.
func (h *host) numbers(name string) (list []int64) {
	b, err := fs.ReadFile(h.root, name)
	if err != nil {
		return nil
	}
	for _, f := range strings.Fields(string(b)) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return nil
		}
		list = append(list, n)
	}
	return list
}

// memory is what the connections take, of the host and of the control group.
func (h *host) memory() finding {
	need := int64(h.connections)*(processPerConnection+kernelPerConnection) + processBase
	have, where := h.available(), "available"
	if limit := h.groupMemory(); limit > 0 && limit < have {
		have, where = limit, "allowed by the control group"
	}
	f := finding{Check: "memory", OK: have >= need || have == 0, Value: fmt.Sprintf("%d MiB %s", have>>20, where)}
	if !f.OK {
		f.Problem = fmt.Sprintf("below %d MiB", need>>20)
		f.Limits = "connections: about 1 KiB of the process and 4 KiB of the kernel each, and the store's caches"
		f.Mend = "more memory, or a larger MemoryMax= of the service"
	}
	return f
}

// available is MemAvailable in bytes; 0 = unknown.
func (h *host) available() int64 {
	b, err := fs.ReadFile(h.root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}

// groupFiles are the names of a setting in the control groups of this process and of those above, innermost first.
func (h *host) groupFiles(controller, v1, v2 string) (files []string) {
	b, err := fs.ReadFile(h.root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		base, name := "", ""
		switch {
		case parts[0] == "0" && parts[1] == "":
			base, name = "sys/fs/cgroup", v2
		case strings.Contains(","+parts[1]+",", ","+controller+","):
			base, name = "sys/fs/cgroup/"+controller, v1
		default:
			continue
		}
		for dir := path.Clean("/" + parts[2]); ; dir = path.Dir(dir) {
			files = append(files, path.Join(base, dir, name))
			if dir == "/" {
				break
			}
		}
	}
	return files
}

// groupMemory is the smallest memory limit of the control groups in bytes; 0 = none.
func (h *host) groupMemory() (least int64) {
	for _, name := range h.groupFiles("memory", "memory.limit_in_bytes", "memory.max") {
		if n := h.numbers(name); len(n) == 1 && n[0] > 0 && n[0] < math.MaxInt64/2 && (least == 0 || n[0] < least) {
			least = n[0]
		}
	}
	return least
}

// groupCPU is the smallest CPU limit of the control groups in cores; 0 = none.
func (h *host) groupCPU() (cores float64) {
	take := func(quota, period int64) {
		if quota > 0 && period > 0 {
			if c := float64(quota) / float64(period); cores == 0 || c < cores {
				cores = c
			}
		}
	}
	for _, name := range h.groupFiles("cpu", "cpu.cfs_quota_us", "cpu.max") {
		if period := h.numbers(path.Join(path.Dir(name), "cpu.cfs_period_us")); len(period) == 1 {
			if quota := h.numbers(name); len(quota) == 1 {
				take(quota[0], period[0])
			}
			continue
		}
		if n := h.numbers(name); len(n) == 2 { // "max 100000" is no list of numbers, and no limit
			take(n[0], n[1])
		}
	}
	return cores
}

// processors compares the cores with what Go uses and what the control group allows.
func (h *host) processors() finding {
	return judgeProcessors(runtime.NumCPU(), runtime.GOMAXPROCS(0), h.groupCPU(), os.Getenv("GOMAXPROCS"))
}

func judgeProcessors(cores, used int, quota float64, variable string) finding {
	f := finding{Check: "CPU", OK: true, Value: fmt.Sprintf("%d cores, GOMAXPROCS %d", cores, used)}
	allowed := cores
	if quota > 0 {
		f.Value += fmt.Sprintf(", control group %.3g", quota)
		allowed = min(cores, max(2, int(math.Ceil(quota)))) // Go never goes below 2 by itself
	}
	switch {
	case quota > 0 && quota < 1:
		f.OK, f.Problem, f.Limits = false, "less than one core", "latency: the group is stopped for the rest of each period"
		f.Mend = "a larger CPUQuota= of the service, or limit of the container"
	case used > allowed:
		f.OK, f.Problem, f.Limits = false, "more threads than the group allows", "latency: the group is stopped when its share is used up"
		f.Mend = "unset GOMAXPROCS"
	case used < allowed && variable != "":
		f.OK, f.Problem, f.Limits = false, "cores are left unused", "throughput"
		f.Mend = "unset GOMAXPROCS"
	}
	return f
}

// clockSource is how the kernel reads the time. A slow one costs a system call each time.
func (h *host) clockSource() finding {
	const dir = "sys/devices/system/clocksource/clocksource0/"
	b, err := fs.ReadFile(h.root, dir+"current_clocksource")
	f := finding{Check: "clock source", OK: true, Value: "unknown"}
	if err != nil {
		return f
	}
	f.Value = strings.TrimSpace(string(b))
	switch f.Value {
	case "hpet", "acpi_pm", "jiffies", "xen", "refined-jiffies":
		f.OK, f.Problem = false, "slow: each look at the clock is a system call"
		f.Limits = "messages per second"
		f.Mend = "echo tsc | sudo tee /" + dir + "current_clocksource (and clocksource=tsc on the kernel's command line)"
		if other, err := fs.ReadFile(h.root, dir+"available_clocksource"); err == nil && !strings.Contains(string(other), "tsc") {
			f.Mend = "another type of machine: this one offers only " + strings.TrimSpace(string(other))
		}
	}
	return f
}

// clockSync tells whether something keeps the clock right. The reading costs nothing and needs no right.
func clockSync() finding {
	const unsynchronised = 5 // TIME_ERROR of adjtimex(2)
	var t syscall.Timex
	state, err := syscall.Adjtimex(&t)
	return judgeClock(state == unsynchronised && err == nil, time.Duration(t.Esterror)*time.Microsecond)
}

func judgeClock(loose bool, off time.Duration) finding {
	f := finding{Check: "clock", OK: !loose, Value: fmt.Sprintf("synchronised, estimated error %s", off)}
	if loose {
		f.Value, f.Problem = "not synchronised", "nothing keeps it right"
		f.Limits = "tokens expire at the wrong moment, and the times of messages of several nodes differ"
		f.Mend = "sudo timedatectl set-ntp true (or install chrony)"
	}
	return f
}
