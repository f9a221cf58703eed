package server

import (
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/meshtalk/meshtalk/api"
	"github.com/meshtalk/meshtalk/console"
	"github.com/meshtalk/meshtalk/session"
)

// listenAdmin serves the HTTP API and the console.
func (s *Server) listenAdmin() error {
	token, err := s.adminToken()
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(s.o.Admin.Host, strconv.Itoa(s.o.Admin.Port)))
	if err != nil {
		return listenError("admin.port", err)
	}
	logins := console.NewLogins(token)
	s.console = console.New(console.Options{
		Version: Version, Node: s.hub.NodeID(), Started: s.started,
		Sources: []console.Source{metricSource{s}}, Parts: s.parts(), Draining: s.draining.Load,
		Settings: s.shownSettings, Observe: s.observe,
		Guard:  func(h http.Handler) http.Handler { return api.Guard(token, logins.SignedIn, h) },
		Logins: logins,
		Logf:   s.logf("console"),
	})
	handler := api.New(s.hub, api.Options{
		Token: token, SignedIn: logins.SignedIn, MaxContent: s.o.Performance.MaxFrameSize, MaxMembers: s.o.Group.MaxMembers,
		DataDir: s.o.DataDir, Version: Version, Node: s.hub.NodeID(), Started: s.started,
		Extra: s.extraStats, Next: s.console, Logf: s.logf("api"),
	})
	s.admin = api.NewServer(handler, log.New(logWriter(s.logf("http")), "", 0))
	s.addresses = append(s.addresses, Address{"admin", "http://" + clientAddress(ln.Addr().String())})
	s.wg.Go(func() {
		if err := s.admin.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("the admin port has ended", "error", err)
		}
	})
	return nil
}

// shownSettings are the settings as the console has them.
func (s *Server) shownSettings() []console.Setting {
	var list []console.Setting
	if p := s.settings.Load(); p != nil {
		for _, x := range *p {
			list = append(list, console.Setting(x))
		}
	}
	return list
}

// observe makes f hear of closes and errors; nil = nobody hears.
func (s *Server) observe(f func(console.Event)) {
	if f == nil {
		s.sessions.Observe(nil)
		return
	}
	s.sessions.Observe(func(e session.Event) { f(console.Event(e)) })
}

// logWriter makes a Writer of a logf, one line a call.
type logWriter func(format string, args ...any)

func (w logWriter) Write(p []byte) (int, error) {
	w("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// adminToken is the token that the admin port wants. Beyond loopback there must be one.
func (s *Server) adminToken() (string, error) {
	token := s.o.Admin.Token
	if f := s.o.Admin.TokenFile; token == "" && f != "" {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", fmt.Errorf("admin.token-file: %w", err)
		}
		if token = strings.TrimSpace(string(b)); token == "" {
			return "", fmt.Errorf("admin.token-file: %s is empty (expected a token)", f)
		}
	}
	if token == "" && !isLoopback(s.o.Admin.Host) {
		return "", fmt.Errorf("admin.host: %q is beyond loopback and there is no token (set admin.token or admin.token-file, or use 127.0.0.1)", s.o.Admin.Host)
	}
	return token, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// parts are what /readyz lists.
func (s *Server) parts() []console.Part {
	parts := []console.Part{{Name: "store", Check: func() (bool, string) {
		if err := s.store.State(); err != nil {
			return false, "read-only: " + err.Error()
		}
		if s.o.Postgres.URL != "" {
			return true, "PostgreSQL, keeps messages"
		}
		return true, "embedded, keeps messages"
	}}, {Name: "cluster", Check: func() (bool, string) {
		if s.redis == nil {
			return true, "single node"
		}
		if err := s.hub.ClusterState(); err != nil { // this node's users are served all the same
			return true, "other nodes are not reached: " + err.Error()
		}
		return true, "Redis, other nodes are reached"
	}}}
	if s.o.logged() {
		parts = append(parts, console.Part{Name: "log", Check: func() (bool, string) {
			if err := s.hub.LogState(); err != nil {
				return false, err.Error()
			}
			return true, "RocketMQ, takes and brings messages"
		}})
	}
	if s.events != nil {
		parts = append(parts, console.Part{Name: "events", Check: func() (bool, string) {
			if err := s.hub.EventsState(); err != nil { // they are kept
				return true, "events wait: " + err.Error()
			}
			return true, "RocketMQ, takes events"
		}})
	}
	for _, l := range []struct {
		name string
		on   bool
	}{{"websocket", s.o.WebSocket.Enable}, {"tcp", s.o.TCP.Enable}} {
		if l.on {
			parts = append(parts, console.Part{Name: l.name, Check: func() (bool, string) {
				if s.draining.Load() {
					return false, "closed"
				}
				return true, "accepts"
			}})
		}
	}
	return parts
}

// extraStats are the parts of GET /v1/stats that are not the hub's.
func (s *Server) extraStats() map[string]any {
	e, m := s.engine.Stats(), s.sessions.Stats()
	services := map[string]any{}
	for _, x := range s.services() {
		state := map[string]any{"up": x.err == nil}
		if x.err != nil {
			state["error"] = x.err.Error()
		}
		services[x.name] = state
	}
	return map[string]any{
		"services":    services,
		"connections": map[string]int64{"tcp": e.Connections[0], "websocket": e.Connections[1]},
		"sessions":    m.Sessions, "laggingSessions": m.Lagging, "pushDeliveries": m.Pushed,
		"logins": m.Logins, "errors": m.Errors, "accepts": e.Accepts,
		"outboundBytes": e.OutboundBytes, "loopQueue": e.LoopQueue, "loopLagSeconds": e.LoopLag,
	}
}
