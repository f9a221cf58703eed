package main

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/internal/services"
	"github.com/meshtalk/meshtalk/mq/mqtest"
	"github.com/meshtalk/meshtalk/mq/rocketmq"
	"github.com/meshtalk/meshtalk/server"
)

// examination is what doctor finds of services.
type examination struct {
	t    *testing.T
	list []finding
}

func examine(t *testing.T, o server.Options) *examination {
	t.Helper()
	e := &examination{t, serviceFindings(context.Background(), o)}
	wrong(t, e.list...)
	for _, f := range e.list {
		if strings.Contains(f.Value+f.Problem+f.Mend, "hidden-secret") {
			t.Errorf("a secret is shown: %+v", f)
		}
	}
	return e
}

// want compares the one finding of this name: its state, and texts that stand in its line.
func (e *examination) want(check, state string, texts ...string) {
	e.t.Helper()
	i := slices.IndexFunc(e.list, func(f finding) bool { return f.Check == check })
	if i < 0 {
		e.t.Errorf("no finding %q in %+v", check, e.list)
		return
	}
	f := e.list[i]
	got := map[bool]string{true: "ok", false: "fail"}[f.OK]
	if f.Warn {
		got = "warn"
	}
	if got != state {
		e.t.Errorf("%s is %s, want %s: %+v", check, got, state, f)
	}
	for _, text := range texts {
		if !strings.Contains(fmt.Sprintf("%s: %s; %s; %s", f.Value, f.Problem, f.Limits, f.Mend), text) {
			e.t.Errorf("%s: no %q in %+v", check, text, f)
		}
	}
}

// onPostgres runs a statement.
func onPostgres(t *testing.T, url, statement string) {
	t.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	if _, err := c.Exec(ctx, statement); err != nil {
		t.Fatal(err)
	}
}

// makeTopics makes the topics of a cluster, as its first node would: the log with 4 queues.
func makeTopics(t *testing.T, o server.Options) {
	t.Helper()
	ctx := context.Background()
	c, err := rocketmq.Connect(ctx, rocketmq.Options{NameServers: []string{o.RocketMQ.NameServer}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.OpenPushes(ctx, rocketmq.PushOptions{Topic: o.RocketMQ.PushTopic, Group: "g"}); err != nil {
		t.Fatal(err)
	}
	events, err := c.OpenEvents(ctx, o.RocketMQ.EventTopic)
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Close(); err != nil {
		t.Error(err)
	}
	node := mqtest.NewStore().Node()
	if _, err := c.OpenLog(ctx, rocketmq.LogOptions{Topic: o.RocketMQ.LogTopic, Queues: 4, Backlog: 1, Partitions: node}); err != nil {
		t.Fatal(err)
	}
}

// What doctor says of real services: as they should be, and with each setting that costs something.
func TestDoctorOfServices(t *testing.T) {
	t.Parallel()
	set := services.Start(t, services.Redis, services.Postgres, services.RocketMQ)
	o := server.DefaultOptions()
	o.Cluster.Enable = true
	o.Postgres.URL = set.Postgres.URL
	o.Redis.Address = []string{set.Redis.Addr}
	o.RocketMQ.NameServer = set.NameServer.Addr
	o.RocketMQ.LogQueues = 4

	e := examine(t, o)
	e.want("store.postgres.url", "ok", "PostgreSQL", set.Postgres.Addr, "database meshtalk", "answers in")
	e.want("postgres durability", "ok", "fsync on, full_page_writes on, synchronous_commit on")
	e.want("postgres connections", "ok", " of 297 in use", "up to 24")
	e.want("redis.address", "ok", set.Redis.Addr, "Redis ", "standalone")
	e.want("redis memory", "ok", "maxmemory is not set, maxmemory-policy noeviction")
	e.want("rocketmq.name-server", "ok", "brokers: 1")
	e.want("rocketmq broker", "ok", set.Broker.Addr, "V5_", "SYNC_FLUSH, ASYNC_MASTER")
	for _, key := range []string{"log", "event", "push"} {
		e.want("rocketmq."+key+".topic", "ok", "not there yet")
	}
	if i := slices.IndexFunc(e.list, func(f finding) bool { return f.Check == "redis latency" }); i < 0 || !strings.Contains(e.list[i].Value, "of 200 pings") {
		t.Errorf("no latency of Redis in %+v", e.list)
	}

	makeTopics(t, o)
	e = examine(t, o)
	e.want("rocketmq.log.topic", "ok", "meshtalk_log, queues: 4")
	e.want("rocketmq.event.topic", "ok", "meshtalk_event, queues: 16")
	e.want("rocketmq.push.topic", "ok", "meshtalk_push, queues: 16")

	o.RocketMQ.LogQueues, o.Cluster.Enable = 8, false
	onPostgres(t, o.Postgres.URL, "alter database meshtalk set synchronous_commit = off")
	for _, command := range []string{"CONFIG SET maxmemory 64mb", "CONFIG SET maxmemory-policy allkeys-lru"} {
		if answer, err := services.AskRedis(set.Redis.Addr, command); answer != "+OK" {
			t.Fatal(command, answer, err)
		}
	}
	reconfigure(t, set, "flushDiskType=ASYNC_FLUSH\n")
	e = examine(t, o)
	e.want("postgres durability", "fail", "synchronous_commit is off", "alter system set synchronous_commit = on")
	e.want("redis memory", "warn", "maxmemory 64 MiB, maxmemory-policy allkeys-lru", "config set maxmemory-policy noeviction")
	e.want("redis.address", "warn", "cluster.enable is false")
	e.want("rocketmq broker", "fail", "ASYNC_FLUSH", "acknowledged messages are lost", "flushDiskType=SYNC_FLUSH")
	e.want("rocketmq.log.topic", "warn", "queues: 4", "rocketmq.log.queues is 8", "--rocketmq.log.queues=4")
	embedded := o
	embedded.Postgres.URL = ""
	examine(t, embedded).want("rocketmq broker", "warn", "ASYNC_FLUSH", "events: some may be lost")

	for _, s := range []*services.Service{set.Broker, set.Redis, set.Postgres} {
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	e = examine(t, o)
	host, port, _ := strings.Cut(set.Postgres.Addr, ":")
	e.want("store.postgres.url", "fail", "cannot be used", "connection refused", "nc -vz "+host+" "+port)
	e.want("redis.address", "fail", "connection refused", "the server does not start")
	if !slices.ContainsFunc(e.list, func(f finding) bool { // the name server may know it for a while
		return !f.OK && !f.Warn && (f.Check == "rocketmq broker" || strings.Contains(f.Problem, "it knows no broker"))
	}) {
		t.Errorf("a broker that is down is not told of: %+v", e.list)
	}
	if err := set.NameServer.Kill(); err != nil {
		t.Fatal(err)
	}
	examine(t, o).want("rocketmq.name-server", "fail", "cannot be used", "nc -vz ", "the server does not start")
}

// reconfigure starts the broker with other settings.
func reconfigure(t *testing.T, set *services.Set, settings string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(set.Dir, string(services.Broker), "extra.conf"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := set.Broker.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := set.Broker.Start(); err != nil {
		t.Fatal(err)
	}
}

// A wrong password is told without telling it, nor the right one.
func TestDoctorOfSecrets(t *testing.T) {
	t.Parallel()
	set := services.Start(t, services.Postgres)
	o := server.DefaultOptions()
	u, err := url.Parse(set.Postgres.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("meshtalk", "hidden-secret")
	o.Postgres.URL = u.String()
	examine(t, o).want("store.postgres.url", "fail", "password authentication failed", "another store.postgres.url")
	closed := services.StartRedis(t, "--requirepass", "hidden-secret")
	o = server.DefaultOptions()
	o.Cluster.Enable = true
	o.Redis.Host, o.Redis.Port = "127.0.0.1", closed.Port
	examine(t, o).want("redis.host", "fail", "the server wants a password")
	o.Redis.Password = "hidden-secret"
	examine(t, o).want("redis.host", "ok", "standalone")
}

func TestDoctorOfSentinelsAndClusters(t *testing.T) {
	t.Parallel()
	o := server.DefaultOptions()
	o.Cluster.Enable = true
	master := services.StartRedis(t)
	sentinel := services.StartSentinel(t, map[string]*services.RedisServer{"mesh": master, "other": services.StartRedis(t)})
	o.Redis.Address = []string{sentinel.Addr}
	examine(t, o).want("redis.address", "fail", "watches 2 masters")
	o.Redis.SentinelMaster = "mesh"
	e := examine(t, o)
	e.want("redis.address", "ok", "sentinel")
	e.want("redis sentinel", "warn", "mesh is at "+master.Addr, "no replica")

	servers := services.StartRedisCluster(t)
	o = server.DefaultOptions()
	o.Cluster.Enable = true
	o.Redis.Address = []string{servers[0].Addr, servers[1].Addr}
	e = examine(t, o)
	e.want("redis.address", "ok", "cluster")
	e.want("redis cluster", "ok", "3 servers")
	servers[2].Do("CLUSTER DELSLOTS 16383")
	examine(t, o).want("redis cluster", "fail", "16383 of 16384 slots")
	gone := services.StartRedis(t)
	gone.Kill()
	o.Redis.Address = append(o.Redis.Address, gone.Addr)
	list := examine(t, o).list
	if i := slices.IndexFunc(list, func(f finding) bool { return strings.HasPrefix(f.Value, gone.Addr) }); i < 0 || list[i].OK || !list[i].Warn {
		t.Errorf("one of several addresses that is off: %+v", list)
	}
}

// Every finding is one line with its state, and warnings alone are no failure.
func TestDoctorPrints(t *testing.T) {
	d := diagnosis{Connections: 7, Findings: []finding{
		{Check: "a", OK: true, Value: "fine"},
		{Check: "b", Warn: true, Value: "so so", Problem: "late", Limits: "speed", Mend: "hurry"},
	}}
	d.judge()
	var out bytes.Buffer
	d.print(&out)
	want := "For 7 connections:\n" +
		"ok     a                    fine\n" +
		"warn   b                    so so: late; it limits: speed; mend it: hurry\n" +
		"0 failed, 1 warnings, of 2.\n"
	if out.String() != want || !d.OK {
		t.Errorf("%v\n%s", d.OK, out.String())
	}
	d.Findings = append(d.Findings, finding{Check: "c", Value: "bad", Problem: "two\nlines", Limits: "all", Mend: "it"})
	d.judge()
	out.Reset()
	d.print(&out)
	if d.OK || !strings.HasSuffix(out.String(), "fail   c                    bad: two lines; it limits: all; mend it: it\n1 failed, 1 warnings, of 3.\n") {
		t.Errorf("%v\n%s", d.OK, out.String())
	}
}
