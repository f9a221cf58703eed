package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
)

// targets is a request for users u0 … u(n-1).
func targets(n int) (body string) {
	users := make([]string, n)
	for i := range users {
		users[i] = fmt.Sprintf("u%d", i)
	}
	list, _ := json.Marshal(users)
	return fmt.Sprintf(`{"id":"x","from":"alice","users":%s,"content":1}`, list)
}

type results struct {
	Results []struct {
		To, MsgID, Conv string
		Seq             *uint64
		TS              int64
		Duplicate       bool
		Error           *struct {
			Code          int
			Name, Message string
		}
	}
}

func (c *caller) results(body string) results {
	c.t.Helper()
	a := c.ask("POST", "/v1/messages", body)
	if a.status != http.StatusOK {
		c.t.Fatalf("%d %s", a.status, a.body)
	}
	var r results
	if err := json.Unmarshal([]byte(a.body), &r); err != nil {
		c.t.Fatal(err)
	}
	return r
}

// The largest call: results stand in the order of users, each with its own id, whatever the order in which they came to be.
func TestUsersInOrder(t *testing.T) {
	f := &fake{}
	r := newCaller(t, f).results(targets(maxUsers))
	if len(r.Results) != maxUsers {
		t.Fatalf("%d results", len(r.Results))
	}
	for i, x := range r.Results {
		user := fmt.Sprintf("u%d", i)
		id := codec.MakeMsgID("alice", []byte("x/"+user)).String()
		if x.To != user || x.MsgID != id || x.Conv != "p:alice:"+user || x.Seq == nil || x.Duplicate || x.Error != nil {
			t.Fatalf("result %d: %+v", i, x)
		}
	}
	if calls := strings.Count(f.took(), "send "); calls != maxUsers {
		t.Errorf("%d sends", calls)
	}
}

// All maxSenders go out without waiting for one another, and never more.
func TestUsersConcurrently(t *testing.T) {
	var mu sync.Mutex
	inside, most := 0, 0
	full := make(chan struct{})
	f := &fake{send: func(_ context.Context, m hub.Outgoing) (hub.Sent, error) {
		mu.Lock()
		inside++
		if most = max(most, inside); inside == maxSenders {
			select {
			case <-full:
			default:
				close(full)
			}
		}
		mu.Unlock()
		<-full // until as many are out as may be
		mu.Lock()
		inside--
		mu.Unlock()
		return sent(m), nil
	}}
	newCaller(t, f).results(targets(3 * maxSenders))
	if most != maxSenders {
		t.Errorf("at most %d at a time, want %d", most, maxSenders)
	}
}

// One target that fails is told in its result; the others are sent.
func TestUsersThatFail(t *testing.T) {
	f := &fake{send: func(_ context.Context, m hub.Outgoing) (hub.Sent, error) {
		switch m.To {
		case "u1":
			return hub.Sent{}, refuse(codec.CodeConflict, "other content")
		case "u2":
			return hub.Sent{}, errors.New("secret/path")
		case "u3":
			panic("oh")
		}
		return sent(m), nil
	}}
	r := newCaller(t, f).results(targets(5))
	for i, want := range []string{"", "CONFLICT other content", "INTERNAL internal error", "INTERNAL internal error", ""} {
		x, got := r.Results[i], ""
		if x.Error != nil {
			got = x.Error.Name + " " + x.Error.Message
		}
		if got != want || (x.Seq != nil) != (want == "") || x.TS == 0 || x.Conv != fmt.Sprintf("p:alice:u%d", i) {
			t.Errorf("result %d: %+v, want %q", i, x, want)
		}
		if want := codec.MakeMsgID("alice", fmt.Appendf(nil, "x/u%d", i)).String(); x.MsgID != want {
			t.Errorf("result %d: msgId %s, want %s", i, x.MsgID, want)
		}
	}
	system := strings.Replace(targets(2), `"from":"alice",`, "", 1)
	if x := newCaller(t, f).results(system).Results[1]; x.Conv != "n:u1" || x.Error == nil {
		t.Errorf("by the system: %+v", x)
	}
}

// A user that stands twice gets one message.
func TestUsersTwice(t *testing.T) {
	f := &fake{}
	c := newCaller(t, f)
	r := c.results(`{"id":"x","users":["bob","carol","bob"],"content":1}`).Results
	if r[0].Duplicate || r[1].Duplicate || !r[2].Duplicate || r[2].To != "bob" || r[2].MsgID != r[0].MsgID {
		t.Errorf("got %+v", r)
	}
	if calls := strings.Count(f.took(), "send "); calls != 2 {
		t.Errorf("%d sends", calls)
	}
	r = c.results(`{"id":"x","users":["bob","bob"],"content":1,"ephemeral":true}`).Results
	if r[0].Duplicate || r[1].Duplicate || r[0].Seq != nil {
		t.Errorf("ephemeral: %+v", r)
	}
}

// The context of a send is the request's: it ends with the caller's connection and after callTimeout.
func TestSendEndsWithTheCall(t *testing.T) {
	var got context.Context
	f := &fake{send: func(ctx context.Context, m hub.Outgoing) (hub.Sent, error) {
		got = ctx
		return sent(m), nil
	}}
	newCaller(t, f).results(`{"id":"x","to":"bob","content":1}`)
	if _, bounded := got.Deadline(); !bounded || got.Err() == nil {
		t.Error("the context outlives the call")
	}
}
