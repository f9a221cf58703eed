package client

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"

	"github.com/meshtalk/meshtalk/codec"
)

// historyLimit is how many messages one HISTORY asks for: the protocol's maximum.
const historyLimit = 200

// group is the position in a large group, whose messages have no inbox number: the client's rule by seq, with HISTORY
// instead of PULL. A group may cross the limit while we watch, so that some of its messages come by the inbox; both
// kinds share one count. Guarded by Client.mu.
type group struct {
	base    uint64              // counting began behind it: what is up to here comes by the inbox or not at all
	last    uint64              // everything in (base, last] was queued for the Handler
	handled uint64              // newest seq that the Handler is done with
	ahead   map[uint64]struct{} // above last, came by the inbox already

	// of the present connection
	filling bool
	held    []Message // behind the gap that is being filled, by seq
}

// takeGroup applies the rule to a message without an inbox number. The caller holds mu.
func (c *Client) takeGroup(m Message) {
	g := c.groups[m.Conv]
	if g == nil {
		g = &group{base: m.Seq - 1, last: m.Seq - 1, handled: m.Seq - 1}
		c.groups[m.Conv] = g
	}
	_, known := g.ahead[m.Seq]
	switch {
	case m.Seq <= g.last || known:
	case m.Seq > g.last+1:
		if len(g.held) < maxHeld && (len(g.held) == 0 || g.held[len(g.held)-1].Seq < m.Seq) {
			g.held = append(g.held, m)
		}
		c.fillGroup(m.Conv, g)
	case !c.hasRoom():
		if c.starvedGroups == nil {
			c.starvedGroups = map[string]struct{}{}
		}
		c.starvedGroups[m.Conv] = struct{}{}
	default:
		g.advance()
		c.enqueue(event{run: tell(m), conv: m.Conv, seq: g.last, gen: c.inbox.gen})
	}
}

// advance moves over the next message and what came ahead of it.
func (g *group) advance() {
	g.last++
	for len(g.ahead) > 0 {
		if _, ok := g.ahead[g.last+1]; !ok {
			return
		}
		delete(g.ahead, g.last+1)
		g.last++
	}
}

// countInGroup counts a message that came by the inbox into its large group, and silences it in ev if it was taken by
// HISTORY before. The caller holds mu.
func (c *Client) countInGroup(g *group, m Message, ev *event) {
	switch {
	case m.Seq <= g.base:
	case m.Seq <= g.last:
		ev.run = nil
	case m.Seq == g.last+1:
		g.advance()
		ev.conv, ev.seq = m.Conv, g.last
	default:
		if g.ahead == nil {
			g.ahead = map[uint64]struct{}{}
		}
		g.ahead[m.Seq] = struct{}{}
	}
}

// refillGroups begins the groups' part of a new connection. An acknowledging client is pushed what it did not
// acknowledge, so it says again what it has; an auto client asks for what it may have lost. The caller holds mu.
func (c *Client) refillGroups() {
	clear(c.starvedGroups)
	for conv, g := range c.groups {
		g.filling, g.held = false, nil
		if c.opt.Ack == AckAuto {
			c.fillGroup(conv, g)
			continue
		}
		c.owe(conv)
	}
}

// fillGroup asks for what follows the position, unless that is under way already. The caller holds mu.
func (c *Client) fillGroup(conv string, g *group) {
	if _, starved := c.starvedGroups[conv]; c.link == nil || g.filling || starved {
		return
	}
	g.filling = true
	l, known := c.link, uint64(0) // known: the server has sent this seq before we asked, so its answer goes up to it
	if len(g.held) > 0 {
		known = g.held[len(g.held)-1].Seq
	}
	data := codec.AppendString([]byte(`{"conv":`), conv)
	data = strconv.AppendUint(append(data, `,"after":`...), g.last, 10)
	data = strconv.AppendInt(append(data, `,"limit":`...), historyLimit, 10)
	c.ask(l, codec.History, append(data, '}'), func(p Packet, err error) {
		if err == nil {
			err = c.filled(l, conv, g, known, p.Data)
		}
		var refusal *ServerError
		switch {
		case err == nil:
		case errors.As(err, &refusal) && !refusal.Retryable: // no member any more, or no history: go on without
			_ = c.filled(l, conv, g, math.MaxUint64, []byte("{}"))
		default:
			c.fillLater(l, err, func() { g.filling = false; c.fillGroup(conv, g) })
		}
	})
}

// filled takes the answer of a HISTORY, which misses nothing up to known but what retention removed.
func (c *Client) filled(l *link, conv string, g *group, known uint64, data []byte) error {
	page, err := parseHistory(data)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != l || c.groups[conv] != g {
		return nil
	}
	before := g.last
	for _, m := range page.Messages {
		c.takeNext(g, m)
	}
	g.filling = false
	if page.More && g.last > before {
		c.fillGroup(conv, g)
		return nil
	}
	held := g.held
	g.held = nil
	for i, m := range held {
		if m.Seq > known && m.Seq > g.last+1 { // it came while the answer was under way
			g.held = held[i:]
			c.fillGroup(conv, g)
			break
		}
		c.takeNext(g, m)
	}
	return nil
}

// takeNext is takeGroup of a message before which nothing can be missing: a hole is what retention removed.
func (c *Client) takeNext(g *group, m Message) {
	if _, starved := c.starvedGroups[m.Conv]; starved {
		return
	}
	if c.hasRoom() && m.Seq > g.last+1 {
		g.last = m.Seq - 2 // advance also moves over what came ahead
		g.advance()
		for seq := range g.ahead {
			if seq <= g.last {
				delete(g.ahead, seq)
			}
		}
	}
	c.takeGroup(m)
}

// parseHistory reads the data of a HISTORY answer.
func parseHistory(data []byte) (HistoryPage, error) {
	var d struct {
		Messages []json.RawMessage `json:"messages"`
		More     bool              `json:"more"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return HistoryPage{}, err
	}
	page := HistoryPage{More: d.More, Messages: make([]Message, 0, len(d.Messages))}
	for _, raw := range d.Messages {
		m, err := parseMessage(0, raw)
		if err != nil {
			return HistoryPage{}, err
		}
		m.Cmd = kindOf(m)
		page.Messages = append(page.Messages, m)
	}
	return page, nil
}

// kindOf is the command that a bare message would be pushed with.
func kindOf(m Message) codec.Cmd {
	switch {
	case m.Target > 0:
		return codec.Recall
	case m.From == "":
		return codec.SystemMessage
	case m.Group != "":
		return codec.GroupMessage
	}
	return codec.PrivateMessage
}
