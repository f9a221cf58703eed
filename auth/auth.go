// Package auth turns credentials into an identity: JWTs checked with static keys or a JWKS, and minting for the
// command line. It keeps no session.
package auth

import (
	"context"
	"errors"
	"time"
)

// Identity is who a valid credential speaks for.
type Identity struct {
	User      string
	Terminal  string // "" when the token has none: the client chooses
	ExpiresAt int64  // ms since the Unix epoch
	IssuedAt  int64  // ms, 0 when the token has no iat: it counts as older than any revocation
}

// ErrUnauthorized wraps every refusal of a credential. Its text is for logs and for the ERROR's message: it names the
// reason (expired, bad signature, algorithm not allowed …) and never the token.
var ErrUnauthorized = errors.New("unauthorized")

// ErrUnavailable: the credential could not be checked now (JWKS unreachable and nothing cached).
var ErrUnavailable = errors.New("authentication unavailable")

// Authenticator checks one credential. It is called from a pool, not from an event loop, and may block until ctx ends, which
// other calls share: it does not end with this one. Safe for concurrent use.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (Identity, error)
}

// JWTOptions configure NewJWT. Key files are read at once and again by Reload.
type JWTOptions struct {
	Secret         []byte   // HS256/384/512 key, used as it is
	PublicKeyFiles []string // PEM: RSA, ECDSA P-256, Ed25519 public keys or certificates
	JWKSURL        string
	Algorithms     []string // pinned; empty = what the keys can do: HS256 for Secret, RS256/ES256/EdDSA by key
	Issuer         string   // required iss when set
	Audience       string   // required aud when set
	Leeway         time.Duration
	SeedClaims     bool             // read the original server's claims: aud = user, info = JSON {userId, terminal}
	Now            func() time.Time // nil = time.Now
	Logf           func(format string, args ...any)
}
