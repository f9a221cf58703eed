package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// jwkJSON is a public key as a key set has it; more are further members.
func jwkJSON(key crypto.PublicKey, kid, more string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	head := ""
	if kid != "" {
		head = `"kid":"` + kid + `",`
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf(`{%s"kty":"RSA","n":%q,"e":%q%s}`, head, b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes()), more)
	case *ecdsa.PublicKey:
		point, _ := k.Bytes() // 4, x, y
		half := (len(point) - 1) / 2
		return fmt.Sprintf(`{%s"kty":"EC","crv":%q,"x":%q,"y":%q%s}`, head, k.Curve.Params().Name, b64(point[1:1+half]), b64(point[1+half:]), more)
	case ed25519.PublicKey:
		return fmt.Sprintf(`{%s"kty":"OKP","crv":"Ed25519","x":%q%s}`, head, b64(k), more)
	}
	return ""
}

// issuer is a server of a key set that changes. An empty set is answered with 503.
type issuer struct {
	*httptest.Server
	set   atomic.Pointer[string]
	asked atomic.Int64
	hold  atomic.Pointer[chan struct{}] // when set, answers wait for its end
}

func newIssuer(t *testing.T, keys ...string) *issuer {
	t.Helper()
	i := new(issuer)
	i.publish(keys...)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		if hold := i.hold.Load(); hold != nil {
			select {
			case <-*hold:
			case <-r.Context().Done():
			}
		}
		if set := *i.set.Load(); set != "" {
			_, _ = w.Write([]byte(set))
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) publish(keys ...string) { i.raw(`{"keys":[` + strings.Join(keys, ",") + `]}`) }
func (i *issuer) raw(set string)         { i.set.Store(&set) }

// stopwatch is a clock that the test moves.
type stopwatch struct{ passed atomic.Int64 }

func (s *stopwatch) now() time.Time          { return now.Add(time.Duration(s.passed.Load())) }
func (s *stopwatch) advance(d time.Duration) { s.passed.Add(int64(d)) }

func rs256(t testing.TB, key *rsa.PrivateKey, kid string) string {
	header := `{"alg":"RS256"}`
	if kid != "" {
		header = `{"alg":"RS256","kid":"` + kid + `"}`
	}
	return sign(t, jwt.SigningMethodRS256, header, valid(""), key)
}

// unavailable expects that a token cannot be judged.
func unavailable(t *testing.T, j *JWT, token string) {
	t.Helper()
	if id, err := j.Authenticate(t.Context(), token); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnauthorized) {
		t.Errorf("got %+v, %v; want ErrUnavailable", id, err)
	}
}

func TestKeySet(t *testing.T) {
	r := keysOnce()
	i := newIssuer(t,
		jwkJSON(&r.rsa.PublicKey, "r", `,"use":"sig","alg":"RS256"`), jwkJSON(&r.ec.PublicKey, "e", ""), jwkJSON(r.ed.Public(), "d", `,"alg":"EdDSA"`))
	j := newJWT(t, JWTOptions{JWKSURL: i.URL})
	accept(t, j, rs256(t, r.rsa, "r"))
	accept(t, j, rs256(t, r.rsa, ""))
	accept(t, j, sign(t, jwt.SigningMethodES256, `{"alg":"ES256","kid":"e"}`, valid(""), r.ec))
	accept(t, j, sign(t, jwt.SigningMethodEdDSA, `{"alg":"EdDSA","kid":"d"}`, valid(""), r.ed))
	refuse(t, j, rs256(t, r.otherRSA, "r"), "bad signature")
	refuse(t, j, rs256(t, r.otherRSA, ""), "bad signature")
	refuse(t, j, rs256(t, r.rsa, "e"), "no key") // another key's kid
	refuse(t, j, hs256(t, valid("")), "not allowed")
	refuse(t, j, sign(t, jwt.SigningMethodHS256, `{"alg":"HS256","kid":"r"}`, valid(""), publicPEM(t, &r.rsa.PublicKey)), "not allowed")
}

// A key set and a secret: the set's keys never check an HMAC, and a secret in the set is no secret.
func TestKeySetAndSecret(t *testing.T) {
	r := keysOnce()
	oct := `{"kty":"oct","kid":"o","alg":"HS256","k":"` + base64.RawURLEncoding.EncodeToString([]byte("public-knowledge-public-knowledge")) + `"}`
	i := newIssuer(t, oct, jwkJSON(&r.rsa.PublicKey, "r", ""))
	file := write(t, "other.pem", publicPEM(t, &r.otherRSA.PublicKey))
	j := newJWT(t, JWTOptions{Secret: secret, JWKSURL: i.URL, PublicKeyFiles: []string{file}})
	accept(t, j, hs256(t, valid("")))
	accept(t, j, rs256(t, r.rsa, "r"))
	accept(t, j, rs256(t, r.otherRSA, "")) // the file's
	accept(t, j, rs256(t, r.otherRSA, "unknown"))
	refuse(t, j, sign(t, jwt.SigningMethodHS256, `{"alg":"HS256","kid":"o"}`, valid(""), []byte("public-knowledge-public-knowledge")), "bad signature")
}

// Keys of a set that are of no use are left out, one by one.
func TestKeysThatAreLeftOut(t *testing.T) {
	r := keysOnce()
	small := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	i := newIssuer(t,
		`{"kty":"RSA","kid":"broken","n":"!","e":"AQAB"}`, `{"kty":"what","kid":"what"}`, `7`, `{"kid":{}}`,
		jwkJSON(&r.rsa.PublicKey, "encryption", `,"use":"enc"`), jwkJSON(&r.rsa.PublicKey, "rs512", `,"alg":"RS512"`),
		jwkJSON(small, "small", ""), jwkJSON(&r.ec384.PublicKey, "p384", ""),
		jwkJSON(&r.otherRSA.PublicKey, "good", `,"x5u":"http://127.0.0.1:1/never-asked"`), jwkJSON(&r.rsa.PublicKey, "fine", ""))
	j := newJWT(t, JWTOptions{JWKSURL: i.URL})
	accept(t, j, rs256(t, r.rsa, "fine"))
	for _, kid := range []string{"broken", "what", "encryption", "rs512", "small", "p384"} {
		refuse(t, j, rs256(t, r.rsa, kid), "no key")
	}
}

// A rotation is seen with the first token of the new key, and the old key is forgotten with it.
func TestRotation(t *testing.T) {
	r := keysOnce()
	var w stopwatch
	i := newIssuer(t, jwkJSON(&r.rsa.PublicKey, "old", ""))
	j := newJWT(t, JWTOptions{JWKSURL: i.URL, Now: w.now})
	before, after := rs256(t, r.rsa, "old"), rs256(t, r.otherRSA, "new")
	accept(t, j, before)
	i.publish(jwkJSON(&r.rsa.PublicKey, "old", ""), jwkJSON(&r.otherRSA.PublicKey, "new", ""))
	w.advance(jwksGap)
	accept(t, j, after)
	accept(t, j, before)
	i.publish(jwkJSON(&r.otherRSA.PublicKey, "new", ""))
	w.advance(jwksGap)
	refuse(t, j, rs256(t, r.rsa, "third"), "no key") // any unknown kid makes it look
	refuse(t, j, before, "no key")
	accept(t, j, after)
	if n := i.asked.Load(); n != 3 {
		t.Errorf("%d fetches, want 3", n)
	}
}

// A flood of made-up kids costs one fetch in jwksGap.
func TestFloodOfKids(t *testing.T) {
	r := keysOnce()
	var w stopwatch
	i := newIssuer(t, jwkJSON(&r.rsa.PublicKey, "real", ""))
	j := newJWT(t, JWTOptions{JWKSURL: i.URL, Now: w.now})
	accept(t, j, rs256(t, r.rsa, "real"))
	w.advance(jwksGap)
	var wg sync.WaitGroup
	for n := range 50 {
		token := rs256(t, r.otherRSA, fmt.Sprintf("made-up-%d", n))
		wg.Go(func() { refuse(t, j, token, "no key") })
	}
	wg.Wait()
	if n := i.asked.Load(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
	accept(t, j, rs256(t, r.rsa, "real"))
}

// An issuer that is away at the start: its tokens cannot be judged, the others can, and it is found when it is back.
func TestIssuerAway(t *testing.T) {
	r := keysOnce()
	var w stopwatch
	var logged atomic.Int64
	i := newIssuer(t)
	i.raw("")
	j := newJWT(t, JWTOptions{Secret: secret, JWKSURL: i.URL, Now: w.now, Logf: func(string, ...any) { logged.Add(1) }})
	unavailable(t, j, rs256(t, r.rsa, "k"))
	unavailable(t, j, rs256(t, r.rsa, ""))
	accept(t, j, hs256(t, valid("")))
	if logged.Load() == 0 {
		t.Error("nobody was told")
	}
	i.publish(jwkJSON(&r.rsa.PublicKey, "k", ""))
	w.advance(jwksGap)
	accept(t, j, rs256(t, r.rsa, "")) // no hour's wait, also without kid
	accept(t, j, rs256(t, r.rsa, "k"))

	i.raw("") // away again: what is known stays, what is not cannot be judged
	w.advance(jwksGap)
	accept(t, j, rs256(t, r.rsa, "k"))
	unavailable(t, j, rs256(t, r.otherRSA, "new"))
	accept(t, j, rs256(t, r.rsa, "k"))
}

// Sets that are refused leave the last good one in force.
func TestBadSets(t *testing.T) {
	r := keysOnce()
	var w stopwatch
	i := newIssuer(t, jwkJSON(&r.rsa.PublicKey, "k", ""))
	j := newJWT(t, JWTOptions{JWKSURL: i.URL, Now: w.now})
	accept(t, j, rs256(t, r.rsa, "k"))
	for _, set := range []string{
		"not JSON", `[]`, `{}`, `{"keys":{}}`, `{"keys":[]` + strings.Repeat(" ", maxJWKS) + `}`,
		`{"keys":[` + strings.Repeat(`{},`, maxKeys) + `{}]}`,
	} {
		i.raw(set)
		w.advance(jwksGap)
		unavailable(t, j, rs256(t, r.otherRSA, "unknown"))
		accept(t, j, rs256(t, r.rsa, "k"))
	}
}

// A token that waits for the set stops waiting when its connection's time is up.
func TestWaitEndsWithContext(t *testing.T) {
	r := keysOnce()
	i := newIssuer(t, jwkJSON(&r.rsa.PublicKey, "k", ""))
	hold := make(chan struct{})
	i.hold.Store(&hold)
	j := newJWT(t, JWTOptions{JWKSURL: i.URL})
	unavailableNow := func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := j.Authenticate(ctx, rs256(t, r.rsa, "k")); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	}
	unavailableNow()
	i.hold.Store(nil)
	close(hold)
	accept(t, j, rs256(t, r.rsa, "k")) // waits for the fetch in progress
}

func TestReloadOfKeySet(t *testing.T) {
	r := keysOnce()
	var w stopwatch
	i := newIssuer(t, jwkJSON(&r.rsa.PublicKey, "k", ""))
	j := newJWT(t, JWTOptions{JWKSURL: i.URL, Now: w.now})
	accept(t, j, rs256(t, r.rsa, "k"))
	i.raw("") // away while the configuration is read again
	if err := j.Reload(JWTOptions{JWKSURL: i.URL, Now: w.now, Issuer: "me"}); err != nil {
		t.Fatal(err)
	}
	refuse(t, j, rs256(t, r.rsa, "k"), "required claim") // the key is known still
	other := newIssuer(t, jwkJSON(&r.otherRSA.PublicKey, "k", ""))
	if err := j.Reload(JWTOptions{JWKSURL: other.URL, Now: w.now}); err != nil {
		t.Fatal(err)
	}
	refuse(t, j, rs256(t, r.rsa, "k"), "bad signature") // kids of another issuer are other keys
	accept(t, j, rs256(t, r.otherRSA, "k"))
	if err := j.Reload(JWTOptions{Secret: secret, Now: w.now}); err != nil {
		t.Fatal(err)
	}
	refuse(t, j, rs256(t, r.otherRSA, "k"), "not allowed")
}

func TestRedirects(t *testing.T) {
	r := keysOnce()
	i := newIssuer(t, jwkJSON(&r.rsa.PublicKey, "k", ""))
	once := httptest.NewServer(http.RedirectHandler(i.URL, http.StatusFound))
	t.Cleanup(once.Close)
	loop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/", http.StatusFound)
	}))
	t.Cleanup(loop.Close)
	accept(t, newJWT(t, JWTOptions{JWKSURL: once.URL}), rs256(t, r.rsa, "k"))
	unavailable(t, newJWT(t, JWTOptions{JWKSURL: loop.URL}), rs256(t, r.rsa, "k"))
}
