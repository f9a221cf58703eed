package bench

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// sinkJob is to read what comes on some connections and to discard it: the other end of the write floor. It is a process
// of its own because two ends of 10,000 connections do not fit into 20,000 files.
type sinkJob struct {
	Addr        netip.AddrPort `json:"addr"`
	Connections int            `json:"connections"`
}

// sinkResult is what a sink has done.
type sinkResult struct {
	Bytes int64 `json:"bytes"`
	Reads int64 `json:"reads"`
	CPU   int64 `json:"cpu_ns"`
}

// run connects, says that it is ready, and reads until all connections or ctx end.
func (s *sinkJob) run(ctx context.Context, k *link) error {
	if _, err := RaiseFileLimit(); err != nil {
		return err
	}
	p, err := newPoller()
	if err != nil {
		return err
	}
	defer p.close()
	fds := make([]int32, 0, s.Connections)
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(int(fd))
		}
	}()
	for range s.Connections {
		fd, err := connectBlocking(s.Addr)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
		if err := p.set(unix.EPOLL_CTL_ADD, fd, fd, unix.EPOLLIN); err != nil {
			return err
		}
	}
	if err := k.send(message{Ready: true}); err != nil {
		return err
	}
	before := ownCPU()
	r, err := drink(ctx, p, len(fds))
	if err != nil {
		return err
	}
	r.CPU = ownCPU() - before
	return k.send(message{Drank: &r})
}

// drink reads from the sockets in p until open of them or ctx have ended.
func drink(ctx context.Context, p *poller, open int) (r sinkResult, err error) {
	buf := make([]byte, readSize)
	for open > 0 && ctx.Err() == nil {
		events, err := p.wait(idleTick)
		if err != nil {
			return r, err
		}
		for i := range events {
			fd := events[i].Fd
			n, errno := sysRead(fd, buf)
			r.Reads++
			if errno == unix.EAGAIN {
				continue
			}
			if n <= 0 || errno != 0 {
				_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, int(fd), nil)
				open--
				continue
			}
			r.Bytes += int64(n)
		}
	}
	return r, nil
}

// connectBlocking is a connected, then non-blocking socket.
func connectBlocking(addr netip.AddrPort) (int32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("bench: socket: %w", err)
	}
	for {
		if err = unix.Connect(fd, sockaddr(addr)); err != unix.EINTR {
			break
		}
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("bench: connect to %s: %w", addr, err)
	}
	return int32(fd), nil
}
