package server_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"hash"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/server"
)

// forge makes a token of any header and claims with the server's key.
func (n *node) forge(header, claims string, h func() hash.Hash) string {
	n.t.Helper()
	key, err := os.ReadFile(filepath.Join(n.o.DataDir, "jwt.key"))
	if err != nil {
		n.t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	text := b64([]byte(header)) + "." + b64([]byte(claims))
	mac := hmac.New(h, []byte(strings.TrimSpace(string(key))))
	mac.Write([]byte(text))
	return text + "." + b64(mac.Sum(nil))
}

// A bad token is UNAUTHORIZED and closes its own connection; the session of the user that it names is not disturbed.
func TestBadTokens(t *testing.T) {
	n := start(t)
	const hs256 = `{"alg":"HS256","typ":"JWT"}`
	now := time.Now().Unix()
	claims := func(format string, args ...any) string { return fmt.Sprintf(format, args...) }
	good := n.forge(hs256, claims(`{"sub":"alice","iat":%d,"exp":%d}`, now, now+60), sha256.New)
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	bad := map[string]string{
		"garbage":        "nonsense",
		"two parts":      parts[0] + "." + parts[1],
		"forged":         parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"other claims":   parts[0] + "." + strings.Split(n.forge(hs256, claims(`{"sub":"alice","exp":%d}`, now+999), sha256.New), ".")[1] + "." + parts[2],
		"none":           none + "." + parts[1] + ".",
		"none, signed":   none + "." + parts[1] + "." + parts[2],
		"other HMAC":     n.forge(`{"alg":"HS512"}`, claims(`{"sub":"alice","exp":%d}`, now+60), sha512.New),
		"RS256 by HMAC":  n.forge(`{"alg":"RS256"}`, claims(`{"sub":"alice","exp":%d}`, now+60), sha256.New),
		"no alg":         n.forge(`{}`, claims(`{"sub":"alice","exp":%d}`, now+60), sha256.New),
		"expired":        n.forge(hs256, claims(`{"sub":"alice","exp":%d}`, now-10), sha256.New),
		"no exp":         n.forge(hs256, `{"sub":"alice"}`, sha256.New),
		"exp is text":    n.forge(hs256, `{"sub":"alice","exp":"tomorrow"}`, sha256.New),
		"not yet":        n.forge(hs256, claims(`{"sub":"alice","exp":%d,"nbf":%d}`, now+900, now+600), sha256.New),
		"no subject":     n.forge(hs256, claims(`{"exp":%d}`, now+60), sha256.New),
		"empty subject":  n.forge(hs256, claims(`{"sub":"","exp":%d}`, now+60), sha256.New),
		"colon in name":  n.forge(hs256, claims(`{"sub":"alice:bob","exp":%d}`, now+60), sha256.New),
		"slash in name":  n.forge(hs256, claims(`{"sub":"alice/bob","exp":%d}`, now+60), sha256.New),
		"long name":      n.forge(hs256, claims(`{"sub":"%s","exp":%d}`, strings.Repeat("a", 65), now+60), sha256.New),
		"long terminal":  n.forge(hs256, claims(`{"sub":"alice","terminal":"%s","exp":%d}`, strings.Repeat("a", 33), now+60), sha256.New),
		"seed claims":    n.forge(hs256, claims(`{"aud":"alice","exp":%d}`, now+60), sha256.New),
		"oversized":      n.forge(hs256, claims(`{"sub":"alice","exp":%d,"x":"%s"}`, now+60, strings.Repeat("x", 4096)), sha256.New),
		"60 KB":          strings.Repeat("eyJ", 20_000),
		"kid, a path":    n.forge(`{"alg":"HS256","kid":"../../../../dev/null"}`, claims(`{"sub":"alice","exp":%d}`, now-60), sha256.New),
		"many dots":      strings.Repeat(".", 4000),
		"jku, x5u":       n.forge(`{"alg":"RS256","jku":"http://127.0.0.1:1/keys","x5u":"http://127.0.0.1:1/"}`, claims(`{"sub":"alice","exp":%d}`, now+60), sha256.New),
		"trailing bytes": good + "AAAA",
	}
	alice, watcher := n.login("websocket", "alice"), n.login("tcp", "watcher")
	watcher.talk(`{"cmd":13,"data":{"watch":["alice"]}}`, `{"cmd":13,"data":{"states":[{"online":true}]}}`)
	for name, token := range bad {
		for _, transport := range transports {
			p := n.dial(transport)
			p.talk(fmt.Sprintf(`{"cmd":0,"id":"x","data":{"accessToken":%q}}`, token),
				`{"cmd":15,"id":"x","data":{"code":4001,"name":"UNAUTHORIZED","retryable":false}}`)
			if code := p.closed(); code != closeCode(transport, 4001) {
				t.Errorf("%s, %s: closed with %d", name, transport, code)
			}
		}
	}
	alice.quiet()
	watcher.quiet()
	watcher.sendN("alice", 1)
	alice.inboxes(1, 1)
	// The same key and header with nothing wrong is let in: the table above tests what it says.
	n.dial("tcp").login(good, `"terminal":"good"`)
}

func TestRefresh(t *testing.T) {
	n := start(t)
	eachTransport(t, func(t *testing.T, transport string) {
		n := n.on(t)
		user := "refresh-" + transport
		p := n.login(transport, user)
		refresh := func(token, want string) packet {
			t.Helper()
			return p.talk(fmt.Sprintf(`{"cmd":17,"id":"r","data":{"accessToken":%q}}`, token), want)
		}
		const refused = `{"cmd":15,"id":"r","data":{"code":4001,"name":"UNAUTHORIZED","retryable":false}}`
		later := refresh(n.token(user, "", 2*time.Hour), `{"cmd":17,"id":"r","data":{"expiresAt":"*"}}`)
		if left := int64(later.number("expiresAt")) - time.Now().UnixMilli(); left < 7_190_000 || left > 7_210_000 {
			t.Errorf("expires in %d ms, want two hours", left)
		}
		refresh(n.token(user, "web", time.Hour), `{"cmd":17,"id":"r"}`)
		refresh(n.token(user, "ios", time.Hour), refused)
		refresh(n.token("somebody", "", time.Hour), refused)
		refresh(n.token(user, "", -time.Minute), refused)
		refresh("nonsense", refused)
		refresh("", refused)
		for _, data := range []string{`{}`, `{"accessToken":null}`, `{"accessToken":1}`, `[]`} {
			p.talk(`{"cmd":17,"id":"r","data":`+data+`}`, `{"cmd":15,"id":"r","data":{"code":4000,"name":"BAD_PACKET"}}`)
		}
		p.quiet()
	})
}

// identities is an authenticator whose tokens are "<user> <ms from the start of the test until exp>".
type identities struct{ base time.Time }

func (i identities) Authenticate(_ context.Context, token string) (auth.Identity, error) {
	var user string
	var ms int64
	if _, err := fmt.Sscanf(token, "%s %d", &user, &ms); err != nil {
		return auth.Identity{}, fmt.Errorf("%w: %w", auth.ErrUnauthorized, err)
	}
	return auth.Identity{User: user, ExpiresAt: i.base.UnixMilli() + ms, IssuedAt: i.base.UnixMilli()}, nil
}

// The end of the token closes the session 25 s after exp, unless REFRESH came.
func TestExpiry(t *testing.T) {
	t.Parallel()
	base := time.Now()
	n := start(t, func(o *server.Options) { o.Hooks.Authenticator = identities{base} })
	login := func(transport, user string, exp int) *peer {
		p := n.dial(transport)
		p.login(fmt.Sprintf("%s %d", user, exp))
		return p
	}
	refreshed := login("tcp", "refreshed", -23_000)
	got := refreshed.talk(`{"cmd":17,"data":{"accessToken":"refreshed -21000"}}`, `{"cmd":17}`)
	if at := int64(got.number("expiresAt")); at != base.UnixMilli()-21_000 {
		t.Errorf("expiresAt %d", at)
	}
	refreshed.talk(`{"cmd":17,"id":"r","data":{"accessToken":"other 60000"}}`, `{"cmd":15,"id":"r","data":{"code":4001}}`)
	for _, transport := range transports {
		p := login(transport, "gone", -23_000)
		p.expect(`{"cmd":15,"id":null,"data":{"code":4010,"name":"TOKEN_EXPIRED","retryable":false}}`)
		if code := p.closed(); code != closeCode(transport, 4010) {
			t.Errorf("%s: closed with %d", transport, code)
		}
		if after := time.Since(base); after < 2*time.Second {
			t.Errorf("%s: closed %v after exp", transport, 23*time.Second+after)
		}
	}
	// The refused REFRESH left the session to its old expiry, 4 s from the start.
	refreshed.expect(`{"cmd":15,"data":{"code":4010,"name":"TOKEN_EXPIRED"}}`)
	if after := time.Since(base); after < 4*time.Second {
		t.Errorf("closed %v after exp", 21*time.Second+after)
	}
}

// Revocation ends the sessions of older tokens and refuses them from then on, over a restart too.
func TestRevocation(t *testing.T) {
	n := start(t)
	old := n.token("alice", "", time.Hour)
	noIat := n.forge(`{"alg":"HS256"}`, fmt.Sprintf(`{"sub":"alice","terminal":"no-iat","exp":%d}`, time.Now().Unix()+60), sha256.New)
	web, tcp, bob := n.dial("websocket"), n.dial("tcp"), n.login("tcp", "bob")
	web.login(old)
	tcp.login(noIat)
	refuse := func(token string) {
		t.Helper()
		p := n.dial("tcp")
		p.talk(`{"cmd":0,"data":{"accessToken":"`+token+`"}}`, `{"cmd":15,"data":{"code":4001,"name":"UNAUTHORIZED"}}`)
		p.closed()
	}
	wait := time.Now().UnixMilli() // a token of the same millisecond is not before it
	eventually(t, "the next millisecond", func() bool { return time.Now().UnixMilli() > wait })

	stands := n.call("POST", "/v1/users/alice/revoke", `{}`, 200, `{"before":"*"}`)
	const revoked = `{"cmd":15,"id":null,"data":{"code":4010,"name":"REVOKED"}}`
	web.expect(revoked)
	if code := web.closed(); code != 4010 {
		t.Errorf("closed with %d", code)
	}
	tcp.expect(revoked)
	tcp.closed()
	bob.quiet()
	refuse(old)
	refuse(noIat)

	eventually(t, "the next millisecond", func() bool { return float64(time.Now().UnixMilli()) > stands["before"].(float64) })
	young := n.token("alice", "", time.Hour)
	p := n.dial("tcp")
	p.login(young)
	p.talk(`{"cmd":17,"id":"r","data":{"accessToken":"`+old+`"}}`, `{"cmd":15,"id":"r","data":{"code":4001}}`)
	// An earlier time moves nothing; the latest stands and is answered. A session of a younger token goes on.
	again := n.call("POST", "/v1/users/alice/revoke", `{"before":1000}`, 200, `{}`)
	if again["before"] != stands["before"] {
		t.Errorf("an earlier time moved %v to %v", stands["before"], again["before"])
	}
	p.quiet()

	n.restart()
	refuse(old)
	refuse(noIat)
	n.dial("tcp").login(young)
	// A time to come counts as now.
	at := time.Now().UnixMilli()
	got := n.call("POST", "/v1/users/alice/revoke", fmt.Sprintf(`{"before":%d}`, at+3_600_000), 200, `{}`)
	if ms := int64(got["before"].(float64)); ms < at || ms > time.Now().UnixMilli() {
		t.Errorf("a time to come stands as %d, now is %d", ms, at)
	}
}

// A revocation that meets a LOGIN which is being checked lets the session of a younger token live and ends that of an older one.
func TestRevocationDuringLogin(t *testing.T) {
	base := time.Now().Add(-time.Hour)
	slow := &slowIdentities{identities: identities{base}, begun: make(chan struct{}, 8), proceed: make(chan struct{})}
	n := start(t, func(o *server.Options) { o.Hooks.Authenticator = slow })
	p := n.dial("tcp")
	p.send(`{"cmd":0,"id":"login","data":{"accessToken":"alice 7200000"}}`)
	<-slow.begun
	n.call("POST", "/v1/users/alice/revoke", `{}`, 200, `{}`)
	close(slow.proceed)
	p.expect(`{"cmd":15,"id":"login","data":{"code":4001,"name":"UNAUTHORIZED"}}`)
	p.closed()
}

type slowIdentities struct {
	identities
	begun, proceed chan struct{}
}

func (s *slowIdentities) Authenticate(ctx context.Context, token string) (auth.Identity, error) {
	s.begun <- struct{}{}
	<-s.proceed
	return s.identities.Authenticate(ctx, token)
}

// An authenticator that cannot check now leaves the connection open for another LOGIN; the token of the upgrade still counts.
func TestLoginUnavailable(t *testing.T) {
	var fails atomic.Bool
	fails.Store(true)
	n := start(t, func(o *server.Options) {
		o.Hooks.Authenticator = authenticator(func(context.Context, string) (auth.Identity, error) {
			if fails.Swap(false) {
				return auth.Identity{}, auth.ErrUnavailable
			}
			return auth.Identity{User: "alice", ExpiresAt: time.Now().Add(time.Hour).UnixMilli()}, nil
		})
	})
	p := n.dialURL(n.url("websocket"), http.Header{"Authorization": {"Bearer x"}})
	p.talk(`{"cmd":0,"id":"1","data":{}}`, `{"cmd":15,"id":"1","data":{"code":5003,"name":"UNAVAILABLE","retryable":true}}`)
	p.talk(`{"cmd":0,"id":"2","data":{}}`, `{"cmd":0,"id":"2","data":{"userId":"alice"}}`)
}

type authenticator func(ctx context.Context, token string) (auth.Identity, error)

func (f authenticator) Authenticate(ctx context.Context, token string) (auth.Identity, error) {
	return f(ctx, token)
}
