package codec

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
