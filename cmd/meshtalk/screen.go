package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/codec"
)

// screen is where the chat is shown: for people, or one packet a line. Safe for concurrent use.
type screen struct {
	json     bool
	terminal bool // standard input is a terminal: somebody reads notes

	news chan struct{} // holds one: something was received since it was looked at

	mu       sync.Mutex
	out, err io.Writer
	last     uint64         // newest number of the inbox that was received
	head     uint64         // newest number of the inbox at the login
	copies   int            // of what this program sent
	c        *client.Client // nil until logged in
	user     string
	own      string // beginning of the ids of what this program sent
	lost     bool   // the connection
}

func newScreen(e environment, json bool) *screen {
	s := &screen{json: json, out: e.out, err: e.err, news: make(chan struct{}, 1)}
	if f, ok := e.in.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			s.terminal = info.Mode()&os.ModeCharDevice != 0 && info.Mode()&os.ModeDevice != 0 && f.Name() != os.DevNull && !isNull(info)
		}
	}
	return s
}

// isNull reports whether a device is /dev/null, which is no terminal.
func isNull(info os.FileInfo) bool {
	null, err := os.Stat(os.DevNull)
	return err == nil && os.SameFile(null, info)
}

// begin tells who is logged in.
func (s *screen) begin(c *client.Client) {
	id, session := c.NewID(), c.Session()
	s.mu.Lock()
	s.c, s.user, s.own = c, session.User, id[:strings.LastIndexByte(id, '-')+1]
	s.head = session.Head
	if session.Acked >= session.Head || session.First > session.Head { // nothing waits, or nothing is kept of it
		s.last = s.head
	}
	s.mu.Unlock()
	s.note(fmt.Sprintf("logged in as %s on terminal %s; %s", c.Session().User, c.Session().Terminal, commandsHelp))
}

// newID is the id of a send; its own copy is recognised by it.
func (s *screen) newID() string { return s.c.NewID() }

// handler shows what is received.
func (s *screen) handler() client.Handler {
	if s.json {
		received := func(m client.Message) { s.received(m) }
		return client.Handler{OnPacket: s.packet, OnMessage: received, OnRecall: received}
	}
	return client.Handler{
		OnMessage: s.message,
		OnRecall: func(m client.Message) {
			s.note(fmt.Sprintf("%s: message %d was recalled", m.Conv, m.Target))
			s.received(m)
		},
		OnPresence: s.presence,
		OnTyping:   func(t client.Typing) { s.note(t.From + " is writing") },
		OnState:    s.state,
		OnError:    func(err error) { s.note(plain(err)) },
	}
}

// packet prints a packet as one line. What is in it was written by others: outside of strings JSON may have line breaks.
func (s *screen) packet(raw []byte) {
	if bytes.ContainsAny(raw, "\r\n") {
		raw = bytes.Map(func(r rune) rune {
			if r == '\n' || r == '\r' {
				return ' '
			}
			return r
		}, raw)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = s.out.Write(append(raw[:len(raw):len(raw)], '\n'))
}

// message shows a message, unless this program sent it.
func (s *screen) message(m client.Message) {
	if mine := s.received(m); !mine {
		s.print(s.messageText(m))
	}
}

// received counts what came, and reports whether this program sent it.
func (s *screen) received(m client.Message) (mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine = s.own != "" && m.From == s.user && strings.HasPrefix(m.ID, s.own)
	if mine {
		s.copies++
	}
	s.last = max(s.last, m.Inbox)
	select {
	case s.news <- struct{}{}:
	default:
	}
	return mine
}

// has reports whether everything has come that was in the inbox at the login, and the copies of so many sends.
func (s *screen) has(sent int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last >= s.head && s.copies >= sent
}

// past shows a message of the history, one's own too.
func (s *screen) past(m client.Message) {
	if m.Cmd == codec.Recall || m.Target > 0 || s.json {
		return
	}
	s.print(s.messageText(m))
}

func (s *screen) messageText(m client.Message) string {
	from := m.From
	if from == "" {
		from = "(system)"
	}
	s.mu.Lock()
	user := s.user
	s.mu.Unlock()
	switch {
	case m.Group != "":
		from += " in " + m.Group
	case m.From != "" && m.From == user && m.To != user:
		from += " to " + m.To
	}
	return printable(from) + ": " + contentText(m)
}

func (s *screen) presence(states []client.PresenceState) {
	if s.json {
		return
	}
	for _, state := range states {
		s.print("* " + printable(presenceText(state)))
	}
}

// state tells of a lost connection and of the new one. The first one comes before every message.
func (s *screen) state(st client.State) {
	s.mu.Lock()
	begun, again := s.c != nil, s.lost
	s.lost = !st.Connected
	if st.Session != nil {
		s.user = st.Session.User
	}
	s.mu.Unlock()
	switch {
	case !begun || st.Final:
	case st.Connected && again:
		s.note("connected again")
	case st.Connected:
	default:
		s.note(fmt.Sprintf("no connection (%s), next attempt in %.1f s", plain(st.Err), st.Retry.Seconds()))
	}
}

// watch shows what becomes of a send, if it is refused.
func (s *screen) watch(p *client.Pending) {
	<-p.Done()
	if _, err := p.Result(); err != nil && !errors.Is(err, client.ErrClosed) {
		s.note("not sent: " + plain(err))
	}
}

// plain is an error without the name of the package that it is from.
func plain(err error) string { return strings.TrimPrefix(err.Error(), "client: ") }

func (s *screen) print(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintln(s.out, line)
}

// note is for who sits at the terminal; in a pipe there is nobody.
func (s *screen) note(text string) {
	if !s.terminal {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintln(s.err, "*", printable(text))
}

// printable keeps what others wrote from commanding the terminal, and in one line.
func printable(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && r != '\t' }) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) || r == '\t' || r == '\u200d' { // the joiner of emoji
			b.WriteRune(r)
		} else {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}
