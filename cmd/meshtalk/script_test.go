package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// TestMain lets the scripts run this program as `meshtalk`.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"meshtalk": main})
}

// leakChecked runs the tests and then looks for goroutines that they left behind.
type leakChecked struct{ *testing.M }

// Run implements testscript.TestingM.
func (l leakChecked) Run() int {
	atImport := goleak.IgnoreCurrent() // a dependency starts a pool before main
	code := l.M.Run()
	if err := goleak.Find(atImport); err != nil && code == 0 {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestScripts plays testdata/*.txtar. Beside testscript's own commands there are
//
//	exits CODE COMMAND…     run a command: its exit code, and one line on standard error exactly when CODE is not 0
//	                        (doctor's findings aside, which go to standard output)
//	serve NAME FLAG…        start a server on free ports, wait until it is ready and set $WS, $TCP and $ADMIN
//	signal NAME SIGNAL      TERM, INT, HUP or KILL
//	logs NAME REGEXP        wait until the server's log has a line that matches
//	ends NAME CODE          wait for its end; stdout and stderr are its then
//	client NAME FLAG…       start a chat whose input stays open
//	say NAME LINE           write a line to it
//	hears NAME REGEXP       wait for a line of its output that matches; what comes before is passed over
//	hangup NAME             end its input
//	isjson FILE KEY…        the file is one JSON object that has these keys
//	taken                   set $PORT to a port that another program listens on
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", "atexit_sleep_ms=0") // each of the many short runs would wait a second under the race detector
			e.Values[processes{}] = map[string]*process{}
			e.Setenv("GORACE", "atexit_sleep_ms=10") // not a second for each of hundreds of commands
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "serve": cmdServe, "client": cmdClient, "signal": cmdSignal, "logs": cmdLogs, "ends": cmdEnds,
			"say": cmdSay, "hears": cmdHears, "hangup": cmdHangup, "isjson": cmdIsJSON, "taken": cmdTaken,
		},
	})
}

// processes is the key of a script's running programs.
type processes struct{}

// process is a program that a script talks to.
type process struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	out, log *lines
}

// lines are what a program has written, which a script waits for.
type lines struct {
	all  bytes.Buffer // what was waited for
	scan *bufio.Scanner
}

func (l *lines) next() (string, bool) {
	if !l.scan.Scan() {
		return "", false
	}
	fmt.Fprintln(&l.all, l.scan.Text())
	return l.scan.Text(), true
}

// until reads to a line that matches.
func (l *lines) until(ts *testscript.TestScript, pattern string) {
	re, err := regexp.Compile(pattern)
	ts.Check(err)
	for {
		line, ok := l.next()
		if !ok {
			ts.Fatalf("nothing matches %s in:\n%s", pattern, l.all.String())
		}
		if re.MatchString(line) {
			return
		}
	}
}

// rest reads to the end.
func (l *lines) rest() {
	for ok := true; ok; {
		_, ok = l.next()
	}
}

func byName(ts *testscript.TestScript, args []string, least int) *process {
	if len(args) < least {
		ts.Fatalf("too few arguments")
	}
	p := ts.Value(processes{}).(map[string]*process)[args[0]]
	if p == nil {
		ts.Fatalf("no program is called %s", args[0])
	}
	return p
}

// start runs meshtalk and leaves it running.
func start(ts *testscript.TestScript, name string, args ...string) *process {
	path, err := exec.LookPath("meshtalk")
	ts.Check(err)
	p := &process{cmd: exec.Command(path, args...)}
	p.cmd.Dir = ts.MkAbs(".")
	for _, k := range []string{"HOME", "PATH", "TMPDIR", "GORACE"} {
		p.cmd.Env = append(p.cmd.Env, k+"="+ts.Getenv(k))
	}
	if v := ts.Getenv("SERVER_ENV"); v != "" {
		p.cmd.Env = append(p.cmd.Env, strings.Fields(v)...)
	}
	p.in, err = p.cmd.StdinPipe()
	ts.Check(err)
	out, err := p.cmd.StdoutPipe()
	ts.Check(err)
	log, err := p.cmd.StderrPipe()
	ts.Check(err)
	p.out, p.log = &lines{scan: bufio.NewScanner(out)}, &lines{scan: bufio.NewScanner(log)}
	ts.Check(p.cmd.Start())
	ts.Defer(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	ts.Value(processes{}).(map[string]*process)[name] = p
	return p
}

func cmdServe(ts *testscript.TestScript, _ bool, args []string) {
	p := start(ts, args[0], append([]string{
		"serve", "--websocket.host=127.0.0.1", "--websocket.port=0", "--tcpsocket.host=127.0.0.1", "--tcpsocket.port=0", "--admin.port=0",
	}, args[1:]...)...)
	for {
		line, ok := p.out.next()
		switch name, url, _ := strings.Cut(line, " "); {
		case !ok:
			p.log.rest()
			ts.Fatalf("the server did not become ready: %s", p.log.all.String())
		case line == "ready":
			return
		default:
			ts.Setenv(map[string]string{"websocket": "WS", "tcp": "TCP", "admin": "ADMIN"}[name], url)
		}
	}
}

func cmdClient(ts *testscript.TestScript, _ bool, args []string) {
	start(ts, args[0], append([]string{"client"}, args[1:]...)...)
}

func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	p := byName(ts, args, 2)
	ts.Check(p.cmd.Process.Signal(map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL,
	}[args[1]]))
}

func cmdLogs(ts *testscript.TestScript, _ bool, args []string) {
	byName(ts, args, 2).log.until(ts, args[1])
}

func cmdEnds(ts *testscript.TestScript, _ bool, args []string) {
	p := byName(ts, args, 2)
	p.out.rest()
	p.log.rest()
	_ = p.cmd.Wait() // its code is what is asked for
	_, _ = ts.Stdout().Write(p.out.all.Bytes())
	_, _ = ts.Stderr().Write(p.log.all.Bytes())
	if code := strconv.Itoa(p.cmd.ProcessState.ExitCode()); code != args[1] {
		ts.Fatalf("exit code %s, want %s\nstdout: %s\nstderr: %s", code, args[1], p.out.all.String(), p.log.all.String())
	}
}

func cmdSay(ts *testscript.TestScript, _ bool, args []string) {
	p := byName(ts, args, 2)
	_, err := fmt.Fprintln(p.in, strings.Join(args[1:], " "))
	ts.Check(err)
}

func cmdHears(ts *testscript.TestScript, _ bool, args []string) {
	byName(ts, args, 2).out.until(ts, args[1])
}

func cmdHangup(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(byName(ts, args, 1).in.Close())
}

func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
	if n := strings.Count(stderr, "\n"); want != 0 && (n != 1 || !strings.HasPrefix(stderr, "meshtalk: ") || stdout != "") {
		ts.Fatalf("an error is one line on standard error and nothing else, got %d and %q on standard output", n, stdout)
	}
}

func cmdIsJSON(ts *testscript.TestScript, _ bool, args []string) {
	var object map[string]json.RawMessage
	text := ts.ReadFile(args[0])
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		ts.Fatalf("no JSON object: %v in %q", err, text)
	}
	if strings.Count(text, "\n") != 1 {
		ts.Fatalf("more than one line: %q", text)
	}
	for _, k := range args[1:] {
		if object[k] == nil {
			ts.Fatalf("no %s in %s", k, text)
		}
	}
}

func cmdTaken(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv("PORT", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

// Every command has a script that runs it.
func TestEveryCommandHasAScript(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	for _, c := range newRoot(environment{}).Commands() {
		paths := []string{c.Name()}
		if len(c.Commands()) > 0 {
			paths = nil
		}
		for _, sub := range c.Commands() {
			paths = append(paths, c.Name()+" "+sub.Name())
		}
		for _, p := range paths {
			if c.Name() != "help" && c.Name() != "completion" && c.Name() != "serve" && c.Name() != "client" &&
				!strings.Contains(all.String(), "meshtalk "+p) {
				t.Errorf("no script runs meshtalk %s", p)
			}
		}
	}
}
