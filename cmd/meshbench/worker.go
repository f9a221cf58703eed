package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtalk/meshtalk/bench"
)

func newWorker() *cobra.Command {
	var listen, token string
	var tokens common
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Does a share of a run for another meshbench.",
		Long: "Does a share of a run for another meshbench: for one that started it (--procs), with which it talks over standard input\n" +
			"and output, or with --listen for those on the network that name it (--workers), over HTTP. Who may use it can make this\n" +
			"machine connect to any address, and the server's key comes over the network as it is: use it in a network of your own.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var o bench.WorkerOptions
			if tokens.o.TokenCommand != "" {
				o.Token = bench.CommandToken(cmd.Context(), tokens.o.TokenCommand)
			}
			if listen == "" {
				return bench.Worker(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), o)
			}
			l, err := listenWorker(listen, token)
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(cmd.OutOrStdout(), "worker %s\nready\n", l.Addr())
			return serveWorker(cmd.Context(), l, bench.WorkerHandler(token, o))
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "", "`address` to listen at, host:port; empty = standard input and output")
	f.StringVar(&token, "worker-token", "", "`token` that a coordinator must have; without one only loopback addresses are listened at")
	f.StringVar(&tokens.o.TokenCommand, "token-command", "", "shell `command` that prints a token for $USER_NAME and $TERMINAL, instead of the coordinator's key")
	return cmd
}

// listenWorker listens at addr, which must be a loopback address when there is no token.
func listenWorker(addr, token string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	at, err := netip.ParseAddrPort(l.Addr().String())
	if err == nil && !at.Addr().IsLoopback() && token == "" {
		err = fmt.Errorf("%w: --listen %s is reached from the network: want --worker-token", errUsage, addr)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// serveWorker serves until ctx ends, and with it the runs that go on.
func serveWorker(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { stopped <- s.Close() })
	err := s.Serve(l)
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: unexpected argument %q", errUsage, args[0])
	}
	return nil
}
