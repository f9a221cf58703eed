// Meshtalk is the server, and what goes with it on a command line: tokens, a chat, the HTTP API, checks of the host.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshtalk/meshtalk/config"
	"github.com/meshtalk/meshtalk/server"
)

// commit is set by the build; without it the Go tool's own record is used.
var commit string

func main() {
	os.Exit(run(environment{args: os.Args[1:], env: os.Environ(), in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}

// environment is what a command sees of the world.
type environment struct {
	args     []string
	env      []string
	in       io.Reader
	out, err io.Writer
}

// Exit codes.
const (
	exitFailure = 1 // something went wrong at work
	exitUsage   = 2 // bad usage or configuration
)

// run executes the command line and returns the exit code. An error is one line on standard error.
func run(e environment) int {
	out := &results{to: e.out}
	e.out = out
	root := newRoot(e)
	root.SetArgs(e.args)
	root.SetIn(e.in)
	root.SetOut(e.out)
	root.SetErr(e.err)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		if err = failure(out.failed()); err == nil {
			return 0
		}
	}
	var code *exitError
	if !errors.As(err, &code) {
		code = &exitError{exitUsage, err} // what cobra itself refuses
	}
	if code.err != nil {
		say(e.err, "meshtalk:", oneLine(code.err.Error()))
	}
	return code.code
}

// results is standard output. It remembers that a write failed: what is not on the disk or in the pipe was not done.
type results struct {
	to  io.Writer
	mu  sync.Mutex
	err error
}

// Write implements io.Writer.
func (r *results) Write(p []byte) (int, error) {
	n, err := r.to.Write(p)
	if err != nil {
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
	}
	return n, err
}

func (r *results) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// say writes a line; run tells of what could not be written.
func say(w io.Writer, words ...any) { _, _ = fmt.Fprintln(w, words...) }

func sayf(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// exitError is an error with its exit code. A nil err has been told already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return "failed"
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// failure is an error at work.
func failure(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitFailure, err}
}

// usage is an error of the command line or the configuration.
func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// oneLine keeps the promise of one line whatever an error of a library looks like.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}

// newRoot is the command table.
func newRoot(e environment) *cobra.Command {
	root := &cobra.Command{
		Use:           "meshtalk",
		Short:         "A messaging server for hundreds of thousands of connections, and its tools",
		Version:       versionLine(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return usage("which command? (see meshtalk --help)")
		},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newServe(e), newToken(e), newConfig(e), newClient(e), newSend(e), newGroup(e), newUser(e), newStats(e), newNodes(e), newBackup(e), newDoctor(e),
		newVersion())
	return root
}

// family is a command that has only subcommands.
func family(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return usage("%s: which one? (see %s --help)", cmd.CommandPath(), cmd.CommandPath())
	}}
	cmd.AddCommand(commands...)
	return cmd
}

func unknownCommand(cmd *cobra.Command, name string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return usage("unknown command %q of %s (expected one of %s)", name, cmd.CommandPath(), strings.Join(names, ", "))
}

// flagError names the nearest flag when one is not known.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usage("%w", err)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	name := unknown.GetSpecifiedName()
	return usage("--%s: unknown flag; the nearest one is --%s", name, config.NearestOf(name, names))
}

// newVersion prints what this binary is.
func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print version, commit and Go version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			say(cmd.OutOrStdout(), versionLine())
		},
	}
}

// versionLine is "meshtalk VERSION (commit COMMIT, GO)".
func versionLine() string {
	version, commit, goVersion := server.Version, commit, ""
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
		if version == "dev" && info.Main.Version != "" && info.Main.Version != "(devel)" {
			version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && commit == "" {
				commit = s.Value[:min(12, len(s.Value))]
			}
		}
	}
	if commit == "" {
		commit = "unknown"
	}
	return fmt.Sprintf("meshtalk %s (commit %s, %s)", version, commit, goVersion)
}
