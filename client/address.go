package client

import (
	"fmt"
	"net"
	"net/url"

	"github.com/meshtalk/meshtalk/codec"
)

// The ports and the path of a server with its default configuration.
const (
	defaultWSPort  = "8080"
	defaultWSSPort = "443"
	defaultTCPPort = "8081"
	defaultPath    = "/im"
)

// target is a parsed server address.
type target struct {
	transport codec.Transport
	secure    bool   // TLS
	hostPort  string // to dial
	host      string // value of the Host header, and the name that TLS verifies
	uri       string // path and query of the upgrade request
}

// parseAddr reads ws://host[:port][/path], wss://… or tcp://host[:port].
func parseAddr(addr string) (target, error) {
	u, err := url.Parse(addr)
	if err != nil {
		return target{}, fmt.Errorf("client: address: %w", err)
	}
	var t target
	var port string
	switch u.Scheme {
	case "ws":
		t.transport, port = codec.WebSocket, defaultWSPort
	case "wss":
		t.transport, port, t.secure = codec.WebSocket, defaultWSSPort, true
	case "tcp":
		t.transport, port = codec.TCP, defaultTCPPort
	default:
		return target{}, fmt.Errorf("client: address %q: want ws://, wss:// or tcp://", addr)
	}
	if u.Hostname() == "" {
		return target{}, fmt.Errorf("client: address %q: no host", addr)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	t.host = u.Host
	t.hostPort = net.JoinHostPort(u.Hostname(), port)
	t.uri = u.RequestURI()
	if u.Path == "" {
		t.uri = defaultPath
		if u.RawQuery != "" {
			t.uri += "?" + u.RawQuery
		}
	}
	return t, nil
}
