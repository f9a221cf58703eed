package console

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const secret = "a token of the test"

// request is one to a console on 127.0.0.1:8090, with headers as "Name: value".
func request(method, path, body string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, "http://127.0.0.1:8090"+path, strings.NewReader(body))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8090}))
}

func do(h http.Handler, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// signedIn is the cookie of a sign-in with the right token.
func signedIn(t *testing.T, h http.Handler) *http.Cookie {
	t.Helper()
	a := do(h, request("POST", "/console/login", `{"token":"`+secret+`"}`, ownPage...))
	if a.StatusCode != 200 || len(a.Cookies()) != 1 {
		t.Fatalf("sign-in: %d with the cookies %v", a.StatusCode, a.Cookies())
	}
	return a.Cookies()[0]
}

// ownPage are the headers with which a browser sends what a page of the console has asked for.
var ownPage = []string{"Content-Type: application/json", "Origin: http://127.0.0.1:8090", "Sec-Fetch-Site: same-origin"}

// guarded is a console whose guard lets in who has signed in.
func guarded(t *testing.T, l *Logins) *Console {
	return consoleOf(t, Options{Logins: l, Guard: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !l.SignedIn(r) {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
}

func TestSignIn(t *testing.T) {
	h := guarded(t, NewLogins(secret))
	for _, body := range []string{`{"token":"wrong"}`, `{"token":""}`, `{}`, `{"token":"` + secret + `x"}`} {
		if a := do(h, request("POST", "/console/login", body, ownPage...)); a.StatusCode != 401 || len(a.Cookies()) != 0 {
			t.Errorf("%s: %d %v", body, a.StatusCode, a.Cookies())
		}
	}
	for _, body := range []string{``, `{`, `[]`, `{"token":1}`, `{"token":"` + strings.Repeat("x", maxLoginLen) + `"}`} {
		if a := do(h, request("POST", "/console/login", body, ownPage...)); a.StatusCode != 400 {
			t.Errorf("%.20s: %d", body, a.StatusCode)
		}
	}
	c := signedIn(t, h)
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Secure || c.MaxAge != 0 || c.Domain != "" {
		t.Errorf("cookie %v", c)
	}
	if c.Name != "meshtalk_console_8090" || len(c.Value) != 43 {
		t.Errorf("cookie %q of %d characters", c.Name, len(c.Value))
	}
	if again := signedIn(t, h); again.Value == c.Value {
		t.Error("two sign-ins got the same cookie")
	}
	behindTLS := do(h, request("POST", "/console/login", `{"token":"`+secret+`"}`, append(ownPage, "X-Forwarded-Proto: https")...))
	if !behindTLS.Cookies()[0].Secure {
		t.Error("over TLS the cookie is not Secure")
	}

	r := request("GET", "/console/session", "")
	if a := do(h, r); a.StatusCode != 401 {
		t.Errorf("without a cookie: %d", a.StatusCode)
	}
	r.AddCookie(c)
	if a := do(h, r); a.StatusCode != 200 {
		t.Errorf("with the cookie: %d", a.StatusCode)
	}
	out := request("POST", "/console/logout", "", ownPage...)
	out.AddCookie(c)
	if a := do(h, out); a.StatusCode != 200 || a.Cookies()[0].MaxAge >= 0 {
		t.Errorf("sign-out: %d %v", a.StatusCode, a.Cookies())
	}
	if a := do(h, r); a.StatusCode != 401 {
		t.Errorf("after the sign-out: %d", a.StatusCode)
	}
}

// What other pages make a browser send is refused, cookie or not: also those of other ports of this host, which are the
// same site to SameSite.
func TestOtherPages(t *testing.T) {
	h := guarded(t, NewLogins(secret))
	c := signedIn(t, h)
	for _, x := range []struct {
		method  string
		headers []string
		ok      bool
	}{
		{"GET", nil, true},
		{"GET", []string{"Sec-Fetch-Site: same-origin"}, true},
		{"GET", []string{"Sec-Fetch-Site: none"}, true}, // typed into the address bar
		{"GET", []string{"Sec-Fetch-Site: same-site"}, false},
		{"GET", []string{"Sec-Fetch-Site: cross-site"}, false},
		{"POST", ownPage, true},
		{"POST", []string{"Origin: http://127.0.0.1:8090"}, true}, // a browser without Sec-Fetch-Site
		{"POST", nil, false},
		{"POST", []string{"Sec-Fetch-Site: same-origin"}, false},
		{"POST", []string{"Origin: http://127.0.0.1:8080"}, false},
		{"POST", []string{"Origin: http://127.0.0.1:8080", "Sec-Fetch-Site: same-site"}, false},
		{"POST", []string{"Origin: http://evil.example", "Sec-Fetch-Site: cross-site"}, false},
		{"POST", []string{"Origin: null"}, false},
		{"DELETE", []string{"Origin: http://evil.example"}, false},
		{"DELETE", ownPage, true},
	} {
		r := request(x.method, "/nothing", "", x.headers...)
		r.AddCookie(c)
		if a := do(h, r); (a.StatusCode == 404) != x.ok {
			t.Errorf("%s with %v: %d", x.method, x.headers, a.StatusCode)
		}
	}
	for name, headers := range map[string][]string{
		"a form":         {"Content-Type: text/plain", "Origin: http://127.0.0.1:8090"},
		"another page":   {"Content-Type: application/json", "Origin: http://evil.example"},
		"another port":   {"Content-Type: application/json", "Origin: http://127.0.0.1:8080"},
		"without origin": {"Content-Type: application/json"},
	} {
		if a := do(h, request("POST", "/console/login", `{"token":"`+secret+`"}`, headers...)); a.StatusCode != 403 || len(a.Cookies()) > 0 {
			t.Errorf("a sign-in from %s: %d", name, a.StatusCode)
		}
	}
}

func TestLoginsEnd(t *testing.T) {
	l := NewLogins(secret)
	now := time.Unix(1700000000, 0)
	l.now = func() time.Time { return now }
	h := guarded(t, l)
	c := signedIn(t, h)
	in := func(c *http.Cookie) bool {
		r := request("GET", "/console/session", "")
		r.AddCookie(c)
		return do(h, r).StatusCode == 200
	}
	now = now.Add(loginIdle - time.Second)
	if !in(c) {
		t.Error("signed out while it was used")
	}
	now = now.Add(loginIdle - time.Second)
	if !in(c) {
		t.Error("its use did not count")
	}
	now = now.Add(loginIdle + time.Second)
	if in(c) {
		t.Error("still signed in after a long idle time")
	}
	first := signedIn(t, h)
	for range maxLogins {
		now = now.Add(time.Millisecond)
		signedIn(t, h)
	}
	if in(first) || len(l.seen) > maxLogins {
		t.Errorf("%d browsers are remembered, the oldest still in: %v", len(l.seen), in(first))
	}
}

// The page is for everybody who may have to sign in; nothing else is.
func TestPageWithoutSignIn(t *testing.T) {
	h := guarded(t, NewLogins(secret))
	if a := do(h, request("GET", "/", "", "Accept: text/html,application/xhtml+xml")); a.StatusCode != 200 {
		t.Errorf("a browser gets %d", a.StatusCode)
	}
	if a := do(h, request("GET", "/", "", "Accept: */*")); a.StatusCode != 401 {
		t.Errorf("a program gets %d", a.StatusCode)
	}
	open := consoleOf(t, Options{Guard: func(http.Handler) http.Handler { return http.NotFoundHandler() }})
	if a := do(open, request("GET", "/", "", "Accept: text/html")); a.StatusCode != 404 {
		t.Errorf("without a token the guard decides, it was passed by: %d", a.StatusCode)
	}
}
