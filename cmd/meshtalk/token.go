package main

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/config"
	"github.com/meshtalk/meshtalk/server"
)

// The longest names, in bytes: docs/PROTOCOL.md §2.
const (
	maxName     = 64
	maxTerminal = 32
)

// keySource says which key signs tokens: that of a data directory, a file, or the server's configuration.
type keySource struct {
	env                       []string
	mustExist                 bool // a key that is made now would be nobody's
	dataDir, secretFile, file string
}

func (k *keySource) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.dataDir, "data-dir", "", "data directory whose jwt.key signs (default: as serve would, ./data)")
	cmd.Flags().StringVar(&k.secretFile, "secret-file", "", "file with the HS256 key")
	cmd.Flags().StringVar(&k.file, "config", "", "the server's YAML file: sign as that server expects")
	cmd.MarkFlagsMutuallyExclusive("data-dir", "secret-file")
}

// token mints one as the server's own configuration says, unless a flag names the key.
func (k *keySource) token(user, terminal string, ttl time.Duration) (string, error) {
	o := server.DefaultOptions()
	switch {
	case k.dataDir != "":
		o.DataDir = k.dataDir
	case k.secretFile != "":
		o.JWT.SecretFile = k.secretFile
	default:
		c, err := config.Load(config.Sources{File: k.file, Environ: k.env})
		if err != nil {
			return "", &exitError{exitUsage, err}
		}
		o = c.Options
	}
	if err := server.Check(o); err != nil {
		return "", &exitError{exitUsage, err}
	}
	if k.mustExist {
		if err := server.HasKey(o); err != nil {
			return "", failure(fmt.Errorf("%w (start the server first, give its --data-dir, or a --token)", err))
		}
	}
	t, err := server.Token(o, user, terminal, ttl)
	var atWork syscall.Errno
	switch {
	case errors.As(err, &atWork):
		return "", failure(err)
	case err != nil:
		return "", &exitError{exitUsage, err}
	}
	return t, nil
}

func newToken(e environment) *cobra.Command {
	var user, terminal string
	var ttl time.Duration
	key := keySource{env: e.env}
	cmd := &cobra.Command{
		Use: "token --user U", Short: "Mint a token for a user",
		Long: "Mint a token for a user and print it, and nothing else. Before the first start of the server its key is made.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkName("user", user, maxName); err != nil {
				return err
			}
			if terminal != "" {
				if err := checkName("terminal", terminal, maxTerminal); err != nil {
					return err
				}
			}
			if ttl <= 0 {
				return usage("--ttl: %s (expected a duration above zero, such as 24h)", ttl)
			}
			t, err := key.token(user, terminal, ttl)
			if err != nil {
				return err
			}
			say(cmd.OutOrStdout(), t)
			return nil
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "whom the token speaks for")
	cmd.Flags().StringVar(&terminal, "terminal", "", "the only terminal that it is for; empty = the client chooses")
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long it is valid")
	key.addFlags(cmd)
	return cmd
}

// checkName refuses what is no name on the wire.
func checkName(flag, name string, most int) error {
	switch {
	case name == "":
		return usage("--%s: is missing (expected a name)", flag)
	case !codec.ValidName(name, most):
		return usage("--%s: %.80q (expected 1 to %d bytes of UTF-8 without control characters, ':' and '/')", flag, name, most)
	}
	return nil
}
