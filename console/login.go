package console

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	loginIdle   = 12 * time.Hour // a browser that has not been seen for so long signs in again
	maxLogins   = 256            // browsers; more push out who was seen longest ago
	maxLoginLen = 8 << 10        // bytes of a sign-in's body
)

// Logins are the browsers that have given the admin token. They are known by a random cookie, which is kept here as a hash,
// in memory: a restart signs everybody out. Safe for concurrent use.
type Logins struct {
	// Static after construction.
	needed bool
	token  [sha256.Size]byte
	origin *http.CrossOriginProtection
	now    func() time.Time

	mu   sync.Mutex
	seen map[[sha256.Size]byte]time.Time // by the cookie's hash: when it was last used
}

// NewLogins are those of a token; "" = there is none and nobody signs in.
func NewLogins(token string) *Logins {
	return &Logins{
		needed: token != "", token: sha256.Sum256([]byte(token)), now: time.Now,
		origin: http.NewCrossOriginProtection(), seen: map[[sha256.Size]byte]time.Time{},
	}
}

// SignedIn reports whether r comes from the console's page in a browser that has signed in. What another page made a
// browser send is refused: the cookie is SameSite=Strict, but other ports of this host are the same site.
func (l *Logins) SignedIn(r *http.Request) bool {
	if !l.needed || !l.ownPage(r) {
		return false
	}
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range r.CookiesNamed(cookieName(r)) {
		key := sha256.Sum256([]byte(c.Value))
		if seen, ok := l.seen[key]; ok && now.Sub(seen) < loginIdle {
			l.seen[key] = now
			return true
		}
	}
	return false
}

// ownPage reports whether a browser sent r for a page of ours, or on its user's own doing. A request that changes
// something must prove it: every browser sends an Origin with it.
func (l *Logins) ownPage(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	return r.Header.Get("Origin") != "" && l.origin.Check(r) == nil
}

// cookieName differs by the port that was asked: browsers give a host's cookies to all its ports, and two nodes of one
// machine are not to sign each other out.
func cookieName(r *http.Request) string {
	name := "meshtalk_console"
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if _, port, err := net.SplitHostPort(a.String()); err == nil {
			name += "_" + port
		}
	}
	return name
}

// cookie is the session's, with value "" the one that removes it.
func cookie(r *http.Request, value string) *http.Cookie {
	c := &http.Cookie{
		Name: cookieName(r), Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https"),
	}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

// signIn takes {"token": …} and sets the cookie.
func (l *Logins) signIn(w http.ResponseWriter, r *http.Request) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if !l.ownPage(r) || kind != "application/json" { // a form of another page cannot send this type
		refuse(w, http.StatusForbidden, 4003, "FORBIDDEN", "only the console's own page signs in")
		return
	}
	var in struct {
		Token string `json:"token"`
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLoginLen))
	if err != nil || json.Unmarshal(b, &in) != nil {
		refuse(w, http.StatusBadRequest, 4000, "BAD_PACKET", `expected {"token": "…"}`)
		return
	}
	given := sha256.Sum256([]byte(strings.TrimSpace(in.Token)))
	if l.needed && subtle.ConstantTimeCompare(given[:], l.token[:]) != 1 {
		refuse(w, http.StatusUnauthorized, 4001, "UNAUTHORIZED", "this is not the admin token")
		return
	}
	if l.needed {
		http.SetCookie(w, cookie(r, l.add()))
	}
	writeJSON(w, http.StatusOK, struct{}{})
}

// add makes a session and returns its cookie's value.
func (l *Logins) add() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	value := base64.RawURLEncoding.EncodeToString(b[:])
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.seen) >= maxLogins {
		l.forgetOldest()
	}
	l.seen[sha256.Sum256([]byte(value))] = l.now()
	return value
}

func (l *Logins) forgetOldest() {
	var oldest [sha256.Size]byte
	var when time.Time
	for key, seen := range l.seen {
		if when.IsZero() || seen.Before(when) {
			oldest, when = key, seen
		}
	}
	delete(l.seen, oldest)
}

// signOut ends the browser's session; its streams notice within a second.
func (l *Logins) signOut(w http.ResponseWriter, r *http.Request) {
	if !l.ownPage(r) {
		refuse(w, http.StatusForbidden, 4003, "FORBIDDEN", "only the console's own page signs out")
		return
	}
	l.mu.Lock()
	for _, c := range r.CookiesNamed(cookieName(r)) {
		delete(l.seen, sha256.Sum256([]byte(c.Value)))
	}
	l.mu.Unlock()
	http.SetCookie(w, cookie(r, ""))
	writeJSON(w, http.StatusOK, struct{}{})
}
