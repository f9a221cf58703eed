package codec

import "math"

// Packet is one decoded envelope. ID and Data alias the parsed bytes (ID is copied only when it holds JSON escapes).
type Packet struct {
	Cmd  Cmd
	ID   []byte // decoded text of "id"; nil when the packet has none
	Data []byte // raw JSON of "data"; nil when the packet has none
}

// Problem is a refusal of something a client sent: the code and the text of the ERROR packet that answers it. It is a
// value, not an error: a wire code is not a Go error. Code 0 means "fine".
type Problem struct {
	Code    Code
	Message string // for people; constant text, never the client's bytes
}

// OK reports whether p is no problem.
func (p Problem) OK() bool { return p.Code == 0 }

// bad is a BAD_PACKET.
func bad(message string) Problem { return Problem{CodeBadPacket, message} }

const notJSON = "not one JSON object in UTF-8"

// Parse reads one envelope. It refuses what is not one JSON object with an integer "cmd", what is not UTF-8, what is
// nested more than 1,024 deep and an "id" that is no string of 1–64 bytes. When only a later part is wrong, p.ID is
// still set if it was readable, so that the ERROR can carry it. Of members with the same key the last one counts.
//
// The whole of b is proven to be valid here, once: the decoders of Data trust it. A "cmd" beyond 32 bits is no command
// of anybody and reads as the smallest Cmd; one beyond 64 bits is refused.
func Parse(b []byte) (p Packet, problem Problem) {
	s := envelope{b: b}
	if !s.scan() {
		return Packet{ID: s.id}, bad(notJSON)
	}
	p = Packet{ID: s.id, Data: s.data}
	if s.cmd == nil {
		return p, bad("no cmd")
	}
	n, ok := readInt(s.cmd)
	if !ok {
		return p, bad("cmd is not an integer")
	}
	if n < math.MinInt32 || n > math.MaxInt32 {
		n = math.MinInt32
	}
	p.Cmd = Cmd(n)
	if s.badID {
		return p, bad("id is not a string of 1 to 64 bytes")
	}
	return p, Problem{}
}

// envelope is a scan of one packet.
type envelope struct {
	b     []byte
	cmd   []byte // raw
	id    []byte // decoded
	data  []byte // raw
	badID bool
}

// scan walks the outermost object and validates all that is in it.
func (s *envelope) scan() bool {
	b := s.b
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return false
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return skipSpace(b, i+1) == len(b)
	}
	for {
		key := i + 1
		i = skipKey(b, i)
		if i < 0 {
			return false
		}
		value := i
		if i = skipValue(b, i, maxNesting-1); i < 0 {
			return false
		}
		s.member(key, b[value:i])
		i = skipSpace(b, i)
		if i >= len(b) {
			return false
		}
		if b[i] == '}' {
			return skipSpace(b, i+1) == len(b)
		}
		if b[i] != ',' {
			return false
		}
		i = skipSpace(b, i+1)
	}
}

// member takes note of a member whose key begins at index key, if it is one of the three.
func (s *envelope) member(key int, value []byte) {
	end, escaped := stringEnd(s.b, key)
	name := s.b[key:end]
	if escaped {
		var f fields
		name = f.decodeKey(name)
	}
	switch string(name) {
	case "cmd":
		s.cmd = value
	case "id":
		s.id, s.badID = readID(value)
	case "data":
		s.data = value
	}
}

// readID reads an id of 1–64 bytes.
func readID(value []byte) (id []byte, wrong bool) {
	if len(value) > 6*MaxID+2 { // too long even if every byte were written as \u0061
		return nil, true
	}
	id, ok := readText(value)
	if !ok || len(id) == 0 || len(id) > MaxID {
		return nil, true
	}
	return id, false
}
