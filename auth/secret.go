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
	"strings"
)

// MinSecret is the shortest HS256 secret, in bytes: RFC 7518 §3.2 wants a key at least as long as the hash.
const MinSecret = 32

// samples are secrets that stand in tutorials and sample configurations and are long enough, as letters and digits in
// lower case.
var samples = map[string]bool{
	"astringsecretatleast256bitslong":                                  true, // jwt.io
	"astringsecretatleast512bitslongandsecure":                         true,
	"your256bitsecretyour256bitsecret":                                 true,
	"yoursecretkeymustbeatleast32byteslong":                            true,
	"yoursecretkeymustbeatleast256bitslong":                            true,
	"mysecretkeymysecretkeymysecretkey":                                true,
	"thisisasecretkeyforjwttokengeneration":                            true,
	"meshtalksecretkeymeshtalksecretkey":                               true,
	"changemechangemechangemechangeme":                                 true,
	"secretsecretsecretsecretsecretsecret":                             true,
	"404e635266556a586e3272357538782f413f4428472b4b6250645367566b5970": true, // Spring Security tutorials
}

// CheckSecret refuses a secret of less than MinSecret bytes and a known sample value.
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
	if samples[plain] {
		return errors.New("a known sample secret (expected a random one)")
	}
	return nil
}

// LoadOrCreateKey reads the HS256 key of a data directory's jwt.key (text, trimmed of white space), or writes a random
// one (0600) and reports created. Two processes that create it at once get the same key.
func LoadOrCreateKey(path string) (key []byte, created bool, err error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if key = bytes.TrimSpace(b); len(key) == 0 {
			return nil, false, fmt.Errorf("%s is empty (expected a key; remove the file to get a new one)", path)
		}
		return key, false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	if err = createKey(path); errors.Is(err, fs.ErrExist) { // another process was first
		return LoadOrCreateKey(path)
	}
	if err != nil {
		return nil, false, err
	}
	key, _, err = LoadOrCreateKey(path)
	return key, true, err
}

// createKey writes a random key under another name and links it: the file is there with all of its content or not at all.
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
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}
