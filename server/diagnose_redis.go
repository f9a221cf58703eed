package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/meshtalk/meshtalk/cluster/redis"
)

const (
	redisPings = 200
	// slowRedis (p50) and slowRedisTail (p99) are where wake-ups to other nodes are felt: every one is two or three round trips.
	slowRedis     = 5 * time.Millisecond
	slowRedisTail = 50 * time.Millisecond
)

func diagnoseRedis(ctx context.Context, o Options) []Finding {
	key, addresses := o.redis()
	if len(addresses) == 0 {
		return nil
	}
	r, err := redis.Inspect(ctx, redis.Options{
		Addresses: addresses, Password: o.Redis.Password, DB: o.Redis.DB, Master: o.Redis.SentinelMaster,
	}, redisPings)
	if err != nil {
		return []Finding{away(key, strings.Join(addresses, ","), err)}
	}
	list := []Finding{judgeRedis(key, r, o.Cluster.Enable), judgeLatency(r.Pings), judgeEviction(r)}
	switch r.Mode {
	case "cluster":
		list = append(list, judgeRedisCluster(r))
	case "sentinel":
		list = append(list, judgeSentinel(r))
	}
	return list
}

func judgeRedis(key string, r redis.Report, used bool) Finding {
	f := Finding{Check: key, Value: fmt.Sprintf("%s, Redis %s, %s", r.Address, r.Version, r.Mode)}
	if !used {
		return f.but(Warning, "cluster.enable is false", "nothing: the Redis is not used", "serve --cluster.enable, or no "+key)
	}
	return f
}

func judgeLatency(pings []time.Duration) Finding {
	pings = slices.Sorted(slices.Values(pings))
	p50, p99 := pings[len(pings)/2], pings[len(pings)*99/100]
	f := Finding{Check: "redis latency", Value: fmt.Sprintf("p50 %s, p99 %s of %d pings", short(p50), short(p99), len(pings))}
	if p50 > slowRedis || p99 > slowRedisTail {
		return f.but(Warning, "slow", "latency between nodes: every wake-up is two or three of these",
			"redis-cli --latency from this host and from Redis' own: a Redis nearby, on cores of its own")
	}
	return f
}

func judgeEviction(r redis.Report) Finding {
	f := Finding{Check: "redis memory", Value: fmt.Sprintf("maxmemory %d MiB, maxmemory-policy %s", r.MaxMemory>>20, r.Policy)}
	if r.MaxMemory == 0 {
		f.Value = fmt.Sprintf("maxmemory is not set, maxmemory-policy %s", r.Policy)
	}
	if r.MaxMemory > 0 && r.Policy != redis.NoEviction {
		return f.but(Warning, "it drops what was written when it is full", "wake-ups: users whose route was dropped get messages from other nodes late",
			"redis-cli config set maxmemory-policy noeviction (and in its configuration file)")
	}
	return f
}

func judgeRedisCluster(r redis.Report) Finding {
	f := Finding{Check: "redis cluster", Value: fmt.Sprintf("%d servers", r.Servers)}
	if r.Broken != "" {
		return f.but(Failure, r.Broken, "users of other nodes: those whose slot nobody serves are not reached", "redis-cli --cluster check "+r.Address)
	}
	return f
}

func judgeSentinel(r redis.Report) Finding {
	f := Finding{Check: "redis sentinel", Value: fmt.Sprintf("%s is at %s, replicas: %d", r.Master, r.MasterAddress, r.Replicas)}
	switch {
	case r.NoQuorum != "":
		return f.but(Warning, r.NoQuorum, "fail-over: no replica becomes the master", "redis-cli -h SENTINEL -p 26379 sentinel ckquorum "+r.Master+" (until the others are up)")
	case r.Replicas == 0:
		return f.but(Warning, "no replica", "fail-over: there is nothing that could become the master", "a redis-server with --replicaof '"+strings.ReplaceAll(r.MasterAddress, ":", " ")+"'")
	}
	return f
}
