package api

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"testing"
)

// A real server: one call over a connection that is kept, and an end that leaves nothing behind (TestMain looks).
func TestServer(t *testing.T) {
	var logged bytes.Buffer
	s := NewServer(New(&fake{}, Options{}), log.New(&logged, "", 0))
	if s.ReadHeaderTimeout == 0 || s.IdleTimeout == 0 || s.MaxHeaderBytes == 0 {
		t.Error("a stalled client is never cut off")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	client := &http.Client{Transport: &http.Transport{}}
	for range 2 {
		r, err := client.Get("http://" + ln.Addr().String() + "/v1/nodes")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if r.StatusCode != http.StatusOK || r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%d %v %s", r.StatusCode, r.Header, b)
		}
	}
	client.CloseIdleConnections()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != http.ErrServerClosed {
		t.Error(err)
	}
	if logged.Len() > 0 {
		t.Errorf("logged: %s", &logged)
	}
}
