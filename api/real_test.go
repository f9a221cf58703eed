package api

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/cluster"
	clusterlocal "github.com/meshtalk/meshtalk/cluster/local"
	"github.com/meshtalk/meshtalk/hub"
	mqlocal "github.com/meshtalk/meshtalk/mq/local"
	"github.com/meshtalk/meshtalk/store/pebble"
)

// real is the API on a hub and a store of its own, without connections.
type real struct {
	*caller
	data string
	stop func() // idempotent
}

func openReal(t *testing.T, data string) *real {
	t.Helper()
	s, err := pebble.Open(pebble.Options{Dir: data, InboxLimit: 3, Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	h := hub.New(hub.Options{
		Store: s, Log: mqlocal.New(1000), Cluster: clusterlocal.New(cluster.Node{ID: "n1", Incarnation: "i", Since: 1}, nil),
		LoopOf: func(hub.Ref) int { return 0 }, MaxMembers: 5, Workers: 2, Logf: t.Logf,
	})
	h.Connect(nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		h.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	o := Options{MaxContent: 1000, DataDir: data, Version: "v1", Node: "n1", Started: time.Now(), Logf: t.Logf}
	return &real{&caller{t, New(h, o), loadContract(t)}, data, stop}
}

func startReal(t *testing.T) *real { return openReal(t, filepath.Join(t.TempDir(), "data")) }

// want makes a call and holds the answer against a pattern: JSON, in which "*" stands for any value.
func (r *real) want(method, path, body string, status int, pattern string) string {
	r.t.Helper()
	a := r.ask(method, path, body)
	if a.status != status {
		r.t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, a.status, a.body, status)
	}
	if pattern != "" {
		var got, want any
		if err := json.Unmarshal([]byte(a.body), &got); err != nil {
			r.t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(pattern), &want); err != nil {
			r.t.Fatalf("%v in %s", err, pattern)
		}
		if at := differ(got, want); at != "" {
			r.t.Errorf("%s %s %s: %s, want %s: differs at %s", method, path, body, a.body, pattern, at)
		}
	}
	return a.body
}

// differ tells where got is not like want, "" nowhere.
func differ(got, want any) string {
	switch want := want.(type) {
	case string:
		if want == "*" {
			return ""
		}
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(want) {
			return "its fields"
		}
		for key := range want {
			if at := differ(g[key], want[key]); at != "" {
				return key + " " + at
			}
		}
		return ""
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(want) {
			return "its length"
		}
		for i := range want {
			if at := differ(g[i], want[i]); at != "" {
				return fmt.Sprint(i, " ", at)
			}
		}
		return ""
	}
	if got != want {
		return fmt.Sprint(got)
	}
	return ""
}

func problemJSON(name string) string {
	return `{"error":{"code":"*","name":"` + name + `","message":"*"}}`
}

// One private message through its life: sent, sent again, read by both, recalled.
func TestRealMessage(t *testing.T) {
	r := startReal(t)
	const send = `{"id":"c-1","from":"bob","to":"alice","type":3,"content":` + oddContent + `}`
	first := r.want("POST", "/v1/messages", send, 200, `{"results":[{"to":"alice","msgId":"*","conv":"p:alice:bob","seq":1,"ts":"*"}]}`)
	again := r.want("POST", "/v1/messages", send, 200, "")
	if want := strings.Replace(first, `}]`, `,"duplicate":true}]`, 1); again != want {
		t.Errorf("again: %s, want %s", again, want)
	}
	r.want("POST", "/v1/messages", strings.Replace(send, "1.50E+2", "150", 1), 409, problemJSON("CONFLICT"))
	r.want("POST", "/v1/messages", strings.Replace(send, `"alice"`, `"carol"`, 1), 409, problemJSON("CONFLICT"))

	const shown = `"msgId":"*","conv":"p:alice:bob","seq":1,"from":"bob","to":"alice","ts":"*","type":3,"id":"c-1"`
	for _, user := range []string{"alice", "bob"} {
		got := r.want("GET", "/v1/users/"+user+"/inbox", "", 200,
			`{"entries":[{"cmd":3,"data":{"inbox":1,`+shown+`,"content":"*"}}],"head":1,"first":1,"more":false}`)
		if !strings.Contains(got, `"content":`+oddContent+`,`) {
			t.Errorf("the content was rewritten: %s", got)
		}
	}
	r.want("GET", "/v1/users/carol/inbox", "", 200, `{"entries":[],"head":0,"first":1,"more":false}`)
	const history = "/v1/conversations/p%3Aalice%3Abob/messages"
	got := r.want("GET", history, "", 200, `{"conv":"p:alice:bob","messages":[{`+shown+`,"content":"*"}],"more":false}`)
	if !strings.Contains(got, `"content":`+oddContent+`,`) {
		t.Errorf("the content was rewritten: %s", got)
	}

	r.want("DELETE", history+"/2", "", 404, problemJSON("NOT_FOUND"))
	r.want("DELETE", history+"/1", "", 200, `{"seq":2}`)
	r.want("DELETE", history+"/1", "", 200, `{"seq":2}`)
	r.want("DELETE", history+"/2", "", 404, problemJSON("NOT_FOUND")) // the event
	r.want("GET", history, "", 200, `{"conv":"p:alice:bob","messages":[{"conv":"p:alice:bob","seq":2,"target":1,"ts":"*"},{`+
		shown+`,"content":null,"recalled":true}],"more":false}`)
	r.want("GET", history+"?after=0&limit=1", "", 200, `{"conv":"p:alice:bob","messages":[{`+shown+`,"content":null,"recalled":true}],"more":true}`)
	r.want("GET", "/v1/users/alice/inbox?after=1", "", 200,
		`{"entries":[{"cmd":14,"data":{"inbox":2,"conv":"p:alice:bob","seq":2,"target":1,"ts":"*"}}],"head":2,"first":1,"more":false}`)
}

// The system writes to many users; the same call again is the same messages.
func TestRealSystemMessages(t *testing.T) {
	r := startReal(t)
	const call = `{"id":"news","users":["alice","bob",7],"content":"hello"}`
	for _, again := range []string{"", `,"duplicate":true`} {
		r.want("POST", "/v1/messages", call, 200, `{"results":[
			{"to":"alice","msgId":"*","conv":"n:alice","seq":1,"ts":"*"`+again+`},
			{"to":"bob","msgId":"*","conv":"n:bob","seq":1,"ts":"*"`+again+`},
			{"to":"7","msgId":"*","conv":"n:7","seq":1,"ts":"*"`+again+`}]}`)
	}
	r.want("POST", "/v1/messages", `{"id":"news","users":["bob","carol"],"content":"other"}`, 200, `{"results":[
		{"to":"bob","msgId":"*","conv":"n:bob","ts":"*","error":{"code":4012,"name":"CONFLICT","message":"*"}},
		{"to":"carol","msgId":"*","conv":"n:carol","seq":1,"ts":"*"}]}`)
	r.want("GET", "/v1/users/7/inbox", "", 200, `{"entries":[{"cmd":5,"data":{"inbox":1,"msgId":"*","conv":"n:7","seq":1,
		"to":"7","ts":"*","type":0,"content":"hello","id":"news/7"}}],"head":1,"first":1,"more":false}`)
	r.want("POST", "/v1/messages", `{"id":"e","to":"bob","content":1,"ephemeral":true}`, 200, `{"results":[{"to":"bob","msgId":"*","conv":"n:bob","ts":"*"}]}`)
	r.want("POST", "/v1/broadcast", `{"content":1}`, 200, `{"online":0}`)
	r.want("GET", "/v1/conversations/n:bob/messages", "", 200, `{"conv":"n:bob","messages":["*"],"more":false}`)
}

func TestRealGroup(t *testing.T) {
	r := startReal(t)
	const group, members = "/v1/groups/team", "/v1/groups/team/members"
	for _, x := range [][2]string{{"GET", group}, {"DELETE", group}, {"GET", members}, {"POST", members}} {
		r.want(x[0], x[1], "", 404, problemJSON("NOT_FOUND"))
	}
	const send = `{"id":"g-1","from":"alice","group":"team","content":1}`
	r.want("POST", "/v1/messages", send, 404, problemJSON("NOT_FOUND"))

	r.want("PUT", group, `{"members":["carol","alice","bob","bob"]}`, 200, `{"group":"team","size":3,"kind":"inbox","head":0}`)
	r.want("GET", members+"?limit=2", "", 200, `{"members":["alice","bob"],"cursor":"bob"}`)
	r.want("GET", members+"?limit=2&cursor=bob", "", 200, `{"members":["carol"]}`)
	r.want("POST", "/v1/messages", send, 200, `{"results":[{"group":"team","msgId":"*","conv":"g:team","seq":1,"ts":"*"}]}`)
	r.want("POST", "/v1/messages", strings.Replace(send, "alice", "dave", 1), 403, problemJSON("FORBIDDEN"))
	r.want("POST", "/v1/messages", `{"id":"s","group":"team","content":2}`, 200, `{"results":[{"group":"team","msgId":"*","conv":"g:team","seq":2,"ts":"*"}]}`)
	r.want("GET", "/v1/users/bob/inbox?after=1", "", 200, `{"entries":[{"cmd":5,"data":{"inbox":2,"msgId":"*","conv":"g:team","seq":2,
		"group":"team","ts":"*","type":0,"content":2,"id":"s"}}],"head":2,"first":1,"more":false}`)

	r.want("PUT", group, "", 200, `{"group":"team","size":3,"kind":"inbox","head":2}`)
	r.want("POST", members, `{"add":["dave","erin","alice"],"remove":["bob","nobody"]}`, 200, `{"size":4}`)
	r.want("GET", group, "", 200, `{"group":"team","size":4,"kind":"large","head":2}`)
	r.want("POST", members, `{"add":["f1","f2"]}`, 400, problemJSON("BAD_PACKET"))
	r.want("PUT", group, `{"members":["1","2","3","4","5","6"]}`, 400, problemJSON("BAD_PACKET"))
	r.want("GET", members, "", 200, `{"members":["alice","carol","dave","erin"]}`)
	r.want("PUT", group, `{"members":[]}`, 200, `{"group":"team","size":0,"kind":"inbox","head":2}`)

	r.want("DELETE", group, "", 200, `{}`)
	r.want("GET", group, "", 404, problemJSON("NOT_FOUND"))
	r.want("GET", "/v1/conversations/g:team/messages", "", 200, `{"conv":"g:team","messages":["*","*"],"more":false}`)
	r.want("PUT", group, `{"members":["alice"]}`, 200, `{"group":"team","size":1,"kind":"inbox","head":2}`)
	r.want("POST", "/v1/messages", `{"id":"g-2","from":"alice","group":"team","content":1}`, 200,
		`{"results":[{"group":"team","msgId":"*","conv":"g:team","seq":3,"ts":"*"}]}`)
}

func TestRealUser(t *testing.T) {
	r := startReal(t)
	r.want("GET", "/v1/users/nobody", "", 200, `{"user":"nobody","online":false,"lastSeen":0,"inbox":{"head":0,"first":1},"terminals":[],"positions":{}}`)
	r.want("POST", "/v1/presence", `{"users":["b","a"]}`, 200, `{"states":[
		{"user":"b","online":false,"terminals":[],"lastSeen":0},{"user":"a","online":false,"terminals":[],"lastSeen":0}]}`)
	r.want("POST", "/v1/users/nobody/kick", "", 200, `{"closed":0}`)

	r.want("POST", "/v1/users/a/revoke", `{"before":2000}`, 200, `{"before":2000}`)
	r.want("POST", "/v1/users/a/revoke", `{"before":1000}`, 200, `{"before":2000}`)
	r.want("POST", "/v1/users/a/revoke", `{"before":0}`, 200, `{"before":2000}`)
	var now struct{ Before int64 }
	begin := time.Now().UnixMilli()
	for _, body := range []string{``, `{"before":99999999999999}`} {
		if err := json.Unmarshal([]byte(r.want("POST", "/v1/users/a/revoke", body, 200, "")), &now); err != nil {
			t.Fatal(err)
		}
		if now.Before < begin || now.Before > time.Now().UnixMilli() {
			t.Errorf("%q: %d is not now", body, now.Before)
		}
	}
	r.want("POST", "/v1/users/a/revoke", `{"before":3000}`, 200, fmt.Sprintf(`{"before":%d}`, now.Before))
}

// A backup starts as a store of its own and holds what was answered before it.
func TestRealBackup(t *testing.T) {
	r := startReal(t)
	r.want("POST", "/v1/messages", `{"id":"x","to":"bob","content":"kept"}`, 200, "")
	dir := filepath.Join(filepath.Dir(r.data), "copy")
	r.want("POST", "/v1/backup", `{"dir":"copy"}`, 200, `{"dir":"`+dir+`"}`)
	r.want("POST", "/v1/backup", `{"dir":"copy"}`, 409, problemJSON("CONFLICT"))
	r.want("POST", "/v1/backup", `{"dir":"../copy"}`, 403, problemJSON("FORBIDDEN"))
	r.want("POST", "/v1/messages", `{"id":"y","to":"bob","content":"later"}`, 200, "")

	copied := openReal(t, dir)
	copied.want("GET", "/v1/conversations/n:bob/messages", "", 200,
		`{"conv":"n:bob","messages":[{"msgId":"*","conv":"n:bob","seq":1,"to":"bob","ts":"*","type":0,"content":"kept","id":"x"}],"more":false}`)
}

func TestRealNode(t *testing.T) {
	r := startReal(t)
	r.want("POST", "/v1/messages", `{"id":"x","from":"a","to":"b","content":1}`, 200, "")
	r.want("GET", "/v1/nodes", "", 200, `{"nodes":[{"node":"n1","incarnation":"i","address":"*","since":1,"connections":0,"sessions":0}]}`)
	var stats struct {
		Accepted      map[string]int64
		CommitSeconds struct{ Count int64 }
		Store         struct{ Messages, Entries int64 }
	}
	if err := json.Unmarshal([]byte(r.want("GET", "/v1/stats", "", 200, "")), &stats); err != nil {
		t.Fatal(err)
	}
	if stats.Accepted["private"] != 1 || stats.CommitSeconds.Count != 1 || stats.Store.Messages != 1 || stats.Store.Entries != 2 {
		t.Errorf("got %+v", stats)
	}
}

// A server that has ended its store promises nothing.
func TestRealUnavailable(t *testing.T) {
	r := startReal(t)
	r.stop()
	for _, x := range [][3]string{
		{"POST", "/v1/messages", `{"id":"x","to":"b","content":1}`}, {"GET", "/v1/users/a", ""}, {"PUT", "/v1/groups/g", ""},
		{"GET", "/v1/conversations/g:g/messages", ""}, {"POST", "/v1/backup", `{"dir":"copy"}`},
	} {
		a := r.ask(x[0], x[1], x[2])
		if a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("%v: %d %s", x, a.status, a.body)
		}
	}
	r.want("POST", "/v1/messages", `{"id":"x","users":["b"],"content":1}`, 200,
		`{"results":[{"to":"b","msgId":"*","conv":"n:b","ts":"*","error":{"code":5003,"name":"UNAVAILABLE","message":"*"}}]}`)
}
