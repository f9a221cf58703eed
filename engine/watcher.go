package engine

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// watcher tells loops which sockets take bytes again. It is an epoll of its own beside gnet's, which has no callback
// for that, with every socket armed once per episode: thousands of blocked connections cost nothing until they move.
// Its one goroutine waits in Go's poller, where an epoll descriptor is a file like others, and so blocks no thread.
type watcher struct {
	loops []*Loop
	file  *os.File
	raw   syscall.RawConn
	epoll int
	done  chan struct{}
}

func startWatcher(loops []*Loop) (*watcher, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil {
		return nil, errors.Join(err, unix.Close(epoll))
	}
	w := &watcher{loops: loops, epoll: epoll, file: os.NewFile(uintptr(epoll), "epoll"), done: make(chan struct{})}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, w.file.Close())
	}
	go w.run()
	return w, nil
}

// watch asks for one word about c. The event carries loop and slot: should the slot have another connection by then,
// that one is looked at for nothing.
func (w *watcher) watch(c *Conn) error {
	event := unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLONESHOT, Fd: int32(c.slot), Pad: int32(c.loop.Index)}
	err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_MOD, int(c.fd), &event)
	if errors.Is(err, unix.ENOENT) {
		err = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, int(c.fd), &event)
	}
	if err != nil {
		return fmt.Errorf("watch socket: %w", err)
	}
	return nil
}

func (w *watcher) run() {
	defer close(w.done)
	events := make([]unix.EpollEvent, 256)
	slots := make([][]uint32, len(w.loops))
	for {
		n := 0
		err := w.raw.Read(func(uintptr) bool {
			var err error
			n, err = unix.EpollWait(w.epoll, events, 0)
			return n > 0 || err != nil && err != unix.EINTR
		})
		if err != nil { // closed
			return
		}
		for _, e := range events[:max(n, 0)] {
			slots[e.Pad] = append(slots[e.Pad], uint32(e.Fd))
		}
		for i, s := range slots {
			if len(s) > 0 {
				w.loops[i].postWritable(s)
				slots[i] = s[:0]
			}
		}
	}
}

// close ends the goroutine. The loops have ended.
func (w *watcher) close() error {
	err := w.file.Close()
	<-w.done
	return err
}

// postWritable wakes the loop for sockets that take bytes again. It copies slots.
func (l *Loop) postWritable(slots []uint32) {
	l.mu.Lock()
	if l.mu.ended {
		l.mu.Unlock()
		return
	}
	l.mu.writable = append(l.mu.writable, slots...)
	l.wakeLocked()
}

// takeWritable goes on with the sockets that take bytes again.
func (l *Loop) takeWritable() {
	l.mu.Lock()
	slots := l.mu.writable
	l.mu.writable = nil
	l.mu.Unlock()
	for _, slot := range slots {
		if c := l.table.conn(slot); c != nil {
			c.writable()
		}
	}
}
