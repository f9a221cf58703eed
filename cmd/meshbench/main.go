// Command meshbench drives a Mesh-Talk server with load, checks what arrives and measures. See package bench.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// errFound: the run worked and found that the server did not keep a promise. The evidence is printed already.
var errFound = errors.New("the server did not keep a promise")

func main() {
	debug.SetGCPercent(400) // the load shares its cores with the server; its heap is small
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := newCommand().ExecuteContext(ctx); {
	case err == nil:
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "meshbench:", err)
		os.Exit(2)
	case errors.Is(err, errFound):
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "meshbench:", err)
		os.Exit(1)
	}
}
