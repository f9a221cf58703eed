package redis

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/cluster/clustertest"
)

// startCluster starts a Redis Cluster of three servers that share the slots.
func startCluster(t testing.TB) (servers []*server) {
	t.Helper()
	for range 3 {
		servers = append(servers, startServer(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
			"--cluster-allow-reads-when-down", "yes", "--cluster-require-full-coverage", "no"))
	}
	for i, s := range servers {
		s.do(fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", i*16384/3, (i+1)*16384/3-1))
		s.do(fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", i+1))
		if i > 0 {
			s.do(fmt.Sprintf("CLUSTER MEET 127.0.0.1 %d", servers[0].port))
		}
	}
	for _, s := range servers {
		clustertest.Eventually(t, "the cluster is complete", func() bool {
			info := s.do("CLUSTER INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3") &&
				strings.Contains(info, "cluster_slots_ok:16384")
		})
	}
	return servers
}

func TestRedisCluster(t *testing.T) {
	servers := startCluster(t)
	addresses := []string{servers[0].address(), servers[1].address()}
	t.Run("Suite", func(t *testing.T) {
		clustertest.Run(t, func(*testing.T) clustertest.Open { return newCluster(addresses...).open })
	})
	// One server dies and comes back empty: a third of the routes, and perhaps the leases or a node's channel.
	for i, s := range servers {
		t.Run(fmt.Sprintf("Server%dRestartsEmpty", i), func(t *testing.T) {
			nodes := clustertest.StartNodes(t, newCluster(addresses...).open, "a", "b", "c")
			a, b, c := nodes[0], nodes[1], nodes[2]
			users := crowd(t, b, "u", 3000)
			wantCrowd(t, a, users, "b")
			changes := a.NodeChanges()
			s.kill()
			s.start()
			wantCrowd(t, a, users, "b")
			wantCrowd(t, c, users, "b")
			for _, u := range users[:10] {
				wakesPass(t, a, b, u)
				wakesPass(t, c, b, u)
			}
			clustertest.Duel(t, a, b, c, 100, nil)
			if n := a.NodeChanges(); n != changes {
				t.Errorf("%d changes of nodes were told, and none came or went", n-changes)
			}
		})
	}
}

// startSentinel starts a Sentinel that watches masters by name.
func startSentinel(t testing.TB, masters map[string]*server, more ...string) *server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := ""
	for name, m := range masters {
		text += fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 1\nsentinel down-after-milliseconds %s 1000\nsentinel failover-timeout %s 5000\n", name, m.port, name, name)
	}
	text += strings.Join(more, "\n") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startServer(t, file, "--sentinel")
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	first := startServer(t)
	second := startServer(t, "--replicaof", fmt.Sprintf("127.0.0.1 %d", first.port), "--repl-diskless-sync-delay", "0")
	clustertest.Eventually(t, "the replica follows", func() bool { return strings.Contains(first.do("INFO replication"), "state=online") })
	sentinel := startSentinel(t, map[string]*server{"mesh": first})
	clustertest.Eventually(t, "the Sentinel knows the replica", func() bool {
		return strings.Contains(sentinel.do("SENTINEL REPLICAS mesh"), fmt.Sprint(second.port))
	})
	nodes := clustertest.StartNodes(t, newCluster(sentinel.address()).open, "a", "b", "c")
	a, b, c := nodes[0], nodes[1], nodes[2]
	users := crowd(t, b, "u", 3000)
	wantCrowd(t, a, users, "b")
	changes := a.NodeChanges()
	first.kill()
	wantCrowd(t, a, users, "b") // on the second
	clustertest.Eventually(t, "the replica is the master now", func() bool { return strings.Contains(second.do("ROLE"), "master") })
	join(t, a, "new", 1)
	wantRoutes(t, c, "new", "web@a")
	wakesPass(t, a, b, users[0])
	clustertest.Duel(t, a, b, c, 100, nil)
	if n := a.NodeChanges(); n != changes {
		t.Errorf("%d changes of nodes were told, and none came or went", n-changes)
	}
}

// What cannot work says so at the start, in one line that names the address.
func TestStartErrors(t *testing.T) {
	t.Parallel()
	open, closed := startServer(t), startServer(t, "--requirepass", "secret")
	gone := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	other := startServer(t)
	guarded := startSentinel(t, map[string]*server{"mesh": closed}, "sentinel auth-pass mesh secret")
	two := startSentinel(t, map[string]*server{"one": open, "two": other})
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no address":               {Options{}, "no address of a Redis"},
		"nobody there":             {Options{Addresses: []string{gone}}, gone + ": connect: connection refused"},
		"no password":              {Options{Addresses: []string{closed.address()}}, closed.address() + ": the server wants a password"},
		"wrong password":           {Options{Addresses: []string{closed.address()}, Password: "other"}, closed.address() + ": the password is wrong"},
		"no such database":         {Options{Addresses: []string{open.address()}, DB: 99}, open.address() + ": the server has no database of that number"},
		"two that are no cluster":  {Options{Addresses: []string{open.address(), other.address()}}, "it must be the only address"},
		"a Sentinel of two":        {Options{Addresses: []string{two.address()}}, "the Sentinel watches 2 masters"},
		"a Sentinel of others":     {Options{Addresses: []string{two.address()}, Master: "mesh"}, `the Sentinel watches no master "mesh"`},
		"a node that is no word":   {Options{Addresses: []string{open.address()}, Node: cluster.Node{ID: "a b"}}, `node ID "a b"`},
		"a node without a name":    {Options{Addresses: []string{open.address()}, Node: cluster.Node{ID: ""}}, `node ID ""`},
		"the first address is off": {Options{Addresses: []string{gone, open.address()}}, "it must be the only address"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.o.Node.ID == "" && name != "a node without a name" {
				c.o.Node.ID = "n"
			}
			n, err := New(context.Background(), c.o)
			if err == nil {
				n.Close()
				t.Fatal("it starts")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is %q, want %q in one line", err, c.want)
			}
		})
	}
	t.Run("what works", func(t *testing.T) {
		for name, o := range map[string]Options{
			"password":          {Addresses: []string{closed.address()}, Password: "secret", Node: cluster.Node{ID: "n"}},
			"database":          {Addresses: []string{open.address()}, DB: 3, Node: cluster.Node{ID: "n"}},
			"Sentinel by name":  {Addresses: []string{two.address()}, Master: "two", Node: cluster.Node{ID: "n"}},
			"Sentinel without":  {Addresses: []string{guarded.address()}, Password: "secret", Node: cluster.Node{ID: "n"}},
			"closed before run": {Addresses: []string{open.address()}, DB: 3, Node: cluster.Node{ID: "n"}},
		} {
			c, err := New(context.Background(), o)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			c.Close()
		}
	})
	t.Run("a Redis Cluster has no databases", func(t *testing.T) {
		s := startServer(t, "--cluster-enabled", "yes")
		if _, err := New(context.Background(), Options{Addresses: []string{s.address()}, DB: 1, Node: cluster.Node{ID: "n"}}); err == nil ||
			!strings.Contains(err.Error(), "a Redis Cluster has only database 0") {
			t.Errorf("the error is %v", err)
		}
	})
}
