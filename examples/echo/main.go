// Command echo sends every message back, text and binary, on WebSocket and on length-prefixed TCP. It is engine and
// codec and nothing else: it shows that the reactor stands by itself, and foreign WebSocket suites are run against it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/engine"
)

const (
	maxMessage  = 16 << 20 // bytes
	stopTimeout = 5 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("echo", flag.ExitOnError)
	ws := flags.Int("ws", 9001, "`port` of WebSocket, any path; 0 picks a free one")
	tcp := flags.Int("tcp", 9002, "`port` of TCP: a 4-byte big-endian length, then that many bytes; 0 picks a free one")
	most := flags.Int("max-message", maxMessage, "largest message in `bytes`, at most 16 MiB")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *most < 1 || *most > maxMessage {
		return fmt.Errorf("--max-message=%d: must be 1 to %d", *most, maxMessage)
	}
	e, err := engine.New(options(*most))
	if err != nil {
		return err
	}
	if err := e.Start(); err != nil {
		return err
	}
	err = listen(e, *ws, *tcp, stdout)
	if err == nil {
		<-ctx.Done()
	}
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if stopErr := e.Stop(stopping); err == nil {
		err = stopErr
	}
	return err
}

// options let a connection hold a few of the largest messages.
func options(most int) engine.Options {
	o := engine.DefaultOptions()
	o.Handler = echo{}
	o.MaxFrame = most
	o.SoftLimit = max(o.SoftLimit, most)
	o.HardLimit = max(o.HardLimit, 4*most)
	o.Logf = log.Printf
	return o
}

func listen(e *engine.Engine, ws, tcp int, stdout io.Writer) error {
	for _, l := range []struct {
		transport codec.Transport
		port      int
	}{{codec.WebSocket, ws}, {codec.TCP, tcp}} {
		address, err := e.Listen(l.transport, ":"+strconv.Itoa(l.port))
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(stdout, l.transport, address); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(stdout, "ready")
	return err
}

// echo is the handler. A peer that sends without reading is not read from, so it costs at most two messages.
type echo struct{}

func (echo) Open(*engine.Conn, *codec.Handshake) {}

func (echo) Message(c *engine.Conn, op codec.Op, payload []byte) {
	c.SendOp(op, payload)
	if c.Room() == 0 {
		c.Pause()
	}
}

func (echo) Drained(c *engine.Conn) { c.Resume() }

func (echo) Alive(*engine.Conn)                        {}
func (echo) Violation(*engine.Conn, *codec.FrameError) {}
func (echo) Expired(*engine.Conn)                      {}
func (echo) Closed(*engine.Conn, engine.Reason)        {}
