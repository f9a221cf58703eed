package docs_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/internal/markdown"
)

// patience is how long one step of a document may take; only one that fails waits for it.
const patience = 2 * time.Minute

func untilNearly(deadline time.Time) time.Duration { return time.Until(deadline) - 5*time.Second }

// admin is where a server of these documents answers.
const admin = "127.0.0.1:8090"

// What the words behind a fence mean:
//
//	sh                    commands, one after the other, in the reader's shell; each must succeed
//	sh server             the last one is a server: it runs until the next such block, and answers /readyz before the reader goes on
//	sh terminal NAME      a program in a terminal of its own, until the end of the page
//	sh meanwhile          a command beside the next steps; it must have succeeded before the server is stopped
//	sh no-run REASON      shown only
//	text typed by NAME    lines that the reader types in that terminal
//	text seen by NAME     lines that must appear there, in order, as a part of a line each
//	go FILE, ts FILE      a file that the reader saves
//
// Addresses in <…> of the text must answer, while a server runs.
type reader struct {
	t     *testing.T
	desk  *desk
	shell *shell

	server    *job
	jobs      []*job
	terminals map[string]*terminal
}

// read goes through a page.
func (d *desk) read(t *testing.T, doc string) {
	text, err := os.ReadFile(filepath.Join(root, doc))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(d.clone); err != nil { // of the page before
		t.Fatal(err)
	}
	if err := d.follow(t, string(text)); err != nil {
		t.Fatalf("%s:%v", doc, err)
	}
}

// follow does what a text says.
func (d *desk) follow(t *testing.T, text string) error {
	parts, err := markdown.Parts(text)
	if err != nil {
		return err
	}
	r := &reader{t: t, desk: d, shell: d.newShell(t), terminals: map[string]*terminal{}}
	defer r.tidy()
	for _, p := range parts {
		begun := time.Now()
		if err := r.step(p); err != nil {
			return fmt.Errorf("%d: %s %s: %w", p.Line, p.Lang, p.Info, err)
		}
		if p.Code {
			t.Logf("line %d: %s %s: %.1f s", p.Line, p.Lang, p.Info, time.Since(begun).Seconds())
		}
	}
	if err := r.stopServer(); err != nil {
		return fmt.Errorf("at its end: %w", err)
	}
	return nil
}

// The reader notices what does not work: each text breaks one thing.
func TestReader(t *testing.T) {
	if os.Getenv(inside) != "" {
		t.Skip("it needs no network of its own")
	}
	d := &desk{dir: t.TempDir(), env: os.Environ()}
	for text, want := range map[string]string{
		"```sh\ncd /\n```\n```sh\n[ $PWD = / ]\n```\n": "",
		"```sh\nfalse\ntrue\n```\n":                    "false: exit code 1",
		"```sh\nfalse | true\n```\n":                   "exit code 1",
		"```sh\necho (\n```\n":                         "exit code",
		"```sh server\ntrue\n```\n":                    "it ended",
		"```sh meanwhile\nfalse\n```\n":                "exit status 1",
		"```sh no-run for a reason\nfalse\n```\n":      "",
		"```sh quickly\ntrue\n```\n":                   "nobody knows",
		"```text seen by bob\nx\n```\n":                "no such terminal",
		"```sh terminal bob\ncat\n```\n```text typed by bob\nhello\n```\n```text seen by bob\nhello\nhello\n```\n": "",
		"```sh terminal bob\ntrue\n```\n```text seen by bob\nhello\n```\n":                                         "does not come",
	} {
		err := d.follow(t, text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v, want %q", text, err, want)
		}
	}
}

func (r *reader) step(p markdown.Part) error {
	if !p.Code {
		return r.open(p.Text)
	}
	verb, rest, _ := strings.Cut(p.Info, " ")
	switch p.Lang + " " + verb {
	case "sh ":
		return r.shell.run(p.Text)
	case "sh server":
		return r.startServer(p.Text)
	case "sh terminal":
		return r.startTerminal(rest, p.Text)
	case "sh meanwhile":
		j, err := r.desk.start(r.shell.dir, p.Text)
		r.jobs = append(r.jobs, j)
		return err
	case "sh no-run":
		if strings.Contains(p.Text, "npm ci") {
			r.desk.packages(r.t)
		}
		return nil
	case "text typed", "text seen":
		name, ok := strings.CutPrefix(rest, "by ")
		terminal := r.terminals[name]
		if !ok || terminal == nil {
			return errors.New("no such terminal")
		}
		if verb == "typed" {
			return terminal.types(p.Text)
		}
		return terminal.shows(p.Text)
	case "text ":
		return nil
	}
	switch p.Lang {
	case "go", "ts":
		if p.Info == "" {
			return nil // the compiler sees it
		}
		file := filepath.Join(r.shell.dir, filepath.FromSlash(p.Info))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		return os.WriteFile(file, []byte(p.Text), 0o600)
	}
	return errors.New("nobody knows what to do with it")
}

var address = regexp.MustCompile(`<(http://[^>]+)>`)

// open looks at the addresses that a text names.
func (r *reader) open(text string) error {
	if r.server == nil {
		return nil
	}
	client := http.Client{Timeout: patience}
	for _, m := range address.FindAllStringSubmatch(text, -1) {
		answer, err := client.Get(m[1])
		if err != nil {
			return err
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", m[1], answer.Status)
		}
	}
	return nil
}

// startServer stops the one before: they want the same ports.
func (r *reader) startServer(text string) error {
	if err := r.stopServer(); err != nil {
		return err
	}
	text = strings.TrimSpace(text)
	i := strings.LastIndexByte(text, '\n') + 1
	if err := r.shell.run(text[:i]); err != nil {
		return err
	}
	j, err := r.desk.start(r.shell.dir, text[i:])
	if err != nil {
		return err
	}
	r.server = j
	client := http.Client{Timeout: time.Second}
	for late := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		answer, err := client.Get("http://" + admin + "/readyz")
		if err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-j.ended:
			return fmt.Errorf("it ended: %s\n%s", how(j.err), j.output())
		default:
			if time.Now().After(late) {
				return fmt.Errorf("not ready: %s\n%s", how(err), j.output())
			}
		}
	}
}

// stopServer is Ctrl-C, when what ran meanwhile has ended.
func (r *reader) stopServer() error {
	for _, j := range r.jobs {
		if err := j.wait(); err != nil {
			return err
		}
	}
	r.jobs = nil
	if r.server == nil {
		return nil
	}
	j := r.server
	r.server = nil
	j.signal(syscall.SIGINT)
	if err := j.wait(); errors.Is(err, errLate) { // make says that it was interrupted, the server exits 0
		return err
	}
	for late := time.Now().Add(patience); time.Now().Before(late); time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", admin)
		if err != nil {
			return nil
		}
		_ = c.Close()
	}
	return errors.New("the server does not end")
}

// tidy ends what the page has begun, also when it failed.
func (r *reader) tidy() {
	for _, x := range r.terminals {
		x.job.signal(syscall.SIGKILL)
	}
	for _, j := range append(r.jobs, r.server) {
		if j != nil {
			j.signal(syscall.SIGKILL)
			_ = j.wait()
		}
	}
	r.shell.close()
}

// shell is the reader's: what one block exports or where it goes holds for the next.
type shell struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
	dir   string // where it stands
	file  string // of the block
	log   string // of what the block prints
}

func (d *desk) newShell(t *testing.T) *shell {
	t.Helper()
	base := t.TempDir()
	s := &shell{t: t, cmd: exec.Command("bash", "--norc"), dir: d.dir, file: filepath.Join(base, "block.sh"), log: filepath.Join(base, "log")}
	s.cmd.Dir, s.cmd.Env = d.dir, d.env
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.lines = bufio.NewScanner(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(s.in, "set -E -o pipefail\ntrap 'failed=\"$failed [$BASH_COMMAND: exit code $?]\"' ERR\n")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run carries out the commands of a block, every one of which must succeed.
func (s *shell) run(text string) error {
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		return err
	}
	late := time.AfterFunc(patience, func() { _ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) })
	defer late.Stop()
	_, err := fmt.Fprintf(s.in, "failed=; source %q </dev/null >%q 2>&1; printf '%%s\\n' \"$failed\" \"$PWD\"\n", s.file, s.log)
	if err != nil {
		return err
	}
	var answer []string
	for len(answer) < 2 && s.lines.Scan() {
		answer = append(answer, s.lines.Text())
	}
	log, _ := os.ReadFile(s.log)
	if len(answer) < 2 {
		return fmt.Errorf("the shell has ended, or was ended after %s\n%s", patience, log)
	}
	s.dir = answer[1]
	if answer[0] != "" {
		return fmt.Errorf("%s\n%s", answer[0], log)
	}
	return nil
}

func (s *shell) close() {
	_ = s.in.Close()
	for s.lines.Scan() {
	}
	_ = s.cmd.Wait()
}

// job is a command in a process group of its own.
type job struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // of its end

	mu  sync.Mutex
	out bytes.Buffer
	new chan struct{} // closed and made anew whenever something was printed
}

// how tells of an end that may have been in order.
func how(err error) string {
	if err == nil {
		return "without an error"
	}
	return err.Error()
}

var errLate = errors.New("it does not end")

// start runs commands in a shell of their own.
func (d *desk) start(dir, text string) (*job, error) {
	j := d.job(dir, text)
	j.cmd.Stdout, j.cmd.Stderr = j, j
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return j, j.begin()
}

func (d *desk) job(dir, text string) *job {
	j := &job{cmd: exec.Command("bash", "-e", "-o", "pipefail", "-c", text), ended: make(chan struct{}), new: make(chan struct{})}
	j.cmd.Dir, j.cmd.Env = dir, d.env
	return j
}

func (j *job) begin() error {
	if err := j.cmd.Start(); err != nil {
		return err
	}
	go func() {
		j.err = j.cmd.Wait()
		close(j.ended)
	}()
	return nil
}

func (j *job) signal(s syscall.Signal) { _ = syscall.Kill(-j.cmd.Process.Pid, s) }

func (j *job) wait() error {
	select {
	case <-j.ended:
	case <-time.After(patience):
		return fmt.Errorf("%s: %w\n%s", j.cmd.Args[len(j.cmd.Args)-1], errLate, j.output())
	}
	if j.err != nil {
		return fmt.Errorf("%s: %w\n%s", j.cmd.Args[len(j.cmd.Args)-1], j.err, j.output())
	}
	return nil
}

// Write implements io.Writer, for what the command prints.
func (j *job) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	close(j.new)
	j.new = make(chan struct{})
	return j.out.Write(b)
}

func (j *job) output() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.String()
}

// terminal is a program that somebody sits before.
type terminal struct {
	job    *job
	master *os.File
	seen   int // bytes of the output that the document has told of
}

func (r *reader) startTerminal(name, text string) error {
	master, slave, err := openTerminal()
	if err != nil {
		return err
	}
	x := &terminal{job: r.desk.job(r.shell.dir, text), master: master}
	x.job.cmd.Stdin, x.job.cmd.Stdout, x.job.cmd.Stderr = slave, slave, slave
	x.job.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.job.begin(); err != nil {
		return err
	}
	_ = slave.Close()
	go func() { _, _ = io.Copy(x.job, master) }() // ends with the program
	r.terminals[name] = x
	return nil
}

func (x *terminal) types(text string) error {
	_, err := x.master.WriteString(text)
	return err
}

// shows waits for lines. What is echoed of what was typed stands there too.
func (x *terminal) shows(text string) error {
	late := time.After(patience)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for {
			x.job.mu.Lock()
			out, news := x.job.out.String(), x.job.new
			x.job.mu.Unlock()
			if i := strings.Index(out[x.seen:], line); i >= 0 {
				x.seen += i + len(line)
				break
			}
			select {
			case <-news:
			case <-x.job.ended:
				return fmt.Errorf("%q does not come, the program has ended: %s\n%s", line, how(x.job.err), x.job.output())
			case <-late:
				return fmt.Errorf("%q does not come:\n%s", line, x.job.output())
			}
		}
	}
	return nil
}
