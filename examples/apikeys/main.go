// Apikeys embeds the server with an authenticator of its own: clients log in with keys from a file instead of JWTs, one
// "key user" a line, and each coming and going is printed.
//
//	printf 'k-123 alice\nk-456 bob\n' > /tmp/keys
//	go run ./examples/apikeys --keys /tmp/keys --data-dir /tmp/apikeys
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/server"
	"github.com/meshtalk/meshtalk/session"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "apikeys:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. It tells the addresses and then "ready", and from then on who comes and goes.
func run(ctx context.Context, args []string, out io.Writer) error {
	o := server.DefaultOptions()
	flags := flag.NewFlagSet("apikeys", flag.ContinueOnError)
	file := flags.String("keys", "", `file of "key user" lines`)
	flags.StringVar(&o.DataDir, "data-dir", o.DataDir, "where messages are kept")
	flags.IntVar(&o.WebSocket.Port, "ws", o.WebSocket.Port, "WebSocket port")
	flags.IntVar(&o.TCP.Port, "tcp", o.TCP.Port, "TCP port")
	flags.IntVar(&o.Admin.Port, "admin", o.Admin.Port, "admin port")
	if err := flags.Parse(args); err != nil {
		return err
	}
	keys, err := readKeys(*file)
	if err != nil {
		return err
	}
	tell := func(words ...any) { _, _ = fmt.Fprintln(out, words...) }
	o.Hooks.Authenticator = keys
	o.Hooks.SessionOnline = func(s session.Info) { tell(s.User, "came from", s.IP) }
	o.Hooks.SessionOffline = func(s session.Info, reason string) { tell(s.User, "went:", reason) }
	o.Ready = func(addresses []server.Address) {
		for _, a := range addresses {
			tell(a.Name, a.URL)
		}
		tell("ready")
	}
	s, err := server.New(o)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// keyring is an auth.Authenticator: key → user. It never changes.
type keyring map[string]string

func readKeys(file string) (keyring, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--keys: %w", err)
	}
	keys := keyring{}
	for lines := bufio.NewScanner(strings.NewReader(string(b))); lines.Scan(); {
		if key, user, ok := strings.Cut(strings.TrimSpace(lines.Text()), " "); ok {
			keys[key] = user
		}
	}
	return keys, nil
}

// Authenticate implements auth.Authenticator. A key never expires; the session is to be renewed once a day.
func (k keyring) Authenticate(_ context.Context, token string) (auth.Identity, error) {
	user, ok := k[token]
	if !ok {
		return auth.Identity{}, fmt.Errorf("%w: unknown key", auth.ErrUnauthorized)
	}
	now := time.Now()
	return auth.Identity{User: user, IssuedAt: now.UnixMilli(), ExpiresAt: now.Add(24 * time.Hour).UnixMilli()}, nil
}
