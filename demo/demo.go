// Package demo is the chat in the browser that the server shows at /demo when it is asked to: the page, tokens for whoever
// wants one, and groups. It is for trying Mesh-Talk out and nothing else: whoever reaches it may be any user.
//
// The page is built from examples/webchat; what stands in web/ is generated (`make web`) and committed, so that the server
// builds without node.
package demo

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"
)

//go:embed web
var files embed.FS

// Path is where the demo is; everything of it is there or below.
const Path = "/demo"

// Groups is what the demo needs of the server's groups.
type Groups interface {
	// Join makes users members of a group, which is made if it is not there.
	Join(ctx context.Context, group string, users []string) error
	// Members are the first members of a group, in byte order; an error if user is none of them.
	Members(ctx context.Context, group, user string) ([]string, error)
}

// Options of New.
type Options struct {
	// Mint makes a token. Its errors are about names that cannot be.
	Mint   func(user, terminal string, ttl time.Duration) (string, error)
	TTL    time.Duration // of a token
	Groups Groups
	// Socket is the path of WebSocket upgrades on the same host.
	Socket string
	Logf   func(format string, args ...any)
}

// Lobby is the group that everybody who gets a token is a member of.
const Lobby = "lobby"

// maxNamed bounds the users of one call that changes a group.
const maxNamed = 100

// New serves the demo. The handler is safe for concurrent use.
func New(o Options) http.Handler {
	web, err := fs.Sub(files, "web")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, page(web, "index.html"))
	for _, name := range []string{"app.js", "app.css", "icon.svg"} {
		mux.Handle("GET "+Path+"/"+name, page(web, name))
	}
	mux.HandleFunc("POST "+Path+"/token", o.token)
	mux.HandleFunc("POST "+Path+"/groups", o.groups)
	mux.HandleFunc("POST "+Path+"/members", o.members)
	return guard(mux)
}

// policy lets the page load itself, connect to its own host, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; manifest-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// guard sets the headers of every answer, and refuses calls of other pages.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if r.Method == http.MethodPost && !ownOrigin(r) {
			refuse(w, http.StatusForbidden, "this is for the demo's own page")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ownOrigin reports whether a request comes from no web page or from one of this host.
func ownOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

var types = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
}

func page(web fs.FS, name string) http.Handler {
	b, err := fs.ReadFile(web, name)
	if err != nil {
		panic(err) // it is compiled in
	}
	kind := types[name[strings.LastIndexByte(name, '.'):]]
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(b) // the reader is gone: there is nobody to tell
	})
}

// token answers POST /demo/token?user=U&terminal=T with a token, and makes the user a member of the lobby.
func (o *Options) token(w http.ResponseWriter, r *http.Request) {
	user, terminal := r.FormValue("user"), r.FormValue("terminal")
	token, err := o.Mint(user, terminal, o.TTL)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if err := o.Groups.Join(r.Context(), Lobby, []string{user}); err != nil {
		o.Logf("the lobby: %v", err) // a full disk; the user may chat all the same
	}
	answer(w, http.StatusOK, map[string]any{"token": token, "socket": o.Socket, "lobby": Lobby})
}

// groups answers POST /demo/groups?group=G&users=alice,bob: they become members of the group.
func (o *Options) groups(w http.ResponseWriter, r *http.Request) {
	users := strings.Split(r.FormValue("users"), ",")
	if len(users) > maxNamed {
		refuse(w, http.StatusBadRequest, "too many users")
		return
	}
	if err := o.Groups.Join(r.Context(), r.FormValue("group"), users); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	answer(w, http.StatusOK, map[string]any{})
}

// members answers POST /demo/members?group=G&user=U with the group's first members.
func (o *Options) members(w http.ResponseWriter, r *http.Request) {
	list, err := o.Groups.Members(r.Context(), r.FormValue("group"), r.FormValue("user"))
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	answer(w, http.StatusOK, map[string]any{"members": list})
}

func refuse(w http.ResponseWriter, status int, text string) {
	answer(w, status, map[string]any{"error": text})
}

func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // of plain values it does not happen
		status, b = http.StatusInternalServerError, []byte(`{"error":"internal error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the caller is gone: there is nobody to tell
}
