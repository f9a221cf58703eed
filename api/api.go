// Package api is the HTTP API for back-ends: docs/INTERFACES.md §3, described for programs in openapi.yaml.
//
// Reading order: the table in routes, then input.go (what a request says), then one file per family of calls.
// The API's work is done by the hub; nothing here is on the path of a connected client.
package api

import (
	"context"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
	"github.com/meshtalk/meshtalk/store"
)

// Hub is what the API needs of a *hub.Hub. Every method is safe for concurrent use, returns when ctx ends at the latest,
// and gives an *hub.Error for what the caller did wrong and for UNAVAILABLE; any other error is answered as INTERNAL.
type Hub interface {
	Send(ctx context.Context, m hub.Outgoing) (hub.Sent, error)
	Broadcast(ctx context.Context, typ int64, content []byte) (online int, err error)

	Online(prefix, after string, limit int) (users []string, more bool)
	User(ctx context.Context, user string) (hub.UserInfo, error)
	Conversations(ctx context.Context, user, cursor string, limit int) (list []store.Conversation, next string, err error)
	PresenceOf(ctx context.Context, users []string) ([]codec.PresenceState, error)
	Kick(ctx context.Context, user, terminal, reason string) (closed int, err error)
	Revoke(ctx context.Context, user string, before int64) (int64, error)

	PutGroup(ctx context.Context, group string, members []string) (store.GroupInfo, error)
	Group(ctx context.Context, group string) (store.GroupInfo, error)
	DeleteGroup(ctx context.Context, group string) error
	Members(ctx context.Context, group, cursor string, limit int) (members []string, next string, err error)
	ChangeMembers(ctx context.Context, group string, add, remove []string) (size int, err error)

	Messages(ctx context.Context, conv string, before, after *uint64, limit int) (messages []codec.ConvMessage, more bool, err error)
	RecallMessage(ctx context.Context, conv string, seq uint64) (uint64, error)
	Inbox(ctx context.Context, user string, after uint64, limit int) (entries []codec.InboxEntry, box store.Inbox, more bool, err error)

	Backup(ctx context.Context, dir string) error
	Nodes(ctx context.Context) ([]hub.NodeInfo, error)
	Stats() hub.Stats
}

// Options of New.
type Options struct {
	Token string // bearer token; "" = loopback only, see Guard
	// SignedIn, when set, reports whether a request without a bearer token belongs to who has signed in at the console; see Guard.
	SignedIn   func(*http.Request) bool
	MaxContent int    // bytes of one content: performance.max-frame-size
	MaxMembers int    // of one group: group.max-members; 0 = the hub judges alone
	DataDir    string // of the embedded store, "" = there is none to back up
	Version    string
	Node       string
	Started    time.Time
	// Extra, when set, adds sections to GET /v1/stats. Safe for concurrent use.
	Extra func() map[string]any
	// Next serves every path that is not the API's, unguarded; nil = 404.
	Next http.Handler
	// Logf gets what INTERNAL hides from the caller; nil = nowhere.
	Logf func(format string, args ...any)
}

// callTimeout bounds one call. It is above the longest a commit may take on a struggling disk; a caller that gets
// UNAVAILABLE by it repeats with the same id.
const callTimeout = 30 * time.Second

// route is one call of the API.
type route struct {
	method, path string
	handle       func(ctx context.Context, in *input) ([]byte, error)
	body         bool // the call takes a JSON object
	unbounded    bool // by callTimeout
}

// server is the handler behind New. It is static after construction.
type server struct {
	hub Hub
	o   Options
}

// New serves the API on hub. The handler is safe for concurrent use and owns nothing that needs closing.
func New(hub Hub, o Options) http.Handler {
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.Next == nil {
		o.Next = http.HandlerFunc(notFound)
	}
	s := &server{hub: hub, o: o}
	mux := http.NewServeMux()
	guard := func(h http.Handler) http.Handler { return Guard(o.Token, o.SignedIn, h) }
	allowed := map[string][]string{}
	for _, rt := range s.routes() {
		mux.Handle(rt.method+" "+rt.path, guard(s.serve(rt)))
		allowed[rt.path] = append(allowed[rt.path], rt.method)
	}
	for p, methods := range allowed {
		mux.Handle(p, guard(notAllowed(methods)))
	}
	unknown := guard(http.HandlerFunc(notFound))
	mux.Handle("/v1", unknown)
	mux.Handle("/v1/", unknown)
	mux.Handle("/", o.Next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isClean(r.URL.EscapedPath()) { // the mux would redirect it
			unknown.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// routes is the table of docs/INTERFACES.md §3; a test compares it with openapi.yaml.
func (s *server) routes() []route {
	const (
		get, put, post, del = http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete

		user     = "/v1/users/{user}"
		group    = "/v1/groups/{group}"
		messages = "/v1/conversations/{conv}/messages"
	)
	return []route{
		{method: post, path: "/v1/messages", handle: s.postMessages, body: true},
		{method: post, path: "/v1/broadcast", handle: s.postBroadcast, body: true},
		{method: post, path: "/v1/presence", handle: s.postPresence, body: true},
		{method: get, path: "/v1/users", handle: s.getUsers},
		{method: get, path: user, handle: s.getUser},
		{method: post, path: user + "/kick", handle: s.postKick, body: true},
		{method: post, path: user + "/revoke", handle: s.postRevoke, body: true},
		{method: get, path: user + "/inbox", handle: s.getInbox},
		{method: get, path: user + "/conversations", handle: s.getConversations},
		{method: put, path: group, handle: s.putGroup, body: true},
		{method: get, path: group, handle: s.getGroup},
		{method: del, path: group, handle: s.deleteGroup},
		{method: get, path: group + "/members", handle: s.getMembers},
		{method: post, path: group + "/members", handle: s.postMembers, body: true},
		{method: get, path: messages, handle: s.getMessages},
		{method: del, path: messages + "/{seq}", handle: s.deleteMessage},
		{method: post, path: "/v1/backup", handle: s.postBackup, body: true, unbounded: true},
		{method: get, path: "/v1/stats", handle: s.getStats},
		{method: get, path: "/v1/nodes", handle: s.getNodes},
		{method: get, path: "/openapi.yaml", handle: s.getDocument},
	}
}

// serve is the handler of one route.
func (s *server) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				s.o.Logf("panic in %s %s: %v\n%s", rt.method, rt.path, p, debug.Stack())
				writeError(w, errInternal)
			}
		}()
		answer, err := s.call(w, r, rt)
		if err != nil {
			s.logInternal(rt.method+" "+rt.path, err)
			writeError(w, err)
			return
		}
		kind := "application/json"
		if rt.path == documentPath {
			kind = "application/yaml"
		}
		write(w, http.StatusOK, kind, answer)
	})
}

// call reads the request and does what it asks.
func (s *server) call(w http.ResponseWriter, r *http.Request, rt route) ([]byte, error) {
	in, err := readInput(w, r, rt.body)
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	if !rt.unbounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	return rt.handle(ctx, in)
}

// isClean reports whether http.ServeMux takes a path as it stands.
func isClean(p string) bool {
	return strings.HasPrefix(p, "/") && strings.TrimSuffix(p, "/") == strings.TrimSuffix(path.Clean(p), "/")
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	writeError(w, refuse(codec.CodeNotFound, "no such path"))
}

// notAllowed refuses every method of a path that is not in methods.
func notAllowed(methods []string) http.Handler {
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	allow := strings.Join(methods, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", allow)
		writeProblem(w, http.StatusMethodNotAllowed, codec.CodeUnknownCommand, "this path takes "+allow)
	})
}
