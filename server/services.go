package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/meshtalk/meshtalk/api"
	"github.com/meshtalk/meshtalk/cluster"
	clusterlocal "github.com/meshtalk/meshtalk/cluster/local"
	"github.com/meshtalk/meshtalk/cluster/redis"
	"github.com/meshtalk/meshtalk/mq"
	mqlocal "github.com/meshtalk/meshtalk/mq/local"
	"github.com/meshtalk/meshtalk/mq/rocketmq"
	"github.com/meshtalk/meshtalk/session"
)

// The services outside of this process, each opened by what the options name.

// redis are the addresses of the Redis that o names, none without one, and the key that names them.
func (o *Options) redis() (key string, addresses []string) {
	switch {
	case len(o.Redis.Address) > 0:
		return "redis.address", o.Redis.Address
	case o.Redis.Host != "":
		return "redis.host", []string{net.JoinHostPort(o.Redis.Host, strconv.Itoa(o.Redis.Port))}
	}
	return "", nil
}

// openCluster is the other nodes: those that Redis knows of, or none.
func (s *Server) openCluster(ctx context.Context) (cluster.Cluster, error) {
	id := s.o.Cluster.NodeID
	if id == "" {
		var err error
		if id, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("cluster.node-id: %w (set it)", err)
		}
	}
	if !s.o.Cluster.Enable {
		if _, addresses := s.o.redis(); len(addresses) > 0 {
			s.later(func() { s.log.Warn("redis is configured and not used: cluster.enable is false") })
		}
		self := cluster.Node{ID: id, Incarnation: incarnation(), Since: time.Now().UnixMilli()}
		return clusterlocal.New(self, s.load), nil
	}
	key, addresses := s.o.redis()
	c, err := redis.New(ctx, redis.Options{
		Addresses: addresses, Password: s.o.Redis.Password, DB: s.o.Redis.DB, Master: s.o.Redis.SentinelMaster,
		Node: cluster.Node{ID: id, Address: s.o.Cluster.Advertise}, Load: s.load, Logf: s.logf("cluster"),
	})
	switch {
	case errors.Is(err, redis.ErrTaken):
		return nil, fmt.Errorf("cluster.node-id: %w (set another one)", err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	s.redis = c
	return c, nil
}

// logged reports whether messages go through RocketMQ before they are committed: with a store that several nodes share. The embedded
// store is its own log.
func (o *Options) logged() bool { return o.RocketMQ.NameServer != "" && o.Postgres.URL != "" }

// partitionCount is how many partitions messages are committed in.
func (s *Server) partitionCount() int {
	if s.o.logged() {
		return s.o.RocketMQ.LogQueues
	}
	return 1
}

// partitionOf is the partition of a conversation, nil for always the only one.
func (s *Server) partitionOf() func(conv string) int {
	if !s.o.logged() {
		return nil
	}
	n := s.partitionCount()
	return func(conv string) int { return rocketmq.Partition(conv, n) }
}

// openLog is the hand-over to the committer, and with RocketMQ the way of events and pushes.
func (s *Server) openLog(ctx context.Context) (mq.Log, error) {
	o := s.o.RocketMQ
	if o.NameServer == "" {
		return mqlocal.New(maxWaiting), nil
	}
	var err error
	s.mq, err = rocketmq.Connect(ctx, rocketmq.Options{
		NameServers: strings.Split(o.NameServer, ";"), AccessKey: o.AccessKey, SecretKey: o.SecretKey,
		Group: o.ProducerGroup, Logger: s.log.With("part", "rocketmq"),
	})
	if err != nil {
		return nil, fmt.Errorf("rocketmq.name-server: %w", err)
	}
	if s.events, err = s.mq.OpenEvents(ctx, o.EventTopic); err != nil {
		return nil, fmt.Errorf("rocketmq.event.topic: %w", err)
	}
	push := rocketmq.PushOptions{Topic: o.PushTopic, Group: o.ProducerGroup + "-push"}
	if s.o.Cluster.Enable {
		push.Partitions, push.Of = s.partitions, s.partitionCount()
	}
	if s.pushes, err = s.mq.OpenPushes(ctx, push); err != nil {
		return nil, fmt.Errorf("rocketmq.push.topic: %w", err)
	}
	if !s.o.logged() {
		return mqlocal.New(maxWaiting), nil
	}
	log, err := s.mq.OpenLog(ctx, rocketmq.LogOptions{
		Topic: o.LogTopic, Queues: o.LogQueues, Backlog: maxWaiting, Partitions: s.partitions,
	})
	if err != nil {
		return nil, fmt.Errorf("rocketmq.log.topic: %w", err)
	}
	return log, nil
}

// errNotNow: nothing was promised; the same body is to come again.
var errNotNow = errors.New("messages cannot be kept now")

// runPushes sends what business services write to the push topic, until ctx ends.
func (s *Server) runPushes(ctx context.Context) {
	o := api.Options{MaxContent: s.o.Performance.MaxFrameSize, Node: s.hub.NodeID(), Logf: s.logf("push")}
	err := s.pushes.Run(ctx, func(ctx context.Context, body []byte) error {
		result, again := api.Push(ctx, s.hub, o, body)
		if again {
			return errNotNow
		}
		return s.events.Publish(ctx, "push", [][]byte{result})
	})
	if err != nil && ctx.Err() == nil {
		s.log.Error("pushes have ended", "error", err)
	}
}

// sessionEvents adds the events session.online and session.offline to the hooks. They are told once, and lost with the broker.
func (s *Server) sessionEvents(h Hooks) Hooks {
	tell := func(event string, i session.Info, reason string) {
		b, err := json.Marshal(struct {
			Event     string `json:"event"`
			TS        int64  `json:"ts"`
			Node      string `json:"node"`
			User      string `json:"user"`
			Terminal  string `json:"terminal"`
			SessionID string `json:"sessionId"`
			Transport string `json:"transport"`
			IP        string `json:"ip"`
			Reason    string `json:"reason,omitempty"`
		}{event, time.Now().UnixMilli(), s.hub.NodeID(), i.User, i.Terminal, i.SessionID, i.Transport, i.IP, reason})
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), sessionEventTimeout)
		defer cancel()
		if err := s.events.Publish(ctx, "user-"+i.User, [][]byte{b}); err != nil {
			s.log.Warn("an event of a session is lost", "event", event, "error", err)
		}
	}
	online, offline := h.SessionOnline, h.SessionOffline
	h.SessionOnline = func(i session.Info) {
		if online != nil {
			online(i)
		}
		tell("session.online", i, "")
	}
	h.SessionOffline = func(i session.Info, reason string) {
		if offline != nil {
			offline(i, reason)
		}
		tell("session.offline", i, reason)
	}
	return h
}

// sessionEventTimeout is how long a worker of the pool may be held by an event that may be lost.
const sessionEventTimeout = 2 * time.Second
