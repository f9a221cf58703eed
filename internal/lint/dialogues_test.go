package lint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/server"
)

// TestProtocolDialogues plays the dialogues of docs/PROTOCOL.md against a real server, in their order. What comes back
// must stand there to the letter, but for what volatile names, and nothing else may come.
func TestProtocolDialogues(t *testing.T) {
	s := newStage(t)
	blocks := regexp.MustCompile("(?s)```dialogue\n(.*?)```").FindAllStringSubmatch(read(t, "docs/PROTOCOL.md"), -1)
	if len(blocks) == 0 {
		t.Fatal("no dialogues found")
	}
	for _, b := range blocks {
		for _, line := range strings.Split(b[1], "\n") {
			if line != "" && !strings.HasPrefix(line, "#") {
				s.play(line)
			}
		}
	}
	s.nothingLeft()
}

// volatile is what differs from run to run. A marker takes its place on both sides.
var volatile = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`"(ts|serverTime|expiresAt|lastSeen)":\d+`), `"$1":0`},
	{regexp.MustCompile(`"(sessionId|epoch|node|message|reason)":"[^"]*"`), `"$1":""`},
}

func steady(packet string) string {
	for _, v := range volatile {
		packet = v.from.ReplaceAllString(packet, v.to)
	}
	return strings.TrimSpace(packet)
}

// patience is how long what must happen may take. Only a test that fails waits for it.
const patience = 20 * time.Second

// stage is a server and the connections of the dialogues.
type stage struct {
	t      *testing.T
	ctx    context.Context
	key    []byte
	addr   map[string]string // by listener
	epoch  string
	actors map[string]*actor
	answer string // of the last call of the API
}

// actor is one connection.
type actor struct {
	user    string
	conn    *client.Conn
	pending []string // received and not expected yet
	closed  bool
}

func newStage(t *testing.T) *stage {
	o := server.DefaultOptions()
	o.DataDir = t.TempDir()
	o.WebSocket.Host, o.WebSocket.Port = "127.0.0.1", 0
	o.TCP.Host, o.TCP.Port = "127.0.0.1", 0
	o.Admin.Port = 0
	o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	srv, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	if err := srv.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Stop(stop); err != nil {
			t.Error(err)
		}
	})
	key, err := os.ReadFile(filepath.Join(o.DataDir, "jwt.key"))
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, ctx: ctx, key: []byte(strings.TrimSpace(string(key))), addr: map[string]string{}, actors: map[string]*actor{}}
	for _, a := range srv.Addresses() {
		s.addr[a.Name] = a.URL
	}
	return s
}

// play carries out one line.
func (s *stage) play(line string) {
	s.t.Helper()
	for _, verb := range []struct {
		mark string
		do   func(name, rest string)
	}{{" = ", s.open}, {"> ", s.send}, {"< ", s.expect}, {" ! ", s.expectClose}} {
		name, rest, ok := strings.Cut(line, verb.mark)
		if ok && !strings.ContainsAny(name, ` {"`) {
			verb.do(name, rest)
			return
		}
	}
	s.t.Fatalf("a line of no known form: %s", line)
}

func (s *stage) token(user string) string {
	s.t.Helper()
	token, err := auth.Mint(s.key, user, "", time.Hour, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// open: "ws", "tcp login", "tcp login bob {…}".
func (s *stage) open(name, how string) {
	s.t.Helper()
	how, more, _ := strings.Cut(how, " {")
	words := strings.Fields(how)
	listener := map[string]string{"ws": "websocket", "tcp": "tcp"}[words[0]]
	c, err := client.DialConn(s.ctx, s.addr[listener], client.ConnOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	a := &actor{user: name, conn: c}
	s.actors[name] = a
	if len(words) == 1 {
		return
	}
	if len(words) == 3 {
		a.user = words[2]
	}
	if more != "" {
		more = "," + strings.TrimSuffix(more, "}")
	}
	s.send(name, fmt.Sprintf(`{"cmd":0,"data":{"accessToken":"<token of %s>"%s}}`, a.user, more))
}

var tokenOf = regexp.MustCompile(`<token of (\w+)>`)

func (s *stage) send(name, packet string) {
	s.t.Helper()
	if name == "api" {
		s.call(packet)
		return
	}
	packet = strings.ReplaceAll(packet, "<epoch>", s.epoch)
	packet = tokenOf.ReplaceAllStringFunc(packet, func(m string) string { return s.token(tokenOf.FindStringSubmatch(m)[1]) })
	if err := s.actors[name].conn.Send(s.ctx, []byte(packet)); err != nil {
		s.t.Fatalf("%s> %s: %v", name, packet, err)
	}
}

// call is one line "METHOD path body" to the HTTP API.
func (s *stage) call(line string) {
	s.t.Helper()
	method, rest, _ := strings.Cut(line, " ")
	path, body, _ := strings.Cut(rest, " ")
	r, err := http.NewRequestWithContext(s.ctx, method, s.addr["admin"]+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	s.answer = string(b)
}

var epochOf = regexp.MustCompile(`"epoch":"([^"]*)"`)

// expect waits for a packet. Others that come before it are kept: several may be on their way at a time.
func (s *stage) expect(name, want string) {
	s.t.Helper()
	if name == "api" {
		if steady(s.answer) != steady(want) {
			s.t.Errorf("the API answered\n%s\nwant\n%s", s.answer, want)
		}
		return
	}
	a := s.actors[name]
	for {
		for i, p := range a.pending {
			if steady(p) == steady(want) {
				a.pending = append(a.pending[:i], a.pending[i+1:]...)
				return
			}
		}
		b, err := a.conn.Receive(s.ctx)
		if err != nil {
			s.t.Fatalf("%s< %s\n%v; what came instead:\n%s", name, want, err, strings.Join(a.pending, "\n"))
		}
		if m := epochOf.FindSubmatch(b); m != nil {
			s.epoch = string(m[1])
		}
		a.pending = append(a.pending, string(b))
	}
}

// expectClose waits for the end of a connection; TCP has no codes.
func (s *stage) expectClose(name, code string) {
	s.t.Helper()
	a := s.actors[name]
	a.closed = true
	for {
		b, err := a.conn.Receive(s.ctx)
		if err == nil {
			a.pending = append(a.pending, string(b))
			continue
		}
		var end *client.CloseError
		if !errors.As(err, &end) {
			s.t.Fatalf("%s ! %s: %v", name, code, err)
		}
		if got := fmt.Sprint(end.Code); end.Code != 0 && got != code {
			s.t.Errorf("%s ! %s: closed with %s", name, code, got)
		}
		return
	}
}

// nothingLeft fails if something came that no dialogue shows.
func (s *stage) nothingLeft() {
	s.t.Helper()
	for name, a := range s.actors {
		if !a.closed {
			s.send(name, `{"cmd":1,"id":"the end"}`)
			for done := false; !done; {
				b, err := a.conn.Receive(s.ctx)
				if err != nil {
					s.t.Fatalf("%s: %v", name, err)
				}
				if done = strings.Contains(string(b), `"the end"`); !done {
					a.pending = append(a.pending, string(b))
				}
			}
		}
		for _, p := range a.pending {
			s.t.Errorf("%s also received %s", name, p)
		}
	}
}
