package server

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/cluster"
	clusterlocal "github.com/meshtalk/meshtalk/cluster/local"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/engine"
	"github.com/meshtalk/meshtalk/hub"
	mqlocal "github.com/meshtalk/meshtalk/mq/local"
	"github.com/meshtalk/meshtalk/session"
	"github.com/meshtalk/meshtalk/store/pebble"
)

// maxWaiting is how many accepted messages may wait for the committer: some seconds of its work, about 100 MB at most.
const maxWaiting = 1 << 18

// openStore opens the store of the options.
func (s *Server) openStore() (err error) {
	if err = os.MkdirAll(s.o.DataDir, 0o700); err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	s.store, err = pebble.Open(pebble.Options{
		Dir:           s.o.DataDir,
		Retention:     time.Duration(s.o.Message.RetentionDays) * 24 * time.Hour,
		DedupeWindow:  s.o.Message.DedupeWindow,
		InboxLimit:    s.o.Group.InboxLimit,
		Logf:          s.logf("store"),
		AckBeforeSync: s.o.AckBeforeSync,
		CacheBytes:    s.o.StoreCacheBytes,
	})
	if err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	return nil
}

// wire makes the parts and connects them: engine → session → hub → mq → store, and back through interfaces.
func (s *Server) wire(a auth.Authenticator) (err error) {
	self := cluster.Node{ID: s.o.Cluster.NodeID, Incarnation: incarnation(), Since: time.Now().UnixMilli()}
	if self.ID == "" {
		if self.ID, err = os.Hostname(); err != nil {
			return fmt.Errorf("cluster.node-id: %w (set it)", err)
		}
	}
	s.cluster = clusterlocal.New(self, s.load)
	s.hub = hub.New(hub.Options{
		Store: s.store, Log: mqlocal.New(maxWaiting), Cluster: s.cluster,
		LoopOf: session.LoopOf, MaxMembers: s.o.Group.MaxMembers,
		AfterCommit: s.o.Hooks.AfterCommit, Logf: s.logf("hub"),
	})
	s.sessions = session.New(session.Options{
		Hub: s.hub, Auth: a, Hooks: s.o.Hooks,
		HeartbeatInterval: s.o.HeartbeatInterval, HeartbeatTimeout: s.o.HeartbeatTimeout,
		LoginTimeout: s.o.LoginTimeout, RecallWindow: s.o.Message.RecallWindow,
		HistoryEnable: s.o.Message.HistoryEnable,
		Settings: session.Settings{
			MessagesPerSecond: s.o.Limits.MessagesPerSecond, MessagesBurst: s.o.Limits.MessagesBurst,
		},
		Logf: s.logf("session"),
	})
	s.engine, err = engine.New(engine.Options{
		Handler: s.sessions, Loops: s.o.Performance.WorkerThreads, Acceptors: s.o.Performance.BossThreads,
		MaxFrame: s.o.Performance.MaxFrameSize,
		Upgrade:  codec.UpgradeRules{Path: s.o.WebSocket.Path, AllowedOrigins: s.o.WebSocket.AllowedOrigins},

		HandshakeTimeout: s.o.LoginTimeout, MaxConnections: s.o.Limits.Connections,
		MaxPerIP: s.o.Limits.ConnectionsPerIP, HandshakesPerSecondPerIP: s.o.Limits.HandshakesPerSecondPerIP,
		OnTooSlow: s.sessions.TooSlow, OnClosed: s.sessions.ConnClosed, Logf: s.logf("engine"),
	})
	if err != nil {
		return err
	}
	if err = s.engine.Start(); err != nil {
		return fmt.Errorf("performance.worker-threads: %w", err)
	}
	s.hub.Connect(s.sessions.Connect(s.engine.Loops()))
	return nil
}

// load is what this node says of itself to the others and to GET /v1/nodes.
func (s *Server) load() cluster.Load {
	l := cluster.Load{Connections: s.engine.Connections(), Sessions: s.sessions.Stats().Sessions, Lag: s.hub.Stats().Lag}
	for q := range l.Lag {
		l.Queues = append(l.Queues, q)
	}
	slices.Sort(l.Queues)
	return l
}

// incarnation tells this start of the node from every other.
func incarnation() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func trim(b []byte) []byte { return bytes.TrimSpace(b) }

func readKey(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	return trim(b), err
}
