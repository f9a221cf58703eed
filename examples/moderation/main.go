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
	o := server.DefaultOptions()
	flag.StringVar(&o.DataDir, "data-dir", o.DataDir, "where messages are kept")
	flag.IntVar(&o.WebSocket.Port, "ws", o.WebSocket.Port, "WebSocket port")
	flag.IntVar(&o.TCP.Port, "tcp", o.TCP.Port, "TCP port")
	flag.IntVar(&o.Admin.Port, "admin", o.Admin.Port, "admin port")
	flag.Parse()

	var m moderator
	o.Hooks = server.Hooks{
		BeforeSend:  m.judge,
		AfterCommit: func(*codec.ConvMessage) { m.kept.Add(1) },
		Commands:    map[codec.Cmd]session.Command{codec.FirstExtension: m.count},
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "moderation:", err)
		os.Exit(1)
	}
}

// run is server.Run, and tells the addresses in between.
func run(ctx context.Context, o server.Options) error {
	s, err := server.New(o)
	if err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	for _, a := range s.Addresses() {
		fmt.Println(a.Name, a.URL)
	}
	fmt.Println("ready")
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.Background(), o.ShutdownTimeout)
	defer cancel()
	return s.Stop(stop)
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
