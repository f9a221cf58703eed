package codec

// Defaults and maxima of what a client may ask for: PROTOCOL §3 and §4.
const (
	maxWindow            = 1024
	defaultPull          = 100
	maxPull              = 500
	defaultHistory       = 50
	maxHistory           = 200
	defaultConversations = 50
	maxConversations     = 200
)

// pick finds members of data by name: values[i] becomes the raw value of the last member called names[i] and stays nil
// when there is none. Data that is absent or null is an empty object; anything else that is no object is refused.
func pick(data []byte, values [][]byte, names ...string) Problem {
	f, ok := openFields(data)
	if !ok {
		return bad("data is not an object")
	}
	for {
		key, value, more := f.next()
		if !more {
			return Problem{}
		}
		for i, name := range names {
			if string(key) == name {
				values[i] = value
				break
			}
		}
	}
}

// DecodeSend reads the data of PRIVATE_MESSAGE (target "to") and GROUP_MESSAGE (target "group"). r.Target and
// r.Content alias data. Content is exactly one valid JSON value, at most 512 levels deep.
func DecodeSend(data []byte, target string, r *SendRequest) Problem {
	*r = SendRequest{}
	var v [4][]byte
	if p := pick(data, v[:], target, "content", "type", "ephemeral"); !p.OK() {
		return p
	}
	var ok bool
	if r.Target, ok = readName(v[0], MaxName); !ok {
		return bad(`no name in "to" or "group"`)
	}
	if r.Content = v[1]; r.Content == nil {
		return bad("no content")
	}
	if nestedDeeper(r.Content, maxContentNesting) {
		return bad("content is nested too deep")
	}
	if v[2] != nil {
		if r.Type, ok = readInt(v[2]); !ok {
			return bad("type is not an integer")
		}
	}
	if v[3] != nil {
		if r.Ephemeral, ok = readBool(v[3]); !ok {
			return bad("ephemeral is not a boolean")
		}
	}
	return Problem{}
}

// DecodeAck reads the data of ACK: either {inbox} or {conv, seq}, not both. r.Conv aliases data.
func DecodeAck(data []byte, r *AckRequest) Problem {
	*r = AckRequest{}
	var v [3][]byte
	if p := pick(data, v[:], "inbox", "conv", "seq"); !p.OK() {
		return p
	}
	if v[0] != nil {
		if v[1] != nil || v[2] != nil {
			return bad("both inbox and conv")
		}
		if r.Inbox, r.HasInbox = readSeq(v[0]); !r.HasInbox {
			return bad("inbox is not a sequence number")
		}
		return Problem{}
	}
	var ok bool
	if r.Conv, ok = readText(v[1]); !ok {
		return bad("neither inbox nor conv")
	}
	if r.Seq, ok = readSeq(v[2]); !ok {
		return bad("seq is not a sequence number")
	}
	return Problem{}
}

// DecodeLogin reads the data of LOGIN.
func DecodeLogin(data []byte, r *LoginRequest) Problem {
	*r = LoginRequest{}
	var v [5][]byte
	if p := pick(data, v[:], "accessToken", "terminal", "ack", "window", "resume"); !p.OK() {
		return p
	}
	var ok bool
	if r.AccessToken, ok = optionalText(v[0]); !ok {
		return bad("accessToken is not a string")
	}
	if r.Terminal, ok = optionalName(v[1], MaxTerminal); !ok {
		return bad("terminal is not a name of at most 32 bytes")
	}
	if v[2] != nil {
		mode, _ := readText(v[2])
		r.ClientAck = string(mode) == "client"
		if !r.ClientAck && string(mode) != "auto" {
			return bad(`ack is neither "auto" nor "client"`)
		}
	}
	if v[3] != nil {
		if r.Window, ok = readLimit(v[3], maxWindow); !ok {
			return bad("window is not a positive integer")
		}
	}
	if v[4] != nil {
		return decodeResume(v[4], r)
	}
	return Problem{}
}

// decodeResume reads LOGIN's "resume".
func decodeResume(value []byte, r *LoginRequest) Problem {
	var v [2][]byte
	if value[0] != '{' { // null is no object here
		return bad("resume is not an object")
	}
	pick(value, v[:], "epoch", "inbox")
	var ok bool
	if r.ResumeEpoch, ok = optionalText(v[0]); !ok {
		return bad("resume.epoch is not a string")
	}
	if r.ResumeInbox, ok = readSeq(v[1]); !ok {
		return bad("resume.inbox is not a sequence number")
	}
	r.HasResume = true
	return Problem{}
}

// DecodePull reads the data of PULL.
func DecodePull(data []byte, r *PullRequest) Problem {
	*r = PullRequest{Limit: defaultPull}
	var v [2][]byte
	if p := pick(data, v[:], "after", "limit"); !p.OK() {
		return p
	}
	var ok bool
	if r.After, ok = readSeq(v[0]); !ok {
		return bad("after is not a sequence number")
	}
	return decodeLimit(v[1], maxPull, &r.Limit)
}

// DecodeHistory reads the data of HISTORY. Whether conv is one of a conversation is not looked at.
func DecodeHistory(data []byte, r *HistoryRequest) Problem {
	*r = HistoryRequest{Limit: defaultHistory}
	var v [4][]byte
	if p := pick(data, v[:], "conv", "before", "after", "limit"); !p.OK() {
		return p
	}
	conv, ok := readText(v[0])
	if !ok {
		return bad("no conv")
	}
	r.Conv = string(conv)
	if v[1] != nil && v[2] != nil {
		return bad("both before and after")
	}
	if v[1] != nil {
		if r.Before, r.HasBefore = readSeq(v[1]); !r.HasBefore {
			return bad("before is not a sequence number")
		}
	}
	if v[2] != nil {
		if r.After, r.HasAfter = readSeq(v[2]); !r.HasAfter {
			return bad("after is not a sequence number")
		}
	}
	return decodeLimit(v[3], maxHistory, &r.Limit)
}

// DecodeSeq reads the data of READ and RECALL. Whether conv is one of a conversation is not looked at.
func DecodeSeq(data []byte, r *SeqRequest) Problem {
	*r = SeqRequest{}
	var v [2][]byte
	if p := pick(data, v[:], "conv", "seq"); !p.OK() {
		return p
	}
	conv, ok := readText(v[0])
	if !ok {
		return bad("no conv")
	}
	r.Conv = string(conv)
	if r.Seq, ok = readSeq(v[1]); !ok {
		return bad("seq is not a sequence number")
	}
	return Problem{}
}

// DecodeTyping reads the data of TYPING: exactly one of "to" and "group".
func DecodeTyping(data []byte, r *TypingRequest) Problem {
	*r = TypingRequest{}
	var v [2][]byte
	if p := pick(data, v[:], "to", "group"); !p.OK() {
		return p
	}
	if (v[0] == nil) == (v[1] == nil) {
		return bad("not exactly one of to and group")
	}
	var ok bool
	if r.To, ok = optionalName(v[0], MaxName); !ok {
		return bad("to is not a name")
	}
	if r.Group, ok = optionalName(v[1], MaxName); !ok {
		return bad("group is not a name")
	}
	return Problem{}
}

// DecodePresence reads the data of PRESENCE. The lists are as the client wrote them, repeats and all.
func DecodePresence(data []byte, r *PresenceRequest) Problem {
	*r = PresenceRequest{}
	var v [2][]byte
	if p := pick(data, v[:], "watch", "unwatch"); !p.OK() {
		return p
	}
	var ok bool
	if r.Watch, ok = optionalNames(v[0]); !ok {
		return bad("watch is not a list of names")
	}
	if r.Unwatch, ok = optionalNames(v[1]); !ok {
		return bad("unwatch is not a list of names")
	}
	return Problem{}
}

// DecodeConversations reads the data of CONVERSATIONS.
func DecodeConversations(data []byte, r *ConversationsRequest) Problem {
	*r = ConversationsRequest{Limit: defaultConversations}
	var v [2][]byte
	if p := pick(data, v[:], "after", "limit"); !p.OK() {
		return p
	}
	var ok bool
	if r.After, ok = optionalText(v[0]); !ok {
		return bad("after is not a string")
	}
	return decodeLimit(v[1], maxConversations, &r.Limit)
}

// DecodeRefresh reads the data of REFRESH.
func DecodeRefresh(data []byte) (accessToken string, problem Problem) {
	var v [1][]byte
	if p := pick(data, v[:], "accessToken"); !p.OK() {
		return "", p
	}
	token, ok := readText(v[0])
	if !ok {
		return "", bad("no accessToken")
	}
	return string(token), Problem{}
}

// DecodeEmpty checks the data of a command without fields, HEART_BEAT and LOGOUT: absent, null or any object.
func DecodeEmpty(data []byte) Problem { return pick(data, nil) }

// decodeLimit reads a "limit" into limit, which keeps its default when there is none.
func decodeLimit(value []byte, most int, limit *int) Problem {
	if value == nil {
		return Problem{}
	}
	n, ok := readLimit(value, most)
	if !ok {
		return bad("limit is not a positive integer")
	}
	*limit = n
	return Problem{}
}

// optionalText reads a string that may be absent.
func optionalText(value []byte) (text string, ok bool) {
	if value == nil {
		return "", true
	}
	b, ok := readText(value)
	return string(b), ok
}

// optionalName reads a name that may be absent.
func optionalName(value []byte, most int) (name string, ok bool) {
	if value == nil {
		return "", true
	}
	b, ok := readName(value, most)
	return string(b), ok
}

// optionalNames reads a list of names that may be absent.
func optionalNames(value []byte) (names []string, ok bool) {
	if value == nil {
		return nil, true
	}
	e, ok := openElements(value)
	for ok {
		element, more := e.next()
		if !more {
			break
		}
		var name []byte
		if name, ok = readName(element, MaxName); ok {
			names = append(names, string(name))
		}
	}
	return names, ok
}
