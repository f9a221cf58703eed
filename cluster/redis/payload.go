package redis

import (
	"encoding/binary"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
)

// What nodes publish to each other. One payload is one Pub/Sub message:
//
//	version   1 byte, payloadVersion: a payload of another version is not read, it counts as lost
//	sender    text, the sender's incarnation
//	number    uvarint, counts 1, 2, 3 … per (sender, channel): a hole is a lost payload
//	records   until the end: kind (1 byte), length (uvarint), body; unknown kinds are skipped
//
// In bodies: text and bytes are a uvarint length and the bytes, counts and sequence numbers are uvarints, times and
// types are zigzag varints, booleans are one byte.
const payloadVersion = 1

// The kinds of records.
const (
	kindMessage    byte = 1  // a codec.ConvMessage; the wakes and the broadcast after it are of it
	kindWake       byte = 2  // user, inbox
	kindGroupWake  byte = 3  // group, inbox
	kindPacket     byte = 4  // bytes; the signals after it carry them
	kindSignal     byte = 5  // user, group, except: a user's or a group's
	kindState      byte = 6  // user of the signal, then user, online, lastSeen, n, n terminals
	kindMembers    byte = 7  // group, large, became large, n, n added, m, m removed
	kindAnswer     byte = 8  // a cluster.Answer
	kindOrder      byte = 9  // user, terminal, code, reason, before
	kindSuperseded byte = 10 // user, terminal, ref
	kindHello      byte = 11 // the sender has come (back): read the table of nodes
	kindBye        byte = 12 // the sender leaves as planned; alone in its payload, whose number does not count
	kindLost       byte = 13 // the sender has lost payloads or wakes and cannot tell whose
	kindBroadcast  byte = 14 // of the message before
	kindAsk        byte = 15 // number of the question, question
	kindTold       byte = 16 // number of the question, answer
)

// order is what cluster.Cluster.Order carries.
type order struct {
	user, terminal string
	code           codec.Code
	reason         string
	before         int64
}

// superseded tells the older session's node that ref is no longer the newest of (user, terminal).
type superseded struct {
	user, terminal string
	ref            uint64
}

// question is what kindAsk and kindTold carry: the number is the asking node's, text the question or its answer.
type question struct {
	number uint64
	text   []byte
}

// encoder builds one payload. Consecutive wakes of one message, and consecutive signals of one packet, carry it once.
type encoder struct {
	b       []byte
	body    []byte             // of the record under way, reused
	message *codec.ConvMessage // the last kindMessage
	packet  *byte              // the first byte of the last kindPacket
}

// begin starts a payload in the memory of the last one.
func (e *encoder) begin(sender string, number uint64) {
	e.b = append(e.b[:0], payloadVersion)
	e.b = appendText(e.b, sender)
	e.b = binary.AppendUvarint(e.b, number)
	e.message, e.packet = nil, nil
}

func (e *encoder) record(kind byte) {
	e.b = append(e.b, kind)
	e.b = binary.AppendUvarint(e.b, uint64(len(e.body)))
	e.b = append(e.b, e.body...)
}

// wake appends a wake, of a group if user is empty.
func (e *encoder) wake(user, group string, inbox uint64, m *codec.ConvMessage) {
	if m != nil && m != e.message {
		e.convMessage(m)
	}
	kind, name := kindWake, user
	if user == "" {
		kind, name = kindGroupWake, group
	}
	e.body = append(appendText(e.body[:0], name), boolByte(m != nil))
	e.body = binary.AppendUvarint(e.body, inbox)
	e.record(kind)
}

func (e *encoder) convMessage(m *codec.ConvMessage) {
	b := binary.AppendUvarint(e.body[:0], uint64(m.Cmd))
	b = append(b, m.MsgID[:]...)
	b = appendText(b, m.Conv)
	b = binary.AppendUvarint(b, m.Seq)
	b = appendText(b, m.From)
	b = appendText(b, m.To)
	b = appendText(b, m.Group)
	b = binary.AppendVarint(b, m.TS)
	b = binary.AppendVarint(b, m.Type)
	b = appendText(b, m.Content)
	b = appendText(b, m.ID)
	b = binary.AppendUvarint(b, m.Target)
	e.body = append(b, boolByte(m.Recalled))
	e.record(kindMessage)
	e.message = m
}

// broadcast appends a signal for everyone.
func (e *encoder) broadcast(m *codec.ConvMessage) {
	if m != e.message {
		e.convMessage(m)
	}
	e.notice(kindBroadcast)
}

// signal appends a signal that carries a packet.
func (e *encoder) signal(user, group, except string, packet []byte) {
	if len(packet) == 0 || &packet[0] != e.packet {
		e.body = append(e.body[:0], packet...)
		e.record(kindPacket)
		if e.packet = nil; len(packet) > 0 {
			e.packet = &packet[0]
		}
	}
	e.body = appendText(appendText(appendText(e.body[:0], user), group), except)
	e.record(kindSignal)
}

func (e *encoder) state(user string, s *codec.PresenceState) {
	b := appendText(e.body[:0], user)
	b = appendText(b, s.User)
	b = append(b, boolByte(s.Online))
	b = binary.AppendVarint(b, s.LastSeen)
	e.body = appendTexts(b, s.Terminals)
	e.record(kindState)
}

func (e *encoder) members(c cluster.MembersChange) {
	b := appendText(e.body[:0], c.Group)
	b = append(b, boolByte(c.Large), boolByte(c.BecameLarge))
	b = appendTexts(b, c.Added)
	e.body = appendTexts(b, c.Removed)
	e.record(kindMembers)
}

func (e *encoder) answer(a cluster.Answer) {
	b := binary.AppendUvarint(e.body[:0], a.Ref)
	b = binary.AppendUvarint(b, a.Token)
	b = appendText(b, a.ID)
	b = binary.AppendVarint(b, int64(a.Code))
	b = appendText(b, a.Message)
	b = append(b, a.MsgID[:]...)
	b = binary.AppendUvarint(b, a.Seq)
	b = binary.AppendVarint(b, a.TS)
	e.body = append(b, boolByte(a.Duplicate))
	e.record(kindAnswer)
}

func (e *encoder) order(o order) {
	b := appendText(e.body[:0], o.user)
	b = appendText(b, o.terminal)
	b = binary.AppendVarint(b, int64(o.code))
	b = appendText(b, o.reason)
	e.body = binary.AppendVarint(b, o.before)
	e.record(kindOrder)
}

func (e *encoder) superseded(s superseded) {
	b := appendText(e.body[:0], s.user)
	b = appendText(b, s.terminal)
	e.body = binary.AppendUvarint(b, s.ref)
	e.record(kindSuperseded)
}

// question appends a kindAsk or a kindTold.
func (e *encoder) question(kind byte, q question) {
	e.body = appendText(binary.AppendUvarint(e.body[:0], q.number), q.text)
	e.record(kind)
}

// notice appends a record that has no body.
func (e *encoder) notice(kind byte) {
	e.body = e.body[:0]
	e.record(kind)
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendTexts(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendText(b, s)
	}
	return b
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}
