package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// startTimeout is how long a server of run --local may take until it is ready, stopTimeout how long it may take to end.
const (
	startTimeout = 30 * time.Second
	stopTimeout  = 30 * time.Second
)

// newRun has all scenarios again, with --local. Their own command line is the same.
func newRun(scenarios []*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run SCENARIO",
		Short: "Runs a scenario, with --local against a server that it starts for it.",
		Long: "Runs a scenario. With --local it starts a server itself, on free ports of this machine, with its data in a temporary\n" +
			"folder and without limits, and ends it afterwards: one command gives a report.",
		Example: "  meshbench run --local private --pairs 100 --report private.html",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%w: run which scenario?", errUsage)
			}
			return fmt.Errorf("%w: no scenario %q", errUsage, args[0])
		},
	}
	f := cmd.PersistentFlags()
	f.Bool("local", false, "start a server for the run and end it afterwards")
	f.String("server", "", "`path` of the server's program for --local; empty = meshtalk beside meshbench, else in $PATH")
	f.StringArray("server-flag", nil, "`flag` for the server of --local, such as --server-flag=--performance.worker-threads=1; may be repeated")
	cmd.AddCommand(scenarios...)
	return cmd
}

// local starts a server if cmd stands below run and --local is given, and points c to it. The caller must call end, which
// is never nil.
func (c *common) local(cmd *cobra.Command) (end func() error, err error) {
	nothing := func() error { return nil }
	flags := cmd.Flags()
	if flags.Lookup("local") == nil {
		return nothing, nil
	}
	wanted, _ := flags.GetBool("local") // both are defined together
	path, _ := flags.GetString("server")
	more, _ := flags.GetStringArray("server-flag")
	if !wanted {
		if path != "" || len(more) > 0 {
			return nothing, fmt.Errorf("%w: --server and --server-flag want --local", errUsage)
		}
		return nothing, nil
	}
	for _, name := range []string{"addr", "secret-file", "data-dir", "token-command", "server-pid", "admin", "admin-token"} {
		if flags.Changed(name) {
			return nothing, fmt.Errorf("%w: --%s and --local exclude each other", errUsage, name)
		}
	}
	if path, err = serverProgram(path); err != nil {
		return nothing, err
	}
	s, err := startServer(cmd.Context(), path, more)
	if err != nil {
		return nothing, err
	}
	c.o.Addrs, c.o.Admin, c.o.ServerPID, c.dataDir = s.addrs, s.admin, s.cmd.Process.Pid, s.dataDir()
	return s.end, nil
}

// ended is how a run ended whose server has to end too. That messages were lost is told already, that the server broke is not.
func ended(err error, end func() error) error {
	broke := end()
	switch {
	case broke == nil:
		return err
	case err == nil, errors.Is(err, errFound):
		return broke
	}
	return fmt.Errorf("%w; %w", err, broke)
}

// serverProgram finds the server.
func serverProgram(path string) (string, error) {
	if path != "" {
		return filepath.Abs(path)
	}
	if own, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(own), "meshtalk")
		if info, err := os.Stat(beside); err == nil && !info.IsDir() {
			return beside, nil
		}
	}
	path, err := exec.LookPath("meshtalk")
	if err != nil {
		return "", errors.New("no meshtalk beside this program or in $PATH: say where it is with --server")
	}
	return filepath.Abs(path)
}

// localServer is a server that runs for one run.
type localServer struct {
	cmd    *exec.Cmd
	folder string // all that it writes
	log    *os.File
	exited chan error // closed with the process; holds how it ended

	addrs []string
	admin string
}

func (s *localServer) dataDir() string { return filepath.Join(s.folder, "data") }
func (s *localServer) keyFile() string { return filepath.Join(s.dataDir(), "jwt.key") }

// startServer runs a Mesh-Talk server without limits. It leaves a core to the load, which has a loop of its own that is as busy: where loops share
// a core, each is taken off it in the middle of a burst. The flags may say otherwise.
func startServer(ctx context.Context, path string, flags []string) (*localServer, error) {
	return startProgram(ctx, path, func(dataDir string) []string {
		return append([]string{"serve", "--data-dir", dataDir, "--websocket.host=127.0.0.1", "--websocket.port=0", "--tcpsocket.host=127.0.0.1",
			"--tcpsocket.port=0", "--admin.host=127.0.0.1", "--admin.port=0", "--limits.connections-per-ip=0",
			"--limits.handshakes-per-second-per-ip=0", "--limits.messages-per-second=0", "--log.level=warn",
			fmt.Sprintf("--performance.worker-threads=%d", max(1, runtime.GOMAXPROCS(0)-1))}, flags...)
	})
}

// startProgram runs a server and waits until it says that it is ready.
func startProgram(ctx context.Context, path string, args func(dataDir string) []string) (*localServer, error) {
	s := &localServer{exited: make(chan error, 1)}
	var err error
	if s.folder, err = os.MkdirTemp("", "meshbench-"); err != nil {
		return nil, err
	}
	if s.log, err = os.Create(filepath.Join(s.folder, "log")); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.folder))
	}
	s.cmd = exec.Command(path, args(s.dataDir())...)
	s.cmd.Dir, s.cmd.Stderr = s.folder, s.log
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MESHTALK_") { // its settings are these flags alone
			s.cmd.Env = append(s.cmd.Env, v)
		}
	}
	// A group of its own: Ctrl-C ends the run first and then, by end, the server. It does not outlive this program.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("server: %w", err), s.log.Close(), os.RemoveAll(s.folder))
	}
	ready := make(chan bool, 1)
	go func() {
		ready <- s.read(bufio.NewScanner(out))
		s.exited <- s.cmd.Wait()
		close(s.exited)
	}()
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case ok := <-ready:
		if ok {
			return s, nil
		}
		err = errors.New("server: it ended before it was ready")
	case <-timeout.C:
		err = fmt.Errorf("server: not ready after %s", startTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, ended(err, s.end)
}

// read takes the server's addresses from its output until it says ready.
func (s *localServer) read(lines *bufio.Scanner) bool {
	for lines.Scan() {
		name, url, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case "ready":
			return true
		case "admin":
			s.admin = url
		case "websocket", "tcp":
			s.addrs = append(s.addrs, url)
		}
	}
	return false
}

// end stops the server, waits for it and removes its folder. A server that ended by itself, or badly, is an error with the
// end of its log.
func (s *localServer) end() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	var err error
	select {
	case err = <-s.exited:
	case <-timeout.C:
		_ = s.cmd.Process.Kill()
		<-s.exited
		err = fmt.Errorf("did not stop within %s", stopTimeout)
	}
	if err != nil {
		text, _ := os.ReadFile(s.log.Name())
		text = text[max(0, len(text)-2000):]
		err = fmt.Errorf("server: %w\n%s", err, strings.TrimSpace(string(text)))
	}
	return errors.Join(err, s.log.Close(), os.RemoveAll(s.folder))
}
