package hub

import (
	"context"
	"encoding/json"
	"time"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/store"
)

// What other nodes tell this one. All of it is a hint: what does not come is found in the store (heads.go).

var _ cluster.Receiver = (*Hub)(nil)

// Woken implements cluster.Receiver: what another node has committed for users that are here.
func (h *Hub) Woken(wakes []cluster.Wake) {
	d := h.newDelivery(len(wakes))
	var last *codec.ConvMessage
	var f *Frame
	for i := range wakes {
		w := &wakes[i]
		if w.Message != last {
			last = w.Message
			f = d.frame(last, time.UnixMilli(last.TS))
		}
		if w.Group != "" {
			d.pushGroup(w.Group, f)
		} else {
			d.push(w.User, w.Inbox, f)
		}
	}
	d.post()
}

// Signalled implements cluster.Receiver.
func (h *Hub) Signalled(signals []cluster.Signal) {
	for i := range signals {
		switch s := &signals[i]; {
		case s.Broadcast != nil:
			h.broadcast(s.Broadcast)
		case s.Group != "":
			for _, o := range h.outlets {
				o.TellGroup(s.Group, s.Except, s.Packet)
			}
		case s.State != nil:
			h.tellWatchers(s.State)
		default:
			h.tellHere(s.User, 0, 0, s.Packet) // no change of presence, which alone is told apart
		}
	}
}

// Superseded implements cluster.Receiver. The session is taken out of the registry first, so that its end is no change of
// presence and nothing of the newer one's is touched.
func (h *Hub) Superseded(user, terminal string, ref uint64) {
	r := Ref(ref)
	if h.registry.remove(user, terminal, r) {
		h.outlet(r).Close(r, codec.CodeReplaced, "logged in elsewhere", 0)
	}
}

// Ordered implements cluster.Receiver.
func (h *Hub) Ordered(user, terminal string, code codec.Code, reason string, before int64) {
	h.closeSessions(user, terminal, code, reason, before)
}

// MembersChanged implements cluster.Receiver.
func (h *Hub) MembersChanged(c cluster.MembersChange) {
	h.store.Forget(c.Group)
	h.leaveGroup(c.Group, c.Removed)
	switch {
	case c.BecameLarge:
		h.pool.Go(func() {
			if err := h.members(context.Background(), c.Group, func(user string) { h.joinGroup(c.Group, user) }); err != nil {
				h.o.Logf("members of a group that has become large: %v", err)
			}
		})
	case c.Large:
		for _, u := range c.Added {
			h.joinGroup(c.Group, u)
		}
	}
}

// NodesChanged implements cluster.Receiver.
func (h *Hub) NodesChanged(nodes []cluster.Node) {
	if h.o.NodesChanged != nil {
		h.o.NodesChanged(nodes)
	}
}

// question is what nodes ask each other. Inspect: the terminals of a user.
type question struct {
	Inspect string `json:"inspect"`
}

// Asked implements cluster.Receiver.
func (h *Hub) Asked(ctx context.Context, b []byte) []byte {
	var q question
	if json.Unmarshal(b, &q) != nil {
		return nil
	}
	answer, err := json.Marshal(h.terminalsHere(ctx, q.Inspect))
	if err != nil {
		return nil
	}
	return answer
}

// askTimeout bounds a question: an administrator waits for it.
const askTimeout = 2 * time.Second

// terminalsElsewhere are the terminals of a user on other nodes. What a node does not say in time is left out but for the position.
func (h *Hub) terminalsElsewhere(ctx context.Context, user string) ([]TerminalInfo, error) {
	routes, err := h.cluster.Routes(ctx, []string{user})
	if err != nil {
		h.o.Logf("terminals without the other nodes: %v", err)
	}
	if len(routes) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	q, err := json.Marshal(question{Inspect: user})
	if err != nil {
		return nil, err
	}
	said := make(map[[2]string]TerminalInfo)
	asked := make(map[string]bool)
	for _, r := range routes {
		if asked[r.Node] {
			continue
		}
		asked[r.Node] = true
		answer, err := h.cluster.Ask(ctx, r.Node, q)
		var infos []TerminalInfo
		if err != nil || json.Unmarshal(answer, &infos) != nil {
			continue
		}
		for _, i := range infos {
			said[[2]string{r.Node, i.Terminal}] = i
		}
	}
	return h.describe(ctx, user, routes, said)
}

// describe makes one info of each route.
func (h *Hub) describe(ctx context.Context, user string, routes []cluster.Route, said map[[2]string]TerminalInfo) ([]TerminalInfo, error) {
	positions, err := h.store.Positions(ctx, user)
	if err != nil {
		return nil, fail(err)
	}
	list := make([]TerminalInfo, 0, len(routes))
	for _, r := range routes {
		i, ok := said[[2]string{r.Node, r.Terminal}]
		if !ok {
			i = TerminalInfo{Terminal: r.Terminal, Acked: positions[r.Terminal]}
		}
		i.Node = r.Node
		list = append(list, i)
	}
	return list, nil
}

// broadcast pushes an ephemeral system message to every session here.
func (h *Hub) broadcast(m *codec.ConvMessage) {
	packet := func(dst []byte, user string) []byte {
		c := *m
		c.Conv, c.To = store.SystemConv(user), user
		return codec.AppendPushTail(codec.AppendPushHead(dst, c.Cmd, 0), &c)
	}
	for _, o := range h.outlets {
		o.Broadcast(packet)
	}
}
