package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtalk/meshtalk/client"
)

// chatOptions are the flags of `meshtalk client`.
type chatOptions struct {
	addr, user, terminal, token string
	to, group                   string
	json                        bool
	wait                        time.Duration
	key                         keySource
}

func newClient(e environment) *cobra.Command {
	o := chatOptions{key: keySource{env: e.env, mustExist: true}}
	cmd := &cobra.Command{
		Use: "client --user U", Short: "Chat in the terminal",
		Long: "Chat in the terminal. A line is a message to the current target; " + commandsHelp + ".\n" +
			"A line that begins with // is sent with one / less. When standard input is no terminal, each line is one message, and at\n" +
			"its end the client waits until all are acknowledged and what had come before is shown. With --json each received packet is one line of standard output.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return o.chat(ctx, e)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.user, "user", "", "who you are")
	f.StringVar(&o.addr, "addr", "ws://127.0.0.1:8080/im", "ws://host:port/im, wss://host:port/im or tcp://host:port")
	f.StringVar(&o.token, "token", "", "token to log in with; without it one is minted with the server's key")
	f.StringVar(&o.terminal, "terminal", "cli", "name of this terminal: a newer login of the same one ends the older")
	f.StringVar(&o.to, "to", "", "user to write to at first")
	f.StringVar(&o.group, "group", "", "group to write to at first")
	f.BoolVar(&o.json, "json", false, "print each received packet as one line of JSON")
	f.DurationVar(&o.wait, "wait", 30*time.Second, "how long to wait at the end for acknowledgements")
	o.key.addFlags(cmd)
	cmd.MarkFlagsMutuallyExclusive("to", "group")
	return cmd
}

// check refuses what cannot work before anything is dialled.
func (o *chatOptions) check() error {
	if o.token == "" || o.user != "" {
		if err := checkName("user", o.user, maxName); err != nil {
			return err
		}
	}
	for flag, name := range map[string]string{"to": o.to, "group": o.group} {
		if name != "" {
			if err := checkName(flag, name, maxName); err != nil {
				return err
			}
		}
	}
	if err := checkName("terminal", o.terminal, maxTerminal); err != nil {
		return err
	}
	u, err := url.Parse(o.addr)
	if err != nil || u.Hostname() == "" || u.Scheme != "ws" && u.Scheme != "wss" && u.Scheme != "tcp" {
		return usage("--addr: %q (expected ws://host:port/im, wss://host:port/im or tcp://host:port)", o.addr)
	}
	if o.wait <= 0 {
		return usage("--wait: %s (expected a duration above zero, such as 30s)", o.wait)
	}
	return nil
}

// minted is how long a minted token is valid; the client gets a new one before it ends.
const minted = 24 * time.Hour

// source is where the client's tokens come from.
func (o *chatOptions) source() (client.TokenSource, error) {
	if o.token != "" {
		return client.StaticToken(o.token), nil
	}
	if _, err := o.key.token(o.user, "", minted); err != nil {
		return nil, err
	}
	return func(context.Context) (string, error) { return o.key.token(o.user, "", minted) }, nil
}

// chat logs in and runs the dialogue until the input or the session ends.
func (o *chatOptions) chat(ctx context.Context, e environment) error {
	tokens, err := o.source()
	if err != nil {
		return err
	}
	s := newScreen(e, o.json)
	dialling, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	c, err := client.Dial(dialling, client.Options{
		Addr: o.addr, Token: tokens, Terminal: o.terminal, Handler: s.handler(), BackoffMax: 5 * time.Second,
	})
	if err != nil {
		return failure(dialError(err))
	}
	d := &dialogue{c: c, screen: s, to: o.to, group: o.group, piped: !s.terminal}
	s.begin(c)
	err = d.run(ctx, e.in)
	waiting, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	err = errors.Join(err, d.finish(waiting))
	return errors.Join(err, c.Close())
}

// dialError says what to do when there is no server.
func dialError(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w (is the server running, and is --addr its address?)", err)
	}
	return err
}
