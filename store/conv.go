package store

import "strings"

// PrivateConv is the conversation of two users, who may be the same: p:<a>:<b> in byte order.
func PrivateConv(a, b string) string {
	if b < a {
		a, b = b, a
	}
	return "p:" + a + ":" + b
}

// GroupConv is the conversation of a group.
func GroupConv(group string) string { return "g:" + group }

// SystemConv is the conversation of the system with a user.
func SystemConv(user string) string { return "n:" + user }

// ConvKind tells private ('p'), group ('g') and system ('n') conversations apart and gives their names: two users, the
// group, the user. kind is 0 for what is no conversation.
func ConvKind(conv string) (kind byte, a, b string) {
	if len(conv) < 3 || conv[1] != ':' {
		return 0, "", ""
	}
	switch name := conv[2:]; conv[0] {
	case 'p':
		a, b, ok := strings.Cut(name, ":")
		if !ok || a == "" || b == "" || b < a || strings.IndexByte(b, ':') >= 0 {
			return 0, "", ""
		}
		return 'p', a, b
	case 'g', 'n':
		if strings.IndexByte(name, ':') >= 0 {
			return 0, "", ""
		}
		return conv[0], name, ""
	}
	return 0, "", ""
}

// Peer is the other user of a private conversation (user itself in a conversation with oneself), and whether user is in it.
func Peer(conv, user string) (string, bool) {
	kind, a, b := ConvKind(conv)
	switch {
	case kind != 'p':
		return "", false
	case a == user:
		return b, true
	case b == user:
		return a, true
	}
	return "", false
}
