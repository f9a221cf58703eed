package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the time of all tests: with a fraction, as real ones.
var now = time.UnixMilli(1_700_000_000_250)

func clock() time.Time { return now }

var secret = []byte("Q7f-kd93Lw_0aZ2mXv81TtYp5RsNcJbE4HgUiOqWxy6")

// ring is one key of each type.
type ring struct {
	rsa, otherRSA *rsa.PrivateKey
	ec, ec384     *ecdsa.PrivateKey
	ed            ed25519.PrivateKey
}

// keysOnce makes the keys once: RSA takes a while.
var keysOnce = sync.OnceValue(func() (r ring) {
	r.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	r.otherRSA, _ = rsa.GenerateKey(rand.Reader, 2048)
	r.ec, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.ec384, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, r.ed, _ = ed25519.GenerateKey(rand.Reader)
	return r
})

// publicPEM is the file of a public key.
func publicPEM(t testing.TB, key crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func write(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newJWT(t testing.TB, o JWTOptions) *JWT {
	t.Helper()
	if o.Now == nil {
		o.Now = clock
	}
	j, err := NewJWT(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

// sign makes a token of a header and a payload that are written as they are. key is a secret or a private key.
func sign(t testing.TB, method jwt.SigningMethod, header, payload string, key any) string {
	t.Helper()
	part := base64.RawURLEncoding.EncodeToString
	signed := part([]byte(header)) + "." + part([]byte(payload))
	sig, err := method.Sign(signed, key)
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + part(sig)
}

func hs256(t testing.TB, payload string) string {
	return sign(t, jwt.SigningMethodHS256, `{"alg":"HS256","typ":"JWT"}`, payload, secret)
}

// valid is a payload that is in force, with members to add.
func valid(more string) string {
	return fmt.Sprintf(`{"sub":"alice","exp":%d%s}`, now.Unix()+60, more)
}

func accept(t *testing.T, j *JWT, token string) Identity {
	t.Helper()
	id, err := j.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	return id
}

// refuse expects ErrUnauthorized with a text that says why and nothing of the token.
func refuse(t *testing.T, j *JWT, token, why string) {
	t.Helper()
	id, err := j.Authenticate(t.Context(), token)
	switch {
	case !errors.Is(err, ErrUnauthorized):
		t.Errorf("got %+v, %v; want a refusal", id, err)
	case id != Identity{}:
		t.Errorf("refused, but with %+v", id)
	case !strings.Contains(err.Error(), why):
		t.Errorf("refused by %q, want %q", err, why)
	case len(token) > 8 && strings.Contains(err.Error(), token[:8]) || strings.ContainsAny(err.Error(), "\n{"):
		t.Errorf("the error shows the token: %q", err)
	}
}

func TestAlgorithms(t *testing.T) {
	r := keysOnce()
	files := []string{
		write(t, "rsa.pem", publicPEM(t, &r.rsa.PublicKey)),
		write(t, "ec-and-ed.pem", append(publicPEM(t, &r.ec.PublicKey), publicPEM(t, r.ed.Public())...)),
	}
	all := newJWT(t, JWTOptions{Secret: secret, PublicKeyFiles: files, Algorithms: known})
	usual := newJWT(t, JWTOptions{Secret: secret, PublicKeyFiles: files})
	for _, a := range []struct {
		method jwt.SigningMethod
		key    any
		usual  bool
	}{
		{jwt.SigningMethodHS256, secret, true},
		{jwt.SigningMethodHS384, secret, false},
		{jwt.SigningMethodHS512, secret, false},
		{jwt.SigningMethodRS256, r.rsa, true},
		{jwt.SigningMethodES256, r.ec, true},
		{jwt.SigningMethodEdDSA, r.ed, true},
	} {
		token := sign(t, a.method, `{"alg":"`+a.method.Alg()+`","kid":"any"}`, valid(""), a.key)
		if id := accept(t, all, token); id.User != "alice" {
			t.Errorf("%s: got %+v", a.method.Alg(), id)
		}
		if a.usual {
			accept(t, usual, token)
		} else {
			refuse(t, usual, token, "algorithm not allowed")
		}
		if got := all.Cheap(token); got != strings.HasPrefix(a.method.Alg(), "HS") {
			t.Errorf("%s: Cheap is %v", a.method.Alg(), got)
		}
	}
}

// Every way to be somebody else.
func TestAttacks(t *testing.T) {
	r := keysOnce()
	pemRSA := publicPEM(t, &r.rsa.PublicKey)
	derRSA, _ := pem.Decode(pemRSA)
	file := write(t, "keys.pem", bytes.Join([][]byte{pemRSA, publicPEM(t, &r.ec.PublicKey), publicPEM(t, r.ed.Public())}, nil))
	both := newJWT(t, JWTOptions{Secret: secret, PublicKeyFiles: []string{file}, Algorithms: known})
	public := newJWT(t, JWTOptions{PublicKeyFiles: []string{file}})
	good := hs256(t, valid(""))
	accept(t, both, good)

	enc := base64.RawURLEncoding.EncodeToString
	unsigned := func(header string) string { return enc([]byte(header)) + "." + enc([]byte(valid(""))) + "." }
	withSig := func(header string, sig []byte) string { return unsigned(header) + enc(sig) }
	mac := func(key []byte) string {
		return sign(t, jwt.SigningMethodHS256, `{"alg":"HS256"}`, valid(""), key)
	}
	zeros := make([]byte, 64)
	derSig, _ := ecdsa.SignASN1(rand.Reader, r.ec, digest(unsigned(`{"alg":"ES256"}`)))
	parts := strings.Split(good, ".")
	for _, a := range []struct{ name, token, why string }{
		{"empty", "", "malformed"},
		{"dots", "..", "malformed"},
		{"one part", "abc", "malformed"},
		{"two parts", parts[0] + "." + parts[1], "malformed"},
		{"four parts", good + ".x", "malformed"},
		{"five parts of JWE", good + ".x.y", "malformed"},
		{"many dots", strings.Repeat(".", MaxToken), "malformed"},
		{"header bomb", strings.Repeat("A", MaxToken) + "..", "over 4 KiB"},
		{"too long, though signed", hs256(t, valid(`,"x":"`+strings.Repeat("x", MaxToken)+`"`)), "over 4 KiB"},
		{"leading space", " " + good, "malformed"},
		{"trailing newline", good + "\n", "malformed"},
		{"newline inside", parts[0] + "." + parts[1] + "\n." + parts[2], "bad signature"},
		{"newline in the header", "\n" + good, "malformed"},
		{"newline in the signature", good[:len(good)-4] + "\n" + good[len(good)-4:], "malformed"},
		{"padding", parts[0] + "." + parts[1] + "." + parts[2] + "=", "malformed"},
		{"other last bits", good[:len(good)-1] + string(good[len(good)-1]+1), ""},
		{"none", unsigned(`{"alg":"none"}`), "not allowed"},
		{"None", unsigned(`{"alg":"None"}`), "not allowed"},
		{"none with the signature", withSig(`{"alg":"none"}`, []byte(parts[2])), "not allowed"},
		{"no algorithm", unsigned(`{"typ":"JWT"}`), "malformed"},
		{"empty algorithm", unsigned(`{"alg":""}`), "malformed"},
		{"algorithm is a number", unsigned(`{"alg":256}`), "malformed"},
		{"algorithm is a list", unsigned(`{"alg":["HS256"]}`), "malformed"},
		{"algorithm in another case", strings.Replace(good, parts[0], enc([]byte(`{"alg":"hs256"}`)), 1), "not allowed"},
		{"ALG", unsigned(`{"ALG":"HS256"}`), "malformed"},
		{"two algorithms", unsigned(`{"alg":"HS256","alg":"none"}`), "malformed"},
		{"unknown algorithm", unsigned(`{"alg":"PS256"}`), "not allowed"},
		{"header is a list", unsigned(`["alg"]`), "malformed"},
		{"header is no JSON", unsigned(`{"alg":"HS256"`), "malformed"},
		{"header with more behind it", unsigned(`{"alg":"HS256"}{}`), "malformed"},
		{"critical header", sign(t, jwt.SigningMethodHS256, `{"alg":"HS256","crit":["exp"]}`, valid(""), secret), "critical"},
		{"unencoded payload", sign(t, jwt.SigningMethodHS256, `{"alg":"HS256","b64":false,"crit":["b64"]}`, valid(""), secret), "critical"},
		{"no signature", unsigned(`{"alg":"HS256"}`), "bad signature"},
		{"half a signature", good[:len(good)-20], ""},
		{"another's secret", mac([]byte("another secret of at least 32 bytes, random")), "bad signature"},
		{"empty secret", mac(nil), "bad signature"},
		{"swapped: HMAC with the PEM", mac(pemRSA), "bad signature"},
		{"swapped: HMAC with the trimmed PEM", mac(bytes.TrimSpace(pemRSA)), "bad signature"},
		{"swapped: HMAC with the DER", mac(derRSA.Bytes), "bad signature"},
		{"swapped: HMAC with the modulus", mac(r.rsa.N.Bytes()), "bad signature"},
		{"swapped: HS256 signature as RS256", strings.Replace(good, parts[0], enc([]byte(`{"alg":"RS256"}`)), 1), "bad signature"},
		{"swapped: HS512 in HS256's place", withSig(`{"alg":"HS256"}`, hmac512(unsigned(`{"alg":"HS256"}`))), "bad signature"},
		{"RS256 by another key", sign(t, jwt.SigningMethodRS256, `{"alg":"RS256"}`, valid(""), r.otherRSA), "bad signature"},
		{"RS512 by the right key", sign(t, jwt.SigningMethodRS512, `{"alg":"RS512"}`, valid(""), r.rsa), "not allowed"},
		{"ES256 of zeros (CVE-2022-21449)", withSig(`{"alg":"ES256"}`, zeros), "bad signature"},
		{"ES256 as ASN.1", withSig(`{"alg":"ES256"}`, derSig), "bad signature"},
		{"ES384", sign(t, jwt.SigningMethodES384, `{"alg":"ES384"}`, valid(""), r.ec384), "not allowed"},
		{"EdDSA of zeros", withSig(`{"alg":"EdDSA"}`, zeros), "bad signature"},
		{"kid is a number", sign(t, jwt.SigningMethodHS256, `{"alg":"HS256","kid":7}`, valid(""), secret), "malformed"},
		{"kid is an object", unsigned(`{"alg":"RS256","kid":{"$ne":1}}`), "malformed"},
		{"two kids", unsigned(`{"alg":"HS256","kid":"a","kid":"b"}`), "malformed"},
		{"kid is a path", sign(t, jwt.SigningMethodHS256, `{"alg":"HS256","kid":"../../../../dev/null"}`, valid(""), []byte{}), "bad signature"},
		{"kid is SQL", sign(t, jwt.SigningMethodHS256, `{"alg":"HS256","kid":"x' UNION SELECT 'k"}`, valid(""), []byte("k")), "bad signature"},
		{"own key in the header", sign(t, jwt.SigningMethodRS256, `{"alg":"RS256","jwk":`+jwkJSON(&r.otherRSA.PublicKey, "x", "")+`}`, valid(""), r.otherRSA), "bad signature"},
		{"own URL in the header", sign(t, jwt.SigningMethodRS256, `{"alg":"RS256","jku":"http://127.0.0.1:1/","x5u":"http://127.0.0.1:1/"}`, valid(""), r.otherRSA), "bad signature"},
	} {
		t.Run(a.name, func(t *testing.T) {
			refuse(t, both, a.token, a.why)
			refuse(t, public, a.token, "")
			both.Cheap(a.token) // does not panic
		})
	}
	refuse(t, public, good, "not allowed")
}

func digest(unsigned string) []byte {
	h := sha256.Sum256([]byte(strings.TrimSuffix(unsigned, ".")))
	return h[:]
}

func hmac512(unsigned string) []byte {
	mac := hmac.New(sha512.New, secret)
	mac.Write([]byte(strings.TrimSuffix(unsigned, ".")))
	return mac.Sum(nil)
}

func TestClaims(t *testing.T) {
	j := newJWT(t, JWTOptions{Secret: secret, Leeway: 5 * time.Second})
	at := func(offset float64) string { return fmt.Sprintf("%.3f", float64(now.UnixMilli())/1000+offset) }
	long := strings.Repeat("x", 65)
	for _, c := range []struct{ name, payload, why string }{
		{"no exp", `{"sub":"alice"}`, "required claim"},
		{"exp null", `{"sub":"alice","exp":null}`, "required claim"},
		{"exp is a string", `{"sub":"alice","exp":"9999999999"}`, "time"},
		{"exp is negative", `{"sub":"alice","exp":-1}`, "time"},
		{"exp is huge", `{"sub":"alice","exp":1e400}`, "time"},
		{"exp in ms", `{"sub":"alice","exp":1700000060000}`, "time"},
		{"exp twice", `{"sub":"alice","exp":9999999999,"exp":1}`, "twice"},
		{"Exp", `{"sub":"alice","Exp":9999999999}`, "required claim"},
		{"expired", `{"sub":"alice","exp":` + at(-5.001) + `}`, "expired"},
		{"expired at this moment", `{"sub":"alice","exp":` + at(-5) + `}`, "expired"},
		{"nbf in the future", valid(`,"nbf":` + at(5.001)), "not valid yet"},
		{"nbf is a string", valid(`,"nbf":"1"`), "time"},
		{"iat is a string", valid(`,"iat":"1"`), "time"},
		{"no sub", `{"exp":9999999999}`, "subject"},
		{"empty sub", `{"sub":"","exp":9999999999}`, "subject"},
		{"sub null", `{"sub":null,"exp":9999999999}`, "subject"},
		{"sub is a list", `{"sub":["alice"],"exp":9999999999}`, "subject"},
		{"sub is true", `{"sub":true,"exp":9999999999}`, "subject"},
		{"sub is a fraction", `{"sub":1.5,"exp":9999999999}`, "subject"},
		{"sub is an exponent", `{"sub":1e3,"exp":9999999999}`, "subject"},
		{"sub too long", `{"sub":"` + long + `","exp":9999999999}`, "subject"},
		{"sub is a long number", `{"sub":` + strings.Repeat("1", 65) + `,"exp":9999999999}`, "subject"},
		{"sub with a colon", `{"sub":"a:b","exp":9999999999}`, "subject"},
		{"sub with a slash", `{"sub":"a\/b","exp":9999999999}`, "subject"},
		{"sub with a newline", `{"sub":"a\nb","exp":9999999999}`, "subject"},
		{"sub with NUL", `{"sub":"a\u0000","exp":9999999999}`, "subject"},
		{"sub with C1", `{"sub":"a\u0085","exp":9999999999}`, "subject"},
		{"sub with DEL", "{\"sub\":\"a\x7f\",\"exp\":9999999999}", "subject"},
		{"sub is no UTF-8", "{\"sub\":\"a\xff\",\"exp\":9999999999}", "subject"},
		{"sub with half a pair", `{"sub":"a\ud800","exp":9999999999}`, "subject"},
		{"sub twice", `{"sub":"alice","sub":"admin","exp":9999999999}`, "twice"},
		{"sub twice, once escaped", `{"sub":"alice","\u0073ub":"admin","exp":9999999999}`, "twice"},
		{"SUB", `{"SUB":"alice","exp":9999999999}`, "subject"},
		{"terminal too long", valid(`,"terminal":"` + strings.Repeat("x", 33) + `"`), "terminal"},
		{"terminal empty", valid(`,"terminal":""`), "terminal"},
		{"terminal with a slash", valid(`,"terminal":"a/b"`), "terminal"},
		{"terminal is an object", valid(`,"terminal":{}`), "terminal"},
		{"payload is a list", `[]`, "malformed"},
		{"payload is a string", `"sub"`, "malformed"},
		{"payload is null", `null`, "malformed"},
		{"payload is no JSON", `{"sub":"alice",}`, "malformed"},
		{"payload is empty", ``, "malformed"},
		{"deep", strings.Repeat("[", 2900), "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) { refuse(t, j, hs256(t, c.payload), c.why) })
	}

	exp := (now.Unix() + 60) * 1000
	for _, c := range []struct {
		name, payload string
		want          Identity
	}{
		{"plain", valid(""), Identity{User: "alice", ExpiresAt: exp}},
		{"terminal", valid(`,"terminal":"phone"`), Identity{User: "alice", Terminal: "phone", ExpiresAt: exp}},
		{"terminal null", valid(`,"terminal":null`), Identity{User: "alice", ExpiresAt: exp}},
		{"terminal is a number", valid(`,"terminal":2`), Identity{User: "alice", Terminal: "2", ExpiresAt: exp}},
		{"sub is a number", strings.Replace(valid(""), `"alice"`, "1234567890123456789012", 1), Identity{User: "1234567890123456789012", ExpiresAt: exp}},
		{"sub is zero", strings.Replace(valid(""), `"alice"`, "-0", 1), Identity{User: "0", ExpiresAt: exp}},
		{"other letters", strings.Replace(valid(""), "alice", `J\u00f6rg 李`, 1), Identity{User: "Jörg 李", ExpiresAt: exp}},
		{"64 bytes", strings.Replace(valid(""), "alice", long[1:], 1), Identity{User: long[1:], ExpiresAt: exp}},
		{"iat", valid(`,"iat":1600000000`), Identity{User: "alice", ExpiresAt: exp, IssuedAt: 1_600_000_000_000}},
		{"iat with a fraction", valid(`,"iat":1600000000.1234`), Identity{User: "alice", ExpiresAt: exp, IssuedAt: 1_600_000_000_123}},
		{"iat with a fraction that floats miss", valid(`,"iat":1600000000.001`), Identity{User: "alice", ExpiresAt: exp, IssuedAt: 1_600_000_000_001}},
		{"exp with a fraction", `{"sub":"alice","exp":` + at(1.5) + `}`, Identity{User: "alice", ExpiresAt: now.UnixMilli() + 1500}},
		{"exp with an exponent", `{"sub":"alice","exp":2e9}`, Identity{User: "alice", ExpiresAt: 2_000_000_000_000}},
		{"exp within the leeway", `{"sub":"alice","exp":` + at(-4.999) + `}`, Identity{User: "alice", ExpiresAt: now.UnixMilli() - 4999}},
		{"nbf within the leeway", valid(`,"nbf":` + at(5)), Identity{User: "alice", ExpiresAt: exp}},
		{"others twice", valid(`,"x":1,"x":{"a":[1,{}],"b":"}\""},"iss":5,"aud":{}`), Identity{User: "alice", ExpiresAt: exp}},
		{"white space", " {\n\t\"sub\" : \"alice\" ,\r\"exp\":" + fmt.Sprint(exp/1000) + " } ", Identity{User: "alice", ExpiresAt: exp}},
		{"seed claims that are not read", valid(`,"info":"{}"`), Identity{User: "alice", ExpiresAt: exp}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := accept(t, j, hs256(t, c.payload)); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestIssuerAndAudience(t *testing.T) {
	j := newJWT(t, JWTOptions{Secret: secret, Issuer: "https://id.example", Audience: "chat"})
	for claims, why := range map[string]string{
		`,"iss":"https://id.example","aud":"chat"`:          "",
		`,"iss":"https://id.example","aud":["mail","chat"]`: "",
		`,"aud":"chat"`:                                      "required claim",
		`,"iss":"https://id.example"`:                        "required claim",
		`,"iss":"https://id.example","aud":[]`:               "required claim",
		`,"iss":"https://id.example/","aud":"chat"`:          "wrong issuer",
		`,"iss":["https://id.example"],"aud":"chat"`:         "required claim",
		`,"iss":"https://id.example","aud":"chatty"`:         "wrong audience",
		`,"iss":"https://id.example","aud":"Chat"`:           "wrong audience",
		`,"iss":"https://id.example","aud":{"0":"chat"}`:     "",
		`,"iss":"https://id.example","aud":[["chat"]]`:       "",
		`,"iss":"https://id.example","aud":"chat","aud":"x"`: "twice",
	} {
		t.Run(claims, func(t *testing.T) {
			token := hs256(t, valid(claims))
			if why == "" && !strings.ContainsAny(claims, "{") && !strings.Contains(claims, "[[") {
				accept(t, j, token)
				return
			}
			refuse(t, j, token, why)
		})
	}
}

// The tokens of the original server: aud is the user, info is JSON in a string.
func TestSeedClaims(t *testing.T) {
	on, off := newJWT(t, JWTOptions{Secret: secret, SeedClaims: true}), newJWT(t, JWTOptions{Secret: secret})
	with := func(claims string) string { return hs256(t, `{`+claims+`,"exp":9999999999}`) }
	for claims, want := range map[string]Identity{
		`"aud":"42","info":"{\"userId\":42,\"terminal\":1}"`:             {User: "42", Terminal: "1"},
		`"aud":["42"],"info":"{\"userId\":\"42\",\"userName\":\"Bob\"}"`: {User: "42"},
		`"aud":42,"info":{"userId":42,"terminal":"app"}`:                 {User: "42", Terminal: "app"},
		`"aud":"bob"`:                              {User: "bob"},
		`"aud":"bob","sub":null,"info":null`:       {User: "bob"},
		`"aud":["a","b"],"info":{"userId":"c"}`:    {User: "c"},
		`"info":"{\"userId\":7,\"terminal\":0}"`:   {User: "7", Terminal: "0"},
		`"sub":"own","aud":"42","terminal":"t"`:    {User: "own", Terminal: "t"},
		`"sub":"own","aud":"42","info":"not JSON"`: {User: "own"},
	} {
		t.Run(claims, func(t *testing.T) {
			want.ExpiresAt = 9999999999000
			if got := accept(t, on, with(claims)); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if !strings.Contains(claims, "own") {
				refuse(t, off, with(claims), "subject")
			}
		})
	}
	for claims, why := range map[string]string{
		`"aud":"42","info":"not JSON"`:                   "info",
		`"aud":"42","info":7`:                            "info",
		`"aud":"42","info":"{\"userId\":43}"`:            "different users",
		`"aud":"42","info":{"userId":{"a":1}}`:           "different users",
		`"aud":"a:b"`:                                    "subject",
		`"aud":""`:                                       "subject",
		`"aud":["a","b"]`:                                "subject",
		`"aud":{"a":"b"}`:                                "subject",
		`"info":{}`:                                      "subject",
		`"sub":"","aud":"bob"`:                           "subject",
		`"aud":"bob","info":{"terminal":"a/b"}`:          "terminal",
		`"aud":"bob","info":{"userId":"bob","x":"\ud8"}`: "malformed",
	} {
		t.Run(claims, func(t *testing.T) { refuse(t, on, with(claims), why) })
	}
	refuse(t, on, hs256(t, `{"aud":"42"}`), "required claim")
}

func TestOptionsThatAreRefused(t *testing.T) {
	r := keysOnce()
	rsaFile := write(t, "rsa.pem", publicPEM(t, &r.rsa.PublicKey))
	weak := write(t, "weak.pem", publicPEM(t, &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}))
	for _, o := range []struct {
		o    JWTOptions
		want string
	}{
		{JWTOptions{}, "no key"},
		{JWTOptions{Secret: secret, Algorithms: []string{"none"}}, `unknown "none"`},
		{JWTOptions{Secret: secret, Algorithms: []string{"PS256"}}, `unknown "PS256"`},
		{JWTOptions{Secret: secret, Algorithms: []string{"RS256"}}, "no key for RS256"},
		{JWTOptions{PublicKeyFiles: []string{rsaFile}, Algorithms: []string{"RS256", "HS256"}}, "no key for HS256"},
		{JWTOptions{JWKSURL: "https://127.0.0.1:1/", Algorithms: []string{"HS512"}}, "no key for HS512"},
		{JWTOptions{PublicKeyFiles: []string{"/nowhere"}}, "auth.jwt.public-key-files: /nowhere"},
		{JWTOptions{PublicKeyFiles: []string{write(t, "no.pem", []byte("hello"))}}, "no PEM block"},
		{JWTOptions{PublicKeyFiles: []string{write(t, "private.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"}))}}, "PRIVATE KEY"},
		{JWTOptions{PublicKeyFiles: []string{write(t, "p384.pem", publicPEM(t, &r.ec384.PublicKey))}}, "P-384"},
		{JWTOptions{PublicKeyFiles: []string{weak}}, "1024 bits"},
	} {
		_, err := NewJWT(t.Context(), o.o)
		if err == nil || !strings.Contains(err.Error(), o.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want %q", err, o.want)
		}
		if check := o.o.Check(); check == nil || check.Error() != err.Error() {
			t.Errorf("Check says %v, NewJWT %v", check, err)
		}
	}
	if err := (JWTOptions{JWKSURL: "https://127.0.0.1:1/"}).Check(); err != nil {
		t.Errorf("Check of a key set: %v", err)
	}
}

// PKCS #1 and certificates are public keys too.
func TestOtherFiles(t *testing.T) {
	r := keysOnce()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, r.ec.Public(), r.ec)
	if err != nil {
		t.Fatal(err)
	}
	j := newJWT(t, JWTOptions{PublicKeyFiles: []string{
		write(t, "pkcs1.pem", pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&r.rsa.PublicKey)})),
		write(t, "cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		write(t, "other.pem", publicPEM(t, &r.otherRSA.PublicKey)),
	}})
	accept(t, j, sign(t, jwt.SigningMethodRS256, `{"alg":"RS256"}`, valid(""), r.rsa))
	accept(t, j, sign(t, jwt.SigningMethodRS256, `{"alg":"RS256"}`, valid(""), r.otherRSA))
	accept(t, j, sign(t, jwt.SigningMethodES256, `{"alg":"ES256"}`, valid(""), r.ec))
}

func TestReload(t *testing.T) {
	j := newJWT(t, JWTOptions{Secret: secret})
	token := hs256(t, valid(""))
	accept(t, j, token)
	other := []byte("another-Random_secret-for-the-second-half-1")
	if err := j.Reload(JWTOptions{Secret: other, Algorithms: []string{"RS256"}, Now: clock}); err == nil {
		t.Error("a wrong configuration was taken over")
	}
	accept(t, j, token)
	if err := j.Reload(JWTOptions{Secret: other, Now: clock}); err != nil {
		t.Fatal(err)
	}
	refuse(t, j, token, "bad signature")
	accept(t, j, sign(t, jwt.SigningMethodHS256, `{"alg":"HS256"}`, valid(""), other))
}

// What Mint makes is accepted, with its times to the millisecond.
func TestMint(t *testing.T) {
	j := newJWT(t, JWTOptions{Secret: secret})
	token, err := Mint(secret, "Jörg", "phone", 90*time.Second, now)
	if err != nil {
		t.Fatal(err)
	}
	want := Identity{User: "Jörg", Terminal: "phone", ExpiresAt: now.UnixMilli() + 90_000, IssuedAt: now.UnixMilli()}
	if got := accept(t, j, token); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if token, _ = Mint(secret, "bob", "", time.Hour, now); accept(t, j, token).Terminal != "" {
		t.Error("a terminal from nowhere")
	}
	for _, names := range [][2]string{{"", ""}, {"a/b", ""}, {"a", "b:c"}, {strings.Repeat("x", 65), ""}, {"a", strings.Repeat("x", 33)}} {
		if token, err := Mint(secret, names[0], names[1], time.Hour, now); err == nil {
			t.Errorf("%q: minted %s", names, token)
		}
	}
}

// A server takes what is minted with its own options, and what cannot be signed here is said.
func TestMintAsTheServerExpects(t *testing.T) {
	for _, o := range []JWTOptions{
		{Secret: secret, Issuer: "id.example", Audience: "chat"},
		{Secret: secret, Algorithms: []string{"RS256", "HS512", "HS256"}, PublicKeyFiles: []string{write(t, "rsa.pem", publicPEM(t, &keysOnce().rsa.PublicKey))}},
		{Secret: secret, Algorithms: []string{"HS384"}, SeedClaims: true, Audience: "chat"},
	} {
		token, err := o.Mint("alice", "phone", time.Hour, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := accept(t, newJWT(t, o), token); got.User != "alice" || got.Terminal != "phone" {
			t.Errorf("got %+v", got)
		}
	}
	for _, o := range []JWTOptions{{}, {Secret: secret, Algorithms: []string{"EdDSA"}}} {
		if token, err := o.Mint("alice", "", time.Hour, now); err == nil {
			t.Errorf("%+v: minted %s", o, token)
		}
	}
}

// Many at once, while the keys are read again and again.
func TestConcurrent(t *testing.T) {
	j := newJWT(t, JWTOptions{Secret: secret})
	ctx := t.Context()
	var wg sync.WaitGroup
	for i := range 8 {
		user := fmt.Sprintf("user-%d", i)
		token, bad := hs256(t, strings.Replace(valid(""), "alice", user, 1)), hs256(t, `{"sub":"`+user+`"}`)
		wg.Go(func() {
			for range 200 {
				if id, err := j.Authenticate(ctx, token); err != nil || id.User != user {
					t.Errorf("%s: got %+v, %v", user, id, err)
				}
				if id, err := j.Authenticate(ctx, bad); err == nil {
					t.Errorf("%s: got %+v", user, id)
				}
			}
		})
	}
	for range 50 {
		if err := j.Reload(JWTOptions{Secret: secret, Now: clock}); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

// 15,000 clients that come back at once are 15,000 checks: no more than these allocations each. There are 8; the race
// detector empties pools now and then.
func TestAuthenticateAllocations(t *testing.T) {
	j := newJWT(t, JWTOptions{Secret: secret})
	token := hs256(t, valid(`,"terminal":"phone","iat":1600000000.5`))
	ctx := context.Background()
	if n := testing.AllocsPerRun(1000, func() { _, _ = j.Authenticate(ctx, token) }); n > 10 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	r := keysOnce()
	file := write(b, "keys.pem", bytes.Join([][]byte{publicPEM(b, &r.rsa.PublicKey), publicPEM(b, &r.ec.PublicKey), publicPEM(b, r.ed.Public())}, nil))
	j := newJWT(b, JWTOptions{Secret: secret, PublicKeyFiles: []string{file}})
	for _, m := range []struct {
		method jwt.SigningMethod
		key    any
	}{
		{jwt.SigningMethodHS256, secret}, {jwt.SigningMethodRS256, r.rsa}, {jwt.SigningMethodES256, r.ec}, {jwt.SigningMethodEdDSA, r.ed},
	} {
		b.Run(m.method.Alg(), func(b *testing.B) {
			token := sign(b, m.method, `{"alg":"`+m.method.Alg()+`","typ":"JWT"}`, valid(`,"iat":1600000000.5,"terminal":"phone"`), m.key)
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := j.Authenticate(ctx, token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Whatever comes is answered, and nothing is accepted that is not signed.
func FuzzAuthenticate(f *testing.F) {
	j, err := NewJWT(context.Background(), JWTOptions{Secret: secret, Now: clock, SeedClaims: true})
	if err != nil {
		f.Fatal(err)
	}
	good := hs256(f, valid(`,"terminal":"phone"`))
	for _, seed := range []string{good, "", "..", good + ".", strings.ToUpper(good)} {
		f.Add(seed, `{"sub":"a","exp":9999999999}`)
	}
	f.Add(good, `{"aud":["a"],"info":"{\"userId\":1}","exp":2e9,"x":[{"y":"\\\""}]}`)
	f.Fuzz(func(t *testing.T, token, payload string) {
		if id, err := j.Authenticate(t.Context(), token); err == nil && token != good {
			t.Errorf("accepted %q as %+v", token, id)
		}
		id, err := j.Authenticate(t.Context(), hs256(t, payload))
		if err == nil && (!validName(id.User, maxUser) || id.Terminal != "" && !validName(id.Terminal, maxTerminal)) {
			t.Errorf("accepted %q as %+v", payload, id)
		}
	})
}

// The scan of an object sees what encoding/json sees.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { "a" : 1 , "b":[1,{"c":"}"}],"d\n":"\"" } `, `{"a":-1.5e+3,"b":null,"c":true,"d":""}`, `[]`, `1`, `{"a":{"b":{}}}`, `{"a":1}x`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := map[string]string{}
		err := members(b, func(name, value []byte) error {
			got[string(name)] = string(value)
			return nil
		})
		var want map[string]json.RawMessage
		if json.Unmarshal(b, &want) != nil || want == nil {
			if err == nil {
				t.Fatalf("took %q", b)
			}
			return
		}
		if err != nil {
			return // stricter: half a surrogate pair, no UTF-8
		}
		for name, value := range want {
			if strings.ContainsRune(name, '\ufffd') {
				continue // encoding/json puts it in the place of what is no UTF-8
			}
			if got[name] != string(value) {
				t.Errorf("%q: %q is %q, want %q", b, name, got[name], value)
			}
		}
		if len(got) < len(want) {
			t.Errorf("%q: got %q", b, got)
		}
	})
}
