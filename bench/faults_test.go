package bench_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/bench"
)

// liar is a proxy in front of a good server that breaks one promise, once, on one of its connections: what it makes of
// the server's frames is what the load gets.
type liar struct {
	target  string
	breaks  func(frame []byte, held *[]byte) (out [][]byte, done bool)
	applies func(frame []byte) bool // frames that it may touch
	skip    int64                   // so many of them are left alone

	seen   atomic.Int64
	broken atomic.Bool
}

// pushed are frames of messages; answered are SEND_ACKs.
var (
	pushed   = regexp.MustCompile(`^[^{]{2,10}\{"cmd":[345],`).Match
	answered = regexp.MustCompile(`^[^{]{2,10}\{"cmd":6,`).Match
	echoed   = regexp.MustCompile(`^[^{]{2,10}\{"cmd":1,"id":"mb1`).Match
)

// Ways to break a promise. held is what is kept back for the next frame of the connection.
func drops([]byte, *[]byte) ([][]byte, bool)       { return nil, true }
func doubles(f []byte, _ *[]byte) ([][]byte, bool) { return [][]byte{f, f}, true }
func exchanges(f []byte, held *[]byte) ([][]byte, bool) {
	if *held == nil {
		*held = bytes.Clone(f)
		return nil, false
	}
	return [][]byte{f, *held}, true
}

// alters changes the number in the mark of the content, which is the last one of the frame.
func alters(f []byte, _ *[]byte) ([][]byte, bool) {
	b := bytes.Clone(f)
	if i := bytes.LastIndex(b, []byte(`"content":"mb1.`)); i >= 0 {
		b[i+len(`"content":"mb1.`)+21] ^= 1
	}
	return [][]byte{b}, true
}

// listen begins to take connections; what it returns is where.
func (p *liar) listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	t.Cleanup(func() { _ = l.Close() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(t, c.(*net.TCPConn)) })
		}
	})
	return l.Addr().String()
}

// serve joins one connection to the server, as it is towards it.
func (p *liar) serve(t *testing.T, c *net.TCPConn) {
	s, err := net.Dial("tcp", p.target)
	if err != nil {
		t.Errorf("proxy: %v", err)
		return
	}
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(s, c) // ends with the connection
		_ = s.Close()
	})
	p.down(c, bufio.NewReaderSize(s, 64<<10))
	_ = c.Close()
	up.Wait()
}

// down carries the server's frames, after an upgrade if there is one.
func (p *liar) down(c net.Conn, s *bufio.Reader) {
	websocket := false
	if b, err := s.Peek(4); err == nil && string(b) == "HTTP" {
		websocket = true
		for line := ""; line != "\r\n"; {
			if line, err = s.ReadString('\n'); err != nil {
				return
			}
			if _, err := io.WriteString(c, line); err != nil {
				return
			}
		}
	}
	var held []byte
	for {
		frame, err := readFrame(s, websocket)
		if err != nil {
			return
		}
		for _, f := range p.turn(frame, &held) {
			if _, err := c.Write(f); err != nil {
				return
			}
		}
	}
}

// turn is what becomes of a frame.
func (p *liar) turn(frame []byte, held *[]byte) [][]byte {
	if !p.applies(frame) || *held == nil && (p.seen.Add(1) <= p.skip || !p.broken.CompareAndSwap(false, true)) {
		return [][]byte{frame}
	}
	out, done := p.breaks(frame, held)
	if done {
		*held = nil
	}
	return out
}

// readFrame is a frame of the server, which does not mask, with its header.
func readFrame(r *bufio.Reader, websocket bool) ([]byte, error) {
	if !websocket {
		head, err := r.Peek(4)
		if err != nil {
			return nil, err
		}
		return take(r, 4+int(binary.BigEndian.Uint32(head)))
	}
	head, err := r.Peek(2)
	if err != nil {
		return nil, err
	}
	switch n := int(head[1]); n {
	case 126:
		if head, err = r.Peek(4); err != nil {
			return nil, err
		}
		return take(r, 4+int(binary.BigEndian.Uint16(head[2:])))
	case 127:
		return nil, errors.New("longer than any frame of these tests")
	default:
		return take(r, 2+n)
	}
}

func take(r *bufio.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// Every scenario finds a broken promise on the wire of a real server, on both transports, and tells the evidence.
func TestEveryScenarioFindsALiar(t *testing.T) {
	o := options(t)
	o.Drain = 300 * time.Millisecond // of a run that lacks something, which is what these are to be
	day, err := bench.ParseMix([]byte("users: 12\nmembers: 4\nsteps: [{for: 300ms, online: 12, private: 400, group: 50}]"))
	if err != nil {
		t.Fatal(err)
	}
	scenarios := map[string]func(o bench.Options) (*bench.Result, error){
		"private": func(o bench.Options) (*bench.Result, error) {
			return bench.Private(t.Context(), o, bench.PrivateOptions{Pairs: 3, InFlight: 8})
		},
		"private open": func(o bench.Options) (*bench.Result, error) {
			return bench.Private(t.Context(), o, bench.PrivateOptions{Pairs: 3, Rate: 500})
		},
		"group": func(o bench.Options) (*bench.Result, error) {
			return bench.Group(t.Context(), o, bench.GroupOptions{Groups: 2, Members: 4, InFlight: 4})
		},
		"group large": func(o bench.Options) (*bench.Result, error) {
			return bench.Group(t.Context(), o, bench.GroupOptions{Groups: 1, Members: 15, InFlight: 4})
		},
		"fanout": func(o bench.Options) (*bench.Result, error) {
			return bench.Fanout(t.Context(), o, bench.GroupOptions{Members: 15, InFlight: 4})
		},
		"storm": func(o bench.Options) (*bench.Result, error) {
			return bench.Storm(t.Context(), o, bench.StormOptions{Clients: 8, Messages: 5})
		},
		"slow": func(o bench.Options) (*bench.Result, error) {
			return bench.Slow(t.Context(), o, bench.SlowOptions{Receivers: 2, Stall: 150 * time.Millisecond, Bytes: 50_000, BulkSize: 1000, Pairs: 2, Rate: 200})
		},
		"mix": func(o bench.Options) (*bench.Result, error) { return bench.Mix(t.Context(), o, day) },
		"echo": func(o bench.Options) (*bench.Result, error) {
			return bench.Echo(t.Context(), o, bench.EchoOptions{Connections: 3, InFlight: 8})
		},
	}
	const messages = "private · private open · group · group large · fanout · storm · slow · mix"
	faults := map[string]struct {
		breaks  func([]byte, *[]byte) ([][]byte, bool)
		applies func([]byte) bool
		in      string // the scenarios in which there is something that could break
	}{
		"drops a push":       {drops, pushed, messages},
		"doubles a push":     {doubles, pushed, messages},
		"exchanges pushes":   {exchanges, pushed, messages},
		"alters a push":      {alters, pushed, messages},
		"drops a SEND_ACK":   {drops, answered, strings.Replace(messages, "storm · ", "", 1)},
		"doubles a SEND_ACK": {doubles, answered, strings.Replace(messages, "storm · ", "", 1)},
		"drops an answer":    {drops, echoed, "echo"},
		"doubles an answer":  {doubles, echoed, "echo"},
		"exchanges answers":  {exchanges, echoed, "echo"},
	}
	for scenario, run := range scenarios {
		for fault, f := range faults {
			if !slices.Contains(strings.Split(f.in, " · "), scenario) {
				continue
			}
			for _, addr := range o.Addrs {
				scheme, rest, _ := strings.Cut(addr, "://")
				t.Run(strings.Join([]string{scenario, fault, scheme}, "/"), func(t *testing.T) {
					t.Parallel()
					skip := int64(4)
					if scenario == "storm" {
						skip = 12 // all have the first message, and are back
					}
					r := runBroken(t, run, o, scheme, rest, func() *liar { return &liar{breaks: f.breaks, applies: f.applies, skip: skip} })
					if r.OK || len(r.Failures) == 0 || len(r.Evidence) == 0 {
						t.Errorf("it was not found: %v, %q", r.Failures, r.Evidence)
					}
				})
			}
		}
	}
}

// runBroken runs a scenario against a server behind a liar until something was broken.
func runBroken(t *testing.T, run func(bench.Options) (*bench.Result, error), o bench.Options, scheme, rest string, newLiar func() *liar) (r *bench.Result) {
	t.Helper()
	host, path, _ := strings.Cut(rest, "/")
	longer(t, o, func(o bench.Options) bool {
		p := newLiar()
		p.target = host
		o.Addrs = []string{scheme + "://" + p.listen(t) + "/" + path}
		var err error
		if r, err = run(o); err != nil {
			t.Fatal(err)
		}
		return p.broken.Load()
	})
	return r
}
