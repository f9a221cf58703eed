package redis

import (
	"errors"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
)

// payload is what another node has published, read. Its strings share the memory of the Pub/Sub message.
type payload struct {
	sender     string
	number     uint64
	wakes      []cluster.Wake
	signals    []cluster.Signal
	members    []cluster.MembersChange
	answers    []cluster.Answer
	orders     []order
	superseded []superseded
	asked      []question
	told       []question

	hello, bye, lost bool
}

// errPayload: not a payload of this version, or one that ends in the middle.
var errPayload = errors.New("malformed payload")

// readHead reads the sender and the number alone.
func readHead(text string) (p payload, rest string, err error) {
	r := reader{rest: text}
	version := r.byte()
	p.sender, p.number = r.text(), r.uint()
	if r.bad || version != payloadVersion {
		return payload{}, "", errPayload
	}
	return p, r.rest, nil
}

// readPayload reads a whole payload. Nothing of a malformed one is used.
func readPayload(text string) (payload, error) {
	p, rest, err := readHead(text)
	if err != nil {
		return p, err
	}
	r := reader{rest: rest}
	var current struct {
		message *codec.ConvMessage
		packet  []byte
	}
	for len(r.rest) > 0 && !r.bad {
		kind := r.byte()
		body := reader{rest: r.text()}
		switch kind { // one line a kind
		case kindMessage:
			current.message = body.convMessage()
		case kindWake:
			p.wakes = append(p.wakes, body.wake(current.message))
		case kindGroupWake:
			w := body.wake(current.message)
			w.User, w.Group = "", w.User
			p.wakes = append(p.wakes, w)
		case kindPacket:
			current.packet = []byte(body.rest)
		case kindSignal:
			p.signals = append(p.signals, cluster.Signal{User: body.text(), Group: body.text(), Except: body.text(), Packet: current.packet})
		case kindBroadcast:
			p.signals = append(p.signals, cluster.Signal{Broadcast: current.message})
			body.bad = current.message == nil
		case kindState:
			p.signals = append(p.signals, body.state())
		case kindMembers:
			p.members = append(p.members, body.membersChange())
		case kindAnswer:
			p.answers = append(p.answers, body.answer())
		case kindOrder:
			p.orders = append(p.orders, body.order())
		case kindSuperseded:
			p.superseded = append(p.superseded, superseded{user: body.text(), terminal: body.text(), ref: body.uint()})
		case kindAsk:
			p.asked = append(p.asked, body.question())
		case kindTold:
			p.told = append(p.told, body.question())
		case kindHello:
			p.hello = true
		case kindBye:
			p.bye = true
		case kindLost:
			p.lost = true
		}
		r.bad = r.bad || body.bad
	}
	if r.bad {
		return payload{}, errPayload
	}
	return p, nil
}

// reader takes values from the front of a text. After a value that is not there bad is set and all that follow are zero.
type reader struct {
	rest string
	bad  bool
}

func (r *reader) fail() {
	r.rest, r.bad = "", true
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.fail()
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) bool() bool { return r.byte() != 0 }

func (r *reader) uint() uint64 {
	var v uint64
	for i := 0; i < len(r.rest) && i < 10; i++ {
		b := r.rest[i]
		if i == 9 && b > 1 {
			break // beyond 64 bits
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			r.rest = r.rest[i+1:]
			return v
		}
	}
	r.fail()
	return 0
}

func (r *reader) int() int64 {
	u := r.uint()
	return int64(u>>1) ^ -int64(u&1)
}

// text takes a text with its length before it.
func (r *reader) text() string {
	n := r.uint()
	if n > uint64(len(r.rest)) {
		r.fail()
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *reader) bytes() []byte {
	if s := r.text(); s != "" {
		return []byte(s)
	}
	return nil
}

// texts takes a list. Every element takes a byte at least, so a count above what is left is refused before memory is asked for.
func (r *reader) texts() []string {
	n := r.uint()
	if n > uint64(len(r.rest)) {
		r.fail()
	}
	if n == 0 || r.bad {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.text()
	}
	return list
}

func (r *reader) id() (id [16]byte) {
	if len(r.rest) < len(id) {
		r.fail()
		return id
	}
	copy(id[:], r.rest)
	r.rest = r.rest[len(id):]
	return id
}

func (r *reader) convMessage() *codec.ConvMessage {
	m := &codec.ConvMessage{Cmd: codec.Cmd(r.uint()), MsgID: r.id(), Conv: r.text(), Seq: r.uint()}
	m.From, m.To, m.Group = r.text(), r.text(), r.text()
	m.TS, m.Type = r.int(), r.int()
	m.Content, m.ID = r.bytes(), r.text()
	m.Target, m.Recalled = r.uint(), r.bool()
	return m
}

func (r *reader) wake(m *codec.ConvMessage) cluster.Wake {
	w := cluster.Wake{User: r.text()}
	if has := r.bool(); has {
		if w.Message = m; m == nil {
			r.fail()
		}
	}
	w.Inbox = r.uint()
	return w
}

func (r *reader) state() cluster.Signal {
	s := cluster.Signal{User: r.text()}
	s.State = &codec.PresenceState{User: r.text(), Online: r.bool(), LastSeen: r.int(), Terminals: r.texts()}
	return s
}

func (r *reader) membersChange() cluster.MembersChange {
	return cluster.MembersChange{Group: r.text(), Large: r.bool(), BecameLarge: r.bool(), Added: r.texts(), Removed: r.texts()}
}

func (r *reader) answer() cluster.Answer {
	a := cluster.Answer{Ref: r.uint(), Token: r.uint(), ID: r.bytes(), Code: codec.Code(r.int()), Message: r.text()}
	a.MsgID, a.Seq, a.TS, a.Duplicate = r.id(), r.uint(), r.int(), r.bool()
	return a
}

func (r *reader) question() question { return question{number: r.uint(), text: r.bytes()} }

func (r *reader) order() order {
	return order{user: r.text(), terminal: r.text(), code: codec.Code(r.int()), reason: r.text(), before: r.int()}
}
