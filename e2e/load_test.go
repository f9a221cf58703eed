package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// load is a crowd that keeps sending while a test does something to the server.
type load struct {
	users []*user
	h     *history
	stop  chan struct{}
	done  sync.WaitGroup
	mu    sync.Mutex
	errs  []string
}

// startLoad lets users send until the load is ended.
func startLoad(ctx context.Context, p *process, users []*user) *load {
	l := &load{users: users, h: users[0].h, stop: make(chan struct{})}
	for i, u := range users {
		l.done.Go(func() {
			if err := u.run(ctx, p, []string{"tcp", "websocket"}[i%2], l.stop); err != nil {
				l.mu.Lock()
				l.errs = append(l.errs, fmt.Sprintf("%s: %v", u.name, err))
				l.mu.Unlock()
			}
		})
	}
	return l
}

// acknowledged waits until n more messages have been acknowledged.
func (l *load) acknowledged(t *testing.T, n int) {
	t.Helper()
	_, before := l.h.count()
	until(t, fmt.Sprintf("%d more messages acknowledged", n), func() (any, bool) {
		sent, acked, refused := l.h.counts()
		return fmt.Sprintf("%d sent, %d acknowledged, %d refused; %q", sent, acked, refused, l.failures()), acked >= before+n
	})
}

// unavailable waits until n more messages have been refused.
func (l *load) unavailable(t *testing.T, n int) {
	t.Helper()
	_, _, before := l.h.counts()
	until(t, fmt.Sprintf("%d more messages refused", n), func() (any, bool) {
		sent, acked, refusals := l.h.counts()
		return fmt.Sprintf("%d sent, %d acknowledged, %d times refused; %q", sent, acked, refusals, l.failures()), refusals >= before+n
	})
}

func (l *load) failures() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.errs...)
}

// end lets everybody finish and returns whose connection did not last.
func (l *load) end() []string {
	close(l.stop)
	l.done.Wait()
	return l.failures()
}

// smallDisk mounts a file system of its own for a test. Root may.
func smallDisk(t *testing.T, megabytes int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	options := fmt.Sprintf("size=%dm", megabytes)
	if err := unix.Mount("meshtalk-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("cannot mount a tmpfs of %d MB on %s: %v (this test needs root, or CAP_SYS_ADMIN)", megabytes, dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// resize gives a small disk another size.
func resize(t *testing.T, dir string, megabytes int) {
	t.Helper()
	if err := unix.Mount("meshtalk-test", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Fatal(err)
	}
}

// hog writes a file until nothing more fits on the disk.
func hog(t *testing.T, dir string) (name string) {
	t.Helper()
	name = filepath.Join(dir, "hog")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err = f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	if err.(*os.PathError).Err != syscall.ENOSPC {
		t.Fatal(err)
	}
	return name
}

// patient is a context for a whole test.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	return ctx
}
