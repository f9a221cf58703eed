package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/codec"
)

const (
	slowContent = 1 << 10 // bytes of a message
	slowGrowth  = 2 << 20 // bytes of memory that receivers who do not read may cost together
	// What the most memory, garbage and all, differs by between two floods: the store's tail and the collector move it. A third of what is
	// sent, so that a server that holds it is found in this way, too.
	slowNoise = 8 << 20

	// With ack: client the window ends the pushes. With ack: auto what the kernel takes does, which may be 3 MB.
	clientReceivers, clientMessages = 16, 512
	autoReceivers, autoMessages     = 4, 4096
)

// target is whom a flood is sent to.
type target struct {
	name, ack string
	messages  int
}

// targets are 20 users who get 24 MB together.
func targets(prefix string) (list []target) {
	for i := range clientReceivers {
		list = append(list, target{fmt.Sprint(prefix, i), "client", clientMessages})
	}
	for i := range autoReceivers {
		list = append(list, target{fmt.Sprint(prefix, clientReceivers+i), "auto", autoMessages})
	}
	return list
}

// Receivers that read nothing cost constant memory, disturb nobody, lose nothing and are not disconnected: 24 MB are sent to 20 of
// them, then they read on. The server is as it comes, and is looked at from outside in two ways. What it holds while they do not
// read, garbage apart, is at most 2 MB above what it held before. And while the flood lasts, garbage and all, its RssAnon goes no
// further than when the same was sent to receivers who read it, but for the noise of that.
func TestSlowReceivers(t *testing.T) {
	ctx := patient(t)
	p := spawn(t, t.TempDir())
	q := newPair(ctx, t, p)
	slow := receivers(ctx, t, p, targets("slow"))
	before := plateau(ctx, t, p)
	held := leastHeld(p)
	chat := startChat(ctx, q, 0)
	watch := watchMemory(p)
	flood(ctx, t, p, targets("slow"))
	after := watch.end()
	trips, worst := chat.end(t)
	lagging := int(p.metrics()["meshtalk_lagging_sessions"])
	t.Logf("most memory before: %d KB; meanwhile: %d KB; %d sessions lag; %d round trips of others, the worst took %v",
		before>>10, after>>10, lagging, trips, worst)
	if grown := after - before; grown > slowGrowth+slowNoise {
		t.Errorf("%d receivers that do not read cost %d KB of memory", len(slow), grown>>10)
	}
	stalled := leastHeld(p)
	t.Logf("held before: %d KB, while they do not read: %d KB", held>>10, stalled>>10)
	if stalled-held > slowGrowth {
		t.Errorf("for %d receivers that do not read %d KB of memory are held", len(slow), (stalled-held)>>10)
	}
	if lagging != len(slow) {
		t.Errorf("%d of %d sessions lag: the test is none", lagging, len(slow))
	}
	if trips < 10 {
		t.Errorf("only %d round trips of others", trips)
	}
	for _, err := range readAll(ctx, slow, 1) {
		t.Error(err)
	}
	until(t, "nobody lags", func() (any, bool) {
		n := p.metrics()["meshtalk_lagging_sessions"]
		return n, n == 0
	})
	p.unharmed()
}

// plateau sends as much to others, who read it as it comes, a few times, and returns the most memory that the server had meanwhile.
func plateau(ctx context.Context, t *testing.T, p *process) (most int64) {
	t.Helper()
	for round := range 4 {
		to := targets(fmt.Sprintf("round%d-", round))
		others := receivers(ctx, t, p, to)
		read := make(chan []error)
		go func() { read <- readAll(ctx, others, -1) }()
		watch := watchMemory(p)
		flood(ctx, t, p, to)
		for _, err := range <-read {
			t.Fatal(err)
		}
		now := watch.end()
		for _, o := range others {
			_ = o.Close()
		}
		t.Logf("round %d: %d KB", round, now>>10)
		most = max(most, now)
	}
	return most
}

// leastHeld is what the process holds in memory, in bytes, once it holds no less: pools are emptied by the second collection, and
// the store writes what it keeps of the last messages a little later.
func leastHeld(p *process) int64 {
	p.t.Helper()
	least := heldNow(p)
	for same := 0; same < 30; same++ {
		time.Sleep(50 * time.Millisecond)
		if now := heldNow(p); now < least {
			least, same = now, 0
		}
	}
	return least
}

// heldNow is what of the heap and of stacks is in use after a garbage collection, with the gaps between objects, without what the
// store holds: it keeps the last few megabytes of messages for everybody, until they are tables. Built without cgo, the server has its
// memory nowhere else.
func heldNow(p *process) int64 {
	p.t.Helper()
	stats := map[string]int64{}
	for line := range strings.Lines(string(p.call(http.MethodGet, "/debug/pprof/heap?gc=1&debug=1", ""))) {
		if name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# "), " = "); ok {
			value, _, _ = strings.Cut(value, " ") // "Stack = in use / all"
			stats[name], _ = strconv.ParseInt(value, 10, 64)
		}
	}
	if stats["HeapInuse"] == 0 {
		p.t.Fatal("the heap profile does not say HeapInuse")
	}
	return stats["HeapInuse"] + stats["Stack"] - int64(p.metrics()["meshtalk_store_memory_bytes"])
}

// memoryWatch looks at a process's RssAnon until it is ended.
type memoryWatch struct {
	stop chan struct{}
	most chan int64
}

func watchMemory(p *process) memoryWatch {
	w := memoryWatch{make(chan struct{}), make(chan int64)}
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		most := residentNow(p)
		for {
			select {
			case <-tick.C:
				most = max(most, residentNow(p))
			case <-w.stop:
				w.most <- most
				return
			}
		}
	}()
	return w
}

// residentNow is the RssAnon of the process in bytes, 0 when it has ended.
func residentNow(p *process) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, text, _ := strings.Cut(string(status), "\nRssAnon:")
	var kb int64
	_, _ = fmt.Sscan(text, &kb)
	return kb << 10
}

// end returns the most bytes that were seen.
func (w memoryWatch) end() int64 {
	close(w.stop)
	return <-w.most
}

// readAll lets all of them read what was sent to them.
func readAll(ctx context.Context, list []*receiver, lags int) (errs []error) {
	var all sync.WaitGroup
	var mu sync.Mutex
	for _, r := range list {
		all.Go(func() {
			if err := r.readAll(ctx, lags); err != nil {
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s (ack: %s): %w", r.name, r.ack, err))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return errs
}

// receiver is a session that may stop reading.
type receiver struct {
	*client.Conn
	target
}

// receivers logs in, on both transports, with small buffers in the kernel: what the kernel holds
// is not the server's.
func receivers(ctx context.Context, t *testing.T, p *process, of []target) (list []*receiver) {
	t.Helper()
	small := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
		}), err)
	}}
	for i, to := range of {
		c, err := client.DialConn(ctx, p.urls[[]string{"tcp", "websocket"}[i%2]], client.ConnOptions{Dial: small.DialContext})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		r := &receiver{Conn: c, target: to}
		if err := login(ctx, c, p.token(r.name), fmt.Sprintf(`"ack":%q`, r.ack)); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// readAll reads what was sent to r, by the client's rule; wantLags is how often LAG comes, -1 = does not matter.
func (r *receiver) readAll(ctx context.Context, wantLags int) error {
	last, lags := 0, 0
	for last < r.messages {
		got, err := r.ReceivePacket(ctx)
		if err != nil {
			return fmt.Errorf("after message %d: %w", last, err)
		}
		switch got.Cmd {
		case codec.Lag:
			lags++
			continue
		case codec.PrivateMessage:
		default:
			return fmt.Errorf("after message %d: %s", last, got.Raw)
		}
		var m struct {
			Inbox   int
			Content string
		}
		if err := json.Unmarshal(got.Data, &m); err != nil {
			return err
		}
		if last++; m.Inbox != last || len(m.Content) != slowContent {
			return fmt.Errorf("inbox number %d with %d bytes, want %d", m.Inbox, len(m.Content), last)
		}
		if r.ack == "client" && last%100 == 0 {
			if err := r.Send(ctx, fmt.Appendf(nil, `{"cmd":7,"data":{"inbox":%d}}`, last)); err != nil {
				return err
			}
		}
	}
	if wantLags >= 0 && lags != wantLags {
		return fmt.Errorf("LAG came %d times", lags)
	}
	_, err := exchange(ctx, r.Conn, `{"cmd":1,"id":"alive"}`)
	return err
}

// flood sends every target its messages, in turns and from several senders, and waits for all SEND_ACKs.
func flood(ctx context.Context, t *testing.T, p *process, to []target) {
	t.Helper()
	const senders = 4
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			if err := floodFrom(ctx, p, fmt.Sprintf("flood%d", i), to, senders); err != nil {
				t.Errorf("flood: %v", err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// floodFrom is one sender's part, one share of it.
func floodFrom(ctx context.Context, p *process, name string, to []target, share int) error {
	c, err := connect(ctx, p, "tcp", name)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	content := noise(slowContent + 2)[:slowContent]
	const flight = 64
	waiting := 0
	await := func() error {
		got, err := c.ReceivePacket(ctx)
		switch {
		case err != nil:
			return err
		case got.Cmd == codec.SendAck:
			waiting--
		case got.Cmd == codec.Error:
			return refusalOf(got.Data)
		}
		return nil
	}
	for n, more := 0, true; more; n++ {
		more = false
		for _, o := range to {
			if n >= o.messages/share {
				continue
			}
			more = true
			b := fmt.Appendf(nil, `{"cmd":3,"id":"%s-%d","data":{"to":%q,"content":%q}}`, o.name, n, o.name, content)
			if err := c.Send(ctx, b); err != nil {
				return err
			}
			for waiting++; waiting >= flight; {
				if err := await(); err != nil {
					return err
				}
			}
		}
	}
	for waiting > 0 {
		if err := await(); err != nil {
			return err
		}
	}
	return nil
}

// chat is a pair that talks while something else happens.
type chat struct {
	stop, done chan struct{}
	trips      int
	worst      time.Duration
	err        error
}

// startChat begins to talk, with a pause after each round trip.
func startChat(ctx context.Context, q *pair, every time.Duration) *chat {
	c := &chat{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for {
			select {
			case <-c.stop:
				return
			case <-time.After(every):
			}
			c.err = q.trips(ctx, 1, func(d time.Duration) { c.worst = max(c.worst, d) })
			if c.err != nil {
				return
			}
			c.trips++
		}
	}()
	return c
}

// end returns how many round trips there were, and the time of the slowest.
func (c *chat) end(t *testing.T) (trips int, worst time.Duration) {
	t.Helper()
	close(c.stop)
	<-c.done
	if c.err != nil {
		t.Errorf("others: %v", c.err)
	}
	return c.trips, c.worst
}
