package client

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/meshtalk/meshtalk/codec"
)

// server is the part of a Mesh-Talk server that one user's client sees, in memory: an inbox, one large group, sends
// with dedupe, PULL and HISTORY. It breaks connections and loses pushes where its hooks say so.
type server struct {
	t         testing.TB
	ln        net.Listener
	transport codec.Transport
	tasks     sync.WaitGroup

	// script answers a packet in place of the server when it returns true. It runs with mu held, in the connection's
	// goroutine. Static after start.
	script func(s *serverConn, p codec.Packet) bool
	// breaks is asked before every write and says how many of its bytes still get through before the connection breaks;
	// negative = all, and no break. loses is asked before every push.
	breaks func(n int) int
	loses  func() bool

	mu     sync.Mutex
	epoch  string
	first  uint64
	inbox  []codec.ConvMessage // number = index + 1
	group  []codec.ConvMessage // seq = index + 1
	acks   map[string]string   // SEND_ACK packets by id
	acked  uint64
	gacked uint64
	convs  map[string]uint64
	live   *serverConn
	logins []string // data of LOGIN
}

// serverConn is one connection of the server; guarded by server.mu but for reads.
type serverConn struct {
	*server
	p      *peer
	pushed uint64
	gone   bool
}

const largeGroup = "g:large"

func newServer(t testing.TB, transport codec.Transport) (*server, string) {
	ln, addr := mustListen(t, transport)
	s := &server{t: t, ln: ln, transport: transport, epoch: "e1", first: 1, acks: map[string]string{}, convs: map[string]uint64{},
		breaks: func(int) int { return -1 }, loses: func() bool { return false }}
	return s, addr
}

// start serves until stop.
func (s *server) start() {
	s.tasks.Go(func() {
		for {
			nc, err := s.ln.Accept()
			if err != nil {
				return
			}
			s.tasks.Go(func() { s.serve(nc) })
		}
	})
}

func (s *server) stop() {
	_ = s.ln.Close()
	s.mu.Lock()
	if s.live != nil {
		s.live.drop()
	}
	s.mu.Unlock()
	s.tasks.Wait()
}

func (s *server) serve(nc net.Conn) {
	defer func() { _ = nc.Close() }()
	p, err := upgrade(nc, s.transport)
	if err != nil {
		return
	}
	conn := &serverConn{server: s, p: p}
	for {
		msg, err := p.recv()
		if err != nil {
			return
		}
		if msg.Op == codec.OpClose {
			_, _ = nc.Write(p.frame(codec.OpClose, msg.Payload))
			return
		}
		packet, problem := codec.Parse(msg.Payload)
		if !problem.OK() {
			s.t.Errorf("the client sent %q: %s", msg.Payload, problem.Message)
			return
		}
		s.mu.Lock()
		if s.script == nil || !s.script(conn, packet) {
			conn.handle(packet)
		}
		s.mu.Unlock()
	}
}

func (s *serverConn) drop() {
	s.gone = true
	_ = s.p.nc.Close()
}

func (s *serverConn) write(packet []byte) {
	if s.gone {
		return
	}
	frame := s.p.frame(codec.OpText, packet)
	if n := s.breaks(len(frame)); n >= 0 {
		_, _ = s.p.nc.Write(frame[:min(n, len(frame))])
		s.drop()
		return
	}
	if _, err := s.p.nc.Write(frame); err != nil {
		s.gone = true
	}
}

func (s *serverConn) handle(p codec.Packet) {
	switch p.Cmd {
	case codec.Login:
		s.login(p)
	case codec.HeartBeat:
		s.write(codec.AppendHeartBeat(nil, p.ID, uint64(len(s.inbox))))
	case codec.PrivateMessage, codec.GroupMessage:
		s.accept(p)
	case codec.Ack:
		s.ack(p)
	case codec.Pull:
		s.pull(p)
	case codec.History:
		s.history(p)
	case codec.Refresh:
		s.write(codec.AppendRefresh(nil, p.ID, 1<<50))
	case codec.Logout:
		s.write(codec.AppendLogout(nil, p.ID))
		s.drop()
	case codec.Presence:
		s.write(codec.AppendPresence(nil, p.ID, []codec.PresenceState{{User: "bob", Online: true, Terminals: []string{"web"}}}))
	default:
		s.write(codec.AppendPacket(nil, p.Cmd, p.ID, []byte(`{"echo":true}`)))
	}
}

func (s *serverConn) login(p codec.Packet) {
	var r codec.LoginRequest
	if problem := codec.DecodeLogin(p.Data, &r); !problem.OK() {
		s.t.Errorf("LOGIN %s: %s", p.Data, problem.Message)
	}
	s.logins = append(s.logins, string(p.Data))
	if s.live != nil && s.live != s {
		s.live.drop()
	}
	s.live = s
	head := uint64(len(s.inbox))
	resumed := r.HasResume && r.ResumeEpoch == s.epoch && r.ResumeInbox <= head && r.ResumeInbox+1 >= s.first
	switch {
	case resumed:
		s.pushed = r.ResumeInbox
		s.acked = max(s.acked, r.ResumeInbox)
	case r.HasResume:
		s.pushed = s.first - 1
	default:
		s.pushed = s.acked
	}
	s.pushed = max(s.pushed, s.first-1)
	s.write(codec.AppendLogin(nil, p.ID, &codec.LoginReply{UserID: "u", Terminal: "web", SessionID: "s", ServerTime: 1, ExpiresAt: 1 << 50,
		Heartbeat: 30, Epoch: s.epoch, Head: head, First: s.first, Acked: s.acked, Resumed: resumed, Node: "n"}))
	s.catchUp()
	for i := s.gacked; i < uint64(len(s.group)); i++ {
		s.push(0, &s.group[i])
	}
}

// catchUp pushes the inbox behind what was pushed.
func (s *serverConn) catchUp() {
	for s.pushed < uint64(len(s.inbox)) {
		s.pushed++
		s.push(s.pushed, &s.inbox[s.pushed-1])
	}
}

func (s *serverConn) push(inbox uint64, m *codec.ConvMessage) {
	if !s.loses() {
		s.write(codec.AppendPushTail(codec.AppendPushHead(nil, m.Cmd, inbox), m))
	}
}

// store puts a message of conv into the inbox and pushes it. The caller holds mu.
func (s *server) store(m codec.ConvMessage) uint64 {
	s.convs[m.Conv]++
	m.Seq = s.convs[m.Conv]
	s.inbox = append(s.inbox, m)
	if s.live != nil {
		s.live.catchUp()
	}
	return m.Seq
}

// say stores n messages of bob; their contents are the inbox numbers.
func (s *server) say(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.store(codec.ConvMessage{Cmd: codec.PrivateMessage, Conv: "p:bob:u", From: "bob", To: "u", TS: 1,
			Content: fmt.Appendf(nil, "%d", len(s.inbox)+1)})
	}
}

// sayLarge stores n messages of the large group; their contents are the sequence numbers.
func (s *server) sayLarge(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		seq := uint64(len(s.group) + 1)
		s.group = append(s.group, codec.ConvMessage{Cmd: codec.GroupMessage, Conv: largeGroup, Seq: seq, From: "bob", Group: "large", TS: 1,
			Content: fmt.Appendf(nil, "%d", seq)})
		if s.live != nil {
			s.live.push(0, &s.group[seq-1])
		}
	}
}

func (s *serverConn) accept(p codec.Packet) {
	if known, ok := s.acks[string(p.ID)]; ok {
		s.write([]byte(known))
		return
	}
	var r codec.SendRequest
	target := "to"
	if p.Cmd == codec.GroupMessage {
		target = "group"
	}
	if problem := codec.DecodeSend(p.Data, target, &r); !problem.OK() {
		s.t.Errorf("send %s: %s", p.Data, problem.Message)
	}
	conv := "p:" + string(r.Target) + ":u"
	m := codec.ConvMessage{Cmd: p.Cmd, Conv: conv, From: "u", To: string(r.Target), TS: 1, Content: append([]byte(nil), r.Content...), ID: string(p.ID)}
	seq := s.store(m)
	ack := codec.AppendSendAck(nil, p.ID, codec.MakeMsgID("u", p.ID), conv, 1, seq, false)
	s.acks[string(p.ID)] = string(ack)
	s.write(ack)
}

func (s *serverConn) ack(p codec.Packet) {
	var r codec.AckRequest
	if problem := codec.DecodeAck(p.Data, &r); !problem.OK() {
		s.t.Errorf("ACK %s: %s", p.Data, problem.Message)
	}
	if r.HasInbox {
		if r.Inbox > uint64(len(s.inbox)) {
			s.t.Errorf("ACK %d above the head %d", r.Inbox, len(s.inbox))
		}
		s.acked = max(s.acked, r.Inbox)
		s.pushed = max(s.pushed, r.Inbox)
	} else if string(r.Conv) == largeGroup {
		s.gacked = max(s.gacked, r.Seq)
	}
}

func (s *serverConn) pull(p codec.Packet) {
	var r codec.PullRequest
	if problem := codec.DecodePull(p.Data, &r); !problem.OK() {
		s.t.Errorf("PULL %s: %s", p.Data, problem.Message)
	}
	var entries []codec.InboxEntry
	head := uint64(len(s.inbox))
	for n := max(r.After+1, s.first); n <= head && len(entries) < min(r.Limit, 7); n++ { // 7: several pages
		entries = append(entries, codec.InboxEntry{Inbox: n, ConvMessage: s.inbox[n-1]})
	}
	more := len(entries) > 0 && entries[len(entries)-1].Inbox < head
	s.write(codec.AppendPull(nil, p.ID, entries, head, s.first, more))
}

func (s *serverConn) history(p codec.Packet) {
	var r codec.HistoryRequest
	if problem := codec.DecodeHistory(p.Data, &r); !problem.OK() {
		s.t.Errorf("HISTORY %s: %s", p.Data, problem.Message)
	}
	if r.Conv != largeGroup {
		s.write(codec.AppendError(nil, p.ID, codec.CodeForbidden, "not yours", 0))
		return
	}
	from := min(r.After, uint64(len(s.group)))
	to := min(from+5, uint64(len(s.group)))
	s.write(codec.AppendHistory(nil, p.ID, r.Conv, s.group[from:to], to < uint64(len(s.group))))
}

// seen is what a Handler got, checked as it comes.
type seen struct {
	t       testing.TB
	mu      sync.Mutex
	changed *sync.Cond
	inbox   uint64
	large   uint64
	states  []State
	errs    []error
	sent    map[string][]string // contents of one's own messages by conversation, in the order of the inbox
}

func newSeen(t testing.TB) *seen {
	s := &seen{t: t, sent: map[string][]string{}}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *seen) handler() Handler {
	return Handler{OnMessage: s.message, OnState: s.state, OnError: s.error}
}

func (s *seen) message(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case m.Inbox > 0:
		if m.Inbox != s.inbox+1 {
			s.t.Errorf("inbox %d came after %d", m.Inbox, s.inbox)
		}
		s.inbox = m.Inbox
		if m.From == "u" {
			s.sent[m.Conv] = append(s.sent[m.Conv], string(m.Content))
		} else if string(m.Content) != fmt.Sprint(m.Inbox) {
			s.t.Errorf("inbox %d has content %s", m.Inbox, m.Content)
		}
	case m.Seq > 0:
		if m.Seq != s.large+1 || string(m.Content) != fmt.Sprint(m.Seq) {
			s.t.Errorf("group seq %d with content %s came after %d", m.Seq, m.Content, s.large)
		}
		s.large = m.Seq
	}
	s.changed.Broadcast()
}

func (s *seen) state(st State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states = append(s.states, st)
	s.changed.Broadcast()
}

func (s *seen) error(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(s.errs, err)
	s.changed.Broadcast()
}

// wait blocks until cond, which is called with mu held.
func (s *seen) wait(cond func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !cond() {
		s.changed.Wait()
	}
}

// random is a *rand.Rand for several goroutines.
type random struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (r *random) n(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.IntN(n)
}

// decode is the data of a recorded LOGIN.
func decode(t testing.TB, data string) (d struct {
	AccessToken string
	Resume      *struct {
		Epoch string
		Inbox uint64
	}
}) {
	t.Helper()
	if err := json.NewDecoder(strings.NewReader(data)).Decode(&d); err != nil {
		t.Fatal(err)
	}
	return d
}
