package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// MaxToken is the longest token that is looked at, in bytes: a longer one is refused before it is parsed.
const MaxToken = 4 << 10

// JWT is the Authenticator of JSON Web Tokens. Safe for concurrent use.
type JWT struct {
	ctx   context.Context //nolint:containedctx // bounds the life of the JWKS refresh, which Reload may begin anew
	state atomic.Pointer[state]
}

var _ Authenticator = (*JWT)(nil)

// state is what one configuration makes: it never changes, Reload puts another in its place.
type state struct {
	o      JWTOptions
	parser *jwt.Parser
	keys   keys
	cancel context.CancelFunc // ends the JWKS refresh
}

// NewJWT checks o and loads the keys; ctx bounds the life of the JWKS refresh. An unreachable JWKS is no error: it is
// tried again, and until then its tokens give ErrUnavailable.
func NewJWT(ctx context.Context, o JWTOptions) (*JWT, error) {
	j := &JWT{ctx: ctx}
	s, err := j.load(o)
	if err != nil {
		return nil, err
	}
	j.state.Store(s)
	return j, nil
}

// Reload reads the keys anew (SIGHUP); on error the old ones stay.
func (j *JWT) Reload(o JWTOptions) error {
	s, err := j.load(o)
	if err != nil {
		return err
	}
	j.state.Swap(s).cancel()
	return nil
}

func (j *JWT) load(o JWTOptions) (*state, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	ctx, cancel := context.WithCancel(j.ctx)
	s := &state{o: o, cancel: cancel}
	if err := s.loadKeys(ctx); err != nil {
		cancel()
		return nil, err
	}
	methods, err := s.methods()
	if err != nil {
		cancel()
		return nil, err
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(methods), jwt.WithExpirationRequired(), jwt.WithLeeway(o.Leeway),
		jwt.WithTimeFunc(o.Now), jwt.WithStrictDecoding(),
	}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	if o.Audience != "" {
		options = append(options, jwt.WithAudience(o.Audience))
	}
	s.parser = jwt.NewParser(options...)
	return s, nil
}

// known are the algorithms that may be pinned.
var known = []string{"HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"}

// methods are the pinned algorithms: as configured, else what the keys can do.
func (s *state) methods() (list []string, err error) {
	for _, a := range s.o.Algorithms {
		if !slices.Contains(known, a) {
			return nil, fmt.Errorf("auth.jwt.algorithms: unknown %q (expected some of %v)", a, known)
		}
	}
	if len(s.o.Algorithms) > 0 {
		return s.o.Algorithms, nil
	}
	if len(s.keys.secret) > 0 {
		list = append(list, "HS256")
	}
	if s.keys.jwks != nil {
		return append(list, "RS256", "ES256", "EdDSA"), nil
	}
	for _, a := range []string{"RS256", "ES256", "EdDSA"} {
		if len(s.keys.static[a]) > 0 {
			list = append(list, a)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no key to check tokens with (set auth.jwt.secret, secret-file, public-key-files or jwks-url)")
	}
	return list, nil
}

// Authenticate implements Authenticator.
func (j *JWT) Authenticate(ctx context.Context, token string) (Identity, error) {
	s := j.state.Load()
	if len(token) > MaxToken {
		return Identity{}, refused("token over 4 KiB")
	}
	c := claims{seed: s.o.SeedClaims}
	_, err := s.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) { return s.keys.find(ctx, t) })
	switch {
	case errors.Is(err, ErrUnavailable):
		return Identity{}, ErrUnavailable
	case err != nil:
		return Identity{}, refused(reason(err))
	}
	return c.identity()
}

// Cheap reports whether checking token takes no more than a few microseconds and no I/O (HMAC): it may then be done on
// an event loop.
func (j *JWT) Cheap(token string) bool {
	const hs = "eyJhbGciOiJIUz" // {"alg":"HS in base64, as nearly every library writes it; others go the long way
	return len(token) <= MaxToken && len(token) > len(hs) && token[:len(hs)] == hs
}

func refused(why string) error { return fmt.Errorf("%w: %s", ErrUnauthorized, why) }

// reason is what a client may hear of a refusal: the first of these that applies, never the parser's text.
func reason(err error) string {
	for _, r := range []struct {
		err  error
		text string
	}{
		{jwt.ErrTokenMalformed, "malformed token"},
		{jwt.ErrTokenUnverifiable, "no key for this token"},
		{jwt.ErrTokenSignatureInvalid, "bad signature or algorithm"},
		{jwt.ErrTokenExpired, "token expired"},
		{jwt.ErrTokenNotValidYet, "token not valid yet"},
		{jwt.ErrTokenUsedBeforeIssued, "token from the future"},
		{jwt.ErrTokenRequiredClaimMissing, "token without a required claim"},
		{jwt.ErrTokenInvalidIssuer, "wrong issuer"},
		{jwt.ErrTokenInvalidAudience, "wrong audience"},
	} {
		if errors.Is(err, r.err) {
			return r.text
		}
	}
	return "invalid token"
}

// Mint makes an HS256 token for user (iat in ms as a fraction); terminal "" leaves the claim out.
func Mint(secret []byte, user, terminal string, ttl time.Duration, now time.Time) (string, error) {
	c := jwt.MapClaims{"sub": user, "iat": seconds(now), "exp": seconds(now.Add(ttl))}
	if terminal != "" {
		c["terminal"] = terminal
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString(secret)
}

// seconds is a time as JWTs have it, with milliseconds as the fraction.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
