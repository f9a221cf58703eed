package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// The golden dialogues, testdata/dialogues/README.md, played in virtual time over pipes.

func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("../testdata/dialogues/*.jsonl")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d dialogues, %v", len(files), err)
	}
	for _, f := range files {
		lines := readDialogue(t, f)
		t.Run(strings.TrimSuffix(filepath.Base(f), ".jsonl"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playDialogue(t, lines) })
		})
	}
}

// object is a decoded JSON object.
type object = map[string]any

func readDialogue(t *testing.T, name string) (lines []object) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		line := in.Text()
		if line == "" || strings.HasPrefix(line, "//") {
			continue
		}
		var o object
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%s: %s: %v", name, line, err)
		}
		lines = append(lines, o)
	}
	return lines
}

// stage is the server's and the application's side of one client.
type stage struct {
	t     *testing.T
	step  string // for messages
	opt   Options
	c     *Client
	bound map[string]string // placeholders
	peer  *peer
	dials chan chan net.Conn // attempts to connect; nil is answered to refuse one
	names int

	mu      sync.Mutex
	tokens  []string
	sent    []any // packets of the client
	told    []any // events of the application
	results map[string]any
	errs    map[string]object
	closed  *peer // by the client
}

func playDialogue(t *testing.T, lines []object) {
	s := &stage{t: t, bound: map[string]string{}, dials: make(chan chan net.Conn, 8), results: map[string]any{}, errs: map[string]object{}, tokens: []string{"token-1"}}
	s.begin(lines[0])
	for _, line := range lines[1:] {
		b, _ := json.Marshal(line)
		s.step = string(b)
		s.play(line)
		if t.Failed() {
			break
		}
	}
	synctest.Wait()
	s.mu.Lock()
	for _, p := range s.sent {
		t.Errorf("the client also sent %v", p)
	}
	for _, e := range s.told {
		t.Errorf("the application was also told %v", e)
	}
	s.mu.Unlock()
	if len(s.dials) > 0 && !t.Failed() {
		t.Error("the client also connected")
	}
	s.end()
}

func (s *stage) begin(head object) {
	var o struct {
		Options struct {
			Terminal           string
			Ack                AckMode
			Window, MaxFrame   int
			AckDelay, AckEvery int
		}
		Tokens   []string
		Position *Position
	}
	s.as(head, &o)
	if o.Tokens != nil {
		s.tokens = o.Tokens
	}
	store := new(MemoryPositions)
	if o.Position != nil {
		_ = store.Save(*o.Position)
	}
	s.opt = Options{Addr: "ws://server/im", Token: s.token, Positions: store, RetryDial: true, Handler: s.handler(),
		Terminal: o.Options.Terminal, Ack: o.Options.Ack, Window: o.Options.Window, MaxFrame: o.Options.MaxFrame,
		AckDelay: time.Duration(o.Options.AckDelay) * time.Millisecond, AckEvery: o.Options.AckEvery, Conn: ConnOptions{Dial: s.dial}}
	// Dial returns at the first login, which a dialogue plays; until then the Client is known only here.
	c, err := begin(s.opt)
	if err != nil {
		s.t.Fatal(err)
	}
	s.c = c
}

// end closes everything, so that no goroutine is left.
func (s *stage) end() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.c.Close()
	}()
	for {
		select {
		case answer := <-s.dials:
			answer <- nil
		case <-done:
			if s.peer != nil {
				_ = s.peer.nc.Close()
			}
			synctest.Wait()
			return
		}
	}
}

func (s *stage) token(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := s.tokens[0]
	if len(s.tokens) > 1 {
		s.tokens = s.tokens[1:]
	}
	return token, nil
}

func (s *stage) dial(context.Context, string, string) (net.Conn, error) {
	answer := make(chan net.Conn)
	s.dials <- answer
	if nc := <-answer; nc != nil {
		return nc, nil
	}
	return nil, errors.New("connection refused")
}

// play carries out one step.
func (s *stage) play(line object) {
	within := s.within(line["within"])
	for verb, arg := range line {
		switch verb {
		case "connect":
			s.connect(s.within(arg), true)
		case "refuse":
			s.connect(s.within(arg), false)
		case "login":
			answer, _ := line["answer"].(object) // without one the step is LOGIN alone
			s.login(arg.(object), answer)
		case "client":
			s.expectPacket(arg, within)
		case "server":
			s.send(arg.(object))
		case "close":
			text, _ := line["text"].(string)
			_, _ = s.peer.nc.Write(codec.AppendCloseFrame(nil, uint16(arg.(float64)), text)) // the client may have been quicker
			synctest.Wait()
			_ = s.peer.nc.Close()
			synctest.Wait()
		case "break":
			_ = s.peer.nc.Close()
			synctest.Wait()
		case "closed":
			s.await("close the connection", s.within(arg), func() bool { return s.closed == s.peer })
		case "do":
			name, _ := line["as"].(string)
			s.do(arg.(string), name, line["with"])
		case "result", "fails":
			s.outcome(verb, arg.(string), line["is"])
		case "app":
			s.expectEvent(arg, within)
		case "saved":
			s.saved(arg)
		case "quiet":
			s.quiet(time.Duration(arg.(float64)) * time.Millisecond)
		case "answer", "within", "text", "as", "with", "is":
		default:
			s.t.Errorf("no such step: %s", verb)
		}
	}
}

func (s *stage) within(v any) [2]time.Duration {
	if v == nil {
		return [2]time.Duration{}
	}
	list := v.([]any)
	return [2]time.Duration{time.Duration(list[0].(float64)) * time.Millisecond, time.Duration(list[1].(float64)) * time.Millisecond}
}

// await waits until ready, which is called with mu held, is true, and fails if that is sooner or later than it should be.
func (s *stage) await(what string, within [2]time.Duration, ready func() bool) bool {
	s.t.Helper()
	is := func() bool {
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		return ready()
	}
	low, high := within[0], within[1]
	if low > 0 {
		time.Sleep(low - time.Millisecond)
		if is() {
			s.t.Errorf("too early to %s: %s", what, s.step)
			return false
		}
		time.Sleep(time.Millisecond)
	}
	step := max(time.Millisecond, (high-low)/100)
	for at := low; !is(); at += step {
		if at >= high {
			s.t.Errorf("the client does not %s: %s", what, s.step)
			return false
		}
		time.Sleep(step)
	}
	return true
}

func (s *stage) connect(within [2]time.Duration, accept bool) {
	if !s.await("connect", within, func() bool { return len(s.dials) > 0 }) {
		return
	}
	answer := <-s.dials
	if !accept {
		answer <- nil
		synctest.Wait()
		return
	}
	ours, theirs := net.Pipe()
	answer <- theirs
	p, err := upgrade(ours, codec.WebSocket)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.peer = p
	go s.receive(p)
}

// receive takes what the client sends on p until the end of p.
func (s *stage) receive(p *peer) {
	for {
		msg, err := p.recv()
		s.mu.Lock()
		if err != nil || msg.Op == codec.OpClose {
			s.closed = p
			s.mu.Unlock()
			_ = p.nc.Close()
			return
		}
		var packet any
		if err := json.Unmarshal(msg.Payload, &packet); err != nil {
			s.t.Errorf("the client sent %q: %v", msg.Payload, err)
		}
		s.sent = append(s.sent, packet)
		s.mu.Unlock()
	}
}

func (s *stage) write(frame []byte) {
	if _, err := s.peer.nc.Write(frame); err != nil {
		s.t.Errorf("%s: %v", s.step, err)
	}
	synctest.Wait()
}

func (s *stage) send(packet object) {
	b, err := json.Marshal(s.filled(packet))
	if err != nil {
		s.t.Error(err)
	}
	s.write(s.peer.frame(codec.OpText, b))
}

// filled is v with what its placeholders stand for.
func (s *stage) filled(v any) any {
	switch v := v.(type) {
	case string:
		if ms, ok := strings.CutPrefix(v, "$now+"); ok {
			n, _ := strconv.ParseInt(ms, 10, 64)
			return time.Now().UnixMilli() + n
		}
		if value, ok := s.bound[v]; ok {
			return value
		}
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = s.filled(v[i])
		}
		return list
	case object:
		o := object{}
		for k := range v {
			o[k] = s.filled(v[k])
		}
		return o
	}
	return v
}

func (s *stage) login(data, answer object) {
	s.names++
	delete(s.bound, "$login")
	s.expectPacket(object{"cmd": 0.0, "id": "$login", "data": data}, [2]time.Duration{})
	if s.t.Failed() || answer == nil {
		return
	}
	reply := object{"userId": "alice", "terminal": "web", "sessionId": fmt.Sprint("session-", s.names), "serverTime": "$now+0",
		"expiresAt": "$now+86400000", "heartbeat": 30, "epoch": "e1", "inbox": object{"head": 0, "first": 1, "acked": 0},
		"resumed": false, "node": "node-1"}
	maps.Copy(reply, answer)
	if ms, ok := reply["expiresIn"]; ok {
		delete(reply, "expiresIn")
		reply["expiresAt"] = fmt.Sprintf("$now+%.0f", ms)
	}
	s.send(object{"cmd": 0, "id": "$login", "data": reply})
}

func (s *stage) expectPacket(want any, within [2]time.Duration) {
	if !s.await("send", within, func() bool { return len(s.sent) > 0 }) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.sent[0]
	s.sent = s.sent[1:]
	if !s.matches(want, got, true) {
		s.t.Errorf("the client sent\n%v\nnot\n%s", got, s.step)
	}
}

func (s *stage) expectEvent(want any, within [2]time.Duration) {
	if !s.await("tell", within, func() bool { return len(s.told) > 0 }) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.told[0]
	s.told = s.told[1:]
	if !s.matches(want, got, false) {
		s.t.Errorf("the application was told\n%v\nnot\n%s", got, s.step)
	}
}

// matches compares JSON values. A placeholder of want stands for any string at the first time. Unless whole, got may have
// more fields. A field that is null is as good as none.
func (s *stage) matches(want, got any, whole bool) bool {
	switch want := want.(type) {
	case string:
		text, ok := got.(string)
		if strings.HasPrefix(want, "$") && ok {
			if _, known := s.bound[want]; !known {
				s.bound[want] = text
			}
			return s.bound[want] == text
		}
		return ok && want == text
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return false
		}
		for i := range want {
			if !s.matches(want[i], list[i], whole) {
				return false
			}
		}
		return true
	case object:
		o, ok := got.(object)
		if !ok {
			return false
		}
		for k := range want {
			if !s.matches(want[k], o[k], whole) {
				return false
			}
		}
		for k := range o {
			if _, known := want[k]; whole && !known && o[k] != nil {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(want, got)
}

func (s *stage) quiet(d time.Duration) {
	s.t.Helper()
	synctest.Wait()
	time.Sleep(d)
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sent)+len(s.told)+len(s.dials) > 0 {
		s.t.Errorf("not quiet: sent %v, told %v, %d connects", s.sent, s.told, len(s.dials))
	}
}

func (s *stage) saved(want any) {
	synctest.Wait()
	p, err := s.opt.Positions.Load()
	if err != nil {
		s.t.Fatal(err)
	}
	var w Position
	s.as(want, &w)
	if !reflect.DeepEqual(p, w) {
		s.t.Errorf("kept is %+v, not %+v", p, w)
	}
}

func (s *stage) outcome(verb, name string, want any) {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err, failed := s.errs[name]; failed {
		if verb != "fails" || !s.matches(want, any(err), false) {
			s.t.Errorf("failed with %v: %s", err, s.step)
		}
		return
	}
	got, ok := s.results[name]
	if !ok || verb != "result" || !s.matches(want, got, false) {
		s.t.Errorf("the result is %v (there: %v), not %s", got, ok, s.step)
	}
}

// as converts between decoded JSON and a struct.
func (s *stage) as(v, to any) {
	s.t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		s.t.Fatalf("%s: %v", s.step, err)
	}
}
