package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// MaxToken is the longest token that is looked at, in bytes: a longer one is refused before it is parsed.
const MaxToken = 4 << 10

// JWT is the Authenticator of JSON Web Tokens. Safe for concurrent use.
//
// A token is judged in this order: its length, its header, the signature by a key that is for the header's algorithm,
// and only then what it claims. So nothing that nobody signed is ever read further than its header.
type JWT struct {
	ctx       context.Context //nolint:containedctx // bounds the life of the JWKS refresh, which Reload may begin anew
	state     atomic.Pointer[state]
	scratches sync.Pool // of *scratch
}

var _ Authenticator = (*JWT)(nil)

// state is what one configuration makes: it never changes, Reload puts another in its place.
type state struct {
	o         JWTOptions
	methods   map[string]jwt.SigningMethod // the pinned algorithms, by name
	validator *jwt.Validator
	keys      keys
	cancel    context.CancelFunc // ends the JWKS refresh
}

// NewJWT checks o and loads the keys; ctx bounds the life of the JWKS refresh. An unreachable JWKS is no error: it is
// tried again, and until then its tokens give ErrUnavailable.
func NewJWT(ctx context.Context, o JWTOptions) (*JWT, error) {
	j := &JWT{ctx: ctx}
	j.scratches.New = func() any { return &scratch{plain: make([]byte, 0, MaxToken), sig: make([]byte, 0, 512)} }
	s, err := j.load(o, nil)
	if err != nil {
		return nil, err
	}
	j.state.Store(s)
	return j, nil
}

// Reload reads the keys anew (SIGHUP); on error the old ones stay. Those of a key set stay in use until it has been
// fetched again.
func (j *JWT) Reload(o JWTOptions) error {
	old := j.state.Load()
	var last *setKeys
	if old.keys.set != nil && old.o.JWKSURL == o.JWKSURL {
		last = old.keys.set.keys.Load()
	}
	s, err := j.load(o, last)
	if err != nil {
		return err
	}
	j.state.Swap(s).close()
	return nil
}

// Close ends the JWKS refresh and waits for it. Tokens are still checked, with the keys as they are.
func (j *JWT) Close() { j.state.Load().close() }

func (s *state) close() {
	s.cancel()
	if s.keys.set != nil {
		s.keys.set.wait()
	}
}

func (j *JWT) load(o JWTOptions, last *setKeys) (*state, error) {
	s, err := check(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(j.ctx)
	s.cancel = cancel
	if o.JWKSURL != "" {
		s.keys.set = openKeySet(ctx, s.o, last)
	}
	return s, nil
}

// Check judges o as NewJWT does, without the network.
func (o JWTOptions) Check() error {
	_, err := check(o)
	return err
}

// check makes the state but for the key set.
func check(o JWTOptions) (*state, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	s := &state{o: o}
	if err := s.keys.load(o); err != nil {
		return nil, err
	}
	if err := s.pin(); err != nil {
		return nil, err
	}
	options := []jwt.ParserOption{jwt.WithExpirationRequired(), jwt.WithLeeway(o.Leeway), jwt.WithTimeFunc(o.Now)}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	if o.Audience != "" {
		options = append(options, jwt.WithAudience(o.Audience))
	}
	s.validator = jwt.NewValidator(options...)
	return s, nil
}

// known are the algorithms that may be pinned.
var known = []string{"HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"}

// pin decides on the algorithms: as configured, else what the keys are for. What is pinned has a key.
func (s *state) pin() error {
	algorithms := s.o.Algorithms
	if len(algorithms) == 0 {
		for _, a := range known {
			if s.keys.has(a) && a != "HS384" && a != "HS512" { // the secret is HS256's unless the other two are asked for
				algorithms = append(algorithms, a)
			}
		}
	}
	if len(algorithms) == 0 {
		return errors.New("no key to check tokens with (set auth.jwt.secret, secret-file, public-key-files or jwks-url)")
	}
	s.methods = map[string]jwt.SigningMethod{}
	for _, a := range algorithms {
		switch {
		case !slices.Contains(known, a):
			return fmt.Errorf("auth.jwt.algorithms: unknown %q (expected some of %s)", a, strings.Join(known, ", "))
		case !s.keys.has(a):
			return fmt.Errorf("auth.jwt.algorithms: there is no key for %s (HS256 and its kin take auth.jwt.secret, the others public-key-files or jwks-url)", a)
		}
		s.methods[a] = jwt.GetSigningMethod(a)
	}
	return nil
}

// scratch is the memory of one check, used again by later ones: nothing of it stays in the Identity.
type scratch struct {
	plain  []byte // the decoded part that is being read
	sig    []byte
	claims claims
}

// Authenticate implements Authenticator.
func (j *JWT) Authenticate(ctx context.Context, token string) (Identity, error) {
	s := j.state.Load()
	if len(token) > MaxToken {
		return Identity{}, refused("token over 4 KiB")
	}
	parts, ok := split(token)
	if !ok {
		return Identity{}, refused("malformed token")
	}
	w := j.scratches.Get().(*scratch)
	defer j.scratches.Put(w)
	h, err := w.header(parts.header)
	if err != nil {
		return Identity{}, refused(err.Error())
	}
	method, ok := s.methods[h.alg]
	if !ok {
		return Identity{}, refused("algorithm not allowed")
	}
	if w.sig, ok = decode(w.sig, parts.signature); !ok {
		return Identity{}, refused("malformed token")
	}
	if err = s.keys.verify(ctx, method, h, parts.signed, w.sig); err != nil {
		if errors.Is(err, ErrUnavailable) {
			return Identity{}, err
		}
		return Identity{}, refused(err.Error())
	}
	if w.plain, ok = decode(w.plain, parts.payload); !ok {
		return Identity{}, refused("malformed token")
	}
	if err = w.claims.read(w.plain, s.o.SeedClaims); err != nil {
		return Identity{}, refused(err.Error())
	}
	if err = s.validator.Validate(&w.claims); err != nil {
		return Identity{}, refused(reason(err))
	}
	return w.claims.identity()
}

// Cheap reports whether checking token takes no more than a few microseconds and no I/O (HMAC): it may then be done on
// an event loop.
func (j *JWT) Cheap(token string) bool {
	parts, ok := split(token)
	if !ok || len(token) > MaxToken {
		return true // refused at once
	}
	w := j.scratches.Get().(*scratch)
	defer j.scratches.Put(w)
	h, err := w.header(parts.header)
	return err != nil || strings.HasPrefix(h.alg, "HS")
}

func refused(why string) error { return fmt.Errorf("%w: %s", ErrUnauthorized, why) }

// reason is what a client may hear of refused claims: the first of these that applies.
func reason(err error) string {
	for _, r := range []struct {
		err  error
		text string
	}{
		{jwt.ErrTokenRequiredClaimMissing, "token without a required claim"},
		{jwt.ErrTokenExpired, "token expired"},
		{jwt.ErrTokenNotValidYet, "token not valid yet"},
		{jwt.ErrTokenInvalidIssuer, "wrong issuer"},
		{jwt.ErrTokenInvalidAudience, "wrong audience"},
	} {
		if errors.Is(err, r.err) {
			return r.text
		}
	}
	return "invalid token"
}
