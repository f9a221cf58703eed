package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is another process on this machine, read from /proc.
type process struct{ pid int }

// procSample is a look at a process.
type procSample struct {
	cpu     int64 // user and system, ns
	rssAnon int64 // bytes of memory that no file backs
}

func (p *process) sample() (s procSample, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return s, fmt.Errorf("bench: server process: %w", err)
	}
	// The name in parentheses may hold anything; utime and stime are the 12th and 13th field behind it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return s, fmt.Errorf("bench: server process: /proc/%d/stat is short", p.pid)
	}
	for _, f := range fields[11:13] {
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return s, fmt.Errorf("bench: server process: %w", err)
		}
		s.cpu += ticks * nanosPerTick
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return s, fmt.Errorf("bench: server process: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return s, fmt.Errorf("bench: server process: %w", err)
			}
			s.rssAnon = kib << 10
			return s, nil
		}
	}
	return s, fmt.Errorf("bench: server process: no RssAnon in /proc/%d/status", p.pid)
}

const (
	restShare = 10              // hundredths of a core, below which a server has nothing left to do
	restMost  = 2 * time.Minute // until a server must be at rest
)

// Rest waits until the server with that process ID uses less than a tenth of a core for a second: what it makes of earlier messages,
// tables and compactions, is done. After two minutes it is an error.
func Rest(ctx context.Context, pid int) error {
	const look = time.Second
	server := process{pid}
	before, err := server.sample()
	if err != nil {
		return err
	}
	t := time.NewTicker(look)
	defer t.Stop()
	for range restMost / look {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		now, err := server.sample()
		if err != nil {
			return err
		}
		if now.cpu-before.cpu < int64(look)*restShare/100 {
			return nil
		}
		before = now
	}
	return fmt.Errorf("bench: the server was not idle within %v", restMost)
}

// machineCPU is what all processes of this machine have used, in ns; 0 when it is unknown.
func machineCPU() (ns int64) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	for i, f := range fields {
		const idle, iowait, guest = 4, 5, 9 // guest time is in user time already
		if i == 0 || i == idle || i == iowait || i >= guest {
			continue
		}
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		ns += ticks * nanosPerTick
	}
	return ns
}

// admin is the server's HTTP API.
type admin struct{ url, token string }

func (a admin) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(a.url, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("bench: admin: %w", err)
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("bench: admin: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("bench: admin: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("bench: admin: %s %s: %s: %.200s", method, path, resp.Status, b)
	}
	return b, nil
}

// kernelRelease is that of uname.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
