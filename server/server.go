package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/cluster/redis"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/console"
	"github.com/meshtalk/meshtalk/demo"
	"github.com/meshtalk/meshtalk/engine"
	"github.com/meshtalk/meshtalk/hub"
	"github.com/meshtalk/meshtalk/mq/rocketmq"
	"github.com/meshtalk/meshtalk/session"
	"github.com/meshtalk/meshtalk/store"
)

// Version is what /v1/stats, the status page and `meshtalk version` show; the build sets it.
var Version = "dev"

// Server is one node. New checks the options, Start opens the store and the listeners, Run is both until its context
// ends, and the graceful stop.
type Server struct {
	o       Options
	log     *slog.Logger
	started time.Time
	current atomic.Pointer[Options] // o, or what Reload has taken since

	jwt      *auth.JWT          // nil with Hooks.Authenticator
	stopKeys context.CancelFunc // ends the refresh of a JWKS

	// The services that the options name; nil = none.
	redis  *redis.Cluster
	mq     *rocketmq.Client
	events *rocketmq.Events
	pushes *rocketmq.Pushes

	store      store.Store
	partitions *partitions
	fit        fitness
	wired      atomic.Bool // hub, sessions and engine are there

	hub      *hub.Hub
	cluster  cluster.Cluster
	sessions *session.Manager
	engine   *engine.Engine
	admin    *http.Server
	console  *console.Console

	settings   atomic.Pointer[[]Setting]
	baseMemory int64 // bytes, at the end of the start

	addresses []Address
	draining  atomic.Bool
	stopHub   context.CancelFunc
	hubDone   chan error
	failed    chan error // room for the one that is ever sent
	background
}

// Address is one listener, with the URL that clients use.
type Address struct {
	Name string // websocket, tcp or admin, and demo for the page on the WebSocket port
	URL  string
}

// New checks o. Nothing is opened yet.
func New(o Options) (*Server, error) {
	s := &Server{o: o, log: o.Logger, failed: make(chan error, 1)}
	s.current.Store(&s.o)
	if s.log == nil {
		s.log = slog.Default()
	}
	if o.Settings != nil {
		s.settings.Store(&o.Settings)
	}
	if o.DataDir == "" {
		return nil, errors.New("data-dir: is empty (expected a directory)")
	}
	if !o.WebSocket.Enable && !o.TCP.Enable {
		return nil, errors.New("websocket.enable, tcpsocket.enable: both are false (expected at least one listener)")
	}
	return s, nil
}

// Run starts the server, and stops it gracefully when ctx ends or the server has failed. It returns when everything has ended: nil after
// a clean stop.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	if s.o.Ready != nil {
		s.o.Ready(s.addresses)
	}
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-s.failed:
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.ShutdownTimeout)
	defer cancel()
	return errors.Join(failure, s.Stop(stop))
}

// Failed gives, once, the reason for which a running server cannot go on and Stop is to be called: another process has taken its
// cluster.node-id. The text is one line that names the key.
func (s *Server) Failed() <-chan error { return s.failed }

// Start opens the store and the listeners. On an error nothing stays open; its text is one line that names the key.
// The end of ctx ends nothing: Stop does.
func (s *Server) Start(ctx context.Context) (err error) {
	s.started = time.Now()
	if err = s.checkDemo(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.abort()
		}
	}()
	if err = s.openStore(ctx); err != nil {
		return err
	}
	authenticator, err := s.openAuth(ctx)
	if err != nil {
		return err
	}
	if err = s.wire(ctx, authenticator); err != nil {
		return err
	}
	s.run()
	s.baseMemory = goMemory() - s.store.Stats().HeapBytes
	if err = s.listen(); err != nil {
		return err
	}
	s.announce()
	return nil
}

// listen opens the listeners, the admin port first: it tells that the others come.
func (s *Server) listen() error {
	if s.o.Admin.Enable {
		if err := s.listenAdmin(); err != nil {
			return err
		}
	}
	for _, l := range []struct {
		o         ListenOptions
		transport codec.Transport
		key, url  string
	}{
		{s.o.WebSocket.ListenOptions, codec.WebSocket, "websocket", "ws://%s" + s.o.WebSocket.Path},
		{s.o.TCP, codec.TCP, "tcpsocket", "tcp://%s"},
	} {
		if !l.o.Enable {
			continue
		}
		a, err := s.engine.Listen(l.transport, net.JoinHostPort(l.o.Host, strconv.Itoa(l.o.Port)))
		if err != nil {
			return listenError(l.key+".port", err)
		}
		s.addresses = append(s.addresses, Address{l.transport.String(), fmt.Sprintf(l.url, clientAddress(a.String()))})
		if l.transport == codec.WebSocket && s.o.Demo.Enable {
			s.addresses = append(s.addresses, Address{"demo", "http://" + clientAddress(a.String()) + demo.Path})
		}
	}
	return nil
}

// listenError says what to do about a port that cannot be had.
func listenError(key string, err error) error {
	return fmt.Errorf("%s: %w (choose another port, or stop the program that has it)", key, err)
}

// clientAddress is the address as a client on this machine dials it: the loopback one for all addresses.
func clientAddress(a string) string {
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return a
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Addresses are the listeners, after Start.
func (s *Server) Addresses() []Address { return s.addresses }

// Hub gives programs that embed the server its sends, groups and presence.
func (s *Server) Hub() *hub.Hub { return s.hub }

// Reload takes what may change while running from o: the log level, the limits of messages and the keys. Settings, if there
// are any, are what the console shows from then on.
func (s *Server) Reload(o Options) error {
	s.sessions.Apply(session.Settings{
		MessagesPerSecond: o.Limits.MessagesPerSecond, MessagesBurst: o.Limits.MessagesBurst,
	})
	if o.Settings != nil {
		s.settings.Store(&o.Settings)
	}
	if s.o.LogLevel != nil && o.LogLevel != nil {
		s.o.LogLevel.Set(o.LogLevel.Level())
	}
	if s.jwt == nil {
		return nil
	}
	jo, err := s.jwtOptions(o)
	if err != nil {
		return err
	}
	if err := s.jwt.Reload(jo); err != nil {
		return err
	}
	s.current.Store(&o)
	return nil
}

// openAuth is the hook's authenticator, or the JWT check of the options.
func (s *Server) openAuth(ctx context.Context) (auth.Authenticator, error) {
	if a := s.o.Hooks.Authenticator; a != nil {
		return a, nil
	}
	jo, err := s.jwtOptions(s.o)
	if err != nil {
		return nil, err
	}
	ctx, s.stopKeys = context.WithCancel(context.WithoutCancel(ctx))
	if s.jwt, err = auth.NewJWT(ctx, jo); err != nil {
		return nil, fmt.Errorf("auth.jwt: %w", err)
	}
	return s.jwt, nil
}

// jwtOptions finds the keys. With none configured the data directory's is used, and made at the first start.
func (s *Server) jwtOptions(o Options) (auth.JWTOptions, error) {
	j := auth.JWTOptions{
		Secret: []byte(o.JWT.Secret), PublicKeyFiles: o.JWT.PublicKeyFiles, JWKSURL: o.JWT.JWKSURL,
		Algorithms: o.JWT.Algorithms, Issuer: o.JWT.Issuer, Audience: o.JWT.Audience,
		Leeway: o.JWT.Leeway, SeedClaims: o.JWT.SeedClaims, Logf: s.logf("auth"),
	}
	var err error
	switch {
	case o.JWT.Secret != "":
		j.Secret = trim(j.Secret)
	case o.JWT.SecretFile != "":
		if j.Secret, err = readKey(o.JWT.SecretFile); err != nil {
			return j, fmt.Errorf("auth.jwt.secret-file: %w", err)
		}
	case len(o.JWT.PublicKeyFiles) == 0 && o.JWT.JWKSURL == "":
		path := filepath.Join(o.DataDir, "jwt.key")
		var created bool
		if j.Secret, created, err = auth.LoadOrCreateKey(path); err != nil {
			return j, fmt.Errorf("data-dir: %w", err)
		}
		if created {
			s.later(func() { s.log.Info("made a key for tokens", "file", path) })
		}
	default:
		return j, nil
	}
	if err = auth.CheckSecret(j.Secret); err != nil {
		return j, fmt.Errorf("auth.jwt.secret: %w", err)
	}
	return j, nil
}

func (s *Server) logf(part string) func(string, ...any) {
	return func(format string, args ...any) { s.log.Warn(fmt.Sprintf(format, args...), "part", part) }
}
