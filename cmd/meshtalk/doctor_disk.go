package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// diskSync is how long the disk takes to make 4 KiB durable.
type diskSync struct {
	Dir        string  `json:"dir"` // where it was measured
	Syncs      int     `json:"syncs"`
	P50        float64 `json:"p50Ms"`
	P99        float64 `json:"p99Ms"`
	OneAtATime int     `json:"messagesPerSecondOneAtATime"` // of a sender that waits for each SEND_ACK
	Ceiling    int     `json:"messagesPerSecondCeiling"`    // of all: a sync is shared by up to 512 messages
}

const (
	diskSyncs = 200
	diskBlock = 4 << 10
	// batch is how many messages share a sync at most: docs/architecture.md.
	batch = 512
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
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return nil, []finding{diskFinding(dir, err)}
	}
	kind, block := int64(s.Type), int64(s.Bsize) //nolint:unconvert // 32 bits on some architectures
	findings := []finding{judgeFileSystem(dir, kind), judgeFree(dir, int64(s.Bavail)*block)}
	times, err := measureSync(dir)
	if err != nil {
		return nil, append(findings, diskFinding(dir, err))
	}
	d := summarise(dir, times)
	return d, append(findings, d.judge())
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

// measureSync writes a block and syncs it, diskSyncs times.
func measureSync(dir string) (times []time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".meshtalk-doctor-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	block := make([]byte, diskBlock)
	for i := range diskSyncs {
		block[0] = byte(i) // the same content could be taken for nothing to do
		start := time.Now()
		if _, err := f.WriteAt(block, 0); err != nil {
			return nil, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return nil, fmt.Errorf("fdatasync: %w", err)
		}
		times = append(times, time.Since(start))
	}
	return times, nil
}

func summarise(dir string, times []time.Duration) *diskSync {
	slices.Sort(times)
	at := func(q int) time.Duration { return times[min(len(times)-1, len(times)*q/100)] }
	p50 := max(at(50), time.Microsecond)
	return &diskSync{
		Dir: dir, Syncs: len(times), P50: milliseconds(p50), P99: milliseconds(at(99)),
		OneAtATime: int(time.Second / p50), Ceiling: int(batch * time.Second / p50),
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// judge says what the latency means.
func (d *diskSync) judge() finding {
	f := finding{
		Check: "disk sync", OK: true,
		Value: fmt.Sprintf("p50 %.2f ms, p99 %.2f ms: at most %d messages/s from one sender that waits for each SEND_ACK, %d from all",
			d.P50, d.P99, d.OneAtATime, d.Ceiling),
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
