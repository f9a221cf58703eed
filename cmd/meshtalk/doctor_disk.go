package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// diskSync is how long the disk takes to make an append durable, and what that means.
type diskSync struct {
	Dir   string  `json:"dir"` // where it was measured
	Syncs int     `json:"syncs"`
	P50   float64 `json:"p50Ms"` // of 4 KiB: a commit of few messages
	P99   float64 `json:"p99Ms"`
	Full  float64 `json:"fullBatchP50Ms"` // of 128 KiB: a commit of 512 messages
	// Messages per second at most. OneAtATime is of one sender that waits for each SEND_ACK; Slowest the same while the disk
	// takes as long as its p99. All is of everybody together, where Bound says what ends first: "disk" or "CPU".
	OneAtATime int    `json:"messagesPerSecondOneAtATime"`
	Slowest    int    `json:"messagesPerSecondOneAtATimeSlowest"`
	All        int    `json:"messagesPerSecondAll"`
	Bound      string `json:"allBoundBy"`
	// Waiting is how many messages must be outstanding for All: what arrives in the time of one sync shares the next.
	Waiting int `json:"outstandingForAll"`
}

const (
	diskSyncs, diskBlock = 200, 4 << 10
	fullSyncs, fullBlock = 50, 128 << 10
	// batch is how many messages share a sync at most: docs/architecture.md. 128 KiB are that many of some 250 bytes.
	batch = 512
	// messagesPerCore is what a core takes of private messages of 64 bytes, end to end with 6,400 outstanding: 6 to 9 µs of the
	// server's CPU each (docs/benchmarks.md). Measured with two cores; one goroutine orders all, so that more are not counted.
	messagesPerCore, coresCounted = 100_000, 2
	// slowSync is where a sender feels it; slowTail where p99 of the delivery is the disk's.
	slowSync = 10 * time.Millisecond
	slowTail = 50 * time.Millisecond
	// leastFree is room for a day's work above the store's reserve of 260 MiB.
	leastFree = 1 << 30
)

// diagnoseDisk looks at the data directory, or at the next directory above it when it is not there yet.
func diagnoseDisk(dataDir string) (*diskSync, []finding) {
	dir, err := existing(dataDir)
	if err != nil {
		return nil, []finding{diskFinding(dataDir, err)}
	}
	findings := judgeStorage(dir)
	times, err := measureSync(dir, diskSyncs, diskBlock)
	if err != nil {
		return nil, append(findings, diskFinding(dir, err))
	}
	full, err := measureSync(dir, fullSyncs, fullBlock)
	if err != nil {
		return nil, append(findings, diskFinding(dir, err))
	}
	d := summarise(dir, times, full, runtime.GOMAXPROCS(0))
	return d, append(findings, d.judge())
}

// judgeStorage judges the file system that dir is on.
func judgeStorage(dir string) []finding {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return []finding{diskFinding(dir, err)}
	}
	kind, block := int64(s.Type), int64(s.Bsize) //nolint:unconvert // 32 bits on some architectures
	return []finding{judgeFileSystem(dir, kind), judgeFree(dir, int64(s.Bavail)*block)}
}

// existing is dir, or what is there of the way to it.
func existing(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && !info.IsDir():
			return "", fmt.Errorf("%s is no directory", dir)
		case err == nil:
			return dir, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}

func diskFinding(dir string, err error) finding {
	return finding{
		Check: "data directory", Value: dir, Problem: err.Error(), Limits: "the server does not start",
		Mend: fmt.Sprintf("sudo install -d -o \"$USER\" -m 700 '%s' (or another --data-dir)", dir),
	}
}

// measureSync appends a block and syncs it, as often as said. An append is dearer than writing the same place again, and is
// what a log does.
func measureSync(dir string, times, size int) (took []time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".meshtalk-doctor-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	block := make([]byte, size)
	for range times {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return nil, fmt.Errorf("fdatasync: %w", err)
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// summarise says what the times of small and of full commits mean with so many cores.
func summarise(dir string, small, full []time.Duration, cores int) *diskSync {
	at := func(times []time.Duration, q int) time.Duration {
		slices.Sort(times)
		return max(times[min(len(times)-1, len(times)*q/100)], time.Microsecond)
	}
	p50, p99, whole := at(small, 50), at(small, 99), at(full, 50)
	d := &diskSync{Dir: dir, Syncs: len(small), P50: milliseconds(p50), P99: milliseconds(p99), Full: milliseconds(whole),
		OneAtATime: int(time.Second / p50), Slowest: int(time.Second / p99)}
	disk, cpu := int(batch*time.Second/whole), messagesPerCore*min(max(cores, 1), coresCounted)
	d.All, d.Bound = disk, "disk"
	if cpu < disk {
		d.All, d.Bound = cpu, "CPU"
	}
	// Two commits are under way at a time: one syncs, the next gathers.
	d.Waiting = max(int(2*whole*time.Duration(d.All)/time.Second), 1)
	return d
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// judge says what the latency means.
func (d *diskSync) judge() finding {
	f := finding{
		Check: "disk sync", OK: true,
		Value: fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, a full commit %.2f ms; messages/s at most: %d from one sender that waits for each SEND_ACK "+
			"(%d while the disk is as slow as its p99), some %d from all together, bound by the %s and only with %d outstanding",
			d.P50, d.P99, d.Full, d.OneAtATime, d.Slowest, d.All, d.Bound, d.Waiting),
	}
	if d.P50 > milliseconds(slowSync) || d.P99 > milliseconds(slowTail) {
		f.OK, f.Problem = false, "slow"
		f.Limits = "latency: every SEND_ACK waits for one sync, and messages/s as above"
		f.Mend = "serve --data-dir on a local SSD, best one with power-loss protection"
	}
	return f
}

// What file systems are called in statfs(2), those that a store should not stand on.
var unfit = map[int64]struct{ name, problem, mend string }{
	0x01021994: {"tmpfs", "its content is gone after a restart of the host", "serve --data-dir on a disk"},
	0x858458f6: {"ramfs", "its content is gone after a restart of the host", "serve --data-dir on a disk"},
	0x794c7630: {"overlayfs", "its content goes with the container", "serve --data-dir on a volume, such as docker run -v meshtalk:/data"},
	0x6969:     {"NFS", "neither its locks nor its syncs can be relied on", "serve --data-dir on a local disk"},
	0xff534d42: {"CIFS", "neither its locks nor its syncs can be relied on", "serve --data-dir on a local disk"},
	0xfe534d42: {"SMB", "neither its locks nor its syncs can be relied on", "serve --data-dir on a local disk"},
}

func judgeFileSystem(dir string, magic int64) finding {
	f := finding{Check: "file system", OK: true, Value: fmt.Sprintf("%s (type %#x)", dir, uint32(magic))}
	if u, bad := unfit[int64(uint32(magic))]; bad {
		f.OK, f.Value, f.Problem, f.Mend = false, dir+" is on "+u.name, u.problem, u.mend
		f.Limits = "durability: acknowledged messages may be lost"
	}
	return f
}

func judgeFree(dir string, free int64) finding {
	f := finding{Check: "disk space", OK: free >= leastFree, Value: fmt.Sprintf("%d MiB free", free>>20)}
	if !f.OK {
		f.Problem = fmt.Sprintf("below %d MiB", leastFree>>20)
		f.Limits = "messages: below 260 MiB the store turns read-only"
		f.Mend = fmt.Sprintf("du -xh --max-depth=2 '%s' | sort -h (and make room), or a smaller message.history.retention-days", dir)
	}
	return f
}
