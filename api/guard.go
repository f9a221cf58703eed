package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/meshtalk/meshtalk/codec"
)

// Guard lets through to next who may use the admin port.
//
// With a token that is who sends it as "Authorization: Bearer". Without one it is everybody on this host, and the danger
// is a web page in a browser here, which can make the browser send requests to this port: one whose Host is no
// loopback name (the page's own name, bound to 127.0.0.1 by its DNS) or that carries another Origin than our own is refused.
//
// signedIn, when set, is asked about a request without Authorization while there is a token: it knows the browsers that have
// given the token before, and refuses what another page made them send.
func Guard(token string, signedIn func(*http.Request) bool, next http.Handler) http.Handler {
	if token == "" {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case !isLoopback(r.Host):
				writeError(w, refuse(codec.CodeForbidden, "without admin.token only a loopback Host is served"))
			case !ownOrigin(r):
				writeError(w, refuse(codec.CodeForbidden, "foreign Origin"))
			default:
				next.ServeHTTP(w, r)
			}
		})
	}
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := bearer(r.Header.Get("Authorization"))
		got := sha256.Sum256([]byte(given)) // hashed, so that the comparison takes the same time for every length too
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 && ok {
			next.ServeHTTP(w, r)
			return
		}
		if len(r.Header.Values("Authorization")) > 0 || signedIn == nil || !signedIn(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="meshtalk"`)
			writeError(w, refuse(codec.CodeUnauthorized, "the admin token is missing or wrong"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bearer is the token of an Authorization header.
func bearer(header string) (token string, ok bool) {
	scheme, token, ok := strings.Cut(header, " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

// isLoopback reports whether a Host header names this host: localhost, 127.x or [::1], with any port or none.
func isLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback()
}

// ownOrigin reports whether a request comes from no web page or from one of this port.
func ownOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	u, err := url.Parse(origins[0])
	return err == nil && len(origins) == 1 && (u.Scheme == "http" || u.Scheme == "https") && strings.EqualFold(u.Host, r.Host)
}
