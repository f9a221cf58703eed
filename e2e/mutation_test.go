package e2e_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

const (
	mutations = 4_000
	mutants   = 64 // at the same time
)

// A valid dialogue of every command, with one byte changed at random, again and again on both ports: the process lives, nothing panics,
// and two who talk meanwhile notice nothing.
func TestMutations(t *testing.T) {
	ctx := patient(t)
	p := spawn(t, t.TempDir())
	q := newPair(ctx, t, p)
	users := make([]*user, mutants)
	for i := range users {
		users[i] = &user{name: fmt.Sprint("mutant", i)}
	}
	makeGroup(t, p, users)
	talk := startChat(ctx, q, 0)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, u := range users { // something to acknowledge, to read and to recall
		p.call(http.MethodPost, "/v1/messages", fmt.Sprintf(`{"id":"first","from":%q,"to":%q,"content":1}`, u.name, u.name))
	}
	whole(t, p, "tcp", users[0].name)
	whole(t, p, "websocket", users[1].name)
	var all sync.WaitGroup
	for i, u := range users {
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for n := range mutations / mutants {
				transport := []string{"tcp", "websocket"}[n%2]
				b := dialogue(p, transport, u.name, fmt.Sprint(n))
				at := random.IntN(len(b))
				b[at] ^= byte(1 + random.IntN(255))
				if _, err := replay(p, transport, b); err != nil {
					t.Errorf("%s, byte %d changed to %d: %v", transport, at, b[at], err)
					return
				}
			}
		})
	}
	all.Wait()
	trips, worst := talk.end(t)
	t.Logf("%d mutations; %d round trips of others meanwhile, the worst took %v", mutations, trips, worst)
	if trips < 10 {
		t.Errorf("only %d round trips of others", trips)
	}
	until(t, "the mutants' connections are gone", func() (any, bool) {
		n := p.connections()
		return n, n == 2
	})
	p.unharmed()
}

// dialogue is what one connection sends, as bytes.
func dialogue(p *process, transport, name, id string) (b []byte) {
	mask := [4]byte{7, 77, 177, 99}
	if transport == "websocket" {
		b = append(b, "GET /im HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"...)
		b = codec.AppendMaskedFrame(b, codec.OpPing, []byte("ping"), mask)
	}
	for _, packet := range []string{
		`{"cmd":1,"id":"early"}`,
		fmt.Sprintf(`{"cmd":0,"id":"login","data":{"accessToken":%q,"ack":"client","window":8}}`, p.token(name)),
		fmt.Sprintf(`{"cmd":3,"id":"p%s","data":{"to":%q,"type":1,"content":{"a":[1,"é\u00e9"]}}}`, id, name),
		fmt.Sprintf(`{"cmd":4,"id":"g%s","data":{"group":"team","content":"to all"}}`, id),
		fmt.Sprintf(`{"cmd":3,"id":"e%s","data":{"to":%q,"content":null,"ephemeral":true}}`, id, name),
		`{"cmd":8,"id":"pull","data":{"after":0,"limit":3}}`,
		`{"cmd":7,"data":{"inbox":1}}`,
		fmt.Sprintf(`{"cmd":9,"id":"history","data":{"conv":"p:%s:%s","limit":2}}`, name, name),
		`{"cmd":9,"id":"team","data":{"conv":"g:team","after":0,"limit":2}}`,
		fmt.Sprintf(`{"cmd":10,"data":{"conv":"p:%s:%s","seq":1}}`, name, name),
		`{"cmd":12,"data":{"group":"team"}}`,
		`{"cmd":13,"id":"watch","data":{"watch":["mutant0","mutant1"],"unwatch":["mutant0"]}}`,
		fmt.Sprintf(`{"cmd":14,"id":"r%s","data":{"conv":"p:%s:%s","seq":1}}`, id, name, name),
		fmt.Sprintf(`{"cmd":17,"id":"refresh","data":{"accessToken":%q}}`, p.token(name)),
		`{"cmd":19,"id":"conversations","data":{"limit":2}}`,
		`{"cmd":1,"id":"late"}`,
		`{"cmd":18,"id":"bye","data":{}}`,
	} {
		if transport == "websocket" {
			b = codec.AppendMaskedFrame(b, codec.OpText, []byte(packet), mask)
		} else {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(packet))), packet...)
		}
	}
	return b
}

// bye is what the answer to LOGOUT, the last packet of a dialogue, has and no other.
var bye = []byte(`{"cmd":18,"id":"bye"`)

// replay writes b to a fresh connection and waits for the answer to its last packet, or until nothing more comes; then it ends its own
// side and waits until the server has ended the other.
func replay(p *process, transport string, b []byte) (answer []byte, err error) {
	const silence = 100 * time.Millisecond
	u, err := url.Parse(p.urls[transport])
	if err != nil {
		return nil, err
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write(b); err != nil {
		return nil, nil // the server has closed already
	}
	room := make([]byte, 64<<10)
	for n := 0; err == nil && !bytes.Contains(answer, bye); answer = append(answer, room[:n]...) {
		_ = c.SetReadDeadline(time.Now().Add(silence))
		n, err = c.Read(room)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_ = c.(*net.TCPConn).CloseWrite()
	rest, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errors.New("the server keeps a connection that has ended")
	}
	return append(answer, rest...), nil
}

// whole replays a dialogue as it is: every packet must be answered, but for the sends, which may not be kept yet when LOGOUT comes, and
// none refused.
func whole(t *testing.T, p *process, transport, name string) {
	t.Helper()
	answer, err := replay(p, transport, dialogue(p, transport, name, "whole"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"early", "login", "ewhole", "pull", "history", "team", "watch", "refresh", "conversations", "late", "bye"} {
		if !bytes.Contains(answer, fmt.Appendf(nil, `,"id":%q`, id)) {
			t.Errorf("%s: nothing answers %q of the unchanged dialogue", transport, id)
		}
	}
	if at := bytes.Index(answer, []byte(`{"cmd":15`)); at >= 0 {
		t.Errorf("%s: the unchanged dialogue was refused: %.200q", transport, answer[at:])
	}
}
