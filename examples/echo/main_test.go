package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// serve runs the program on free ports until the end of the test and returns its addresses.
func serve(t *testing.T) (ws, tcp string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"--ws", "0", "--tcp", "0"}, w) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	address := map[string]string{}
	for in := bufio.NewScanner(r); in.Scan() && in.Text() != "ready"; {
		kind, a, _ := strings.Cut(in.Text(), " ")
		_, port, err := net.SplitHostPort(a)
		if err != nil {
			t.Fatal(err)
		}
		address[kind] = net.JoinHostPort("127.0.0.1", port)
	}
	return address["websocket"], address["tcp"]
}

func TestEcho(t *testing.T) {
	ws, tcp := serve(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c, _, err := websocket.Dial(ctx, "ws://"+ws+"/any/path?at=all", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	raw, err := net.Dial("tcp", tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close() //nolint:errcheck // all that was to come has come
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, maxMessage} {
		want := bytes.Repeat([]byte("x"), n)
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			if n == maxMessage && kind == websocket.MessageBinary {
				continue // the foreign client is slow under the race detector
			}
			if err := c.Write(ctx, kind, want); err != nil {
				t.Fatal(err)
			}
			got, b, err := c.Read(ctx)
			if err != nil || got != kind || !bytes.Equal(b, want) {
				t.Fatalf("%d bytes came back as %d bytes of %v, %v", n, len(b), got, err)
			}
		}
		packet := append(binary.BigEndian.AppendUint32(nil, uint32(n)), want...)
		go raw.Write(packet) //nolint:errcheck // what was not written does not come back, below
		back := make([]byte, len(packet))
		if _, err := io.ReadFull(raw, back); err != nil || !bytes.Equal(back, packet) {
			t.Fatalf("%d bytes by TCP: %v", n, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Error(err)
	}
}
