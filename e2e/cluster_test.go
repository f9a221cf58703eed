package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/internal/services"
)

// chaos tells the long form of the cluster's tests (make chaos) from the short one of make check.
var chaos = os.Getenv("MESHTALK_CHAOS") != ""

// often is how many rounds of a fault a test goes through.
func often(short, long int) int {
	if chaos {
		return long
	}
	return short
}

// The services are shared by the tests of the cluster, each of which has a database, topics and a number of Redis of its own.
var shared struct {
	once             sync.Once
	set              *services.Set
	err              error
	tests, databases atomic.Int32
}

func sharedServices(t *testing.T) *services.Set {
	t.Helper()
	shared.once.Do(func() {
		shared.set, shared.err = services.Open(services.Redis, services.Postgres, services.RocketMQ)
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.set
}

// fleet is a cluster of nodes on real services.
type fleet struct {
	t       *testing.T
	set     *services.Set
	dirs    []string
	options []string // JSON
	key     []byte

	mu    sync.Mutex
	nodes []*process // nil = down
}

// access is how one node reaches the services; tests put proxies between. With a master, redis is a Sentinel.
type access struct{ redis, master, postgres, rocketmq string }

// launch starts n nodes. through, when set, changes how node i reaches the services.
func launch(t *testing.T, n int, through func(i int, a *access)) *fleet {
	t.Helper()
	set := sharedServices(t)
	number := shared.tests.Add(1)
	database := newDatabase(t, set)
	f := &fleet{t: t, set: set, nodes: make([]*process, n)}
	for i := range n {
		a := access{redis: set.Redis.Addr, postgres: set.Postgres.Addr, rocketmq: set.NameServer.Addr}
		if through != nil {
			through(i, &a)
		}
		u, err := url.Parse(database)
		if err != nil {
			t.Fatal(err)
		}
		u.Host = a.postgres
		f.options = append(f.options, nodeOptions(t, i, int(number), u.String(), a))
		f.dirs = append(f.dirs, t.TempDir())
	}
	f.shareKey()
	for i := range n {
		f.start(i)
	}
	return f
}

// newDatabase makes an empty database and gives its URL.
func newDatabase(t *testing.T, set *services.Set) string {
	t.Helper()
	ctx := patient(t)
	c, err := pgx.Connect(ctx, set.Postgres.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	name := fmt.Sprintf("e2e_%d", shared.databases.Add(1))
	if _, err := c.Exec(ctx, "create database "+name); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(set.Postgres.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

func nodeOptions(t *testing.T, i, number int, database string, a access) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"Postgres": map[string]any{"URL": database},
		"Redis":    map[string]any{"Address": []string{a.redis}, "SentinelMaster": a.master, "DB": number % 16},
		"RocketMQ": map[string]any{
			"NameServer": a.rocketmq, "ProducerGroup": "e2e", "LogQueues": 4,
			"LogTopic": fmt.Sprintf("e2e_log_%d", number), "PushTopic": fmt.Sprintf("e2e_push_%d", number),
			"EventTopic": fmt.Sprintf("e2e_event_%d", number),
		},
		"Cluster": map[string]any{"Enable": true, "NodeID": fmt.Sprintf("node%d", i+1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// shareKey gives all nodes one key of tokens.
func (f *fleet) shareKey() {
	f.t.Helper()
	for i, dir := range f.dirs {
		name := filepath.Join(dir, "jwt.key")
		if i == 0 {
			key, _, err := auth.LoadOrCreateKey(name)
			if err != nil {
				f.t.Fatal(err)
			}
			f.key = key
			continue
		}
		if err := os.WriteFile(name, f.key, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}

// start starts node i, which is down.
func (f *fleet) start(i int) {
	f.t.Helper()
	p := spawn(f.t, f.dirs[i], envOptions+"="+f.options[i])
	f.mu.Lock()
	f.nodes[i] = p
	f.mu.Unlock()
}

// down takes node i out of what users choose from and returns it.
func (f *fleet) down(i int) *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.nodes[i]
	f.nodes[i] = nil
	return p
}

// any is a node that is up.
func (f *fleet) any() *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if p := f.nodes[rand.IntN(len(f.nodes))]; p != nil {
			return p
		}
	}
}

// crew is users who send all the time, each at some node, and move to another when theirs goes.
type crew struct {
	f     *fleet
	users []*user
	h     *history
	stop  chan struct{}
	done  sync.WaitGroup

	mu     sync.Mutex
	seats  map[*user]seat
	broken []string      // promises
	worst  time.Duration // the longest that one was without a session
}

// seat is where a user is connected.
type seat struct {
	p    *process
	conn *client.Conn
}

// leave makes the users of a node give it up.
func (c *crew) leave(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.seats {
		if s.p == p {
			_ = s.conn.Close()
		}
	}
}

// pace makes a user send some hundreds of messages a second at most: what matters is the fault, and in the end every inbox is read.
const pace = 4 * time.Millisecond

// employ starts users who write to each other and to one group.
func (f *fleet) employ(ctx context.Context, n int) *crew {
	f.t.Helper()
	h := newHistory()
	c := &crew{f: f, users: crowdOf(n, h), h: h, stop: make(chan struct{}), seats: map[*user]seat{}}
	makeGroup(f.t, f.any(), c.users)
	for i, u := range c.users {
		u.pace = pace
		c.done.Go(func() { c.live(ctx, u, []string{"tcp", "websocket"}[i%2]) })
	}
	return c
}

// live is one user's day.
func (c *crew) live(ctx context.Context, u *user, transport string) {
	for ctx.Err() == nil {
		left := time.Now()
		for ctx.Err() == nil {
			p := c.f.any()
			conn, err := connect(ctx, p, transport, u.name)
			if err == nil {
				c.mu.Lock()
				u.conn, c.seats[u] = conn, seat{p, conn}
				c.mu.Unlock()
				break
			}
			select { // a client's back-off
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		c.mu.Lock()
		c.worst = max(c.worst, time.Since(left))
		c.mu.Unlock()
		err := u.run(ctx, nil, transport, c.stop)
		if err == nil {
			return
		}
		if errors.Is(err, errPromise) {
			c.mu.Lock()
			c.broken = append(c.broken, err.Error())
			c.mu.Unlock()
		}
	}
}

// acknowledged waits until n more messages have been acknowledged.
func (c *crew) acknowledged(n int) {
	c.f.t.Helper()
	l := load{users: c.users, h: c.h}
	l.acknowledged(c.f.t, n)
}

// finish lets everybody finish, and compares what they were promised with what is in the inboxes in the end, when all has been
// committed.
func (c *crew) finish() {
	t := c.f.t
	t.Helper()
	close(c.stop)
	c.done.Wait()
	sent, acked, refusals := c.h.counts()
	t.Logf("%d sent, %d acknowledged, %d times refused; the longest without a session %v", sent, acked, refusals, c.worst)
	if acked == 0 || acked < sent {
		t.Errorf("%d sent and %d acknowledged", sent, acked)
	}
	if len(c.broken) > 0 {
		t.Errorf("%d broken promises:\n%s", len(c.broken), summary(c.broken))
	}
	end := time.Now().Add(patience)
	for tries := 1; ; tries++ { // what was accepted last may not be committed yet
		wrong := c.h.check(inboxes(t, c.f.any(), c.users))
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(end) && tries > 2 {
			t.Errorf("%d findings:\n%s", len(wrong), summary(wrong))
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// delivered waits until what is sent now at one node has come to a user at another.
func (f *fleet) delivered(from, to int, content string) {
	f.t.Helper()
	ctx := patient(f.t)
	receiver, err := connect(ctx, f.nodes[to], "tcp", "receiver-"+content)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = receiver.Close() }()
	f.sendTo(ctx, from, "receiver-"+content, content)
	if err := awaitContent(ctx, receiver, strconv.Quote(content)); err != nil {
		f.t.Fatal(err)
	}
}

// sendTo sends one message at a node, again while it is UNAVAILABLE.
func (f *fleet) sendTo(ctx context.Context, node int, to, content string) {
	f.t.Helper()
	sender, err := connect(ctx, f.nodes[node], "websocket", "sender-"+content)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = sender.Close() }()
	packet := fmt.Sprintf(`{"cmd":3,"id":%q,"data":{"to":%q,"content":%q}}`, "m-"+content, to, content)
	for {
		_, err := exchange(ctx, sender, packet)
		var r *refusal
		if !errors.As(err, &r) || !r.Retryable {
			if err != nil {
				f.t.Fatal(err)
			}
			return
		}
		time.Sleep(time.Duration(r.RetryAfterMs) * time.Millisecond)
	}
}

// node is one of GET /v1/nodes.
type node struct {
	Node   string
	Queues []int
	Lag    map[int]int64
}

// nodes are the live nodes as p tells of them.
func (p *process) nodes() []node {
	p.t.Helper()
	var answer struct{ Nodes []node }
	if err := json.Unmarshal(p.call("GET", "/v1/nodes", ""), &answer); err != nil {
		p.t.Fatal(err)
	}
	return answer.Nodes
}

// A message, a group and presence across nodes, and what the API says of it.
func TestClusterTalks(t *testing.T) {
	f := launch(t, 3, nil)
	ctx := patient(t)
	c := f.employ(ctx, 6)
	c.acknowledged(200)
	f.delivered(0, 1, "across")
	f.delivered(2, 0, "and back")
	c.finish()
	until(t, "every queue has an owner", func() (any, bool) {
		nodes := f.nodes[1].nodes()
		owners := map[int]int{}
		for _, n := range nodes {
			for _, q := range n.Queues {
				owners[q]++
			}
		}
		return nodes, len(nodes) == 3 && len(owners) == 4
	})
}

// What operators see of a cluster: nodes, owners and lag by the API and the command, and each service in /readyz, /v1/stats and /metrics,
// also while it is away.
func TestClusterIsShown(t *testing.T) {
	f := launch(t, 2, nil)
	for i, p := range f.nodes {
		until(t, "every queue has one owner", func() (any, bool) {
			nodes := p.nodes()
			owned := 0
			for _, n := range nodes {
				owned += len(n.Queues)
			}
			return nodes, len(nodes) == 2 && owned == 4 && nodes[0].Node == fmt.Sprintf("node%d", i+1)
		})
	}
	f.delivered(0, 1, "shown")
	out, err := exec.Command(program(t), "nodes", "--admin", f.nodes[0].urls["admin"]).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`(?m)^node1 .* [0-4]$`, `(?m)^node2 .* [0-4]$`, `(?m)^0 +node[12] +0$`, `(?m)^3 +node[12] +0$`} {
		if !regexp.MustCompile(line).Match(out) {
			t.Errorf("no line %s in\n%s", line, out)
		}
	}
	p := f.nodes[0]
	if m := p.metrics(); m["meshtalk_handover_seconds_count"] < 1 || m["meshtalk_handover_seconds_sum"] <= 0 {
		t.Errorf("handovers %v, %v s", m["meshtalk_handover_seconds_count"], m["meshtalk_handover_seconds_sum"])
	}
	p.shows(t, "postgres", "store", true, true)
	p.shows(t, "rocketmq", "log", true, true)
	p.shows(t, "redis", "cluster", true, true)

	restart := func() {
		for _, s := range []*services.Service{f.set.Broker, f.set.Postgres, f.set.Redis} {
			must(t, s.Start())
		}
	}
	t.Cleanup(restart) // also when something is missing: others use them too
	must(t, f.set.Redis.Kill())
	p.shows(t, "redis", "cluster", false, true) // its users are served all the same
	must(t, f.set.Postgres.Kill())
	p.shows(t, "postgres", "store", false, false)
	must(t, f.set.Broker.Kill())
	p.shows(t, "rocketmq", "log", false, false)
	restart()
	p.shows(t, "rocketmq", "log", true, true)
	p.shows(t, "postgres", "store", true, true)
	p.shows(t, "redis", "cluster", true, true)
	f.delivered(0, 1, "shown-again")
}

// shows waits until a service is shown as up or not, everywhere, and its part of the node as ready or not.
func (p *process) shows(t *testing.T, service, part string, up, ready bool) {
	t.Helper()
	until(t, fmt.Sprintf("%s is up: %v, %s is ready: %v", service, up, part, ready), func() (any, bool) {
		var stats struct {
			Services map[string]struct {
				Up    bool
				Error string
			}
		}
		if err := json.Unmarshal(p.call("GET", "/v1/stats", ""), &stats); err != nil {
			t.Fatal(err)
		}
		told := stats.Services[service]
		metric, there := p.metrics()[fmt.Sprintf("meshtalk_service_up{service=%q}", service)]
		state := p.readiness().Parts[part]
		says := up == !strings.Contains(state.State, "not reached") || part != "cluster"
		return fmt.Sprint(stats.Services, metric, state), told.Up == up && (told.Error == "") == up && there && (metric == 1) == up &&
			state.OK == ready && state.State != "" && says
	})
}
