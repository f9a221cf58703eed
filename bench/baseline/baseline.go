// Package baseline is the server that one writes first: net/http, a well-kept WebSocket package, a goroutine for each
// connection, encoding/json, maps under a mutex. It speaks as much of the protocol as the load generator needs (LOGIN,
// HEART_BEAT, private and group messages, ACK, resume), so that the same load drives it and the real server, and the claim
// "denser and faster than a goroutine per connection" is one command: meshbench baseline.
//
// It does less than the real server: messages are in memory until they are acknowledged and nothing is ever synced, tokens
// are read and not verified, there are no limits, and who does not read holds up who writes to it.
package baseline

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Server is one baseline server. Make it with New; its Handler is safe for concurrent use.
type Server struct {
	mu     sync.RWMutex
	users  map[string]*user
	groups map[string]*group
}

// New makes a server without users.
func New() *Server {
	return &Server{users: map[string]*user{}, groups: map[string]*group{}}
}

// user is one user and its inbox. A lock of a user is taken inside that of a group, never the other way round.
type user struct {
	name string

	mu      sync.Mutex
	conn    *websocket.Conn // nil = away
	acked   uint64
	kept    [][]byte // pushes acked+1 …
	private uint64   // messages of its conversations, numbered together
}

// group is one group, whose messages carry no inbox number: who is away does not get them.
type group struct {
	mu      sync.Mutex // held while a message is written to all: one order for everybody
	members []string
	seq     uint64
}

// Handler serves the WebSocket at /im, and what of the HTTP API the load generator needs.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /im", s.connect)
	mux.HandleFunc("PUT /v1/groups/{group}", s.putGroup)
	mux.HandleFunc("POST /v1/groups/{group}/members", s.putGroup)
	mux.HandleFunc("POST /v1/messages", s.post)
	mux.Handle("GET /debug/pprof/heap", pprof.Handler("heap"))
	return mux
}

func (s *Server) user(name string) *user {
	s.mu.RLock()
	u := s.users[name]
	s.mu.RUnlock()
	if u != nil {
		return u
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u = s.users[name]; u == nil {
		u = &user{name: name}
		s.users[name] = u
	}
	return u
}

func (s *Server) group(name string) *group {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[name]
	if g == nil {
		g = &group{}
		s.groups[name] = g
	}
	return g
}

// putGroup makes a group, or adds members to it.
func (s *Server) putGroup(w http.ResponseWriter, r *http.Request) {
	var d struct{ Members, Add []string }
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	g := s.group(r.PathValue("group"))
	g.mu.Lock()
	g.members = append(g.members, append(d.Members, d.Add...)...)
	g.mu.Unlock()
	_, _ = w.Write([]byte("{}"))
}

// post is the API's call to send to users.
func (s *Server) post(w http.ResponseWriter, r *http.Request) {
	var d struct {
		ID      string
		Users   []string
		Content json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	type result struct {
		To string `json:"to"`
	}
	results := make([]result, len(d.Users))
	for i, name := range d.Users {
		results[i].To = name
		s.user(name).push(push{cmd: 5, conv: "n:" + name, content: d.Content, id: d.ID + "/" + name})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"results": results})
}

// packet is what a client sends.
type packet struct {
	Cmd  int             `json:"cmd"`
	ID   string          `json:"id"`
	Data json.RawMessage `json:"data"`
}

// connect serves one connection; its goroutine is the one that net/http made for it.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // it is answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(64 << 10)
	ctx := context.Background()
	var u *user
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			break
		}
		var p packet
		if err := json.Unmarshal(b, &p); err != nil {
			break
		}
		switch {
		case p.Cmd == 0 && u == nil:
			if u = s.login(conn, &p); u == nil {
				return
			}
		case u == nil:
			return
		default:
			s.handle(u, conn, &p)
		}
	}
	if u != nil {
		u.left(conn)
	}
}

// login makes conn the user's, and pushes what it has not got.
func (s *Server) login(conn *websocket.Conn, p *packet) *user {
	var d struct {
		AccessToken string `json:"accessToken"`
		Resume      *struct {
			Inbox uint64 `json:"inbox"`
		} `json:"resume"`
	}
	if json.Unmarshal(p.Data, &d) != nil {
		return nil
	}
	name := subject(d.AccessToken)
	if name == "" {
		return nil
	}
	u := s.user(name)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.conn = conn
	if d.Resume != nil {
		u.ack(d.Resume.Inbox)
	}
	answer, _ := json.Marshal(map[string]any{"cmd": 0, "id": p.ID, "data": map[string]any{"userId": name, "epoch": "memory", "resumed": d.Resume != nil,
		"heartbeat": 30, "inbox": map[string]uint64{"head": u.acked + uint64(len(u.kept)), "first": 1, "acked": u.acked}}}) // it can be marshalled
	u.write(answer)
	for _, b := range u.kept {
		u.write(b)
	}
	return u
}

// subject is that of a token, which is not verified.
func subject(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct{ Sub string }
	_ = json.Unmarshal(b, &claims)
	return claims.Sub
}

func (s *Server) handle(u *user, conn *websocket.Conn, p *packet) {
	switch p.Cmd {
	case 1:
		u.mu.Lock()
		defer u.mu.Unlock()
		u.write(strconv.AppendUint(append(head(1, p.ID), `{"head":`...), u.acked+uint64(len(u.kept)), 10), '}', '}')
	case 3, 4:
		var d struct {
			To, Group string
			Content   json.RawMessage
		}
		if json.Unmarshal(p.Data, &d) != nil {
			return
		}
		if p.Cmd == 3 {
			s.private(u, s.user(d.To), push{cmd: 3, from: u.name, to: d.To, content: d.Content, id: p.ID})
		} else {
			s.toGroup(s.group(d.Group), push{cmd: 4, from: u.name, group: d.Group, conv: "g:" + d.Group, content: d.Content, id: p.ID})
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		ack := append(head(6, p.ID), `{"msgId":"00000000000000000000000000000000","conv":"","ts":`...)
		u.write(strconv.AppendInt(ack, time.Now().UnixMilli(), 10), '}', '}')
	case 7:
		var d struct{ Inbox uint64 }
		if json.Unmarshal(p.Data, &d) == nil {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.ack(d.Inbox)
		}
	}
}

// private sends to both sides.
func (s *Server) private(from, to *user, m push) {
	m.conv = "p:" + min(from.name, to.name) + ":" + max(from.name, to.name)
	to.push(m)
	if to != from {
		from.push(m)
	}
}

// toGroup writes one frame to all members, with as many goroutines as there are cores.
func (s *Server) toGroup(g *group, m push) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seq++
	b := m.append(nil, 0, g.seq)
	var writers sync.WaitGroup
	n := runtime.GOMAXPROCS(0)
	for i := range n {
		share := g.members[len(g.members)*i/n : len(g.members)*(i+1)/n]
		writers.Go(func() {
			for _, name := range share {
				u := s.user(name)
				u.mu.Lock()
				u.write(b)
				u.mu.Unlock()
			}
		})
	}
	writers.Wait()
}

// push is a message on its way.
type push struct {
	cmd             int
	from, to, group string
	conv, id        string
	content         json.RawMessage
}

// head is the begin of an answer, up to its data.
func head(cmd int, id string) []byte {
	b := strconv.AppendInt([]byte(`{"cmd":`), int64(cmd), 10)
	if id != "" {
		b = strconv.AppendQuote(append(b, `,"id":`...), id)
	}
	return append(b, `,"data":`...)
}

// append writes m as a packet behind dst; inbox 0 = none.
func (m *push) append(dst []byte, inbox, seq uint64) []byte {
	dst = append(strconv.AppendInt(append(dst, `{"cmd":`...), int64(m.cmd), 10), `,"data":{`...)
	if inbox > 0 {
		dst = append(strconv.AppendUint(append(dst, `"inbox":`...), inbox, 10), ',')
	}
	dst = strconv.AppendQuote(append(dst, `"msgId":"00000000000000000000000000000000","conv":`...), m.conv)
	dst = strconv.AppendUint(append(dst, `,"seq":`...), seq, 10)
	for _, field := range []struct{ key, value string }{{`,"from":`, m.from}, {`,"to":`, m.to}, {`,"group":`, m.group}, {`,"id":`, m.id}} {
		if field.value != "" {
			dst = strconv.AppendQuote(append(dst, field.key...), field.value)
		}
	}
	dst = strconv.AppendInt(append(dst, `,"ts":`...), time.Now().UnixMilli(), 10)
	return append(append(append(dst, `,"type":0,"content":`...), m.content...), '}', '}')
}

// push puts m into the inbox and writes it.
func (u *user) push(m push) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.private++
	b := m.append(nil, u.acked+uint64(len(u.kept))+1, u.private)
	u.kept = append(u.kept, b)
	u.write(b)
}

// ack forgets what the client has; mu is held.
func (u *user) ack(inbox uint64) {
	if n := min(inbox-min(inbox, u.acked), uint64(len(u.kept))); n > 0 {
		u.kept = u.kept[n:]
		u.acked += n
	}
}

// write writes one packet to who is there; mu is held. A connection that breaks is found by its reader.
func (u *user) write(b []byte, more ...byte) {
	if u.conn != nil {
		_ = u.conn.Write(context.Background(), websocket.MessageText, append(b, more...))
	}
}

// left takes conn away, unless another has come in its place.
func (u *user) left(conn *websocket.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conn == conn {
		u.conn = nil
	}
}
