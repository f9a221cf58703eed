package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/codec"
)

// FloorOptions are those of MeasureFloor.
type FloorOptions struct {
	Connections int           // that are written to; at most what fits into the limit of open files
	Size        int           // of a content, in bytes: the frames are as large as the server's pushes of it
	Dir         string        // directory whose disk is measured; "" = none
	Duration    time.Duration // of each measurement; 1 s
	Worker      []string      // command of a worker process, which reads; empty = this program with "worker"
}

// Floor is what this kernel allows: the cost of the system calls that no server gets around, without any server.
type Floor struct {
	Connections int          `json:"connections"`
	FrameBytes  int          `json:"frame_bytes"`
	Writes      []WriteFloor `json:"writes"`
	Syncs       []SyncFloor  `json:"syncs,omitempty"`
	// Spread is how far the measurements before and after the run lie apart, as a share of the larger one: what this machine's
	// other work and luck do to every number of this run.
	Spread float64 `json:"spread,omitempty"`
	// Others is the CPU of all other processes of this machine during the writes, in cores.
	Others float64 `json:"others_cpu_share"`
	// DeliveriesShare is the run's deliveries per second ÷ uncoalesced writes per second of one thread, DeliveriesShareAll ÷
	// those of a thread per core; CommitsShare the server's commits per second ÷ fdatasyncs of 4 KiB per second.
	DeliveriesShare    float64 `json:"deliveries_share,omitempty"`
	DeliveriesShareAll float64 `json:"deliveries_share_all_cores,omitempty"`
	CommitsShare       float64 `json:"commits_share,omitempty"`
}

// WriteFloor is write(2) in turn to all connections, whose other ends are read by a process of their own.
type WriteFloor struct {
	Coalesced int     `json:"coalesced"` // frames in one write
	Writers   int     `json:"writers"`   // threads
	Writes    float64 `json:"writes_per_second"`
	Frames    float64 `json:"frames_per_second"`
	Full      int64   `json:"full"` // writes that found the socket full and were not counted: the reader was the limit
}

// SyncFloor is fdatasync after every append of so many bytes to one file.
type SyncFloor struct {
	Bytes     int     `json:"bytes"`
	Paced     float64 `json:"paced_per_second,omitempty"` // on a schedule, each measured from its intended time; 0 = one after the other
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	P999      float64 `json:"p999_ms"`
	Max       float64 `json:"max_ms"`
}

// pacedSyncs per second are about the commits of a server with little to do. A disk that syncs fast one after the other may still stall
// now and then, which nothing that waits for it can hide.
const pacedSyncs = 500

// String is one line for people.
func (s SyncFloor) String() string {
	rate := Grouped(s.PerSecond) + " fdatasync/s"
	if s.Paced > 0 {
		rate += " on a schedule"
	}
	return fmt.Sprintf("%s after %d KiB, p50 %.2f  p99 %.2f  p99.9 %.2f  max %.2f ms", rate, s.Bytes>>10, s.P50, s.P99, s.P999, s.Max)
}

// WithFloor measures the floor before and after run, for one half of the duration each, and puts it into run's result.
func WithFloor(ctx context.Context, o FloorOptions, run func() (*Result, error)) (*Result, error) {
	if o.Duration <= 0 {
		o.Duration = time.Second
	}
	o.Duration /= 2
	before, err := MeasureFloor(ctx, o)
	if err != nil {
		return nil, err
	}
	r, err := run()
	if err != nil {
		return nil, err
	}
	after, err := MeasureFloor(ctx, o)
	if err != nil {
		return r, err
	}
	r.Floor = before.mean(after)
	r.Floor.compare(r)
	return r, nil
}

// mean is the mean of two floors of the same options.
func (f *Floor) mean(g *Floor) *Floor {
	m := *f
	m.Others = (f.Others + g.Others) / 2
	m.Writes, m.Syncs = append([]WriteFloor(nil), f.Writes...), append([]SyncFloor(nil), f.Syncs...)
	spread := func(a, b float64) {
		if most := max(a, b); most > 0 {
			m.Spread = max(m.Spread, math.Abs(a-b)/most)
		}
	}
	for i := range m.Writes {
		a, b := &m.Writes[i], &g.Writes[i]
		spread(a.Writes, b.Writes)
		a.Writes, a.Frames, a.Full = (a.Writes+b.Writes)/2, (a.Frames+b.Frames)/2, a.Full+b.Full
	}
	for i := range m.Syncs {
		a, b := &m.Syncs[i], &g.Syncs[i]
		if a.Paced == 0 {
			spread(a.PerSecond, b.PerSecond)
		}
		a.PerSecond, a.P50 = (a.PerSecond+b.PerSecond)/2, (a.P50+b.P50)/2
		a.P99, a.P999, a.Max = max(a.P99, b.P99), max(a.P999, b.P999), max(a.Max, b.Max)
	}
	return &m
}

// compare states what share of the floor r reached.
func (f *Floor) compare(r *Result) {
	for _, w := range f.Writes {
		switch {
		case w.Coalesced != 1 || w.Writes == 0 || r.Messages == nil:
		case w.Writers == 1:
			f.DeliveriesShare = r.Messages.DeliveredRate / w.Writes
		default:
			f.DeliveriesShareAll = r.Messages.DeliveredRate / w.Writes
		}
	}
	if commits := r.Metrics["meshtalk_commit_seconds_count"]; commits > 0 && r.Seconds > 0 && len(f.Syncs) > 0 && f.Syncs[0].PerSecond > 0 {
		f.CommitsShare = commits / r.Seconds / f.Syncs[0].PerSecond
	}
}

// MeasureFloor measures what this kernel allows. It takes 4 × Duration, and 4 × Duration more with Dir.
func MeasureFloor(ctx context.Context, o FloorOptions) (*Floor, error) {
	limit, err := RaiseFileLimit()
	if err != nil {
		return nil, err
	}
	if o.Connections < 1 {
		return nil, errors.New("bench: floor: want at least one connection")
	}
	if o.Duration <= 0 {
		o.Duration = time.Second
	}
	o.Connections = min(o.Connections, limit-reservedFiles)
	f := &Floor{Connections: o.Connections}
	frame := sampleFrame(max(o.Size, minContent))
	f.FrameBytes = len(frame)
	if err := f.measureWrites(ctx, o, frame); err != nil {
		return nil, err
	}
	if o.Dir == "" {
		return f, nil
	}
	for _, s := range []SyncFloor{{Bytes: 4 << 10}, {Bytes: 128 << 10}, {Bytes: 4 << 10, Paced: pacedSyncs}} {
		d := o.Duration
		if s.Paced > 0 { // it makes fewer of them
			d *= 2
		}
		if err := s.measure(ctx, o.Dir, d); err != nil {
			return nil, err
		}
		f.Syncs = append(f.Syncs, s)
	}
	return f, nil
}

// sampleFrame is a pushed group message as large as those of a run with contents of size bytes.
func sampleFrame(size int) []byte {
	user := "b00000000-10000"
	content := strings.Repeat("x", size-2)
	var blank [markLen]byte
	mark{}.put(blank[:])
	tail := codec.AppendPushTail(nil, &codec.ConvMessage{Cmd: codec.GroupMessage, Conv: "g:" + user, Group: user, Seq: 10_000, From: user,
		TS: time.Now().UnixMilli(), Content: []byte(`"` + content + `"`), ID: string(blank[:])})
	packet := append(codec.AppendPushHead(nil, codec.GroupMessage, 0), tail...)
	return append(codec.AppendHeader(nil, codec.WebSocket, codec.OpText, len(packet)), packet...)
}

// measureWrites writes to a worker process.
func (f *Floor) measureWrites(ctx context.Context, o FloorOptions, frame []byte) (err error) {
	fds, w, err := connectSink(o)
	defer func() {
		for _, fd := range fds {
			resetOnClose(fd)
			_ = unix.Close(int(fd))
		}
	}()
	if err != nil {
		return err
	}
	defer w.stop()
	begin, own, all := time.Now(), ownCPU(), machineCPU()
	for _, how := range []WriteFloor{{Coalesced: 1, Writers: 1}, {Coalesced: 1, Writers: runtime.NumCPU()}, {Coalesced: 8, Writers: 1},
		{Coalesced: 64, Writers: 1}} {
		if how.Writers > 1 && runtime.NumCPU() == 1 {
			continue
		}
		if err := how.measure(ctx, fds, bytes.Repeat(frame, how.Coalesced), o.Duration); err != nil {
			return err
		}
		f.Writes = append(f.Writes, how)
	}
	own, all = ownCPU()-own, machineCPU()-all
	took := time.Since(begin).Seconds()
	w.end()
	m, err := w.receive()
	if err != nil {
		return fmt.Errorf("bench: floor: the reader: %w", err)
	}
	if m.Drank == nil || m.Drank.Bytes == 0 {
		return errors.New("bench: floor: the reader has read nothing")
	}
	f.Others = max(0, seconds(all-own-m.Drank.CPU)/took)
	return nil
}

// connectSink starts a worker that connects, and accepts its connections. They are not known to Go's own poller, which
// would look at them at every acknowledgement of TCP.
func connectSink(o FloorOptions) (fds []int32, w *worker, err error) {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("bench: floor: %w", err)
	}
	defer func() { _ = unix.Close(listener) }()
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, nil, fmt.Errorf("bench: floor: %w", err)
	}
	if err := unix.Listen(listener, 1024); err != nil {
		return nil, nil, fmt.Errorf("bench: floor: %w", err)
	}
	name, err := unix.Getsockname(listener)
	if err != nil {
		return nil, nil, fmt.Errorf("bench: floor: %w", err)
	}
	port := uint16(name.(*unix.SockaddrInet4).Port)
	if w, err = startWorker(o.Worker); err != nil {
		return nil, nil, err
	}
	err = w.send(message{Sink: &sinkJob{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port), Connections: o.Connections}})
	ready := make(chan error, 1)
	go func() {
		_, err := w.receive()
		if err != nil {
			_ = unix.Shutdown(listener, unix.SHUT_RD) // ends the accept below
		}
		ready <- err
	}()
	for err == nil && len(fds) < o.Connections {
		var fd int
		if fd, _, err = unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC); err == nil {
			fds = append(fds, int32(fd))
			err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		} else if errors.Is(err, unix.EINTR) {
			err = nil
		}
	}
	if err != nil {
		w.end()
	}
	if told := <-ready; told != nil {
		err = told
	}
	if err != nil {
		w.stop()
		return fds, nil, fmt.Errorf("bench: floor: %w", err)
	}
	return fds, w, nil
}

// measure writes b to all connections in turn, each thread to a share of them.
func (w *WriteFloor) measure(ctx context.Context, fds []int32, b []byte, d time.Duration) error {
	var over atomic.Bool
	timer := time.AfterFunc(d, func() { over.Store(true) })
	defer timer.Stop()
	stop := context.AfterFunc(ctx, func() { over.Store(true) })
	defer stop()
	writes, full, errs := make([]int64, w.Writers), make([]int64, w.Writers), make([]error, w.Writers)
	begin := time.Now()
	var threads sync.WaitGroup
	for i := range w.Writers {
		share := fds[len(fds)*i/w.Writers : len(fds)*(i+1)/w.Writers]
		threads.Go(func() { writes[i], full[i], errs[i] = writeInTurn(share, b, &over) })
	}
	threads.Wait()
	took := time.Since(begin).Seconds()
	for i := range writes {
		w.Writes += float64(writes[i]) / took
		w.Full += full[i]
	}
	w.Frames = w.Writes * float64(w.Coalesced)
	return errors.Join(append(errs, ctx.Err())...)
}

// writeInTurn writes b to each of fds again and again. A socket that takes only a part of it counts for none; the reader
// does not mind.
func writeInTurn(fds []int32, b []byte, over *atomic.Bool) (writes, full int64, err error) {
	for len(fds) > 0 {
		before := full
		for _, fd := range fds {
			switch n, errno := sysWrite(fd, b); {
			case errno == unix.EAGAIN || errno == 0 && n < len(b):
				full++
			case errno != 0:
				return writes, full, fmt.Errorf("bench: floor: write: %w", errno)
			default:
				writes++
			}
		}
		if over.Load() {
			break
		}
		if int(full-before) == len(fds) {
			runtime.Gosched() // the reader needs the core
		}
	}
	return writes, full, nil
}

// measure appends and syncs for d.
func (s *SyncFloor) measure(ctx context.Context, dir string, d time.Duration) (err error) {
	f, err := os.CreateTemp(dir, "meshbench-floor-*")
	if err != nil {
		return fmt.Errorf("bench: floor: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block, h := bytes.Repeat([]byte{'x'}, s.Bytes), newHistogram()
	begin := time.Now()
	for n := 0; time.Since(begin) < d && ctx.Err() == nil; n++ {
		if _, err := f.Write(block); err != nil {
			return fmt.Errorf("bench: floor: %w", err)
		}
		at := time.Now()
		if s.Paced > 0 {
			at = begin.Add(time.Duration(float64(n) / s.Paced * float64(time.Second)))
			time.Sleep(time.Until(at))
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return fmt.Errorf("bench: floor: fdatasync: %w", err)
		}
		h.record(int64(time.Since(at)))
	}
	l := h.summary()
	s.PerSecond, s.P50, s.P99, s.P999, s.Max = float64(l.Count)/time.Since(begin).Seconds(), l.P50, l.P99, l.P999, l.Max
	return ctx.Err()
}
