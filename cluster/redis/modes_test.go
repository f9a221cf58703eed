package redis

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/cluster/clustertest"
	"github.com/meshtalk/meshtalk/internal/services"
)

func TestRedisCluster(t *testing.T) {
	servers := services.StartRedisCluster(t)
	addresses := []string{servers[0].Addr, servers[1].Addr}
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
			s.Kill()
			s.Start()
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

func TestSentinel(t *testing.T) {
	t.Parallel()
	first := services.StartRedis(t)
	second := services.StartReplica(t, first)
	sentinel := services.StartSentinel(t, map[string]*services.RedisServer{"mesh": first})
	clustertest.Eventually(t, "the Sentinel knows the replica", func() bool {
		return strings.Contains(sentinel.Do("SENTINEL REPLICAS mesh"), fmt.Sprint(second.Port))
	})
	nodes := clustertest.StartNodes(t, newCluster(sentinel.Addr).open, "a", "b", "c")
	a, b, c := nodes[0], nodes[1], nodes[2]
	users := crowd(t, b, "u", 3000)
	wantCrowd(t, a, users, "b")
	changes := a.NodeChanges()
	first.Kill()
	wantCrowd(t, a, users, "b") // on the second
	clustertest.Eventually(t, "the replica is the master now", func() bool { return strings.Contains(second.Do("ROLE"), "master") })
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
	open, closed := services.StartRedis(t), services.StartRedis(t, "--requirepass", "secret")
	away := services.StartRedis(t)
	away.Kill()
	gone := away.Addr
	other := services.StartRedis(t)
	guarded := services.StartSentinel(t, map[string]*services.RedisServer{"mesh": closed}, "sentinel auth-pass mesh secret")
	two := services.StartSentinel(t, map[string]*services.RedisServer{"one": open, "two": other})
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no address":               {Options{}, "no address of a Redis"},
		"nobody there":             {Options{Addresses: []string{gone}}, gone + ": connect: connection refused"},
		"no password":              {Options{Addresses: []string{closed.Addr}}, closed.Addr + ": the server wants a password"},
		"wrong password":           {Options{Addresses: []string{closed.Addr}, Password: "other"}, closed.Addr + ": the password is wrong"},
		"no such database":         {Options{Addresses: []string{open.Addr}, DB: 99}, open.Addr + ": the server has no database of that number"},
		"two that are no cluster":  {Options{Addresses: []string{open.Addr, other.Addr}}, "it must be the only address"},
		"a Sentinel of two":        {Options{Addresses: []string{two.Addr}}, "the Sentinel watches 2 masters"},
		"a Sentinel of others":     {Options{Addresses: []string{two.Addr}, Master: "mesh"}, `the Sentinel watches no master "mesh"`},
		"a node that is no word":   {Options{Addresses: []string{open.Addr}, Node: cluster.Node{ID: "a b"}}, `node ID "a b"`},
		"a node without a name":    {Options{Addresses: []string{open.Addr}, Node: cluster.Node{ID: ""}}, `node ID ""`},
		"a server and no Sentinel": {Options{Addresses: []string{open.Addr}, Master: "mesh"}, "it is no Sentinel"},
		"the first address is off": {Options{Addresses: []string{gone, open.Addr}}, "it must be the only address"},
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
			"password":          {Addresses: []string{closed.Addr}, Password: "secret", Node: cluster.Node{ID: "n"}},
			"database":          {Addresses: []string{open.Addr}, DB: 3, Node: cluster.Node{ID: "n"}},
			"Sentinel by name":  {Addresses: []string{two.Addr}, Master: "two", Node: cluster.Node{ID: "n"}},
			"Sentinel without":  {Addresses: []string{guarded.Addr}, Password: "secret", Node: cluster.Node{ID: "n"}},
			"closed before run": {Addresses: []string{open.Addr}, DB: 3, Node: cluster.Node{ID: "n"}},
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
		s := services.StartRedis(t, "--cluster-enabled", "yes")
		if _, err := New(context.Background(), Options{Addresses: []string{s.Addr}, DB: 1, Node: cluster.Node{ID: "n"}}); err == nil ||
			!strings.Contains(err.Error(), "a Redis Cluster has only database 0") {
			t.Errorf("the error is %v", err)
		}
	})
}
