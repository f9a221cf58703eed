package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/demo"
	"github.com/meshtalk/meshtalk/hub"
)

// checkDemo says what is missing for the demo.
func (s *Server) checkDemo() error {
	switch {
	case !s.o.Demo.Enable:
		return nil
	case !s.o.WebSocket.Enable:
		return errors.New("demo.enable: the demo is on the WebSocket port (set websocket.enable too)")
	case s.o.WebSocket.Path == demo.Path:
		return fmt.Errorf("websocket.path: %s is the demo's (choose another one, or leave demo.enable out)", demo.Path)
	case s.o.Hooks.Authenticator != nil || !mints(s.o):
		return errors.New("demo.enable: the demo makes tokens, and these need a key of HS256 (leave auth.jwt.public-key-files and auth.jwt.jwks-url out)")
	}
	return nil
}

// mints reports whether there is a secret that signs tokens.
func mints(o Options) bool { return ownKey(o) || o.JWT.Secret != "" || o.JWT.SecretFile != "" }

// serveDemo is the demo's part of the WebSocket listener: its requests are answered in the pool.
func (s *Server) serveDemo() func(codec.Handshake, func([]byte)) {
	if !s.o.Demo.Enable {
		return nil
	}
	handler := demo.New(demo.Options{
		Mint: func(user, terminal string, ttl time.Duration) (string, error) {
			jo, err := s.jwtOptions(*s.current.Load())
			if err != nil {
				return "", err
			}
			return jo.Mint(user, terminal, ttl, time.Now())
		},
		TTL: s.o.Demo.TokenTTL, Groups: demoGroups{s}, Socket: s.o.WebSocket.Path, Logf: s.logf("demo"),
	})
	s.later(func() {
		s.log.Warn("demo.enable is on: whoever reaches " + demo.Path + " on the WebSocket port gets a token for any user")
	})
	return func(h codec.Handshake, answer func([]byte)) {
		s.hub.Pool().Go(func() { answer(serveOne(handler, &h)) })
	}
}

// demoGroups are the server's groups as the demo needs them.
type demoGroups struct{ s *Server }

// Join implements demo.Groups.
func (g demoGroups) Join(ctx context.Context, group string, users []string) error {
	for _, name := range append([]string{group}, users...) {
		if !isName(name) {
			return fmt.Errorf("%q is no name (1 to %d bytes without control characters, ':' and '/')", name, codec.MaxName)
		}
	}
	_, err := g.s.hub.ChangeMembers(ctx, group, users, nil)
	var refusal *hub.Error
	if errors.As(err, &refusal) && refusal.Code == codec.CodeNotFound {
		_, err = g.s.hub.PutGroup(ctx, group, users)
	}
	return err
}

// isName reports whether a user or a group may be called so, docs/PROTOCOL.md §2.
func isName(s string) bool {
	return s != "" && len(s) <= codec.MaxName && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == ':' || r == '/' })
}

// Members implements demo.Groups.
func (g demoGroups) Members(ctx context.Context, group, user string) ([]string, error) {
	if err := g.s.hub.Member(ctx, group, user); err != nil {
		return nil, err
	}
	list, _, err := g.s.hub.Members(ctx, group, "", 200)
	slices.Sort(list)
	return list, err
}

// serveOne answers one request whose head the engine has read, and which has no body.
func serveOne(handler http.Handler, h *codec.Handshake) []byte {
	r := &http.Request{
		Method: h.Method, Host: h.Host, URL: &url.URL{Path: h.Path, RawQuery: h.Query}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: http.NoBody,
	}
	if h.Origin != "" {
		r.Header.Set("Origin", h.Origin)
	}
	w := &wholeAnswer{status: http.StatusOK, header: http.Header{}}
	handler.ServeHTTP(w, r)
	answer := http.Response{
		StatusCode: w.status, ProtoMajor: 1, ProtoMinor: 1, Header: w.header, Close: true, Request: r,
		ContentLength: int64(w.body.Len()), Body: io.NopCloser(&w.body),
	}
	var b bytes.Buffer
	_ = answer.Write(&b) // memory takes it all
	return b.Bytes()
}

// wholeAnswer is a ResponseWriter that keeps everything.
type wholeAnswer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (w *wholeAnswer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *wholeAnswer) WriteHeader(status int) { w.status = status }

// Write implements http.ResponseWriter.
func (w *wholeAnswer) Write(b []byte) (int, error) { return w.body.Write(b) }
