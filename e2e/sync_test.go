package e2e_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// inject makes system calls of the server fail with EIO, those that strace's expression when selects, until the returned
// function is called.
func inject(t *testing.T, p *process, calls, when string) (lift func()) {
	t.Helper()
	cmd := exec.Command("strace", "-f", "-o", "/dev/null", "-e", "trace="+calls,
		"-e", "inject="+calls+":error=EIO:when="+when, "-p", fmt.Sprint(p.cmd.Process.Pid))
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
			lift := inject(t, p, "fsync,fdatasync,sync_file_range", c.when)
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

// An ACK that comes while the store cannot even be read counts when it can again: the client does not repeat it.
func TestACKWhileStoreIsClosed(t *testing.T) {
	ctx := patient(t)
	p := spawn(t, t.TempDir())
	sender, err := connect(ctx, p, "tcp", "sender")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sender.Close() }()
	receiver, err := connect(ctx, p, "websocket", "receiver", `"ack":"client"`, `"window":4`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = receiver.Close() }()
	for i := range 8 {
		if _, err := exchange(ctx, sender, fmt.Sprintf(`{"cmd":3,"id":"%d","data":{"to":"receiver","content":%d}}`, i, i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		if err := awaitContent(ctx, receiver, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	// The log cannot be synced, which ends this opening of the database; the next fails where it renames a file.
	lift := inject(t, p, "fdatasync,rename,renameat,renameat2", "1+")
	if _, err := exchange(ctx, sender, `{"cmd":3,"id":"more","data":{"to":"receiver","content":"more"}}`); err == nil {
		t.Fatal("a message was kept without a sync")
	}
	until(t, "the store cannot be read", func() (any, bool) {
		_, err := exchange(ctx, sender, `{"cmd":9,"id":"history","data":{"conv":"p:receiver:sender"}}`)
		var r *refusal
		return err, errors.As(err, &r) && r.Retryable
	})
	if err := receiver.Send(ctx, []byte(`{"cmd":7,"data":{"inbox":4}}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(ctx, receiver, `{"cmd":1,"id":"the ACK has been handled"}`); err != nil {
		t.Fatal(err)
	}
	lift()
	for i := 4; i < 8; i++ {
		if err := awaitContent(ctx, receiver, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	p.unharmed()
}
