package auth

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// MinSecret is the shortest HS256 secret, in bytes: RFC 7518 §3.2 wants a key at least as long as the hash.
const MinSecret = 32

// samples are secrets that stand in tutorials and sample configurations and are long enough, as letters and digits in
// lower case.
var samples = map[string]bool{
	"astringsecretatleast256bitslong":                                  true, // jwt.io, today
	"astringsecretatleast512bitslongandsecure":                         true,
	"qwertyuiopasdfghjklzxcvbnm123456":                                 true,
	"mustbelongerthan32bytesforhs256algorithm":                         true,
	"thisismycustomsecretkeyforauthentication":                         true,
	"404e635266556a586e3272357538782f413f4428472b4b6250645367566b5970": true, // Spring Security tutorials
	"586e3272357538782f413f4428472b4b6250655368566b597033733676397924": true,
	"3cfa76ef14937c1c0ea519f8fc057a80fcd04a7420f8e8bcd0a7567c272e007b": true,
	"5367566b59703373367639792f423f4528482b4d6251655468576d5a71347437": true,
	"9a4f2c8d3b7a1e6f45c8a0b3f267d8b1d4e6f3c8a9d2b5f8e3a9c8b5f6v8a3d9": true,
}

// words are what sample secrets are made of. A secret that has nothing else in it, repeated or not, is a sample.
var words = []string{
	"accesstoken", "admin", "algorithm", "application", "atleast", "auth", "base64", "bearer", "bits", "bytes", "change", "changeit",
	"changeme", "characters", "chars", "choose", "custom", "default", "demo", "dev", "development", "dont", "dummy", "enough",
	"enter", "environment", "example", "for", "foobar", "generation", "goes", "here", "hmac", "hs256", "hs384", "hs512", "im",
	"in", "insecure", "insert", "is", "it", "jsonwebtoken", "json", "jwt", "key", "keys", "local", "long", "longer", "mesh", "meshtalk", "minimum",
	"must", "my", "needs", "only", "own", "password", "passw0rd", "platform", "please", "private", "production", "random", "replace", "sample",
	"secret", "secretkey", "secrets", "secure", "security", "server", "sha256", "should", "sign", "signature", "signing", "some",
	"spring", "springboot", "string", "strong", "super", "supersecret", "talk", "test", "testing", "text", "that", "the", "this",
	"to", "token", "tokens", "top", "topsecret", "user", "value", "very", "web", "with", "you", "your", "zhiyu120",
	"32", "64", "128", "256", "384", "512", "at", "least", "be", "than", "a", "an", "and", "of", "or", "not", "do", "use", "me", "we", "1234567890", "0123456789",
	"123456789", "12345678", "123456", "12345", "1234", "123", "abcdefghijklmnopqrstuvwxyz", "abcdef", "abc", "qwerty", "0",
}

// asking are the words that say of a sample secret that it is one.
var asking = []string{
	"your", "change", "replace", "example", "sample", "default", "insert", "dummy", "enter", "choose", "random", "mesh", "platform",
	"zhiyu120", // the original server's
}

// CheckSecret refuses a secret of less than MinSecret bytes and a known sample value: one of tutorials, or one made of
// nothing but words that ask to be replaced, such as "your-256-bit-secret". What is merely guessable is the operator's choice.
func CheckSecret(secret []byte) error {
	if len(secret) < MinSecret {
		return fmt.Errorf("a secret of %d bytes (expected at least %d random ones)", len(secret), MinSecret)
	}
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(string(secret)))
	if samples[plain] || asks(plain) && onlyWords(plain) {
		return errors.New("a known sample secret (expected a random one)")
	}
	return nil
}

// asks reports whether plain has a word that asks to be replaced.
func asks(plain string) bool {
	return slices.ContainsFunc(asking, func(w string) bool { return strings.Contains(plain, w) })
}

// onlyWords reports whether plain can be taken apart into words.
func onlyWords(plain string) bool {
	reached := make([]bool, len(plain)+1)
	reached[0] = true
	for i := range plain {
		if !reached[i] {
			continue
		}
		for _, w := range append(words, "bit") {
			if strings.HasPrefix(plain[i:], w) {
				reached[i+len(w)] = true
			}
		}
	}
	return reached[len(plain)]
}

// LoadOrCreateKey reads the HS256 key of a data directory's jwt.key (text, trimmed of white space), or writes a random
// one (0600) and reports created. Two processes that create it at once get the same key.
func LoadOrCreateKey(path string) (key []byte, created bool, err error) {
	key, err = readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if err = createKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, false, err
	}
	created = err == nil // otherwise another process was first
	key, err = readKey(path)
	return key, created, err
}

func readKey(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key := bytes.TrimSpace(b)
	if len(key) == 0 {
		return nil, fmt.Errorf("%s is empty (expected a key; remove the file to get a new one)", path)
	}
	return key, nil
}

// createKey writes a random key under another name and links it: the file is there with all of its content or not at
// all, and survives a crash before the first token is given out.
func createKey(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".jwt.key-*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	_, err = f.WriteString(base64.RawURLEncoding.EncodeToString(random[:]) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Mint makes an HS256 token for user (iat in ms as a fraction); terminal "" leaves the claim out. Names that no server
// would take are refused.
func Mint(secret []byte, user, terminal string, ttl time.Duration, now time.Time) (string, error) {
	return JWTOptions{Secret: secret}.Mint(user, terminal, ttl, now)
}

// Mint is the function Mint for a server with these options: with their issuer and audience, and the first HMAC
// algorithm that they pin.
func (o JWTOptions) Mint(user, terminal string, ttl time.Duration, now time.Time) (string, error) {
	if !validName(user, maxUser) {
		return "", fmt.Errorf("user %q is no name (expected 1 to %d bytes of UTF-8 without control characters, ':' and '/')", user, maxUser)
	}
	method, err := o.mintMethod()
	if err != nil {
		return "", err
	}
	c := jwt.MapClaims{"sub": user, "iat": seconds(now), "exp": seconds(now.Add(ttl))}
	if terminal != "" {
		if !validName(terminal, maxTerminal) {
			return "", fmt.Errorf("terminal %q is no name (expected 1 to %d bytes of UTF-8 without control characters, ':' and '/')", terminal, maxTerminal)
		}
		c["terminal"] = terminal
	}
	if o.Issuer != "" {
		c["iss"] = o.Issuer
	}
	if o.Audience != "" {
		c["aud"] = o.Audience
	}
	return jwt.NewWithClaims(method, c).SignedString(o.Secret)
}

// mintMethod is HS256, or the first HMAC algorithm of those that are pinned.
func (o JWTOptions) mintMethod() (jwt.SigningMethod, error) {
	if len(o.Secret) == 0 {
		return nil, errors.New("auth.jwt: there is no secret to sign with, only public keys (ask who has the private ones)")
	}
	if len(o.Algorithms) == 0 {
		return jwt.SigningMethodHS256, nil
	}
	for _, a := range o.Algorithms {
		if m, ok := jwt.GetSigningMethod(a).(*jwt.SigningMethodHMAC); ok {
			return m, nil
		}
	}
	return nil, fmt.Errorf("auth.jwt.algorithms: %v has no HS256, HS384 or HS512 to sign with (ask who has the private keys)", o.Algorithms)
}

// seconds is a time as JWTs have it, with milliseconds as the fraction.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
