package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtalk/meshtalk/config"
	"github.com/meshtalk/meshtalk/server"
)

func newServe(e environment) *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the server",
		Long: "Run the server. It prints one line for each listener and then \"ready\" to standard output, and logs to standard error.\n" +
			"SIGTERM or SIGINT stop it gracefully, a second one at once. SIGHUP reads the configuration again and takes over the\n" +
			"log level, the limits of messages and the keys of tokens. Each setting is also an environment variable:\n" +
			"--websocket.port is MESHTALK_WEBSOCKET_PORT.",
		Args: cobra.NoArgs,
	}
	s := addSettings(cmd, e.env)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := s.load()
		if err != nil {
			return err
		}
		return serve(s, c, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

// serve runs the server until a signal ends it.
func serve(s *settings, c *config.Config, out, log io.Writer) error {
	collector := newCollector(os.Getenv("GOGC") == "")
	if c.Options.UsesServices() {
		defer runtime.KeepAlive(collector.ballast())
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)

	held := &heldWriter{to: log}
	c.Options.LogLevel = new(slog.LevelVar)
	c.Options.Logger = c.Logger(held, c.Options.LogLevel)
	c.Options.Settings = c.Settings()
	srv, err := server.New(c.Options)
	if err != nil {
		return usage("%w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := srv.Start(ctx); err != nil {
		return failure(err)
	}
	held.release()
	if w := c.Warning(); w != "" {
		c.Options.Logger.Warn(w)
	}
	if w := hostWarning(c, os.DirFS("/")); w != "" {
		c.Options.Logger.Warn(w)
	}
	for _, a := range srv.Addresses() {
		say(out, a.Name, a.URL)
	}
	say(out, "ready")

	failed := untilEnd(s, c, srv, collector, signals)
	if err := stop(srv, c.Options.ShutdownTimeout, signals); failed == nil {
		return err
	}
	return failure(failed)
}

// untilEnd waits for a signal that ends the server (nil), or for its failure, and reloads meanwhile.
func untilEnd(s *settings, c *config.Config, srv *server.Server, gc *collector, signals <-chan os.Signal) error {
	tick := time.NewTicker(collectorInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			gc.adjust(func() int64 { return srv.Hub().Stats().Store.HeadBytes })
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				return nil
			}
			reload(s, c, srv)
		case err := <-srv.Failed():
			return err
		}
	}
}

// stopper is the end of a server.
type stopper interface{ Stop(context.Context) error }

// stop ends the server gracefully; a second signal cuts it short.
func stop(srv stopper, timeout time.Duration, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- srv.Stop(ctx) }()
	for {
		select {
		case err := <-stopped:
			return failure(err)
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				return failure(errors.New("stopped by a second signal: clients were not waited for, acknowledged messages are kept"))
			}
		}
	}
}

// reload reads the configuration again and takes over what may change. On an error everything stays as it is. started is
// what the server was started with: what differs from it and cannot be taken over wants a restart.
func reload(s *settings, started *config.Config, srv *server.Server) {
	log := started.Options.Logger
	c, err := s.load()
	if err != nil {
		log.Error("SIGHUP: the configuration stays as it was", "error", oneLine(err.Error()))
		return
	}
	c.Options.Logger = log
	c.Options.LogLevel = new(slog.LevelVar)
	c.Options.LogLevel.Set(c.Level())
	c.Options.Settings = config.Effective(started, c)
	if err := srv.Reload(c.Options); err != nil {
		log.Error("SIGHUP: the keys stay as they were", "error", oneLine(err.Error()))
		return
	}
	if names := config.NeedRestart(started, c); len(names) > 0 {
		log.Warn("SIGHUP: these settings want a restart", "keys", strings.Join(names, ", "))
	}
	log.Info("SIGHUP: the configuration was read again")
}

// heldWriter keeps what is logged until the start has succeeded, so that a failed one leaves its one line alone.
type heldWriter struct {
	to io.Writer

	mu       sync.Mutex
	held     []byte
	released bool
}

// Write implements io.Writer.
func (w *heldWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.released {
		return w.to.Write(p)
	}
	w.held = append(w.held, p...)
	return len(p), nil
}

func (w *heldWriter) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = w.to.Write(w.held) // nobody to tell when standard error is gone
	w.held, w.released = nil, true
}
