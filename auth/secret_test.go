package auth

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestCheckSecret(t *testing.T) {
	for _, s := range []string{
		"", "short", strings.Repeat("x", 31), "zhiyu120",
	} {
		if err := CheckSecret([]byte(s)); err == nil || !strings.Contains(err.Error(), "at least 32") {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{
		"a-string-secret-at-least-256-bits-long", "A-String-Secret-At-Least-256-Bits-Long",
		"your-256-bit-secret-your-256-bit-secret", "your-256-bit-secret-goes-here-please", "your_very_long_secret_key_for_hs256_jwt",
		"my-super-secret-jwt-signing-key-change-me", "replace-this-with-your-own-random-secret-please",
		"changemechangemechangemechangeme", "change-me-in-production-change-me-in-production",
		strings.Repeat("zhiyu120", 4), "mesh-talk-secret-key-for-jwt-token-generation",
		"404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970", "qwertyuiopasdfghjklzxcvbnm123456",
	} {
		if err := CheckSecret([]byte(s)); err == nil || !strings.Contains(err.Error(), "sample") {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{
		strings.Repeat("k", 32), "0123456789abcdef0123456789abcdef", "test-secret-for-the-tests-of-somebody",
		string(secret), "correct horse battery staple orange piano", "!$%&/()=?*+~#'-_.:,;<>|@{[]}^°!$%&/", "密钥密码口令随机数山水风火雷电",
		"7f3a9c0e5b1d48626f0c9e8a7b6d5c4f3e2d1c0b9a8f7e6d5c4b3a2918070605", string(append([]byte{0, 255, 1, 254}, []byte("\x10\x99\x81\x03\x7f\x80\x90\xa0\xb0\xc0\xd1\xe2\xf3\x04\x15\x26\x37\x48\x59\x6a\x7b\x8c\x9d\xae\xbf\xc1\xd3\xe5")...)),
	} {
		if err := CheckSecret([]byte(s)); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestLoadOrCreateKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "jwt.key")
	key, created, err := LoadOrCreateKey(path)
	if err != nil || !created || len(key) < 43 || CheckSecret(key) != nil {
		t.Fatalf("got %q, %v, %v", key, created, err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(bytes.TrimSpace(text), key) {
		t.Errorf("the file has %q, %v; the key is its text, %q", text, err, key)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	again, created, err := LoadOrCreateKey(path)
	if err != nil || created || !bytes.Equal(again, key) {
		t.Errorf("again: got %q, %v, %v", again, created, err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	other := filepath.Join(t.TempDir(), "jwt.key")
	if err := os.WriteFile(other, []byte(" \tthe text itself, trimmed \r\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if key, _, err = LoadOrCreateKey(other); err != nil || string(key) != "the text itself, trimmed" {
		t.Errorf("trimmed: got %q, %v", key, err)
	}
	if err := os.WriteFile(other, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err = LoadOrCreateKey(other); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("empty: %v", err)
	}
	if _, _, err = LoadOrCreateKey(t.TempDir()); err == nil {
		t.Error("a directory was taken for a key")
	}
}

// Whoever comes first makes the key; all get it.
func TestCreateKeyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jwt.key")
	var wg sync.WaitGroup
	keys, created := make([]string, 16), make([]bool, 16)
	for i := range keys {
		wg.Go(func() {
			key, c, err := LoadOrCreateKey(path)
			if err != nil {
				t.Error(err)
			}
			keys[i], created[i] = string(key), c
		})
	}
	wg.Wait()
	makers := 0
	for i := range keys {
		if keys[i] != keys[0] {
			t.Errorf("two keys: %q and %q", keys[i], keys[0])
		}
		if created[i] {
			makers++
		}
	}
	if makers != 1 {
		t.Errorf("%d made it", makers)
	}
}
