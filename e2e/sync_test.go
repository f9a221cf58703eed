package e2e_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// injectSyncErrors makes syncs of the server's files fail with EIO, those that strace's expression when selects, until the
// returned function is called.
func injectSyncErrors(t *testing.T, p *process, when string) (lift func()) {
	t.Helper()
	cmd := exec.Command("strace", "-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync,sync_file_range",
		"-e", "inject=fsync,fdatasync,sync_file_range:error=EIO:when="+when, "-p", fmt.Sprint(p.cmd.Process.Pid))
	messages, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (this test needs strace: apt-get install strace)", err)
	}
	lines := bufio.NewScanner(messages)
	for attached := false; !attached; attached = strings.Contains(lines.Text(), "attached") {
		if !lines.Scan() {
			t.Fatalf("strace did not attach: %v", cmd.Wait())
		}
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines.Scan() { // what it says of threads that come and go
		}
	}()
	lifted := false
	lift = func() {
		if !lifted {
			lifted = true
			_ = cmd.Process.Signal(os.Interrupt) // it lets go of the server, which goes on
			<-read
			_ = cmd.Wait()
		}
	}
	t.Cleanup(lift)
	return lift
}

// The disk fails to sync, now and then or every time: whatever was acknowledged is there, also after a kill -9 in the middle, and
// when the disk works again the server does.
func TestSyncErrors(t *testing.T) {
	for _, c := range []struct {
		name, when string
		killed     bool
	}{
		{"some", "5+7", false},
		{"all", "1+", false},
		{"some, killed", "5+7", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := patient(t)
			dir := t.TempDir()
			p := spawn(t, dir)
			users := crowdOf(8, newHistory())
			makeGroup(t, p, users)
			known(ctx, t, p, "reader")
			l := startLoad(ctx, p, users)
			l.acknowledged(t, 200)
			lift := injectSyncErrors(t, p, c.when)
			l.unavailable(t, 2*len(users)*window)
			if c.when == "1+" {
				readOnly(t, p)
				readsStay(ctx, t, p, "reader")
				refusals(ctx, t, p, "reader")
			}
			if c.killed {
				p.kill()
				lift()
				_ = l.end()
				p = spawn(t, dir)
				l = startLoad(ctx, p, users)
			} else {
				lift()
				keepsAgain(t, p)
			}
			l.acknowledged(t, 200)
			finish(t, p, l)
		})
	}
}
