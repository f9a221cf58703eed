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
	o := server.DefaultOptions()
	file := flag.String("keys", "", `file of "key user" lines`)
	flag.StringVar(&o.DataDir, "data-dir", o.DataDir, "where messages are kept")
	flag.IntVar(&o.WebSocket.Port, "ws", o.WebSocket.Port, "WebSocket port")
	flag.IntVar(&o.TCP.Port, "tcp", o.TCP.Port, "TCP port")
	flag.IntVar(&o.Admin.Port, "admin", o.Admin.Port, "admin port")
	flag.Parse()

	if err := run(o, *file); err != nil {
		fmt.Fprintln(os.Stderr, "apikeys:", err)
		os.Exit(1)
	}
}

func run(o server.Options, file string) error {
	keys, err := readKeys(file)
	if err != nil {
		return err
	}
	o.Hooks.Authenticator = keys
	o.Hooks.SessionOnline = func(s session.Info) { fmt.Println(s.User, "came from", s.IP) }
	o.Hooks.SessionOffline = func(s session.Info, reason string) { fmt.Println(s.User, "went:", reason) }
	s, err := server.New(o)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := s.Start(ctx); err != nil {
		return err
	}
	for _, a := range s.Addresses() {
		fmt.Println(a.Name, a.URL)
	}
	fmt.Println("ready")
	<-ctx.Done()
	end, cancel := context.WithTimeout(context.Background(), o.ShutdownTimeout)
	defer cancel()
	return s.Stop(end)
}

// keyring is an auth.Authenticator: key → user. It never changes.
type keyring map[string]string

func readKeys(file string) (keyring, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	keys := keyring{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
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
