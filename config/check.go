package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/meshtalk/meshtalk/server"
)

// check judges what several keys together say, and the files that they name.
func (c *Config) check() error {
	for _, rule := range []func(*Config) error{
		checkPorts, checkHeartbeat, checkCluster, checkSentinel,
		func(c *Config) error { return server.Check(c.Options) },
	} {
		if err := rule(c); err != nil {
			return err
		}
	}
	return nil
}

func checkPorts(c *Config) error {
	o := c.Options
	type listener struct {
		key string
		server.ListenOptions
	}
	list := []listener{{"websocket", o.WebSocket.ListenOptions}, {"tcpsocket", o.TCP}, {"admin", o.Admin.ListenOptions}}
	for i, b := range list {
		for _, a := range list[:i] {
			if a.Enable && b.Enable && a.Port == b.Port && a.Port != 0 && overlap(a.Host, b.Host) {
				return fmt.Errorf("%s.port: %d is %s.port too (expected another port)", b.key, b.Port, a.key)
			}
		}
	}
	return nil
}

// overlap reports whether two listeners of these hosts cannot have the same port.
func overlap(a, b string) bool { return a == b || isAny(a) || isAny(b) }

func isAny(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

func checkHeartbeat(c *Config) error {
	if o := c.Options; o.HeartbeatTimeout <= o.HeartbeatInterval {
		return fmt.Errorf("heartbeat.timeout: %s (%s): expected more than heartbeat.interval, %s",
			formatDuration(o.HeartbeatTimeout), c.Origin("heartbeat.timeout"), formatDuration(o.HeartbeatInterval))
	}
	return nil
}

func checkSentinel(c *Config) error {
	if o := c.Options.Redis; o.SentinelMaster != "" && len(o.Address) == 0 {
		return fmt.Errorf("redis.sentinel.master: %q (%s): expected the Sentinels in redis.address too", o.SentinelMaster, c.Origin("redis.sentinel.master"))
	}
	return nil
}

type service struct {
	key string
	set bool
}

// services are the parts outside of this process, by the key that asks for them.
func services(o server.Options) []service {
	return []service{
		{"store.postgres.url", o.Postgres.URL != ""},
		{"redis.address", len(o.Redis.Address) > 0},
		{"redis.host", o.Redis.Host != ""},
		{"rocketmq.name-server", o.RocketMQ.NameServer != ""},
	}
}

func checkCluster(c *Config) error {
	o := c.Options
	if !o.Cluster.Enable {
		return nil
	}
	var missing []string
	for _, s := range services(o) {
		redis := o.Redis.Host != "" || len(o.Redis.Address) > 0
		if !s.set && s.key != "redis.address" && (s.key != "redis.host" || !redis) {
			missing = append(missing, s.key)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("cluster.enable: a cluster needs redis, rocketmq and store.postgres; missing: %s", strings.Join(missing, ", "))
}
