package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/meshtalk/meshtalk/server"
)

// serviceTimeout is how long a service may take to accept a connection.
const serviceTimeout = 3 * time.Second

// services are the parts outside of this process that the configuration names, and whether they answer.
func services(ctx context.Context, o server.Options) (list []finding) {
	for _, s := range addresses(o) {
		list = append(list, reach(ctx, s.key, s.address))
	}
	if len(list) == 0 {
		list = append(list, finding{Check: "services", OK: true, Value: "none configured: everything is embedded"})
	}
	return list
}

type service struct{ key, address string }

// addresses are host:port of the services, by the key that names them.
func addresses(o server.Options) (list []service) {
	if u, err := url.Parse(o.Postgres.URL); err == nil && o.Postgres.URL != "" {
		list = append(list, service{"store.postgres.url", withPort(u.Host, "5432")})
	}
	if o.Redis.Host != "" {
		port := o.Redis.Port
		if port == 0 {
			port = 6379
		}
		list = append(list, service{"redis.host", net.JoinHostPort(o.Redis.Host, strconv.Itoa(port))})
	}
	for _, a := range o.Redis.Address {
		list = append(list, service{"redis.address", withPort(a, "6379")})
	}
	for a := range strings.SplitSeq(o.RocketMQ.NameServer, ";") {
		if a = strings.TrimSpace(a); a != "" {
			list = append(list, service{"rocketmq.name-server", withPort(a, "9876")})
		}
	}
	if j := o.JWT.JWKSURL; j != "" {
		if u, err := url.Parse(j); err == nil {
			port := "443"
			if u.Scheme == "http" {
				port = "80"
			}
			list = append(list, service{"auth.jwt.jwks-url", withPort(u.Host, port)})
		}
	}
	return list
}

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// reach opens a connection to a service and closes it.
func reach(ctx context.Context, key, address string) finding {
	ctx, cancel := context.WithTimeout(ctx, serviceTimeout)
	defer cancel()
	start := time.Now()
	f := finding{Check: key, OK: true}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		f.OK, f.Value, f.Problem = false, address, "cannot be reached: "+err.Error()
		f.Limits = "what this service is for"
		host, port, _ := net.SplitHostPort(address)
		f.Mend = fmt.Sprintf("nc -vz %s %s (until it answers: start the service, open the firewall), or another %s", host, port, key)
		return f
	}
	_ = c.Close()
	f.Value = fmt.Sprintf("%s answers in %s", address, time.Since(start).Round(10*time.Microsecond))
	return f
}
