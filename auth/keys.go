package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

// keys are what signatures are checked with, each for its own algorithm only: a public key is never an HMAC secret.
type keys struct {
	secret []byte
	static map[string][]jwt.VerificationKey // by algorithm: RS256, ES256, EdDSA
	jwks   keyfunc.Keyfunc
}

func (s *state) loadKeys(ctx context.Context) error {
	s.keys.secret = s.o.Secret
	s.keys.static = make(map[string][]jwt.VerificationKey)
	for _, f := range s.o.PublicKeyFiles {
		if err := s.keys.add(f); err != nil {
			return fmt.Errorf("auth.jwt.public-key-files: %s: %w", f, err)
		}
	}
	if s.o.JWKSURL == "" {
		return nil
	}
	return s.openJWKS(ctx)
}

// add reads the PEM blocks of a file: public keys and certificates.
func (k *keys) add(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	found := false
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		key, err := publicKey(block)
		if err != nil {
			return err
		}
		algorithm := ""
		switch key := key.(type) {
		case *rsa.PublicKey:
			if key.N.BitLen() < 2048 {
				return fmt.Errorf("an RSA key of %d bits (expected at least 2048)", key.N.BitLen())
			}
			algorithm = "RS256"
		case *ecdsa.PublicKey:
			if key.Curve != elliptic.P256() {
				return fmt.Errorf("an ECDSA key on %s (expected P-256)", key.Curve.Params().Name)
			}
			algorithm = "ES256"
		case ed25519.PublicKey:
			algorithm = "EdDSA"
		default:
			return fmt.Errorf("a key of type %T (expected RSA, ECDSA P-256 or Ed25519)", key)
		}
		k.static[algorithm] = append(k.static[algorithm], key)
		found = true
	}
	if !found {
		return errors.New("no PEM block (expected a public key or a certificate)")
	}
	return nil
}

func publicKey(block *pem.Block) (any, error) {
	switch block.Type {
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	}
	return nil, fmt.Errorf("a PEM block %q (expected a public key or a certificate)", block.Type)
}

const (
	jwksRefresh = time.Hour       // beside the refresh for an unknown kid
	jwksUnknown = 5 * time.Second // between two refreshes for an unknown kid: a rotation is seen soon, a flood of kids costs little
	jwksTimeout = 5 * time.Second
	maxJWKS     = 1 << 20 // bytes of a key set
)

// openJWKS begins to follow the key set. Its URL comes from the configuration alone, never from a token.
func (s *state) openJWKS(ctx context.Context) (err error) {
	s.keys.jwks, err = keyfunc.NewDefaultOverrideCtx(ctx, []string{s.o.JWKSURL}, keyfunc.Override{
		Client:            &http.Client{Transport: limitedTransport{http.DefaultTransport}, Timeout: jwksTimeout},
		HTTPTimeout:       jwksTimeout,
		RefreshInterval:   jwksRefresh,
		RefreshUnknownKID: rate.NewLimiter(rate.Every(jwksUnknown), 1),
		RateLimitWaitMax:  time.Millisecond, // do not wait for the limiter: the kid is unknown then
		RefreshErrorHandlerFunc: func(string) func(context.Context, error) {
			return func(_ context.Context, err error) { s.o.Logf("auth.jwt.jwks-url: %v", err) }
		},
	})
	if err != nil {
		return fmt.Errorf("auth.jwt.jwks-url: %w", err)
	}
	return nil
}

// limitedTransport bounds the body of an answer.
type limitedTransport struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t limitedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxJWKS), resp.Body}
	}
	return resp, err
}

// find is the jwt.Keyfunc: the keys that may have signed t, by its algorithm, which is one of the pinned ones.
func (k *keys) find(ctx context.Context, t *jwt.Token) (any, error) {
	switch a := t.Method.Alg(); a {
	case "HS256", "HS384", "HS512":
		if len(k.secret) == 0 {
			return nil, errors.New("no secret")
		}
		return k.secret, nil
	default:
		if static := k.static[a]; len(static) > 0 {
			if _, hasKID := t.Header["kid"]; !hasKID || k.jwks == nil {
				return jwt.VerificationKeySet{Keys: static}, nil
			}
		}
	}
	if k.jwks == nil {
		return nil, errors.New("no key of this type")
	}
	key, err := k.jwks.KeyfuncCtx(ctx)(t)
	if err == nil {
		return usable(t, key)
	}
	if all, readErr := k.jwks.Storage().KeyReadAll(ctx); readErr != nil || len(all) == 0 {
		return nil, ErrUnavailable
	}
	return nil, err
}

// usable refuses a key of the set that is of another type than the algorithm's: a symmetric one, or too small a one.
func usable(t *jwt.Token, key any) (any, error) {
	ok := false
	switch key := key.(type) {
	case *rsa.PublicKey:
		ok = t.Method.Alg() == "RS256" && key.N.BitLen() >= 2048
	case *ecdsa.PublicKey:
		ok = t.Method.Alg() == "ES256" && key.Curve == elliptic.P256()
	case ed25519.PublicKey:
		ok = t.Method.Alg() == "EdDSA"
	}
	if !ok {
		return nil, errors.New("a key of another type")
	}
	return key, nil
}
