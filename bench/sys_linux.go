package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Thin wrappers of system calls. Those that never block (read, write on non-blocking sockets) go past the Go scheduler,
// which saves some 100 ns each; epoll_pwait2 tells the scheduler that it blocks.

// sysRead reads into p; -EAGAIN and the like come back as errno.
func sysRead(fd int32, p []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func sysWrite(fd int32, p []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// poller is one epoll instance. The data of an event is the index of a connection.
type poller struct {
	fd     int
	events [512]unix.EpollEvent

	wakeFD  int // eventfd
	pending atomic.Bool
}

// wakeIndex is the data of the event of wake.
const wakeIndex = -1

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("bench: epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bench: eventfd: %w", err)
	}
	p := &poller{fd: fd, wakeFD: wake}
	if err := p.set(unix.EPOLL_CTL_ADD, int32(wake), wakeIndex, unix.EPOLLIN); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *poller) close() {
	_ = unix.Close(p.wakeFD)
	_ = unix.Close(p.fd)
}

// wake ends a wait, or the next one; safe for concurrent use until close.
func (p *poller) wake() {
	if p.pending.CompareAndSwap(false, true) {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = sysWrite(int32(p.wakeFD), one[:])
	}
}

// awake takes the event of wake.
func (p *poller) awake() {
	var b [8]byte
	_, _ = sysRead(int32(p.wakeFD), b[:])
	p.pending.Store(false)
}

func (p *poller) set(op int, fd, index int32, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: index}
	if err := unix.EpollCtl(p.fd, op, int(fd), &ev); err != nil {
		return fmt.Errorf("bench: epoll: %w", err)
	}
	return nil
}

// wait blocks for at most timeout nanoseconds.
func (p *poller) wait(timeout int64) ([]unix.EpollEvent, error) {
	ts := unix.NsecToTimespec(max(timeout, 0))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)),
		uintptr(unsafe.Pointer(&ts)), 0, 0)
	runtime.KeepAlive(p)
	switch errno {
	case 0:
		return p.events[:n], nil
	case unix.EINTR:
		return nil, nil
	}
	return nil, fmt.Errorf("bench: epoll: %w", errno)
}

// startConnect opens a non-blocking socket and begins to connect it, from source if that is valid.
func startConnect(target netip.AddrPort, source netip.Addr) (int32, error) {
	family := unix.AF_INET
	if target.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("bench: socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err == nil && source.IsValid() {
		// The port is chosen at connect, so that one source address has all of them for every target.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0)))
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(target))
		if errors.Is(err, unix.EINPROGRESS) {
			err = nil
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("bench: connect to %s: %w", target, err)
	}
	return int32(fd), nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet4{Addr: a.Addr().Unmap().As4(), Port: int(a.Port())}
}

// connectError is how a connect ended.
func connectError(fd int32) error {
	n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if n != 0 {
		return unix.Errno(n)
	}
	return nil
}

// resetOnClose makes close(2) send a reset, so that thousands of connections leave no TIME_WAIT behind on this side.
func resetOnClose(fd int32) {
	_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// RaiseFileLimit sets the soft limit of open files to the hard one and returns it.
func RaiseFileLimit() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("bench: file limit: %w", err)
	}
	if limit.Cur < limit.Max {
		limit.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return 0, fmt.Errorf("bench: file limit: %w", err)
		}
	}
	return int(limit.Cur), nil
}

// ownCPU is the processor time of this process, in nanoseconds.
func ownCPU() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// nanosPerTick is the unit of times in /proc/PID/stat: 1/100 s on every Linux that Go runs on.
const nanosPerTick = 10_000_000
