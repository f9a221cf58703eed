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

// Authenticator checks one credential. It is called from a pool, not from an event loop, and may block until ctx ends.
// Safe for concurrent use.
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
	SeedClaims     bool // read the original server's claims: aud = user, info = JSON {userId, terminal}
	Now            func() time.Time // nil = time.Now
	Logf           func(format string, args ...any)
}

// JWT is the Authenticator of JSON Web Tokens.
type JWT struct{}

// NewJWT checks o and loads the keys; ctx bounds the life of the JWKS refresh.
func NewJWT(ctx context.Context, o JWTOptions) (*JWT, error) { panic("stub") }

// Authenticate implements Authenticator.
func (j *JWT) Authenticate(ctx context.Context, token string) (Identity, error) { panic("stub") }

// Cheap reports whether checking token takes no more than a few microseconds and no I/O (HMAC): it may then be done on an event loop.
func (j *JWT) Cheap(token string) bool { panic("stub") }

// Reload reads the keys anew (SIGHUP); on error the old ones stay.
func (j *JWT) Reload(o JWTOptions) error { panic("stub") }

// Mint makes an HS256 token for user (iat in ms as a fraction); terminal "" leaves the claim out.
func Mint(secret []byte, user, terminal string, ttl time.Duration, now time.Time) (string, error) { panic("stub") }

// LoadOrCreateKey reads the HS256 key of a data directory's jwt.key (text, trimmed of white space), or writes a random one (0600) and
// reports created. CheckSecret refuses a secret of < 32 bytes or a known sample value.
func LoadOrCreateKey(path string) (key []byte, created bool, err error) { panic("stub") }
func CheckSecret(secret []byte) error                                    { panic("stub") }
