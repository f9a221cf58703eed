package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// dialTimeout bounds a connect with its handshake.
const dialTimeout = 2 * time.Second

// The oldest servers: RESP3 came with 6.0, sharded Pub/Sub, which a Redis Cluster needs, with 7.0.
const (
	oldestServer  = 6
	oldestCluster = 7
)

// mode is how the Redis at the addresses is built.
type mode string

const (
	single    mode = "standalone"
	clustered mode = "cluster"
	watched   mode = "sentinel"
)

// connect finds out what stands at the addresses and opens a client for it. The errors name the address.
func connect(ctx context.Context, o *Options) (rueidis.Client, seen, error) {
	var failures []error
	for _, address := range o.Addresses {
		s, err := probe(ctx, o, address)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", address, err))
			continue
		}
		client, err := open(o, address, s)
		if err != nil {
			return nil, s, fmt.Errorf("%s: %w", address, plain(err))
		}
		return client, s, nil
	}
	return nil, seen{}, errors.Join(failures...)
}

// seen is what a server says of itself.
type seen struct {
	address string
	mode    mode
	version string
	master  string // of a Sentinel: what it watches
}

// probe asks the server at an address what it is.
func probe(ctx context.Context, o *Options, address string) (s seen, err error) {
	client, err := rueidis.NewClient(clientOption(o, address))
	if err != nil {
		if client != nil {
			client.Close()
		}
		return s, plain(err)
	}
	defer client.Close()
	info, err := client.Do(ctx, client.B().Info().Section("server").Build()).ToString()
	if err != nil {
		return s, plain(err)
	}
	s.address, s.version, s.mode = address, infoField(info, "redis_version"), mode(infoField(info, "redis_mode"))
	major, _ := strconv.Atoi(strings.Split(s.version, ".")[0])
	switch {
	case major < oldestServer:
		return s, fmt.Errorf("version %s of Redis is too old, %d.0 is needed", s.version, oldestServer)
	case s.mode == clustered && major < oldestCluster:
		return s, fmt.Errorf("version %s of Redis is too old, a Redis Cluster needs %d.0 (sharded Pub/Sub)", s.version, oldestCluster)
	case s.mode == watched:
		s.master, err = masterOf(ctx, client, o.Master)
	}
	return s, err
}

// masterOf is the name of the master that a Sentinel watches; with several, name says which.
func masterOf(ctx context.Context, client rueidis.Client, name string) (string, error) {
	list, err := client.Do(ctx, client.B().Arbitrary("SENTINEL", "MASTERS").Build()).ToArray()
	if err != nil {
		return "", plain(err)
	}
	var names []string
	for _, m := range list {
		fields, err := m.AsStrMap()
		if err != nil {
			return "", err
		}
		if fields["name"] == name {
			return name, nil
		}
		names = append(names, fields["name"])
	}
	switch {
	case name != "":
		return "", fmt.Errorf("the Sentinel watches no master %q, but %s", name, strings.Join(names, ", "))
	case len(names) != 1:
		return "", fmt.Errorf("the Sentinel watches %d masters (%s): name one", len(names), strings.Join(names, ", "))
	}
	return names[0], nil
}

// open opens the client that works.
func open(o *Options, address string, s seen) (client rueidis.Client, err error) {
	option := clientOption(o, address)
	if o.Master != "" && s.mode != watched {
		return nil, fmt.Errorf("it is no Sentinel, but a server, and a master %q is to be asked for", o.Master)
	}
	switch s.mode {
	case single:
		if len(o.Addresses) > 1 {
			return nil, errors.New("it is neither part of a Redis Cluster nor a Sentinel, so it must be the only address")
		}
		option.SelectDB = o.DB
	case clustered:
		if o.DB != 0 {
			return nil, fmt.Errorf("a Redis Cluster has only database 0, not %d", o.DB)
		}
		option.ForceSingleClient = false
		option.InitAddress = o.Addresses
		option.ClusterOption.ShardsRefreshInterval = 15 * time.Second
	case watched:
		option.ForceSingleClient = false
		option.InitAddress = o.Addresses
		option.SelectDB = o.DB
		option.Sentinel = rueidis.SentinelOption{
			MasterSet: s.master, Password: o.Password, Dialer: option.Dialer, TopologyRefreshInterval: 5 * time.Second,
		}
	default:
		return nil, fmt.Errorf("redis_mode %q is not known", s.mode)
	}
	if client, err = rueidis.NewClient(option); err != nil && client != nil {
		client.Close()
	}
	return client, err
}

// clientOption is what all clients have in common. Retries are our own: nearly nothing may be done twice. A server that
// is silent for a second is pinged, and given up three seconds later.
func clientOption(o *Options, address string) rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress:         []string{address},
		ForceSingleClient:   true,
		Password:            o.Password,
		ClientName:          "meshtalk",
		DisableCache:        true,
		DisableRetry:        true,
		AlwaysPipelining:    true,
		PipelineMultiplex:   1,       // two connections a server
		RingScaleEachConn:   9,       // 512 requests in flight; ours are whole pipelines
		ReadBufferEachConn:  1 << 16, // bytes
		WriteBufferEachConn: 1 << 16, // bytes
		Dialer:              net.Dialer{Timeout: dialTimeout, KeepAlive: time.Second},
		ConnWriteTimeout:    3 * time.Second,
	}
}

// infoField is a value of what INFO and CLUSTER INFO answer: a verbatim string of RESP3, which begins with its format.
func infoField(info, name string) string {
	for line := range strings.Lines(strings.TrimPrefix(info, "txt:")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			return value
		}
	}
	return ""
}

// plain says in our words what Redis refuses at the start.
func plain(err error) error {
	switch text := err.Error(); {
	case strings.Contains(text, "WRONGPASS"), strings.Contains(text, "invalid password"):
		return errors.New("the password is wrong")
	case strings.Contains(text, "NOAUTH"):
		return errors.New("the server wants a password")
	case strings.Contains(text, "DB index is out of range"):
		return errors.New("the server has no database of that number")
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return op.Err // the address stands before it already
	}
	return err
}
