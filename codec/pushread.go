package codec

// Push is the data of a message as a client receives it: pushed (cmd 3, 4, 5, 14), in a PULL entry or in HISTORY. Slices
// alias the data (they are copied only where they hold JSON escapes); nil = absent.
type Push struct {
	Inbox     uint64 // 0 = absent
	MsgID     []byte // 32 hexadecimal digits
	Conv      []byte
	Seq       uint64 // 0 = absent
	From      []byte
	To, Group []byte
	TS        int64
	Type      int64
	Content   []byte // raw JSON
	ID        []byte
	Target    uint64 // RECALL only
	Recalled  bool
}

// ParsePush reads the data of a message that Parse has passed. It is for clients and allocates nothing. ok is false for
// what is no object or has a known member of the wrong type.
func ParsePush(data []byte) (p Push, ok bool) {
	f, ok := openFields(data)
	if !ok || f.b == nil {
		return p, false
	}
	for {
		key, value, more := f.next()
		if !more {
			return p, p.Conv != nil
		}
		if !p.member(key, value) {
			return p, false
		}
	}
}

// member takes one member.
func (p *Push) member(key, value []byte) (ok bool) {
	ok = true
	switch string(key) {
	case "inbox":
		p.Inbox, ok = readSeq(value)
	case "msgId":
		p.MsgID, ok = readText(value)
	case "conv":
		p.Conv, ok = readText(value)
	case "seq":
		p.Seq, ok = readSeq(value)
	case "from":
		p.From, ok = readText(value)
	case "to":
		p.To, ok = readText(value)
	case "group":
		p.Group, ok = readText(value)
	case "ts":
		p.TS, ok = readInt(value)
	case "type":
		p.Type, ok = readInt(value)
	case "content":
		p.Content = value
	case "id":
		p.ID, ok = readText(value)
	case "target":
		p.Target, ok = readSeq(value)
	case "recalled":
		p.Recalled, ok = readBool(value)
	}
	return ok
}
