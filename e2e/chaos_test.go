package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/internal/services"
)

// What a cluster must stand, one fault at a time, under load: every acknowledged message is once in every recipient's inbox,
// in one order for all. Short here, long in `make chaos`.

// kill -9 of a random node, and its return.
func TestClusterNodesDie(t *testing.T) {
	f := launch(t, 3, nil)
	c := f.employ(patient(t), 8)
	for range often(2, 10) {
		c.acknowledged(200)
		i := rand.IntN(3)
		f.down(i).kill()
		c.acknowledged(200)
		f.start(i)
	}
	c.finish()
}

// A node is stopped for longer than its lease lasts, loses its queues, and goes on as if nothing had happened.
func TestClusterPausedOwner(t *testing.T) {
	f := launch(t, 3, nil)
	c := f.employ(patient(t), 8)
	for range often(1, 5) {
		c.acknowledged(200)
		i := rand.IntN(3)
		p := f.down(i)
		kick(t, p, syscall.SIGSTOP)
		began := time.Now()
		c.leave(p) // as clients do that get no answer
		c.acknowledged(500)
		const pause = 20 * time.Second // twice a lease
		time.Sleep(time.Until(began.Add(pause)))
		kick(t, p, syscall.SIGCONT)
		f.mu.Lock()
		f.nodes[i] = p
		f.mu.Unlock()
		c.acknowledged(200)
	}
	c.finish()
}

func kick(t *testing.T, p *process, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// The broker dies under load and comes back on the same files.
func TestClusterBrokerDies(t *testing.T) {
	f := launch(t, 3, nil)
	c := f.employ(patient(t), 8)
	for range often(1, 5) {
		c.acknowledged(200)
		must(t, f.set.Broker.Kill())
		time.Sleep(5 * time.Second) // how long it is away is the fault, not a wait
		must(t, f.set.Broker.Start())
		back := time.Now()
		f.delivered(0, 1, fmt.Sprintf("after-broker-%d", back.UnixNano()))
		t.Logf("delivered again %v after the broker's return", time.Since(back))
		c.acknowledged(200)
	}
	c.finish()
}

// Redis is killed and comes back empty, and is emptied: nobody is logged out, and users of other nodes are reached again.
func TestClusterRedisIsEmptied(t *testing.T) {
	f := launch(t, 3, nil)
	c := f.employ(patient(t), 8)
	ctx := patient(t)
	for round := range often(1, 5) {
		c.acknowledged(200)
		stays, err := connect(ctx, f.nodes[1], "tcp", fmt.Sprintf("stays-%d", round))
		must(t, err)
		must(t, f.set.Redis.Kill())
		c.acknowledged(200) // through the log, the store and the nodes themselves
		must(t, f.set.Redis.Start())
		back := time.Now()
		content := fmt.Sprintf("after-redis-%d", round)
		f.sendTo(ctx, 0, fmt.Sprintf("stays-%d", round), content)
		must(t, awaitContent(ctx, stays, fmt.Sprintf("%q", content)))
		t.Logf("a user of another node reached %v after the return of an empty Redis", time.Since(back))
		_ = stays.Close()
		must(t, emptied(ctx, f.set.Redis.URL))
		c.acknowledged(200)
		f.delivered(0, 1, fmt.Sprintf("after-flush-%d", round))
	}
	c.finish()
}

// The Redis dies and its Sentinel makes the replica the master: nobody is logged out, and users of other nodes are reached again.
func TestClusterRedisFailsOver(t *testing.T) {
	first := services.StartRedis(t)
	second := services.StartReplica(t, first)
	sentinel := services.StartSentinel(t, map[string]*services.RedisServer{"mesh": first, "another": services.StartRedis(t)})
	until(t, "the Sentinel knows the replica", func() (any, bool) {
		s := sentinel.Do("SENTINEL REPLICAS mesh")
		return s, strings.Contains(s, strconv.Itoa(second.Port))
	})
	f := launch(t, 3, func(_ int, a *access) { a.redis, a.master = sentinel.Addr, "mesh" })
	ctx := patient(t)
	c := f.employ(ctx, 8)
	c.acknowledged(200)
	stays, err := connect(ctx, f.nodes[1], "tcp", "stays")
	must(t, err)
	defer func() { _ = stays.Close() }()
	f.routed(0, "stays", "node2")
	first.Kill()
	failed := time.Now()
	c.acknowledged(200)
	f.sendTo(ctx, 0, "stays", "after the fail-over")
	must(t, awaitContent(ctx, stays, `"after the fail-over"`))
	f.routed(0, "stays", "node2")
	t.Logf("a user of another node is seen again %v after the death of the Redis", time.Since(failed))
	if role := second.Do("ROLE"); !strings.Contains(role, "master") {
		t.Errorf("the replica is no master: %s", role)
	}
	_, err = exchange(ctx, stays, `{"cmd":1,"id":"still here"}`)
	must(t, err)
	f.delivered(2, 0, "between others")
	c.finish()
}

// routed waits until a node tells where a user of another node is.
func (f *fleet) routed(from int, user, node string) {
	f.t.Helper()
	until(f.t, user+" is at "+node, func() (any, bool) {
		var answer struct{ Terminals []struct{ Node string } }
		status, b, err := f.nodes[from].request("GET", "/v1/users/"+user, "")
		if err != nil || status != http.StatusOK || json.Unmarshal(b, &answer) != nil {
			return fmt.Sprintf("%d %s %v", status, b, err), false
		}
		return answer, len(answer.Terminals) == 1 && answer.Terminals[0].Node == node
	})
}

// PostgreSQL goes away under load: what is sent meanwhile is acknowledged, and delivered when it is back.
func TestClusterPostgresGoesAway(t *testing.T) {
	f := launch(t, 3, nil)
	ctx := patient(t)
	c := f.employ(ctx, 8)
	for round := range often(1, 5) {
		c.acknowledged(200)
		sender, err := connect(ctx, f.nodes[0], "tcp", "sends-on")
		must(t, err)
		receiver, err := connect(ctx, f.nodes[1], "tcp", "waits")
		must(t, err)
		must(t, f.set.Postgres.Kill())
		content := fmt.Sprintf("without-postgres-%d", round)
		_, err = exchange(ctx, sender, fmt.Sprintf(`{"cmd":3,"id":%q,"data":{"to":"waits","content":%q}}`, content, content))
		must(t, err) // SEND_ACK goes on
		time.Sleep(time.Duration(often(3, 10)) * time.Second)
		must(t, f.set.Postgres.Start())
		back := time.Now()
		must(t, awaitContent(ctx, receiver, fmt.Sprintf("%q", content)))
		t.Logf("delivered %v after the return of PostgreSQL", time.Since(back))
		_, _ = sender.Close(), receiver.Close()
		c.acknowledged(200)
	}
	c.finish()
}

// One node is cut off from each service in turn. The others go on, and so does it when it is back.
func TestClusterNodeCutOff(t *testing.T) {
	var redis, postgres *services.Proxy
	var rocketmq *services.RocketMQProxy
	f := launch(t, 3, func(i int, a *access) {
		if i != 0 {
			return
		}
		set := sharedServices(t)
		redis, postgres = services.NewProxy(t, a.redis), services.NewProxy(t, a.postgres)
		rocketmq = services.NewRocketMQProxy(t, set)
		*a = access{redis: redis.Addr, postgres: postgres.Addr, rocketmq: rocketmq.Addr}
	})
	c := f.employ(patient(t), 8)
	for round := range often(1, 3) {
		for name, link := range map[string]interface {
			Cut()
			Restore()
		}{"redis": redis, "postgres": postgres, "rocketmq": rocketmq} {
			c.acknowledged(100)
			link.Cut()
			f.delivered(1, 2, fmt.Sprintf("others-without-%s-%d", name, round))
			time.Sleep(time.Duration(often(3, 12)) * time.Second)
			link.Restore()
			f.delivered(0, 1, fmt.Sprintf("from-it-after-%s-%d", name, round))
			f.delivered(1, 0, fmt.Sprintf("to-it-after-%s-%d", name, round))
		}
	}
	c.finish()
}

// The same terminal logs in at two nodes at once, again and again: one session is left, and the other was told.
func TestClusterOneSessionPerTerminal(t *testing.T) {
	f := launch(t, 2, nil)
	ctx := patient(t)
	for round := range often(100, 1000) {
		name := fmt.Sprintf("twin-%d", round)
		var conns [2]*client.Conn
		var errs [2]error
		var both sync.WaitGroup
		for i := range conns {
			both.Go(func() { conns[i], errs[i] = connect(ctx, f.nodes[i], "tcp", name) })
		}
		both.Wait()
		for i, err := range errs {
			var r *refusal
			if err != nil && !errors.As(err, &r) {
				t.Logf("round %d: login %d: %v", round, i, err) // replaced before it was answered
			}
		}
		twins := []*twin{newTwin(ctx, conns[0]), newTwin(ctx, conns[1])}
		loser := 0
		select {
		case <-twins[0].gone:
		case <-twins[1].gone:
			loser = 1
		}
		if conn := conns[1-loser]; conn == nil || !twins[1-loser].lives(ctx, conn) {
			t.Fatalf("round %d: the one that should be left is gone too", round)
		}
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close()
			}
		}
	}
}

// twin reads one connection.
type twin struct {
	gone  chan struct{} // closed when it was replaced, or never was
	beats chan struct{}
}

func newTwin(ctx context.Context, c *client.Conn) *twin {
	w := &twin{gone: make(chan struct{}), beats: make(chan struct{}, 1)}
	if c == nil {
		close(w.gone)
		return w
	}
	go func() {
		defer close(w.gone)
		for {
			p, err := c.ReceivePacket(ctx)
			switch {
			case err != nil, p.Cmd == codec.ForceLogout:
				return
			case p.Cmd == codec.HeartBeat:
				w.beats <- struct{}{}
			}
		}
	}()
	return w
}

// lives reports whether the session answers.
func (w *twin) lives(ctx context.Context, c *client.Conn) bool {
	if c.Send(ctx, []byte(`{"cmd":1,"id":"beat"}`)) != nil {
		return false
	}
	select {
	case <-w.beats:
		return true
	case <-w.gone:
		return false
	}
}

// All nodes are restarted, one after the other, as for an update.
func TestClusterRollingRestart(t *testing.T) {
	f := launch(t, 3, nil)
	c := f.employ(patient(t), 8)
	for range often(1, 5) {
		for i := range f.nodes {
			c.acknowledged(200)
			if code := f.down(i).terminate(); code != 0 {
				t.Errorf("node %d: exit code %d", i+1, code)
			}
			c.acknowledged(100)
			f.start(i)
		}
	}
	c.finish()
	if c.worst > 5*time.Second {
		t.Logf("the longest without a session: %v", c.worst)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// emptied is FLUSHALL.
func emptied(ctx context.Context, url string) error {
	o, err := rueidis.ParseURL(url)
	if err != nil {
		return err
	}
	o.DisableCache = true
	c, err := rueidis.NewClient(o)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Do(ctx, c.B().Flushall().Build()).Error()
}
