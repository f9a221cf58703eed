package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// caller asks a handler as a back-end on the same host does, and holds what passes against the document.
type caller struct {
	t testing.TB
	h http.Handler
	c *contract
}

func newCaller(t testing.TB, h Hub) *caller {
	return &caller{t, New(h, Options{MaxContent: 200, MaxMembers: 5, Version: "v1", Node: "n1", Started: time.Now()}), loadContract(t)}
}

// answer is what a call got.
type answer struct {
	status int
	header http.Header
	body   string
}

func (c *caller) ask(method, path, body string) answer {
	c.t.Helper()
	r := httptest.NewRequest(method, "http://127.0.0.1:8090"+path, strings.NewReader(body))
	a := ask(c.t, c.h, r)
	if a.status == http.StatusOK && body != "" {
		if err := c.c.request(method, r.URL.EscapedPath(), []byte(body)); err != nil {
			c.t.Errorf("%s %s %s is served and not documented: %v", method, path, body, err)
		}
	}
	if method != http.MethodHead && a.header.Get("Content-Type") == "application/json" {
		if err := c.c.answer(method, r.URL.EscapedPath(), a.status, []byte(a.body)); err != nil {
			c.t.Errorf("%s %s: the answer %s is not as documented: %v", method, path, a.body, err)
		}
	}
	return a
}

func ask(t testing.TB, h http.Handler, r *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{w.Code, w.Result().Header, string(b)}
}

func sameJSON(t testing.TB, a, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Fatalf("%v: %s", err, a)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return reflect.DeepEqual(x, y)
}

const aliceBob = `"msgId":"` + aliceBobID + `","conv":"p:alice:bob"`

// aliceBobID is the msgId of (alice, c-1).
const aliceBobID = "e668c499aaec651f4c19f92cb15893aa"

// shown is the fake's message as JSON, without conv.
const shown = `"msgId":"` + aliceBobID + `","from":"alice","to":"bob","ts":1700000000000,"type":3,"id":"c-1"`

func TestCalls(t *testing.T) {
	const ok = `"seq":7,"ts":1700000000000`
	f := &fake{}
	c := newCaller(t, f)
	for _, x := range []struct{ method, path, body, call, answer string }{
		{"POST", "/v1/messages", `{"id":"c-1","from":"alice","to":"bob","content":"hi"}`,
			`send from="alice" to="bob" group="" id="c-1" type=0 ephemeral=false "hi"`,
			`{"results":[{"to":"bob",` + aliceBob + `,` + ok + `}]}`},
		{"POST", "/v1/messages", `{"id":"c-1","from":"alice","group":"team","content":null,"type":-9}`,
			`send from="alice" to="" group="team" id="c-1" type=-9 ephemeral=false null`,
			`{"results":[{"group":"team","msgId":"` + aliceBobID + `","conv":"g:team",` + ok + `}]}`},
		{"POST", "/v1/messages", `{"id":"c-1","from":"alice","to":"bob","content":[],"ephemeral":true}`,
			`send from="alice" to="bob" group="" id="c-1" type=0 ephemeral=true []`,
			`{"results":[{"to":"bob",` + aliceBob + `,"ts":1700000000000}]}`},
		{"POST", "/v1/messages", `{"id":"a","to":42,"content":false,"ephemeral":false}`,
			`send from="" to="42" group="" id="a" type=0 ephemeral=false false`,
			`{"results":[{"to":"42","msgId":"` + codec.MakeMsgID("", []byte("a")).String() + `","conv":"n:42",` + ok + `}]}`},
		{"POST", "/v1/messages", `{"id":"a","users":["bob"],"content":1}`,
			`send from="" to="bob" group="" id="a/bob" type=0 ephemeral=false 1`,
			`{"results":[{"to":"bob","msgId":"` + codec.MakeMsgID("", []byte("a/bob")).String() + `","conv":"n:bob",` + ok + `}]}`},
		{"POST", "/v1/broadcast", `{"type":2,"content":{"a":[1]}}`, `broadcast type=2 {"a":[1]}`, `{"online":3}`},
		{"POST", "/v1/presence", `{"users":["alice",7]}`, `presence ["alice" "7"]`, `{"states":[
			{"user":"alice","online":true,"terminals":["web"],"lastSeen":1700000000000},{"user":"7","online":false,"terminals":[],"lastSeen":0}]}`},
		{"POST", "/v1/presence", `{"users":[]}`, `presence []`, `{"states":[]}`},
		{"GET", "/v1/users/alice", "", `user "alice"`, `{"user":"alice","online":true,"lastSeen":1700000000000,"inbox":{"head":9,"first":2},
			"terminals":[{"terminal":"web","sessionId":"s-1","node":"n1","transport":"websocket","ip":"127.0.0.1","since":1700000000000,"acked":8,"lagging":true}],"positions":{"web":8,"ios":3}}`},
		{"GET", "/v1/users/nobody", "", `user "nobody"`, `{"user":"nobody","online":false,"lastSeen":0,"inbox":{"head":0,"first":1},"terminals":[],"positions":{}}`},
		{"GET", "/v1/users/42", "", `user "42"`, `{"user":"42","online":false,"lastSeen":0,"inbox":{"head":0,"first":1},"terminals":[],"positions":{}}`},
		{"GET", "/v1/users/%C3%A9%20%25", "", `user "é %"`, `{"user":"é %","online":false,"lastSeen":0,"inbox":{"head":0,"first":1},"terminals":[],"positions":{}}`},
		{"GET", "/v1/users/%2e%2e", "", `user ".."`, `{"user":"..","online":false,"lastSeen":0,"inbox":{"head":0,"first":1},"terminals":[],"positions":{}}`},
		{"GET", "/v1/users", "", `online prefix="" after="" limit=50`, `{"users":["alice","bob"],"more":true}`},
		{"GET", "/v1/users?prefix=nobody&after=x&limit=900", "", `online prefix="nobody" after="x" limit=200`, `{"users":[],"more":false}`},
		{"GET", "/v1/users/alice/conversations?cursor=c&limit=1", "", `conversations user="alice" cursor="c" limit=1`,
			`{"conversations":[{"conv":"p:alice:bob","kind":"private","peer":"bob","head":4,"read":2,"unread":1,"peerDelivered":4,"peerRead":3}],"cursor":"next"}`},
		{"POST", "/v1/users/alice/kick", `{"terminal":"web","reason":"enough"}`, `kick "alice" "web" "enough"`, `{"closed":2}`},
		{"POST", "/v1/users/alice/kick", `{}`, `kick "alice" "" ""`, `{"closed":2}`},
		{"POST", "/v1/users/alice/kick", ``, `kick "alice" "" ""`, `{"closed":2}`},
		{"POST", "/v1/users/alice/revoke", `{"before":1600000000000}`, `revoke "alice" 1600000000000`, `{"before":1700000000000}`},
		{"POST", "/v1/users/alice/revoke", `{"before":0}`, `revoke "alice" 1`, `{"before":1700000000000}`},
		{"POST", "/v1/users/alice/revoke", ``, `revoke "alice" 0`, `{"before":1700000000000}`},
		{"GET", "/v1/users/bob/inbox?after=3&limit=2", "", `inbox "bob" 3 2`, `{"entries":[
			{"cmd":3,"data":{"inbox":4,"conv":"p:alice:bob","seq":1,` + shown + `,"content":` + oddContent + `}},
			{"cmd":14,"data":{"inbox":5,"conv":"p:alice:bob","seq":2,"target":1,"ts":1700000000000}}],"head":5,"first":1,"more":false}`},
		{"PUT", "/v1/groups/team", `{"members":["carol","bob",3,"bob"]}`, `put "team" ["3" "bob" "carol"]`, `{"group":"team","size":2,"kind":"inbox","head":5}`},
		{"PUT", "/v1/groups/team", `{"members":[]}`, `put "team" []`, `{"group":"team","size":2,"kind":"inbox","head":5}`},
		{"PUT", "/v1/groups/team", `{"members":null}`, `put "team" as it is`, `{"group":"team","size":2,"kind":"inbox","head":5}`},
		{"PUT", "/v1/groups/team", `{}`, `put "team" as it is`, `{"group":"team","size":2,"kind":"inbox","head":5}`},
		{"GET", "/v1/groups/crowd", "", `group "crowd"`, `{"group":"crowd","size":2,"kind":"large","head":5}`},
		{"DELETE", "/v1/groups/team", "", `delete "team"`, `{}`},
		{"GET", "/v1/groups/team/members", "", `members "team" "" 100`, `{"members":["alice","bob"],"cursor":"bob"}`},
		{"GET", "/v1/groups/empty/members?limit=1&cursor=x", "", `members "empty" "x" 1`, `{"members":[]}`},
		{"POST", "/v1/groups/team/members", `{"add":["dave","carol"],"remove":["bob"]}`, `change "team" ["carol" "dave"] ["bob"]`, `{"size":4}`},
		{"POST", "/v1/groups/team/members", `{}`, `change "team" [] []`, `{"size":4}`},
		{"GET", "/v1/conversations/p:alice:bob/messages?before=9", "", `messages "p:alice:bob" 9 - 50`, `{"conv":"p:alice:bob","messages":[
			{"conv":"p:alice:bob","seq":1,` + shown + `,"content":` + oddContent + `},
			{"conv":"p:alice:bob","seq":2,` + shown + `,"content":null,"recalled":true},
			{"conv":"p:alice:bob","seq":3,"target":2,"from":"alice","ts":1700000000000}],"more":true}`},
		{"GET", "/v1/conversations/n%3Anobody/messages?after=0", "", `messages "n:nobody" - 0 50`, `{"conv":"n:nobody","messages":[],"more":false}`},
		{"DELETE", "/v1/conversations/p%3aalice:bob/messages/3", "", `recall "p:alice:bob" 3`, `{"seq":12}`},
		{"GET", "/v1/nodes", "", `nodes`, `{"nodes":[{"node":"n1","incarnation":"x","address":"127.0.0.1","since":1700000000000,"connections":2,"sessions":1},
			{"node":"n2","incarnation":"","address":"","since":0,"connections":0,"sessions":0,"queues":[3],"lag":{"3":5}}]}`},
	} {
		a := c.ask(x.method, x.path, x.body)
		if got := f.took(); got != x.call {
			t.Errorf("%s %s %s calls\n%s, want\n%s", x.method, x.path, x.body, got, x.call)
		}
		if a.status != http.StatusOK || !sameJSON(t, a.body, x.answer) {
			t.Errorf("%s %s %s: %d\n%s, want\n%s", x.method, x.path, x.body, a.status, a.body, x.answer)
		}
	}
}

func TestLimits(t *testing.T) {
	f := &fake{}
	c := newCaller(t, f)
	for _, x := range []struct{ path, call string }{
		{"/v1/users/a/inbox", `inbox "a" 0 100`},
		{"/v1/users/a/inbox?limit=500", `inbox "a" 0 500`},
		{"/v1/users/a/inbox?limit=501", `inbox "a" 0 500`},
		{"/v1/users/a/inbox?limit=99999999999999999999999", `inbox "a" 0 500`},
		{"/v1/users/a/inbox?after=9007199254740991", `inbox "a" 9007199254740991 100`},
		{"/v1/groups/a/members?limit=1000", `members "a" "" 1000`},
		{"/v1/groups/a/members?limit=1001", `members "a" "" 1000`},
		{"/v1/conversations/g:a/messages?limit=200", `messages "g:a" - - 200`},
		{"/v1/conversations/g:a/messages?limit=201", `messages "g:a" - - 200`},
		{"/v1/conversations/g:a/messages?limit=1", `messages "g:a" - - 1`},
	} {
		if a := c.ask("GET", x.path, ""); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", x.path, a.status, a.body)
		}
		if got := f.took(); got != x.call {
			t.Errorf("%s calls %s, want %s", x.path, got, x.call)
		}
	}
}

// Content is relayed byte for byte, in and out.
func TestContentIsNotRewritten(t *testing.T) {
	f := &fake{}
	c := newCaller(t, f)
	c.ask("POST", "/v1/messages", `{"id":"a","to":"bob","content":  `+oddContent+`  }`)
	if got := f.took(); !strings.HasSuffix(got, "ephemeral=false "+oddContent) {
		t.Errorf("in: %s", got)
	}
	for _, path := range []string{"/v1/users/bob/inbox", "/v1/conversations/p:alice:bob/messages"} {
		if a := c.ask("GET", path, ""); !strings.Contains(a.body, `"content":`+oddContent+`,`) {
			t.Errorf("out: %s", a.body)
		}
	}
}

func TestStats(t *testing.T) {
	f := &fake{}
	h := New(f, Options{Version: "v1.2.3", Node: "n1", Started: time.Now().Add(-time.Hour), Extra: func() map[string]any {
		return map[string]any{"sessions": 5, "node": "not mine to say"}
	}})
	c := &caller{t, h, loadContract(t)}
	a := c.ask("GET", "/v1/stats", "")
	var got map[string]any
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"version": "v1.2.3", "node": "n1", "sessions": 5.0, "usersOnline": 1.0, "readOnly": false,
		"commitSeconds": map[string]any{"bounds": []any{.01}, "counts": []any{3.0, 1.0}, "count": 4.0, "sum": .5}} {
		if !reflect.DeepEqual(got[key], want) {
			t.Errorf("%s: %v, want %v", key, got[key], want)
		}
	}
	if up := got["uptime"].(float64); up < 3600 {
		t.Errorf("uptime %v s", up)
	}
}

func TestDocumentIsServed(t *testing.T) {
	a := newCaller(t, &fake{}).ask("GET", "/openapi.yaml", "")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/yaml" || a.body != string(document) {
		t.Errorf("got %d %q and %d bytes", a.status, a.header.Get("Content-Type"), len(a.body))
	}
}

func TestHead(t *testing.T) {
	s := httptest.NewServer(New(&fake{}, Options{}))
	defer s.Close()
	r, err := s.Client().Head(s.URL + "/v1/groups/team")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	if b, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusOK || len(b) != 0 || r.ContentLength <= 0 {
		t.Errorf("%d, %d bytes, length %d", r.StatusCode, len(b), r.ContentLength)
	}
}

// Every refusal of the hub has its status; what is no refusal is INTERNAL, hidden from the caller and logged.
func TestHubErrors(t *testing.T) {
	f := &fake{}
	var logged strings.Builder
	h := New(f, Options{MaxContent: 10, Logf: func(format string, _ ...any) { logged.WriteString(format) }})
	c := &caller{t, h, loadContract(t)}
	for _, x := range []struct {
		err    error
		status int
		retry  string
		answer string
	}{
		{refuse(codec.CodeBadPacket, "x"), 400, "", `{"error":{"code":4000,"name":"BAD_PACKET","message":"x"}}`},
		{refuse(codec.CodeUnauthorized, "x"), 401, "", `{"error":{"code":4001,"name":"UNAUTHORIZED","message":"x"}}`},
		{refuse(codec.CodeForbidden, "x"), 403, "", `{"error":{"code":4003,"name":"FORBIDDEN","message":"x"}}`},
		{refuse(codec.CodeNotFound, "x"), 404, "", `{"error":{"code":4004,"name":"NOT_FOUND","message":"x"}}`},
		{refuse(codec.CodeConflict, "x"), 409, "", `{"error":{"code":4012,"name":"CONFLICT","message":"x"}}`},
		{refuse(codec.CodeTooLarge, "x"), 413, "", `{"error":{"code":4013,"name":"TOO_LARGE","message":"x"}}`},
		{&hub.Error{Code: codec.CodeRateLimited, Message: "x"}, 429, "1", `{"error":{"code":4029,"name":"RATE_LIMITED","message":"x"}}`},
		{&hub.Error{Code: codec.CodeUnavailable, Message: "x", RetryAfterMs: 1001}, 503, "2", `{"error":{"code":5003,"name":"UNAVAILABLE","message":"x"}}`},
		{refuse(codec.CodeInternal, "x"), 500, "", `{"error":{"code":5000,"name":"INTERNAL","message":"x"}}`},
		{errors.New("secret/path"), 500, "", `{"error":{"code":5000,"name":"INTERNAL","message":"internal error"}}`},
	} {
		f.fail(x.err)
		for _, call := range [][3]string{
			{"POST", "/v1/messages", `{"id":"a","to":"b","content":1}`}, {"POST", "/v1/broadcast", `{"content":1}`},
			{"POST", "/v1/presence", `{"users":["a"]}`},
			{"GET", "/v1/users/a", ""}, {"POST", "/v1/users/a/kick", ""}, {"POST", "/v1/users/a/revoke", ""}, {"GET", "/v1/users/a/inbox", ""},
			{"PUT", "/v1/groups/a", ""}, {"GET", "/v1/groups/a", ""}, {"DELETE", "/v1/groups/a", ""},
			{"GET", "/v1/groups/a/members", ""}, {"POST", "/v1/groups/a/members", ""},
			{"GET", "/v1/conversations/g:a/messages", ""}, {"DELETE", "/v1/conversations/g:a/messages/1", ""},
			{"GET", "/v1/nodes", ""},
		} {
			a := c.ask(call[0], call[1], call[2])
			if a.status != x.status || a.header.Get("Retry-After") != x.retry || !sameJSON(t, a.body, x.answer) {
				t.Errorf("%v of %v: %d %q %s", x.err, call, a.status, a.header.Get("Retry-After"), a.body)
			}
		}
	}
	if !strings.Contains(logged.String(), "%s: %v") {
		t.Error("an unexpected error was not logged")
	}
}

func TestPanicIsAnswered(t *testing.T) {
	var logged string
	h := New(panicking{&fake{}}, Options{Logf: func(format string, _ ...any) { logged = format }})
	a := (&caller{t, h, loadContract(t)}).ask("GET", "/v1/stats", "")
	if a.status != http.StatusInternalServerError || !strings.HasPrefix(logged, "panic in") {
		t.Errorf("got %d %s, logged %q", a.status, a.body, logged)
	}
}

type panicking struct{ *fake }

func (panicking) Stats() hub.Stats { panic("oh") }

func TestConcurrentUse(t *testing.T) {
	f := &fake{}
	h := New(f, Options{MaxContent: 100})
	var wg sync.WaitGroup
	for range 8 {
		for _, x := range [][3]string{
			{"POST", "/v1/messages", `{"id":"a","users":["a","b","c","d"],"content":1}`},
			{"GET", "/v1/conversations/g:a/messages", ""}, {"GET", "/v1/stats", ""}, {"PUT", "/v1/groups/a", `{"members":["a"]}`},
		} {
			wg.Go(func() {
				for range 50 {
					r := httptest.NewRequest(x[0], "http://localhost"+x[1], strings.NewReader(x[2]))
					if a := ask(t, h, r); a.status != http.StatusOK {
						t.Errorf("%v: %d %s", x, a.status, a.body)
					}
				}
			})
		}
	}
	wg.Wait()
}
