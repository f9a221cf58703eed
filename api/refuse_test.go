package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/codec"
)

// wants checks a refusal and that the hub was not asked.
func (c *caller) wants(f *fake, method, path, body string, status int, name, message string) {
	c.t.Helper()
	a := c.ask(method, path, body)
	var e struct {
		Error struct {
			Code          int
			Name, Message string
		}
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		c.t.Errorf("%s %s %.200s: %d, %v in %s", method, path, body, a.status, err, a.body)
		return
	}
	if a.status != status || e.Error.Name != name || !strings.Contains(e.Error.Message, message) {
		c.t.Errorf("%s %s %.200s: %d %s, want %d %s %q", method, path, body, a.status, a.body, status, name, message)
	}
	if got := f.took(); got != "" {
		c.t.Errorf("%s %s %.200s: the hub was asked to %s", method, path, body, got)
	}
}

func TestBadBodies(t *testing.T) {
	f := &fake{}
	c := newCaller(t, f)
	long := strings.Repeat("x", 65)
	deep := strings.Repeat("[", 90) // fits into MaxContent; the limit of levels is codec's
	const send, ok = "/v1/messages", `"id":"a","to":"b","content":1`
	for _, x := range []struct{ path, body, message string }{
		{send, ``, `no "id"`},
		{send, ` `, "not one JSON object"},
		{send, `null`, "not one JSON object"},
		{send, `[]`, "not one JSON object"},
		{send, `"a"`, "not one JSON object"},
		{send, `{`, "not one JSON object"},
		{send, `{` + ok + `}}`, "not one JSON object"},
		{send, `{` + ok + `} {}`, "not one JSON object"},
		{send, `{` + ok + `,}`, "not one JSON object"},
		{send, `{` + ok + `,"a":NaN}`, "not one JSON object"},
		{send, "\ufeff{" + ok + "}", "not one JSON object"},
		{send, "{" + ok + ",\"from\":\"\xff\"}", "in UTF-8"},
		{send, `{` + ok + `,"id":"b"}`, `"id" stands twice`},
		{send, `{` + ok + `,"\u0069d":"b"}`, `"id" stands twice`},
		{send, `{` + ok + `,"colour":1}`, `unknown field "colour"`},
		{send, `{` + ok + `,"":1}`, `unknown field ""`},
		{send, `{"ID":"a","to":"b","content":1}`, `unknown field "ID"`},
		{send, `{"to":"b","content":1}`, `no "id"`},
		{send, `{"id":"","to":"b","content":1}`, `"id"`},
		{send, `{"id":null,"to":"b","content":1}`, `"id"`},
		{send, `{"id":7,"to":"b","content":1}`, `"id"`},
		{send, `{"id":"` + long + `","to":"b","content":1}`, `"id"`},
		{send, `{"id":"\ud800","to":"b","content":1}`, `"id"`},
		{send, `{"id":"a","to":"b"}`, `no "content"`},
		{send, `{"id":"a","content":1}`, "exactly one"},
		{send, `{` + ok + `,"group":"g"}`, "exactly one"},
		{send, `{` + ok + `,"users":["c"]}`, "exactly one"},
		{send, `{"id":"a","group":"b","users":["c"],"content":1}`, "exactly one"},
		{send, `{"id":"a","to":null,"content":1}`, `"to"`},
		{send, `{"id":"a","to":"","content":1}`, `"to"`},
		{send, `{"id":"a","to":"a:b","content":1}`, `"to"`},
		{send, `{"id":"a","to":"a/b","content":1}`, `"to"`},
		{send, `{"id":"a","to":"a\nb","content":1}`, `"to"`},
		{send, `{"id":"a","to":"\u0085","content":1}`, `"to"`},
		{send, `{"id":"a","to":"` + long + `","content":1}`, `"to"`},
		{send, `{"id":"a","to":1.0,"content":1}`, `"to"`},
		{send, `{"id":"a","to":1e3,"content":1}`, `"to"`},
		{send, `{"id":"a","to":true,"content":1}`, `"to"`},
		{send, `{"id":"a","to":["b"],"content":1}`, `"to"`},
		{send, `{"id":"a","to":` + strings.Repeat("9", 65) + `,"content":1}`, `"to"`},
		{send, `{` + ok + `,"from":""}`, `"from"`},
		{send, `{` + ok + `,"from":null}`, `"from"`},
		{send, `{` + ok + `,"type":"1"}`, `"type"`},
		{send, `{` + ok + `,"type":1.5}`, `"type"`},
		{send, `{` + ok + `,"type":null}`, `"type"`},
		{send, `{` + ok + `,"type":9223372036854775808}`, `"type"`},
		{send, `{` + ok + `,"ephemeral":1}`, `"ephemeral"`},
		{send, `{` + ok + `,"ephemeral":null}`, `"ephemeral"`},
		{send, `{"id":"a","group":" :","content":1}`, `"group"`},
		{send, `{"id":"a","users":[],"content":1}`, `"users" holds 1 to 1000`},
		{send, `{"id":"a","users":"b","content":1}`, `"users"`},
		{send, `{"id":"a","users":null,"content":1}`, `"users"`},
		{send, `{"id":"a","users":{},"content":1}`, `"users"`},
		{send, `{"id":"a","users":["b",null],"content":1}`, `"users"`},
		{send, `{"id":"a","users":["b",""],"content":1}`, `"users"`},
		{send, `{"id":"a","users":[` + strings.TrimSuffix(strings.Repeat("1,", 1001), ",") + `],"content":1}`, `"users" holds 1 to 1000`},
		{"/v1/broadcast", `{}`, `no "content"`},
		{"/v1/broadcast", `{"content":1,"to":"a"}`, `unknown field "to"`},
		{"/v1/broadcast", `{"content":` + deep, "not one JSON object"},
		{"/v1/presence", ``, `no "users"`},
		{"/v1/presence", `{"users":[":"]}`, `"users"`},
		{"/v1/presence", `{"users":[` + strings.TrimSuffix(strings.Repeat("1,", 1001), ",") + `]}`, "at most 1000"},
		{"/v1/users/a/kick", `{"terminal":""}`, `"terminal"`},
		{"/v1/users/a/kick", `{"terminal":"` + long[:33] + `"}`, "1 to 32 bytes"},
		{"/v1/users/a/kick", `{"reason":7}`, `"reason"`},
		{"/v1/users/a/kick", `{"reason":"` + strings.Repeat("x", 1025) + `"}`, `"reason"`},
		{"/v1/users/a/kick", `{"reasons":"x"}`, `unknown field "reasons"`},
		{"/v1/users/a/revoke", `{"before":-1}`, `"before"`},
		{"/v1/users/a/revoke", `{"before":"now"}`, `"before"`},
		{"/v1/groups/a/members", `{"add":["b"],"remove":["c","b"]}`, `"b" stands in add and in remove`},
		{"/v1/groups/a/members", `{"add":null}`, `"add"`},
		{"/v1/groups/a/members", `{"members":["b"]}`, `unknown field "members"`},
		{"/v1/backup", `{}`, `no "dir"`},
		{"/v1/backup", `{"dir":""}`, `"dir"`},
		{"/v1/backup", `{"dir":7}`, `"dir"`},
	} {
		c.wants(f, "POST", x.path, x.body, 400, "BAD_PACKET", x.message)
	}
	for _, x := range []struct{ body, message string }{
		{`{"members":["a","b","c","d","e","f"]}`, "at most 5 members"},
		{`{"members":"a"}`, `"members"`},
		{`{"members":["a:"]}`, `"members"`},
		{`{"add":["a"]}`, `unknown field "add"`},
	} {
		c.wants(f, "PUT", "/v1/groups/a", x.body, 400, "BAD_PACKET", x.message)
	}
}

func TestBadPathsAndParameters(t *testing.T) {
	f := &fake{}
	c := newCaller(t, f)
	const history = "/v1/conversations/p:a:b/messages"
	for _, x := range []struct{ method, path, message string }{
		{"GET", "/v1/users/a%2Fb", "user in the path"},
		{"GET", "/v1/users/a:b", "user in the path"},
		{"GET", "/v1/users/%00", "user in the path"},
		{"GET", "/v1/users/%ff", "user in the path"},
		{"GET", "/v1/users/" + strings.Repeat("x", 65), "user in the path"},
		{"GET", "/v1/groups/a:b", "group in the path"},
		{"DELETE", "/v1/groups/a%2fb", "group in the path"},
		{"GET", "/v1/users/a?colour=1", `unknown parameter "colour"`},
		{"GET", "/v1/users/a?a;b", "malformed query"},
		{"GET", "/v1/users/a?%zz", "malformed query"},
		{"GET", "/v1/stats?x=", `unknown parameter "x"`},
		{"GET", "/v1/nodes?x", `unknown parameter "x"`},
		{"GET", "/openapi.yaml?x", `unknown parameter "x"`},
		{"GET", "/v1/users/a/inbox?limit=0", "limit"},
		{"GET", "/v1/users/a/inbox?limit=-1", "limit"},
		{"GET", "/v1/users/a/inbox?limit=-99999999999999999999999", "limit"},
		{"GET", "/v1/users/a/inbox?limit=", "limit"},
		{"GET", "/v1/users/a/inbox?limit=1.5", "limit"},
		{"GET", "/v1/users/a/inbox?limit=%2B5", "limit"},
		{"GET", "/v1/users/a/inbox?limit=1&limit=2", `"limit" stands twice`},
		{"GET", "/v1/users/a/inbox?after=-1", `"after"`},
		{"GET", "/v1/users/a/inbox?after=x", `"after"`},
		{"GET", "/v1/users/a/inbox?after=", `"after"`},
		{"GET", "/v1/users/a/inbox?after=9007199254740992", `"after"`},
		{"GET", "/v1/users/a/inbox?before=1", `unknown parameter "before"`},
		{"GET", history + "?before=1&after=1", "both before and after"},
		{"GET", history + "?limit=0", "limit"},
		{"GET", "/v1/groups/a/members?cursor=", "cursor"},
		{"GET", "/v1/groups/a/members?cursor=a%2Fb", "cursor"},
		{"GET", "/v1/groups/a/members?limit=0", "limit"},
		{"DELETE", history + "/x", "seq in the path"},
		{"DELETE", history + "/-1", "seq in the path"},
		{"DELETE", history + "/1.0", "seq in the path"},
		{"DELETE", history + "/9007199254740992", "seq in the path"},
	} {
		c.wants(f, x.method, x.path, "", 400, "BAD_PACKET", x.message)
	}
}

func TestUnknownConversations(t *testing.T) {
	f := &fake{}
	c := newCaller(t, f)
	for _, conv := range []string{
		"x", "p:", "p:a", "p:a:", "p::a", "p:b:a", "p:a:b:c", "g:", "g:a:b", "n:", "q:a", "P:a:b", "g:a%2Fb", "g:%00", "g:" + strings.Repeat("x", 65),
	} {
		c.wants(f, "GET", "/v1/conversations/"+conv+"/messages", "", 404, "NOT_FOUND", "no such conversation")
		c.wants(f, "DELETE", "/v1/conversations/"+conv+"/messages/1", "", 404, "NOT_FOUND", "no such conversation")
	}
	c.wants(f, "DELETE", "/v1/conversations/p:a:b/messages/0", "", 404, "NOT_FOUND", "no such message")
}

func TestUnknownPaths(t *testing.T) {
	f := &fake{}
	c := newCaller(t, f)
	for _, path := range []string{
		"/", "/x", "/v1", "/v1/", "/v1/x", "/v2/stats", "/v1/messages/", "/v1/messages/x", "/v1/users/", "/v1/users/a/", "/v1/users/a/b",
		"/v1//stats", "//v1/stats", "/v1/./stats", "/v1/users/../stats", "/v1/users/a/inbox/", "/openapi.yaml/", "/openapi.json", "/V1/stats",
		"/v1/conversations/p:a:b", "/v1/conversations/p:a:b/messages/1/2",
	} {
		c.wants(f, "GET", path, "", 404, "NOT_FOUND", "no such path")
	}
}

func TestMethods(t *testing.T) {
	f := &fake{}
	c := newCaller(t, f)
	allow := map[string]string{}
	for _, rt := range (&server{}).routes() {
		path := strings.NewReplacer("{user}", "a", "{group}", "g", "{conv}", "g:a", "{seq}", "1").Replace(rt.path)
		allow[path] += rt.method + " "
	}
	for path, methods := range allow {
		for _, method := range []string{"GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
			if strings.Contains(methods, method) {
				continue
			}
			a := c.ask(method, path, "")
			got := a.header.Get("Allow")
			for _, m := range strings.Fields(methods) {
				if !strings.Contains(got, m) {
					t.Errorf("%s %s: Allow %q lacks %s", method, path, got, m)
				}
			}
			if a.status != 405 || strings.Contains(got, method) || !strings.Contains(a.body, `"name":"UNKNOWN_COMMAND"`) {
				t.Errorf("%s %s: %d, Allow %q, %s", method, path, a.status, got, a.body)
			}
		}
	}
	if got := c.ask("PATCH", "/v1/groups/g", "").header.Get("Allow"); got != "DELETE, GET, HEAD, PUT" {
		t.Errorf("Allow %q", got)
	}
}

func TestNextGetsTheRest(t *testing.T) {
	h := New(&fake{}, Options{Token: "secret", Next: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(299) })})
	for path, status := range map[string]int{
		"/": 299, "/metrics": 299, "/debug/pprof/heap": 299, "/v2": 299, "/v1": 401, "/v1/": 401, "/v1/x": 401, "/openapi.yaml": 401, "/a/../v1/stats": 401,
	} {
		if a := ask(t, h, httptest.NewRequest(http.MethodGet, "http://example.org"+path, nil)); a.status != status {
			t.Errorf("%s: %d, want %d", path, a.status, status)
		}
	}
}

func TestSizes(t *testing.T) {
	f := &fake{}
	c := newCaller(t, f) // MaxContent 200
	content := func(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }
	for _, path := range []string{"/v1/messages", "/v1/broadcast"} {
		fields := `{"id":"a","to":"b","content":`
		if path == "/v1/broadcast" {
			fields = `{"content":`
		}
		c.wants(f, "POST", path, fields+content(201)+`}`, 413, "TOO_LARGE", "200 bytes")
		if a := c.ask("POST", path, fields+content(200)+`}`); a.status != 200 {
			t.Errorf("content of 200 bytes: %d %s", a.status, a.body)
		}
		f.took()
	}
	padded := func(n int) string { return strings.Repeat(" ", n-2) + "{}" }
	if a := c.ask("POST", "/v1/users/a/kick", padded(maxBody)); a.status != 200 {
		t.Errorf("a body of 1 MiB: %d %s", a.status, a.body)
	}
	f.took()
	c.wants(f, "POST", "/v1/users/a/kick", padded(maxBody+1), 413, "TOO_LARGE", "1 MiB")
	c.wants(f, "PUT", "/v1/groups/a", padded(maxBody+1), 413, "TOO_LARGE", "1 MiB")
}

// A body without a length is cut off at the limit, on a real connection.
func TestChunkedBodyTooLarge(t *testing.T) {
	s := httptest.NewServer(New(&fake{}, Options{}))
	defer s.Close()
	body := io.MultiReader(bytes.NewReader(make([]byte, maxBody)), strings.NewReader("{}"))
	r, err := s.Client().Post(s.URL+"/v1/users/a/kick", "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	if b, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusRequestEntityTooLarge || !bytes.Contains(b, []byte("TOO_LARGE")) {
		t.Errorf("got %d %s", r.StatusCode, b)
	}
}

// Content may be 512 levels deep, like that of a client.
func TestContentLevels(t *testing.T) {
	f := &fake{}
	c := &caller{t, New(f, Options{MaxContent: 5000}), loadContract(t)}
	nested := func(n int) string { return `{"content":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	if a := c.ask("POST", "/v1/broadcast", nested(512)); a.status != 200 {
		t.Errorf("512 levels: %d %s", a.status, a.body)
	}
	f.took()
	c.wants(f, "POST", "/v1/broadcast", nested(513), 400, "BAD_PACKET", "too deep")
}

func TestSurrogates(t *testing.T) {
	for _, x := range []struct {
		json, want string
		ok         bool
	}{
		{`"\ud83d\ude00"`, "😀", true},
		{`"\uD83D\uDE00"`, "😀", true},
		{`"a\ud83d\ude00b\ud83d\ude00"`, "a😀b😀", true},
		{`"\ufffd"`, "\ufffd", true},
		{"\"\ufffd\"", "\ufffd", true},
		{`"\\ud800"`, `\ud800`, true},
		{`"\\\\ud800"`, `\\ud800`, true},
		{`"\ud800"`, "", false},
		{`"\udc00"`, "", false},
		{`"\ud800a"`, "", false},
		{`"\ud800\n"`, "", false},
		{`"\ud800\u0041"`, "", false},
		{`"\ud800\ud800\udc00"`, "", false},
		{`"\udc00\ud800"`, "", false},
		{`"\ud83d\ude00\ud83d"`, "", false},
	} {
		if got, ok := readText([]byte(x.json)); got != x.want || ok != x.ok {
			t.Errorf("%s: %q %v, want %q %v", x.json, got, ok, x.want, x.ok)
		}
	}
}

// Every body is taken apart without a panic; one that is taken holds what encoding/json finds in it, byte for byte.
func FuzzBody(f *testing.F) {
	for _, s := range []string{
		``, `{}`, `null`, `{"a":1}`, `{"a":1,"a":2}`, ` { "a" : [ 1 , {} ] , "b" : "\ud83d\ude00" } `, `{"a":1}x`, `{"a":{"b":null}}`, `{"\u0061":-0}`,
		"{\"a\":\"\xff\"}", `{"users":["a",1,"\ud800"],"id":"x","content":1e5,"ephemeral":true}`, `{"a":`, `[{}]`, `{"a":1,}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		in := &input{}
		if err := in.parse(body); err != nil {
			if refusal(err).Code != codec.CodeBadPacket {
				t.Fatalf("%v", err)
			}
			return
		}
		if len(body) == 0 {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatalf("taken: %q: %v", body, err)
		}
		if len(want) != len(in.fields) || len(in.order) != len(want) {
			t.Fatalf("%q: %d fields, want %d", body, len(in.fields), len(want))
		}
		for key, value := range in.fields {
			if !bytes.Equal(value, want[key]) {
				t.Fatalf("%q: field %q is %q, want %q", body, key, value, want[key])
			}
		}
		use(in)
		if err := in.done(); len(want) > 7 && err == nil {
			t.Fatalf("%q: unknown fields are taken", body)
		}
	})
}

// use takes fields in every way; what it gives must be as good as its name says.
func use(in *input) {
	if name := in.name("a", codec.MaxName); name != "" && !codec.ValidName(name, codec.MaxName) {
		panic(fmt.Sprintf("name %q", name))
	}
	for _, name := range in.names("users") {
		if !codec.ValidName(name, codec.MaxName) {
			panic(fmt.Sprintf("name %q", name))
		}
	}
	in.text("id", codec.MaxID)
	in.integer("type")
	in.boolean("ephemeral")
	if content := in.content(100); in.problem == nil && !codec.ValidContent(content) {
		panic(fmt.Sprintf("content %q", content))
	}
	in.take("b")
}
