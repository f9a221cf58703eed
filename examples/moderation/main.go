// Moderation embeds the server in a program of its own and extends it by hooks: a before-send hook refuses and changes
// messages, an after-commit hook counts them, and command 1000 tells a client the count.
//
//	go run ./examples/moderation --data-dir /tmp/moderation
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/server"
	"github.com/meshtalk/meshtalk/session"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "moderation:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. It tells the addresses and then "ready".
func run(ctx context.Context, args []string, out io.Writer) error {
	o := server.DefaultOptions()
	flags := flag.NewFlagSet("moderation", flag.ContinueOnError)
	flags.StringVar(&o.DataDir, "data-dir", o.DataDir, "where messages are kept")
	flags.IntVar(&o.WebSocket.Port, "ws", o.WebSocket.Port, "WebSocket port")
	flags.IntVar(&o.TCP.Port, "tcp", o.TCP.Port, "TCP port")
	flags.IntVar(&o.Admin.Port, "admin", o.Admin.Port, "admin port")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var m moderator
	o.Hooks = server.Hooks{
		BeforeSend:  m.judge,
		AfterCommit: func(*codec.ConvMessage) { m.kept.Add(1) },
		Commands:    map[codec.Cmd]session.Command{codec.FirstExtension: m.count},
	}
	o.Ready = func(addresses []server.Address) {
		for _, a := range addresses {
			_, _ = fmt.Fprintln(out, a.Name, a.URL)
		}
		_, _ = fmt.Fprintln(out, "ready")
	}
	s, err := server.New(o)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// moderator is the state of the hooks, which run on many goroutines.
type moderator struct{ kept atomic.Int64 }

// judge refuses texts with links and trims the others. What is no text passes as it is.
func (m *moderator) judge(_ context.Context, o *session.Outgoing) error {
	var text string
	if json.Unmarshal(o.Content, &text) != nil {
		return nil
	}
	if strings.Contains(text, "http://") {
		return &session.Refusal{Code: codec.CodeForbidden, Message: "links are not allowed here"}
	}
	var err error
	o.Content, err = json.Marshal(strings.TrimSpace(text))
	return err
}

// count answers {"cmd":1000} with how many messages were kept since the start.
func (m *moderator) count(context.Context, session.Info, []byte) ([]byte, error) {
	return json.Marshal(map[string]int64{"kept": m.kept.Load()})
}
