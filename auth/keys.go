package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"os"
	"strings"
	"sync"

	"github.com/golang-jwt/jwt/v5"
)

// keys are what signatures are checked with, each for its own algorithm only: a public key is never an HMAC secret, and
// a secret never anything else.
type keys struct {
	macs   map[string]*sync.Pool         // of *mac keyed with the secret, by algorithm; nil without a secret
	static map[string][]crypto.PublicKey // of files, by algorithm
	set    *keySet                       // nil without a URL
	follow bool                          // there is a URL: set will be opened
}

func (k *keys) load(o JWTOptions) error {
	if len(o.Secret) > 0 {
		k.macs = map[string]*sync.Pool{}
		for a, f := range map[string]func() hash.Hash{"HS256": sha256.New, "HS384": sha512.New384, "HS512": sha512.New} {
			k.macs[a] = &sync.Pool{New: func() any { return &mac{Hash: hmac.New(f, o.Secret)} }}
		}
	}
	k.static = map[string][]crypto.PublicKey{}
	for _, f := range o.PublicKeyFiles {
		if err := k.add(f); err != nil {
			return fmt.Errorf("auth.jwt.public-key-files: %s: %w", f, err)
		}
	}
	k.follow = o.JWKSURL != ""
	return nil
}

// has reports whether there is, or with a key set may be, a key for an algorithm.
func (k *keys) has(algorithm string) bool {
	if strings.HasPrefix(algorithm, "HS") {
		return k.macs != nil
	}
	return k.follow || len(k.static[algorithm]) > 0
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
		algorithm, err := algorithmOf(key)
		if err != nil {
			return err
		}
		k.static[algorithm] = append(k.static[algorithm], key)
		found = true
	}
	if !found {
		return errors.New("no PEM block (expected a public key or a certificate)")
	}
	return nil
}

func publicKey(block *pem.Block) (crypto.PublicKey, error) {
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

// algorithmOf is the one algorithm that a public key is for.
func algorithmOf(key crypto.PublicKey) (string, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 2048 || bits > 8192 { // checking a larger one takes milliseconds
			return "", fmt.Errorf("an RSA key of %d bits (expected 2048 to 8192)", bits)
		}
		return "RS256", nil
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return "", fmt.Errorf("an ECDSA key on %s (expected P-256)", key.Curve.Params().Name)
		}
		return "ES256", nil
	case ed25519.PublicKey:
		return "EdDSA", nil
	}
	return "", fmt.Errorf("a key of type %T (expected RSA, ECDSA P-256 or Ed25519)", key)
}

var (
	errNoKey     = errors.New("no key for this token")
	errSignature = errors.New("bad signature")
)

// verify checks the signature of signed by the keys that are for method. h's kid chooses among the keys of a set only.
// It returns errNoKey, errSignature or ErrUnavailable.
func (k *keys) verify(ctx context.Context, method jwt.SigningMethod, h header, signed string, sig []byte) error {
	if pool := k.macs[h.alg]; pool != nil {
		return verifyMAC(pool, signed, sig)
	}
	candidates := k.static[h.alg]
	var unavailable error
	if k.set != nil {
		var found []crypto.PublicKey
		found, unavailable = k.set.find(ctx, h)
		candidates = append(found, candidates...)
	}
	for _, key := range candidates {
		if method.Verify(signed, sig, key) == nil {
			return nil
		}
	}
	switch {
	case unavailable != nil:
		return unavailable
	case len(candidates) == 0:
		return errNoKey
	}
	return errSignature
}

// mac is the state of an HMAC, keyed, with room for its input and its sum.
type mac struct {
	hash.Hash
	input, sum []byte
}

// verifyMAC is the library's check of an HMAC with a state that is used again: deriving it from the secret is more work
// than the hash of a token.
func verifyMAC(pool *sync.Pool, signed string, sig []byte) error {
	m := pool.Get().(*mac)
	defer pool.Put(m)
	m.Reset()
	m.input = append(m.input[:0], signed...)
	_, _ = m.Write(m.input) // never fails
	if m.sum = m.Sum(m.sum[:0]); !hmac.Equal(m.sum, sig) {
		return errSignature
	}
	return nil
}
