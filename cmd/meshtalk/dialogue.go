package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/codec"
)

const commandsHelp = "/to USER, /group GROUP, /history [N], /who USER, /help, /quit"

// maxLine is the longest line of input in bytes: beyond every performance.max-frame-size.
const maxLine = 17 << 20

// historyLines is how many messages /history shows.
const historyLines = 20

// dialogue is what the user writes: messages and commands. It belongs to one goroutine.
type dialogue struct {
	c      *client.Client
	screen *screen
	piped  bool // a program writes: an error ends it

	to, group string // the current target: one of them, or neither

	quit    bool              // the user has gone: what has not been shown yet waits for the next time
	waiting []*client.Pending // sends without an answer, oldest first
	kept    int               // sends that were acknowledged
	refused int
	first   error // the first refusal
}

// errQuit is /quit.
var errQuit = errors.New("quit")

// run reads the input to its end. Another goroutine reads, so that the end of the session ends the dialogue too.
func (d *dialogue) run(ctx context.Context, in io.Reader) error {
	lines, failed := make(chan string), make(chan error, 1)
	done := make(chan struct{})
	defer close(done)
	go func() { failed <- readLines(in, lines, done) }() // a read of standard input cannot be ended but by the exit
	for {
		select {
		case line := <-lines:
			err := d.line(ctx, line)
			switch {
			case errors.Is(err, errQuit):
				d.quit = true
				return nil
			case err != nil && (d.piped || ctx.Err() != nil):
				return err
			case err != nil:
				d.screen.note(plain(err))
			}
		case err := <-failed:
			return failure(err)
		case <-ctx.Done():
			return nil
		case <-d.c.Done():
			return failure(d.c.Err())
		}
	}
}

// readLines sends each line of in to lines, until it ends or done is closed.
func readLines(in io.Reader, lines chan<- string, done <-chan struct{}) error {
	s := bufio.NewScanner(in)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		select {
		case lines <- strings.TrimSuffix(s.Text(), "\r"):
		case <-done:
			return nil
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("read the input: %w", err)
	}
	return nil
}

// line does what one line says.
func (d *dialogue) line(ctx context.Context, line string) error {
	if rest, ok := strings.CutPrefix(line, "//"); ok {
		return d.send(ctx, "/"+rest)
	}
	if !strings.HasPrefix(line, "/") {
		if line == "" && !d.piped {
			return nil // somebody pressed return
		}
		return d.send(ctx, line)
	}
	command, argument, _ := strings.Cut(line, " ")
	argument = strings.TrimSpace(argument)
	switch command {
	case "/to":
		if err := checkArgument(command, argument); err != nil {
			return err
		}
		d.to, d.group = argument, ""
		d.screen.note("you write to " + argument)
	case "/group":
		if err := checkArgument(command, argument); err != nil {
			return err
		}
		d.to, d.group = "", argument
		d.screen.note("you write to the group " + argument)
	case "/history":
		return d.history(ctx, argument)
	case "/who":
		if err := checkArgument(command, argument); err != nil {
			return err
		}
		return d.who(ctx, argument)
	case "/help":
		d.screen.note(commandsHelp)
	case "/quit":
		return errQuit
	default:
		return usage("%s: unknown command (expected one of %s; // begins a message with /)", printable(command), commandsHelp)
	}
	return nil
}

func checkArgument(command, name string) error {
	if !codec.ValidName(name, maxName) {
		return usage("%s: %.80q is no name (expected 1 to %d bytes without control characters, ':' and '/')", command, name, maxName)
	}
	return nil
}

// errNoTarget: nobody to write to.
func (d *dialogue) errNoTarget() error {
	return usage("nobody to write to (give --to or --group, or write /to USER or /group GROUP first)")
}

// send sends text to the current target. It waits only when very many sends have no answer yet.
func (d *dialogue) send(ctx context.Context, text string) error {
	if d.to == "" && d.group == "" {
		return d.errNoTarget()
	}
	p, err := d.c.SendAsync(ctx, client.Outgoing{
		To: d.to, Group: d.group, Content: client.Text(strings.ToValidUTF8(text, "\uFFFD")), ID: d.screen.newID(),
	})
	if err != nil {
		return failure(err)
	}
	d.waiting = append(d.waiting, p)
	d.settle()
	if !d.piped {
		go d.screen.watch(p)
	}
	return nil
}

// settle forgets the answered sends, and remembers a refusal.
func (d *dialogue) settle() {
	d.waiting = slices.DeleteFunc(d.waiting, func(p *client.Pending) bool {
		select {
		case <-p.Done():
			d.count(p)
			return true
		default:
			return false
		}
	})
}

func (d *dialogue) count(p *client.Pending) {
	_, err := p.Result()
	if err == nil {
		d.kept++
		return
	}
	d.refused++
	if d.first == nil {
		d.first = err
	}
}

// finish waits for the answers of all sends, and at the end of a pipe until everything is shown that had come before.
// In a pipe a refused send makes the command fail.
func (d *dialogue) finish(ctx context.Context) error {
	if err := d.answered(ctx); err != nil {
		return failure(err)
	}
	if d.piped && !d.quit {
		d.caughtUp(ctx)
	}
	if d.refused > 0 && d.piped {
		return failure(fmt.Errorf("%d messages were refused, the first one: %w", d.refused, d.first))
	}
	return nil
}

// caughtUp waits until everything is here that had come before the login, and the copies of what was sent: what is not
// taken now would be shown to the next one.
func (d *dialogue) caughtUp(ctx context.Context) {
	for !d.screen.has(d.kept) {
		select {
		case <-d.screen.news:
		case <-ctx.Done():
			return
		case <-d.c.Done():
			return
		}
	}
}

// answered waits for the answers of all sends.
func (d *dialogue) answered(ctx context.Context) error {
	for _, p := range d.waiting {
		select {
		case <-p.Done():
		case <-ctx.Done():
		}
	}
	if d.settle(); len(d.waiting) > 0 {
		return fmt.Errorf("%d messages have no acknowledgement yet: they may or may not have been kept", len(d.waiting))
	}
	return nil
}

// history shows the newest messages of the current target, oldest first: one's own that are on their way too.
func (d *dialogue) history(ctx context.Context, argument string) error {
	n := historyLines
	if argument != "" {
		if _, err := fmt.Sscanf(argument, "%d", &n); err != nil || n < 1 || n > 200 {
			return usage("/history: %.80q (expected a number, 1 to 200)", argument)
		}
	}
	var conv string
	switch self := d.c.Session().User; {
	case d.group != "":
		conv = "g:" + d.group
	case d.to != "":
		conv = "p:" + min(self, d.to) + ":" + max(self, d.to)
	default:
		return d.errNoTarget()
	}
	if err := d.answered(ctx); err != nil {
		return failure(err)
	}
	page, err := d.c.History(ctx, client.HistoryQuery{Conv: conv, Limit: n})
	if err != nil {
		return failure(err)
	}
	for _, m := range slices.Backward(page.Messages) {
		d.screen.past(m)
	}
	return nil
}

// who shows whether a user is online, and from then on what changes.
func (d *dialogue) who(ctx context.Context, user string) error {
	states, err := d.c.Presence(ctx, []string{user}, nil)
	if err != nil {
		return failure(err)
	}
	d.screen.presence(states)
	return nil
}

// presenceText is a state for people.
func presenceText(s client.PresenceState) string {
	switch {
	case s.Online:
		return fmt.Sprintf("%s is online (%s)", s.User, strings.Join(s.Terminals, ", "))
	case s.LastSeen == 0:
		return s.User + " is offline"
	}
	return fmt.Sprintf("%s is offline, last seen %s", s.User, time.UnixMilli(s.LastSeen).Format(time.DateTime))
}

// contentText is a content for people: a text as it is, anything else as JSON.
func contentText(m client.Message) string {
	if m.Recalled {
		return "(recalled)"
	}
	var text string
	if json.Unmarshal(m.Content, &text) == nil {
		return printable(text)
	}
	return printable(string(m.Content))
}
