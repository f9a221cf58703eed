package redis

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// Report is what Inspect finds of a Redis.
type Report struct {
	Address string // the one of Options that answered first
	Mode    string // standalone, cluster or sentinel
	Version string // of the server at Address
	Pings   []time.Duration
	// MaxMemory (bytes, 0 = no limit) and Policy are maxmemory and maxmemory-policy of the server, of a Redis Cluster of the one with
	// the least of both.
	MaxMemory int64
	Policy    string
	// Of a Redis Cluster: how many servers are known, and what is wrong with the whole.
	Servers int
	Broken  string
	// Of Sentinels: what they call the Redis, where it is, how many replicas it has, and why they could not make one the master.
	Master, MasterAddress string
	Replicas              int
	NoQuorum              string
}

// NoEviction is the policy that keeps what was written.
const NoEviction = "noeviction"

// Inspect asks a Redis what it is, how it is set and how fast it answers (pings one after the other), and changes nothing. Of o the
// addresses, the password, the database and the master count.
func Inspect(ctx context.Context, o Options, pings int) (r Report, err error) {
	client, s, err := connect(ctx, &o)
	if err != nil {
		return r, err
	}
	defer client.Close()
	r = Report{Address: s.address, Mode: string(s.mode), Version: s.version}
	for range pings {
		began := time.Now()
		if err := client.Do(ctx, client.B().Ping().Build()).Error(); err != nil {
			return r, fmt.Errorf("%s: PING: %w", s.address, plain(err))
		}
		r.Pings = append(r.Pings, time.Since(began))
	}
	switch s.mode {
	case clustered:
		err = r.inspectCluster(ctx, client)
	case watched:
		if err = r.inspectMemory(ctx, client); err == nil {
			err = r.inspectSentinel(ctx, &o, s)
		}
	default:
		err = r.inspectMemory(ctx, client)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", s.address, plain(err))
	}
	return r, nil
}

// inspectMemory reads what a server says of its memory; the worse stays.
func (r *Report) inspectMemory(ctx context.Context, client rueidis.Client) error {
	info, err := client.Do(ctx, client.B().Info().Section("memory").Build()).ToString()
	if err != nil {
		return err
	}
	limit, _ := strconv.ParseInt(infoField(info, "maxmemory"), 10, 64)
	policy := infoField(info, "maxmemory_policy")
	if r.Policy == "" || limit > 0 && policy != NoEviction {
		r.MaxMemory, r.Policy = limit, policy
	}
	return nil
}

func (r *Report) inspectCluster(ctx context.Context, client rueidis.Client) error {
	servers := client.Nodes()
	r.Servers = len(servers)
	for _, server := range servers {
		info, err := server.Do(ctx, server.B().ClusterInfo().Build()).ToString()
		if err != nil {
			return err
		}
		if state, slots := infoField(info, "cluster_state"), infoField(info, "cluster_slots_ok"); state != "ok" || slots != "16384" {
			r.Broken = fmt.Sprintf("cluster_state is %s, %s of 16384 slots are served", state, slots)
		}
		if err := r.inspectMemory(ctx, server); err != nil {
			return err
		}
	}
	return nil
}

// inspectSentinel asks the Sentinel for the Redis that it watches.
func (r *Report) inspectSentinel(ctx context.Context, o *Options, s seen) error {
	client, err := rueidis.NewClient(clientOption(o, s.address))
	if err != nil {
		return err
	}
	defer client.Close()
	master, err := client.Do(ctx, client.B().Arbitrary("SENTINEL", "MASTER", s.master).Build()).AsStrMap()
	if err != nil {
		return err
	}
	r.Master, r.MasterAddress = s.master, net.JoinHostPort(master["ip"], master["port"])
	r.Replicas, _ = strconv.Atoi(master["num-slaves"])
	err = client.Do(ctx, client.B().Arbitrary("SENTINEL", "CKQUORUM", s.master).Build()).Error()
	if e, refused := rueidis.IsRedisErr(err); refused {
		r.NoQuorum, err = e.Error(), nil
	}
	return err
}
