package client

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/codec"
)

func TestWebSocketOverTLS(t *testing.T) {
	certs := httptest.NewUnstartedServer(nil) // for its certificate of 127.0.0.1
	certs.StartTLS()
	defer certs.Close()
	srv, addr := newServer(t, codec.WebSocket)
	srv.ln = tls.NewListener(srv.ln, &tls.Config{Certificates: certs.TLS.Certificates})
	srv.start()
	defer srv.stop()
	roots := x509.NewCertPool()
	roots.AddCert(certs.Certificate())
	s := newSeen(t)
	o := options(strings.Replace(addr, "ws://", "wss://", 1), s)
	if c, err := Dial(t.Context(), o); err == nil {
		_ = c.Close()
		t.Error("a certificate of nobody was accepted")
	}
	o.Conn.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	c := mustDial(t, o)
	defer func() { _ = c.Close() }()
	if _, err := c.Send(t.Context(), Outgoing{To: "bob", Content: Text("x")}); err != nil {
		t.Fatal(err)
	}
	s.wait(func() bool { return s.inbox == 1 })
}

func TestNextAddressIsTried(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close()
	srv, addr := newServer(t, codec.TCP)
	srv.start()
	defer srv.stop()
	o := options("tcp://"+nobody.Addr().String(), newSeen(t))
	if c, err := Dial(t.Context(), o); err == nil {
		_ = c.Close()
		t.Error("a closed port answered")
	}
	o.Addrs, o.RetryDial = []string{addr}, true
	c := mustDial(t, o)
	_ = c.Close()
}
