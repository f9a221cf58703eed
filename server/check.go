package server

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// Check finds what is wrong with o as far as that can be told without opening or making anything: it reads the files of
// keys and tokens that o names, and asks no network. The error is one line that names the key.
func Check(o Options) error {
	s, err := New(o)
	if err != nil {
		return err
	}
	if o.Admin.Enable {
		if _, err := s.adminToken(); err != nil {
			return err
		}
	}
	if err := s.checkDemo(); err != nil {
		return err
	}
	if o.Hooks.Authenticator != nil {
		return nil
	}
	return s.checkAuth()
}

// checkAuth reads the keys as openAuth would, but makes none and fetches none.
func (s *Server) checkAuth() error {
	o := s.o
	if ownKey(o) {
		if _, err := os.ReadFile(filepath.Join(o.DataDir, "jwt.key")); err != nil {
			o.JWT.Secret = rand.Text() + rand.Text() // the start makes one, or says why it cannot
		}
	}
	jo, err := s.jwtOptions(o)
	if err != nil {
		return err
	}
	return jo.Check()
}

// ownKey reports whether tokens are signed with the key of the data directory.
func ownKey(o Options) bool {
	return o.JWT.Secret == "" && o.JWT.SecretFile == "" && len(o.JWT.PublicKeyFiles) == 0 && o.JWT.JWKSURL == ""
}

// Token mints a token that a server with these options accepts: for user, on terminal ("" = the client's choice), valid
// for ttl. Before the first start it makes the key of the data directory as the start would.
func Token(o Options, user, terminal string, ttl time.Duration) (string, error) {
	s := &Server{o: o, log: slog.Default()}
	jo, err := s.jwtOptions(o)
	if err != nil {
		return "", err
	}
	return jo.Mint(user, terminal, ttl, time.Now())
}

// HasKey says whether Token would find a key rather than make one: nil, or an error that names the file that is missing.
func HasKey(o Options) error {
	if !ownKey(o) {
		return nil
	}
	_, err := os.Stat(filepath.Join(o.DataDir, "jwt.key"))
	if err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	return nil
}
