package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/demo"
	"github.com/meshtalk/meshtalk/engine"
	"github.com/meshtalk/meshtalk/hub"
	"github.com/meshtalk/meshtalk/session"
	"github.com/meshtalk/meshtalk/store/pebble"
	"github.com/meshtalk/meshtalk/store/postgres"
)

// maxWaiting is how many accepted messages may wait for the committer: some seconds of its work, about 100 MB at most.
const maxWaiting = 1 << 18

// openStore opens the store of the options.
func (s *Server) openStore(ctx context.Context) (err error) {
	if err = os.MkdirAll(s.o.DataDir, 0o700); err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	retention := time.Duration(s.o.Message.RetentionDays) * 24 * time.Hour
	events := s.o.RocketMQ.NameServer != ""
	switch {
	case s.o.Postgres.URL != "":
		st, err := postgres.Open(ctx, postgres.Options{
			URL: s.o.Postgres.URL, Retention: retention, DedupeWindow: s.o.Message.DedupeWindow,
			InboxLimit: s.o.Group.InboxLimit, Outbox: events, PartitionOf: s.partitionOf(), Logf: s.logf("store"),
		})
		if err != nil {
			return fmt.Errorf("store.postgres.url: %w", err)
		}
		s.store = st // only now: an interface that holds no store is not nil
	default:
		s.store, err = pebble.Open(pebble.Options{
			Dir: s.o.DataDir, Retention: retention, DedupeWindow: s.o.Message.DedupeWindow,
			InboxLimit: s.o.Group.InboxLimit, Outbox: events, Logf: s.logf("store"),
			AckBeforeSync: s.o.AckBeforeSync, CacheBytes: s.o.StoreCacheBytes,
		})
		if err != nil {
			return fmt.Errorf("data-dir: %w", err)
		}
	}
	return nil
}

// wire makes the parts and connects them: engine → session → hub → mq → store, and back through interfaces.
func (s *Server) wire(ctx context.Context, a auth.Authenticator) (err error) {
	c, err := s.openCluster(ctx)
	if err != nil {
		return err
	}
	s.cluster = c
	self, alone := c.Self(), c.Alone()
	s.partitions = newPartitions(self.ID, s.partitionCount(), alone, s.store)
	log, err := s.openLog(ctx)
	if err != nil {
		return err
	}
	hooks, reorder := s.o.Hooks, time.Duration(0)
	if s.events != nil {
		hooks = s.sessionEvents(hooks)
	}
	if !alone {
		reorder = reorderWait
	}
	overlap := 0
	if log.Durable() {
		overlap = s.partitionCount()
	}
	ho := hub.Options{
		Store: s.store, Log: log, Cluster: c, Overlap: overlap, Partitions: s.partitions, NodesChanged: s.partitions.nodesChanged,
		Expelled: func(err error) { s.failed <- fmt.Errorf("cluster.node-id: %w", err) },
		LoopOf:   session.LoopOf, MaxMembers: s.o.Group.MaxMembers,
		AfterCommit: s.o.Hooks.AfterCommit, Logf: s.logf("hub"),
	}
	if s.events != nil {
		ho.Events = s.events
	}
	s.hub = hub.New(ho)
	s.sessions = session.New(session.Options{
		Hub: s.hub, Auth: a, Hooks: hooks, Reorder: reorder,
		HeartbeatInterval: s.o.HeartbeatInterval, HeartbeatTimeout: s.o.HeartbeatTimeout,
		LoginTimeout: s.o.LoginTimeout, RecallWindow: s.o.Message.RecallWindow,
		HistoryEnable: s.o.Message.HistoryEnable,
		Settings: session.Settings{
			MessagesPerSecond: s.o.Limits.MessagesPerSecond, MessagesBurst: s.o.Limits.MessagesBurst,
		},
		Logf: s.logf("session"),
	})
	s.engine, err = engine.New(engine.Options{
		Handler: s.sessions, Loops: s.o.loops(), Acceptors: s.o.Performance.BossThreads,
		MaxFrame: s.o.Performance.MaxFrameSize,
		Upgrade:  s.upgradeRules(),
		Pages:    s.serveDemo(),

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
	s.wired.Store(true)
	return nil
}

// UsesServices tells whether the node works with RocketMQ, PostgreSQL or Redis, or all by itself.
func (o *Options) UsesServices() bool {
	return o.Cluster.Enable || o.RocketMQ.NameServer != "" || o.Postgres.URL != ""
}

// loops is the number of event loops. A loop that waits for its sockets keeps one of Go's processors for up to 10 ms, until the runtime
// takes it away; when loops keep all of them, nobody looks at the sockets of RocketMQ, PostgreSQL and Redis meanwhile. So with any of these
// one processor is left to the rest, if there are two (docs/adr/0014-loops-leave-a-core.md).
func (o *Options) loops() int {
	if n := o.Performance.WorkerThreads; n > 0 || !o.UsesServices() {
		return n
	}
	return max(1, engine.DefaultOptions().Loops-1)
}

// reorderWait is how long an entry waits for its predecessor from another node: about the 99th percentile of a wake-up's way.
const reorderWait = 5 * time.Millisecond

// load is what this node says of itself to the others and to GET /v1/nodes.
func (s *Server) load() cluster.Load {
	if !s.wired.Load() { // the first lease is taken before there is anything to say
		return cluster.Load{}
	}
	load := cluster.Load{Connections: s.engine.Connections(), Sessions: s.sessions.Stats().Sessions}
	if s.o.logged() {
		load.Queues, _ = s.partitions.Owned()
		load.Lag = s.hub.Stats().Lag
		load.Unfit = s.fit.look(s.hub.LogState(), s.store.State())
	}
	return load
}

// upgradeRules judge requests on the WebSocket listener. With the demo on it has pages, and these may connect.
func (s *Server) upgradeRules() codec.UpgradeRules {
	rules := codec.UpgradeRules{Path: s.o.WebSocket.Path, AllowedOrigins: s.o.WebSocket.AllowedOrigins}
	if s.o.Demo.Enable {
		rules.Pages, rules.OwnOrigin = demo.Path, true
	}
	return rules
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
