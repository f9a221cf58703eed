package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/meshtalk/meshtalk/server"
)

// serviceTimeout is how long a service may take to accept a connection.
const serviceTimeout = 3 * time.Second

// serviceFindings are about the parts outside of this process that the configuration names: what they are, how they are set, and whether every
// address of several answers.
func serviceFindings(ctx context.Context, o server.Options) (list []finding) {
	for _, f := range server.Diagnose(ctx, o) {
		list = append(list, finding{
			Check: f.Check, OK: f.Level == server.Good, Warn: f.Level == server.Warning,
			Value: f.Value, Problem: f.Problem, Limits: f.Limits, Mend: f.Mend,
		})
	}
	for _, s := range addresses(o) {
		list = append(list, reach(ctx, s))
	}
	if len(list) == 0 {
		list = append(list, finding{Check: "services", OK: true, Value: "none configured: everything is embedded"})
	}
	return list
}

// service is an address, the key that names it, and whether it is one of several that stand in for each other.
type service struct {
	key, address string
	several      bool
}

// addresses are host:port of what server.Diagnose does not ask: each of several that stand in for each other, and the key set.
func addresses(o server.Options) (list []service) {
	several := func(key string, all []string) {
		for _, a := range all {
			if len(all) > 1 {
				list = append(list, service{key, strings.TrimSpace(a), true})
			}
		}
	}
	several("redis.address", o.Redis.Address)
	several("rocketmq.name-server", strings.Split(o.RocketMQ.NameServer, ";"))
	if u, err := url.Parse(o.JWT.JWKSURL); err == nil && o.JWT.JWKSURL != "" {
		port := "443"
		if u.Scheme == "http" {
			port = "80"
		}
		list = append(list, service{"auth.jwt.jwks-url", withPort(u.Host, port), false})
	}
	return list
}

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// reach opens a connection to a service and closes it. One of several that does not answer is a warning.
func reach(ctx context.Context, s service) finding {
	ctx, cancel := context.WithTimeout(ctx, serviceTimeout)
	defer cancel()
	start := time.Now()
	f := finding{Check: s.key, OK: true}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
	if err != nil {
		f.OK, f.Warn, f.Value, f.Problem = false, s.several, s.address, "cannot be reached: "+err.Error()
		f.Limits = "what this service is for"
		if s.several {
			f.Limits = "nothing while the others answer"
		}
		host, port, _ := net.SplitHostPort(s.address)
		f.Mend = fmt.Sprintf("nc -vz %s %s (until it answers: start the service, open the firewall), or another %s", host, port, s.key)
		return f
	}
	_ = c.Close()
	f.Value = fmt.Sprintf("%s answers in %s", s.address, time.Since(start).Round(10*time.Microsecond))
	return f
}
