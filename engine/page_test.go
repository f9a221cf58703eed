package engine

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

func withPages(f func(codec.Handshake, func([]byte))) func(*Options) {
	return func(o *Options) {
		o.Upgrade.Pages = "/demo"
		o.Pages = f
	}
}

// response is a whole HTTP answer with that body.
func response(body []byte) []byte {
	return append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", len(body)), body...)
}

// A page of any size comes whole, from another goroutine, and the handler hears nothing of it.
func TestPages(t *testing.T) {
	heard := func(c *Conn, _ *codec.Handshake) { t.Error("the handler was told of a page") }
	s := start(t, &script{open: heard, closed: func(*Conn, Reason) { t.Error("the handler was told of its end") }}, withPages(
		func(h codec.Handshake, answer func([]byte)) {
			var size int
			_, _ = fmt.Sscan(h.Query, &size)
			go answer(response(bytes.Repeat([]byte{'x'}, size)))
		}))
	defer s.stop(t)
	for _, size := range []int{0, 1, 70_000, 3 << 20} {
		answer, err := http.Get(fmt.Sprintf("http://%s/demo/a?%d", s.ws, size))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || len(body) != size {
			t.Errorf("%d of %d bytes, %v", len(body), size, err)
		}
	}
	eventually(t, "the ends are counted", func() bool { return s.Stats().Closes[ReasonPage] == 4 })
}

// Half a request, bytes behind it, a peer that goes, and an answer that never comes.
func TestPagesOfBadPeers(t *testing.T) {
	asked := make(chan func([]byte), 4)
	s := start(t, &script{}, func(o *Options) {
		withPages(func(_ codec.Handshake, answer func([]byte)) { asked <- answer })(o)
		o.HandshakeTimeout = time.Second
	})
	defer s.stop(t)
	const pageRequest = "GET /demo HTTP/1.1\r\nHost: h\r\n\r\n"
	dial := func() net.Conn {
		nc, err := net.Dial("tcp", s.ws.String())
		if err != nil {
			t.Fatal(err)
		}
		return nc
	}

	slow := dial()
	defer slow.Close()
	for _, b := range []byte(pageRequest + "and more") {
		_, _ = slow.Write([]byte{b})
	}
	(<-asked)(response([]byte("hello")))
	if got, err := io.ReadAll(slow); err != nil || !strings.HasSuffix(string(got), "hello") {
		t.Errorf("byte by byte: %q, %v", got, err)
	}

	gone := dial()
	_, _ = gone.Write([]byte(pageRequest))
	answer := <-asked
	_ = gone.Close()
	eventually(t, "the connection is forgotten", func() bool { return s.Stats().Connections[codec.WebSocket] == 0 })
	answer(response([]byte("late"))) // must find nobody

	waiting := dial()
	defer waiting.Close()
	_, _ = waiting.Write([]byte(pageRequest))
	<-asked
	if got, err := io.ReadAll(waiting); err != nil && len(got) > 0 {
		t.Errorf("without an answer: %q, %v", got, err)
	}
}
