package client

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/meshtalk/meshtalk/codec"
)

func TestMain(m *testing.M) {
	// A property here is a dialogue over sockets, some 0.1 s: fewer of them than rapid's 100, unless asked for.
	if err := flag.Set("rapid.checks", "30"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

var transports = []codec.Transport{codec.TCP, codec.WebSocket}

// mustPair is a Conn and the peer that it talks to.
func mustPair(t *testing.T, transport codec.Transport, o ConnOptions) (*Conn, *peer) {
	t.Helper()
	ln, addr := mustListen(t, transport)
	peers := make(chan *peer, 1)
	go func() {
		p, err := accept(ln, transport)
		if err != nil {
			t.Errorf("accept: %v", err)
		}
		peers <- p
	}()
	c, err := DialConn(t.Context(), addr, o)
	if err != nil {
		t.Fatal(err)
	}
	p := <-peers
	t.Cleanup(func() { _, _ = c.Close(), p.nc.Close() })
	return c, p
}

func TestConnCarriesPackets(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport.String(), func(t *testing.T) {
			c, p := mustPair(t, transport, ConnOptions{})
			for _, size := range []int{1, 125, 126, 65_535, 65_536, 300_000} {
				want := bytes.Repeat([]byte{'x'}, size)
				go func() {
					msg, err := p.recv()
					if err == nil {
						err = p.send(msg.Payload)
					}
					if err != nil {
						t.Errorf("echo: %v", err)
					}
				}()
				if err := c.Send(t.Context(), want); err != nil {
					t.Fatal(err)
				}
				got, err := c.Receive(t.Context())
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes came back as %d, %v", size, len(got), err)
				}
			}
		})
	}
}

func TestConnReceivesFramesByteByByte(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport.String(), func(t *testing.T) {
			c, p := mustPair(t, transport, ConnOptions{})
			go func() {
				for _, b := range append(p.frame(codec.OpText, []byte(`{"cmd":1}`)), p.frame(codec.OpText, []byte(`{"cmd":20}`))...) {
					_, _ = p.nc.Write([]byte{b})
				}
			}()
			for _, want := range []codec.Cmd{codec.HeartBeat, codec.Lag} {
				got, err := c.ReceivePacket(t.Context())
				if err != nil || got.Cmd != want {
					t.Fatalf("got %v, %v, want %d", got, err, want)
				}
			}
		})
	}
}

func TestConnReceiveEndsWithItsContextAndGoesOn(t *testing.T) {
	c, p := mustPair(t, codec.WebSocket, ConnOptions{})
	frame := p.frame(codec.OpText, []byte(`{"cmd":1}`))
	if _, err := p.nc.Write(frame[:4]); err != nil { // half a frame must survive the interruption
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if _, err := p.nc.Write(frame[4:]); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Receive(t.Context()); err != nil || string(got) != `{"cmd":1}` {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestConnCloseCodes(t *testing.T) {
	t.Run("close frame", func(t *testing.T) {
		c, p := mustPair(t, codec.WebSocket, ConnOptions{})
		if _, err := p.nc.Write(codec.AppendCloseFrame(nil, 4009, "REPLACED")); err != nil {
			t.Fatal(err)
		}
		var ended *CloseError
		if _, err := c.Receive(t.Context()); !errors.As(err, &ended) || ended.Code != 4009 || ended.Reason != "REPLACED" {
			t.Fatalf("got %v", err)
		}
		if msg, err := p.recv(); err != nil || msg.Op != codec.OpClose || !bytes.Equal(msg.Payload, []byte{4009 >> 8, 4009 & 0xff}) {
			t.Fatalf("echo: %v, %v", msg, err)
		}
	})
	for transport, want := range map[codec.Transport]uint16{codec.TCP: 0, codec.WebSocket: 1006} {
		t.Run("end of stream on "+transport.String(), func(t *testing.T) {
			c, p := mustPair(t, transport, ConnOptions{})
			_ = p.nc.Close()
			var ended *CloseError
			if _, err := c.Receive(t.Context()); !errors.As(err, &ended) || ended.Code != want || !errors.Is(err, io.EOF) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestConnControlFrames(t *testing.T) {
	c, p := mustPair(t, codec.WebSocket, ConnOptions{})
	_, _ = p.nc.Write(p.frame(codec.OpPing, []byte("hi")))
	_, _ = p.nc.Write(p.frame(codec.OpText, []byte(`{}`)))
	if got, err := c.Receive(t.Context()); err != nil || string(got) != `{}` {
		t.Fatalf("got %q, %v", got, err)
	}
	if msg, err := p.recv(); err != nil || msg.Op != codec.OpPong || string(msg.Payload) != "hi" {
		t.Fatalf("got %v, %v", msg, err)
	}
	_, _ = p.nc.Write(p.frame(codec.OpPing, []byte("raw")))
	if msg, err := c.ReceiveFrame(t.Context()); err != nil || msg.Op != codec.OpPing || string(msg.Payload) != "raw" {
		t.Fatalf("got %v, %v", msg, err)
	}
}

func TestConnHandshake(t *testing.T) {
	t.Run("sub-protocol and frames behind the answer", func(t *testing.T) {
		c, p := mustPair(t, codec.WebSocket, ConnOptions{Header: http.Header{protocolHeader: {"meshtalk.v1, bearer.abc"}}})
		if c.Subprotocol() != "meshtalk.v1" || p.handshake.Token != "abc" {
			t.Fatalf("selected %q with token %q", c.Subprotocol(), p.handshake.Token)
		}
	})
	t.Run("refused", func(t *testing.T) {
		ln, addr := mustListen(t, codec.WebSocket)
		done := make(chan struct{})
		go func() { defer close(done); _, _ = accept(ln, codec.WebSocket) }()
		_, err := DialConn(t.Context(), addr+"/elsewhere", ConnOptions{})
		var refused *codec.HandshakeError
		if !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
			t.Fatalf("got %v", err)
		}
		<-done
	})
}

func TestParseAddr(t *testing.T) {
	for addr, want := range map[string]target{
		"ws://h":             {codec.WebSocket, false, "h:8080", "h", "/im"},
		"ws://h:1/x?y=z":     {codec.WebSocket, false, "h:1", "h:1", "/x?y=z"},
		"ws://h?y=z":         {codec.WebSocket, false, "h:8080", "h", "/im?y=z"},
		"wss://[::1]:9/im":   {codec.WebSocket, true, "[::1]:9", "[::1]:9", "/im"},
		"tcp://127.0.0.1:42": {codec.TCP, false, "127.0.0.1:42", "127.0.0.1:42", "/im"},
	} {
		if got, err := parseAddr(addr); err != nil || got.transport != want.transport || got.secure != want.secure ||
			got.hostPort != want.hostPort || got.host != want.host || (want.transport == codec.WebSocket && got.uri != want.uri) {
			t.Errorf("%s: got %+v, %v", addr, got, err)
		}
	}
	for _, addr := range []string{"", "h:8080", "http://h", "ws://", "tcp://:1"} {
		if _, err := parseAddr(addr); err == nil {
			t.Errorf("%q was accepted", addr)
		}
	}
}
