package api

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
	"github.com/meshtalk/meshtalk/store"
)

const (
	maxUsers = 1000 // targets of one call
	// maxSenders bounds what one call has in flight: enough to fill a commit together with others, few enough that one
	// call does not take a whole one.
	maxSenders = 64
)

// result is the answer for one target.
type result struct {
	To        string   `json:"to,omitempty"`
	Group     string   `json:"group,omitempty"`
	MsgID     string   `json:"msgId"`
	Conv      string   `json:"conv"`
	Seq       uint64   `json:"seq,omitempty"`
	TS        int64    `json:"ts"`
	Duplicate bool     `json:"duplicate,omitempty"`
	Error     *problem `json:"error,omitempty"`
}

func resultOf(m *hub.Outgoing, sent hub.Sent) result {
	return result{
		To: m.To, Group: m.Group, MsgID: sent.MsgID.String(), Conv: sent.Conv,
		Seq: sent.Seq, TS: sent.TS, Duplicate: sent.Duplicate,
	}
}

// failed is the result of a target that was refused. msgId and conv are those that the message would have; ts is now.
func failed(m *hub.Outgoing, e *hub.Error) result {
	conv := store.SystemConv(m.To)
	if m.From != "" {
		conv = store.PrivateConv(m.From, m.To)
	}
	return result{
		To: m.To, MsgID: codec.MakeMsgID(m.From, []byte(m.ID)).String(), Conv: conv,
		TS: time.Now().UnixMilli(), Error: problemOf(e),
	}
}

// postMessages sends as a user or as the system.
func (s *server) postMessages(ctx context.Context, in *input) ([]byte, error) {
	targets := 0
	for _, key := range [...]string{"to", "users", "group"} {
		if in.has(key) {
			targets++
		}
	}
	if !in.has("id") {
		in.missing("id")
	}
	m := hub.Outgoing{
		ID: in.text("id", codec.MaxID), From: in.name("from", codec.MaxName),
		To: in.name("to", codec.MaxName), Group: in.name("group", codec.MaxName),
		Ephemeral: in.boolean("ephemeral"), Content: in.content(s.o.MaxContent),
	}
	m.Type, _ = in.integer("type")
	users := in.names("users")
	if targets != 1 {
		in.wrong(bad(`exactly one of "to", "users" and "group" is needed`))
	}
	if users != nil && (len(users) == 0 || len(users) > maxUsers) {
		in.wrong(bad(`"users" holds 1 to %d names`, maxUsers))
	}
	if err := in.done(); err != nil {
		return nil, err
	}
	if users != nil {
		return encode(map[string]any{"results": s.sendAll(ctx, m, users)})
	}
	sent, err := s.hub.Send(ctx, m)
	if err != nil {
		return nil, err
	}
	return encode(map[string]any{"results": []result{resultOf(&m, sent)}})
}

// sendAll sends m to each of users, some at a time, and answers in their order. A user that stands twice is sent to once.
func (s *server) sendAll(ctx context.Context, m hub.Outgoing, users []string) []result {
	results := make([]result, len(users))
	first := make(map[string]int, len(users))
	unique := make([]int, 0, len(users))
	for i, user := range users {
		if _, twice := first[user]; !twice {
			first[user] = i
			unique = append(unique, i)
		}
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(maxSenders, len(unique)) {
		workers.Go(func() {
			for n := next.Add(1) - 1; n < int64(len(unique)); n = next.Add(1) - 1 {
				i := unique[n]
				results[i] = s.sendTo(ctx, m, users[i])
			}
		})
	}
	workers.Wait()
	for i, user := range users {
		if j := first[user]; j != i {
			results[i] = results[j]
			results[i].Duplicate = results[i].Error == nil && !m.Ephemeral
		}
	}
	return results
}

// sendTo sends m to one of several users. It runs on a goroutine of its own, where a panic would end the process.
func (s *server) sendTo(ctx context.Context, m hub.Outgoing, user string) (r result) {
	m.ID, m.To = m.ID+"/"+user, user
	defer func() {
		if p := recover(); p != nil {
			s.o.Logf("panic in a send: %v\n%s", p, debug.Stack())
			r = failed(&m, errInternal)
		}
	}()
	sent, err := s.hub.Send(ctx, m)
	if err != nil {
		s.logInternal(fmt.Sprintf("send of %.64q", m.ID), err)
		return failed(&m, refusal(err))
	}
	return resultOf(&m, sent)
}

// postBroadcast tells everybody who is online.
func (s *server) postBroadcast(ctx context.Context, in *input) ([]byte, error) {
	typ, _ := in.integer("type")
	content := in.content(s.o.MaxContent)
	if err := in.done(); err != nil {
		return nil, err
	}
	online, err := s.hub.Broadcast(ctx, typ, content)
	if err != nil {
		return nil, err
	}
	return encode(map[string]int{"online": online})
}
