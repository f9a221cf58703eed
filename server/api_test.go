package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/server"
)

// Every call with an admin token, and without one on loopback: who may use the admin port.
func TestAPIGuard(t *testing.T) {
	open := start(t)
	guarded := start(t, func(o *server.Options) { o.Admin.Token = "a secret of the test" })
	calls := []struct {
		method, path, body string
		public             bool // served without a token too
	}{
		{"POST", "/v1/messages", `{"id":"1","to":"bob","content":1}`, false},
		{"POST", "/v1/broadcast", `{"content":1}`, false},
		{"GET", "/v1/users/bob", ``, false},
		{"POST", "/v1/presence", `{"users":["bob"]}`, false},
		{"POST", "/v1/users/bob/kick", `{}`, false},
		{"POST", "/v1/users/bob/revoke", `{}`, false},
		{"PUT", "/v1/groups/team", `{"members":["alice","bob"]}`, false},
		{"GET", "/v1/groups/team", ``, false},
		{"GET", "/v1/groups/team/members", ``, false},
		{"POST", "/v1/groups/team/members", `{"add":["carol"]}`, false},
		{"GET", "/v1/conversations/n:bob/messages", ``, false},
		{"DELETE", "/v1/conversations/n:bob/messages/1", ``, false},
		{"GET", "/v1/users/bob/inbox", ``, false},
		{"GET", "/v1/stats", ``, false},
		{"GET", "/v1/nodes", ``, false},
		{"PUT", "/v1/groups/team", `{"members":[]}`, false},
		{"GET", "/openapi.yaml", ``, false},
		{"GET", "/metrics", ``, false},
		{"GET", "/debug/pprof/", ``, false},
		{"GET", "/", ``, false},
		{"GET", "/healthz", ``, true},
		{"GET", "/readyz", ``, true},
	}
	for _, c := range calls {
		try := func(n *node, want int, header http.Header) {
			t.Helper()
			status, b := n.request(c.method, c.path, c.body, header)
			if c.public && want != 200 {
				return // whether health is told to everybody is the console's own matter
			}
			if status != want {
				t.Errorf("%s %s with %v: %d %.200s, want %d", c.method, c.path, header, status, b, want)
			}
		}
		try(open, 200, nil)
		try(open, 200, http.Header{"Host": {"localhost:8090"}})
		try(open, 403, http.Header{"Host": {"rebound.example"}})
		try(open, 403, http.Header{"Origin": {"http://evil.example"}})
		try(open, 403, http.Header{"Host": {"127.0.0.1.evil.example"}})
		try(guarded, 401, nil)
		try(guarded, 401, http.Header{"Authorization": {"Bearer wrong"}})
		try(guarded, 401, http.Header{"Authorization": {"Basic a secret of the test"}})
		try(guarded, 200, http.Header{"Authorization": {"Bearer a secret of the test"}})
	}
	status, b := guarded.request("GET", "/v1/stats", "", nil)
	check(t, parse(t, b), `{"error":{"code":4001,"name":"UNAUTHORIZED","message":"*"}}`)
	if status != 401 {
		t.Errorf("status %d", status)
	}
}

// Refusals of the API: the status, and the protocol's code.
func TestAPIRefusals(t *testing.T) {
	n := start(t)
	n.call("PUT", "/v1/groups/team", `{"members":["alice","bob"]}`, 200, `{}`)
	n.call("POST", "/v1/messages", `{"id":"used","to":"bob","content":1}`, 200, `{}`)
	big := strings.Repeat("x", 70_000)
	for _, c := range []struct {
		method, path, body string
		status, code       int
	}{
		{"POST", "/v1/messages", `nonsense`, 400, 4000},
		{"POST", "/v1/messages", ``, 400, 4000},
		{"POST", "/v1/messages", `[]`, 400, 4000},
		{"POST", "/v1/messages", `{"id":"1","to":"bob"}`, 400, 4000},
		{"POST", "/v1/messages", `{"to":"bob","content":1}`, 400, 4000},
		{"POST", "/v1/messages", `{"id":"1","content":1}`, 400, 4000},
		{"POST", "/v1/messages", `{"id":"1","to":"bob","group":"team","content":1}`, 400, 4000},
		{"POST", "/v1/messages", `{"id":"1","to":"bob","users":["bob"],"content":1}`, 400, 4000},
		{"POST", "/v1/messages", `{"id":"1","users":[],"content":1}`, 400, 4000},
		{"POST", "/v1/messages", `{"id":"1","users":[` + strings.Repeat(`"u",`, 1000) + `"u"],"content":1}`, 400, 4000},
		{"POST", "/v1/messages", `{"id":"1","to":"b:b","content":1}`, 400, 4000},
		{"POST", "/v1/messages", `{"id":"` + strings.Repeat("i", 65) + `","to":"bob","content":1}`, 400, 4000},
		{"POST", "/v1/messages", `{"id":"1","to":"bob","content":1,"unknown":1}`, 400, 4000},
		{"POST", "/v1/messages", `{"id":"1","to":"bob","content":1,"type":"x"}`, 400, 4000},
		{"POST", "/v1/messages", `{"id":"1","to":"bob","content":"` + big + `"}`, 413, 4013},
		{"POST", "/v1/broadcast", `{"content":"` + big + `"}`, 413, 4013},
		{"POST", "/v1/messages", `{"id":"1","to":"bob","content":"` + strings.Repeat("x", 1<<20) + `"}`, 413, 4013},
		{"POST", "/v1/messages", `{"id":"1","group":"nobody","content":1}`, 404, 4004},
		{"POST", "/v1/messages", `{"id":"1","from":"carol","group":"team","content":1}`, 403, 4003},
		{"POST", "/v1/messages", `{"id":"used","to":"bob","content":2}`, 409, 4012},
		{"POST", "/v1/broadcast", `{}`, 400, 4000},
		{"GET", "/v1/users/a:b", ``, 400, 4000},
		{"GET", "/v1/users/bob/inbox?limit=0", ``, 400, 4000},
		{"GET", "/v1/users/bob/inbox?after=-1", ``, 400, 4000},
		{"POST", "/v1/presence", `{}`, 400, 4000},
		{"POST", "/v1/users/bob/revoke", `{"before":"now"}`, 400, 4000},
		{"PUT", "/v1/groups/a:b", `{}`, 400, 4000},
		{"PUT", "/v1/groups/x", `{"members":["a/b"]}`, 400, 4000},
		{"GET", "/v1/groups/nobody", ``, 404, 4004},
		{"DELETE", "/v1/groups/nobody", ``, 404, 4004},
		{"GET", "/v1/groups/nobody/members", ``, 404, 4004},
		{"POST", "/v1/groups/nobody/members", `{"add":["a"]}`, 404, 4004},
		{"GET", "/v1/conversations/nonsense/messages", ``, 404, 4004},
		{"GET", "/v1/conversations/p:bob:alice/messages", ``, 404, 4004},
		{"GET", "/v1/conversations/n:bob/messages?before=2&after=1", ``, 400, 4000},
		{"DELETE", "/v1/conversations/n:bob/messages/7", ``, 404, 4004},
		{"DELETE", "/v1/conversations/n:bob/messages/x", ``, 400, 4000},
		{"POST", "/v1/backup", `{}`, 400, 4000},
		{"POST", "/v1/backup", `{"dir":"/tmp/elsewhere"}`, 403, 4003},
		{"POST", "/v1/backup", `{"dir":"../../elsewhere"}`, 403, 4003},
		{"GET", "/v1/nothing", ``, 404, 4004},
	} {
		got := n.call(c.method, c.path, c.body, c.status, `{}`)
		check(t, got, fmt.Sprintf(`{"error":{"code":%d,"name":%q,"message":"*"}}`, c.code, errorNames[c.code]))
	}
	n.call("DELETE", "/v1/stats", ``, 405, `{"error":{"code":"*"}}`)
}

// Several targets: each has its own answer, and the whole is repeated under the same id.
func TestAPISends(t *testing.T) {
	n := start(t)
	body := `{"id":"x","users":["a","b","a"],"content":{"n": 1.0}}`
	first := n.call("POST", "/v1/messages", body, 200, `{"results":[
		{"to":"a","conv":"n:a","seq":1,"msgId":"*","ts":"*","duplicate":null},{"to":"b","conv":"n:b","seq":1,"duplicate":null},{"to":"a","seq":1,"duplicate":true}]}`)
	again := n.call("POST", "/v1/messages", body, 200, `{"results":[{"to":"a","seq":1,"duplicate":true},{"to":"b","seq":1,"duplicate":true},{"to":"a","duplicate":true}]}`)
	for i := range 2 {
		a, b := first["results"].([]any)[i].(map[string]any), again["results"].([]any)[i].(map[string]any)
		if a["msgId"] != b["msgId"] || a["ts"] != b["ts"] {
			t.Errorf("a repeat answers %v, the first was %v", b, a)
		}
	}
	// One of them was used for something else: its own error, the others go on.
	n.call("POST", "/v1/messages", `{"id":"y/b","to":"b","content":1}`, 200, `{}`)
	n.call("POST", "/v1/messages", `{"id":"y","users":["a","b"],"content":2}`, 200,
		`{"results":[{"to":"a","seq":2,"error":null},{"to":"b","error":{"code":4012,"name":"CONFLICT","message":"*"}}]}`)
	// In the name of a user, to users: one conversation each.
	n.call("POST", "/v1/messages", `{"id":"z","from":"carol","users":["a","b"],"content":3}`, 200,
		`{"results":[{"to":"a","conv":"p:a:carol","seq":1},{"to":"b","conv":"p:b:carol","seq":1}]}`)
	carol := n.login("tcp", "carol")
	carol.expectAll(`{"cmd":3,"data":{"to":"a","id":"z/a"}}`, `{"cmd":3,"data":{"to":"b","id":"z/b"}}`)
	_, raw := n.request("GET", "/v1/users/a/inbox", "", nil)
	if !strings.Contains(string(raw), `"content":{"n": 1.0}`) {
		t.Errorf("content was rewritten: %s", raw)
	}
	n.call("GET", "/v1/users/a/inbox?after=1&limit=1", "", 200, `{"entries":[{"cmd":5,"data":{"inbox":2}}],"head":3,"first":1,"more":true}`)
	n.call("GET", "/v1/conversations/n:a/messages?limit=1", "", 200, `{"conv":"n:a","messages":[{"seq":2}],"more":true}`)
	n.call("GET", "/v1/conversations/n:a/messages?after=0", "", 200, `{"messages":[{"seq":1},{"seq":2}],"more":false}`)
	n.call("GET", "/v1/conversations/n:nobody/messages", "", 200, `{"messages":[],"more":false}`)
}

func TestAPIUsers(t *testing.T) {
	n := start(t)
	n.call("GET", "/v1/users/bob", "", 200, `{"user":"bob","online":false,"lastSeen":0,"inbox":{"head":0,"first":1},"terminals":[]}`)
	web, ios := n.login("websocket", "bob", `"ack":"client"`), n.login("tcp", "bob", `"terminal":"ios"`)
	n.login("tcp", "alice").sendN("bob", 2)
	web.inboxes(1, 2)
	web.send(`{"cmd":7,"data":{"inbox":1}}`)
	web.quiet()
	n.call("GET", "/v1/users/bob", "", 200, `{"online":true,"lastSeen":"*","inbox":{"head":2,"first":1},"terminals":[
		{"terminal":"ios","sessionId":"*","node":"test","transport":"tcp","ip":"127.0.0.1","since":"*","lagging":false},
		{"terminal":"web","sessionId":"*","node":"test","transport":"websocket","ip":"127.0.0.1","since":"*","acked":1,"lagging":false}]}`)

	// Kick: one terminal, or all.
	ios.inboxes(1, 2)
	n.call("POST", "/v1/users/bob/kick", `{"terminal":"android"}`, 200, `{"closed":0}`)
	n.call("POST", "/v1/users/bob/kick", `{"terminal":"ios","reason":"because"}`, 200, `{"closed":1}`)
	ios.expect(`{"cmd":2,"data":{"code":4011,"reason":"because"}}`)
	ios.closed()
	web.quiet()
	ios = n.login("tcp", "bob", `"terminal":"ios"`)
	n.call("POST", "/v1/users/bob/kick", `{}`, 200, `{"closed":2}`)
	ios.expect(`{"cmd":2,"data":{"code":4011,"reason":"*"}}`)
	web.expect(`{"cmd":2,"data":{"code":4011}}`)
	if code := web.closed(); code != 4011 {
		t.Errorf("closed with %d", code)
	}
	n.login("websocket", "bob") // a kick bars nobody
}

func TestAPIGroups(t *testing.T) {
	n := start(t, func(o *server.Options) { o.Group.MaxMembers = 5; o.Group.InboxLimit = 3 })
	n.call("PUT", "/v1/groups/g", `{"members":["c","a","b","a"]}`, 200, `{"group":"g","size":3,"kind":"inbox","head":0}`)
	n.call("PUT", "/v1/groups/g", `{}`, 200, `{"size":3}`)
	n.call("PUT", "/v1/groups/g", `{"members":["a","b","c","d","e","f"]}`, 400, `{"error":{"code":4000}}`)
	n.call("GET", "/v1/groups/g", ``, 200, `{"group":"g","size":3,"kind":"inbox","head":0}`)
	n.call("POST", "/v1/groups/g/members", `{"add":["d","e","f"]}`, 400, `{"error":{"code":4000}}`)
	n.call("GET", "/v1/groups/g/members", ``, 200, `{"members":["a","b","c"],"cursor":null}`)
	n.call("POST", "/v1/groups/g/members", `{"add":["d","e","f"],"remove":["a","zoe"]}`, 200, `{"size":5}`)
	n.call("GET", "/v1/groups/g", ``, 200, `{"size":5,"kind":"large"}`)
	n.call("POST", "/v1/groups/g/members", `{}`, 200, `{"size":5}`)
	var members []string
	for path := "/v1/groups/g/members?limit=2"; ; {
		got := n.call("GET", path, ``, 200, `{}`)
		for _, m := range got["members"].([]any) {
			members = append(members, m.(string))
		}
		next, more := got["cursor"].(string)
		if !more {
			break
		}
		path = "/v1/groups/g/members?limit=2&cursor=" + next
	}
	if !slices.Equal(members, []string{"b", "c", "d", "e", "f"}) {
		t.Errorf("members by pages: %v", members)
	}
	n.call("PUT", "/v1/groups/g", `{"members":["x"]}`, 200, `{"size":1,"kind":"inbox"}`) // it holds no messages
	n.call("PUT", "/v1/groups/g", `{"members":[]}`, 200, `{"size":0}`)
	n.call("DELETE", "/v1/groups/g", ``, 200, `{}`)
	n.call("DELETE", "/v1/groups/g", ``, 404, `{"error":{"code":4004}}`)
	n.call("PUT", "/v1/groups/g", ``, 200, `{"size":0}`) // a body that is left out is an empty one
	n.restart()
	n.call("GET", "/v1/groups/g", ``, 200, `{"size":0}`)
}

func TestAPIBackup(t *testing.T) {
	n := start(t, func(o *server.Options) { o.DataDir = filepath.Join(o.DataDir, "data") })
	n.login("tcp", "alice").sendN("bob", 3)
	epoch := n.dial("tcp").login(n.token("carol", "", time.Hour)).data("epoch").(string)
	dir := filepath.Join(filepath.Dir(n.o.DataDir), "copy")
	n.call("POST", "/v1/backup", `{"dir":"`+dir+`"}`, 200, `{}`)
	n.call("POST", "/v1/backup", `{"dir":"`+dir+`"}`, 409, `{"error":{"code":4012}}`) // it is there
	n.login("tcp", "alice").sendN("bob", 1)
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	restored := start(t, func(o *server.Options) { o.DataDir = dir })
	bob := restored.dial("tcp")
	got := bob.login(restored.token("bob", "", time.Hour), `"resume":{"epoch":"`+epoch+`","inbox":4}`)
	check(t, got, `{"data":{"resumed":false,"inbox":{"head":3,"first":1}}}`)
	if got.data("epoch") == epoch {
		t.Error("a restored store kept its epoch: clients would take its numbers for the old ones")
	}
	bob.inboxes(1, 3)
}

func TestAPIOperations(t *testing.T) {
	n := start(t)
	n.login("websocket", "alice").sendN("bob", 3)
	stats := n.call("GET", "/v1/stats", ``, 200, `{"node":"test","usersOnline":1,"sessions":1,"accepted":{"private":3},
		"connections":{"websocket":1,"tcp":0},"readOnly":false}`)
	if _, err := json.Marshal(stats); err != nil {
		t.Error(err)
	}
	n.call("GET", "/v1/nodes", ``, 200, `{"nodes":[{"node":"test","incarnation":"*"}]}`)
	for path, want := range map[string]string{
		"/openapi.yaml": "openapi: 3.1", "/healthz": "", "/readyz": "store", "/debug/pprof/": "goroutine", "/": "<html",
		"/metrics": "\nmeshtalk_messages_accepted_total{kind=\"private\"} 3\n",
	} {
		status, b := n.request("GET", path, "", nil)
		if status != 200 || !strings.Contains(string(b), want) {
			t.Errorf("GET %s: %d, no %q in %.300s", path, status, want, b)
		}
	}
	// Every metric of docs/INTERFACES.md §4 that a single node has.
	_, b := n.request("GET", "/metrics", "", nil)
	for _, name := range []string{
		`connections{transport="websocket"}`, `connections{transport="tcp"}`, `sessions `, `accepts_total{result=`, `logins_total{result=`,
		`packets_in_total{cmd="LOGIN"}`, `messages_accepted_total{kind=`, `deliveries_total{path="push"}`, `deliveries_total{path="pull"}`,
		`commit_seconds_bucket{`, `commit_batch_messages_bucket{`, `delivery_seconds_bucket{`, `lagging_sessions `, `outbound_bytes `,
		`loop_queue_operations{loop="0"}`, `loop_lag_seconds{loop="0"}`, `panics_total `, `store_readonly `,
	} {
		if !strings.Contains(string(b), "\nmeshtalk_"+name) {
			t.Errorf("no metric meshtalk_%s", name)
		}
	}
	if !strings.Contains(string(b), "\ngo_goroutines ") {
		t.Error("no metrics of Go's own")
	}
}
