package codec

import (
	"encoding/hex"
	"strconv"
)

// A pushed packet is {"cmd":3,"data":{"inbox":17,"msgId":…}}. What differs between its recipients, the inbox number,
// stands in front, so that all the rest is encoded once and shared by all recipients and both transports.

// AppendPushHead and AppendPushTail make one pushed packet: head, which is per recipient, then tail, which is shared by
// all recipients and both transports. inbox 0 = absent. A recipient's packet is exactly head + tail.
func AppendPushHead(dst []byte, cmd Cmd, inbox uint64) []byte {
	dst = append(dst, `{"cmd":`...)
	dst = strconv.AppendInt(dst, int64(cmd), 10)
	dst = append(dst, `,"data":{`...)
	if inbox != 0 {
		dst = append(dst, `"inbox":`...)
		dst = strconv.AppendUint(dst, inbox, 10)
		dst = append(dst, ',')
	}
	return dst
}

// AppendPushTail appends the part of a pushed packet that is the same for all its recipients.
func AppendPushTail(dst []byte, m *ConvMessage) []byte {
	return append(appendMessage(dst, m), "}}"...)
}

// AppendMessageJSON appends m as the bare object that HISTORY and the HTTP API show.
func AppendMessageJSON(dst []byte, m *ConvMessage) []byte {
	return append(appendMessage(append(dst, '{'), m), '}')
}

// appendMessage appends the members of m without braces. There is always a first one, "conv" or "msgId".
func appendMessage(dst []byte, m *ConvMessage) []byte {
	if m.Cmd == Recall {
		return appendRecall(dst, m)
	}
	dst = append(dst, `"msgId":"`...)
	dst = hex.AppendEncode(dst, m.MsgID[:])
	dst = append(dst, `","conv":`...)
	dst = AppendString(dst, m.Conv)
	dst = appendSeqField(dst, `,"seq":`, m.Seq)
	dst = appendNameField(dst, `,"from":`, m.From)
	dst = appendNameField(dst, `,"to":`, m.To)
	dst = appendNameField(dst, `,"group":`, m.Group)
	dst = append(dst, `,"ts":`...)
	dst = strconv.AppendInt(dst, m.TS, 10)
	dst = append(dst, `,"type":`...)
	dst = strconv.AppendInt(dst, m.Type, 10)
	dst = append(dst, `,"content":`...)
	switch {
	case m.Recalled:
		dst = append(dst, `null,"recalled":true`...)
	case len(m.Content) == 0: // never from a client: content is required
		dst = append(dst, `null`...)
	default:
		dst = append(dst, m.Content...)
	}
	return appendNameField(dst, `,"id":`, m.ID)
}

// appendRecall appends the members of a RECALL event.
func appendRecall(dst []byte, m *ConvMessage) []byte {
	dst = append(dst, `"conv":`...)
	dst = AppendString(dst, m.Conv)
	dst = appendSeqField(dst, `,"seq":`, m.Seq)
	dst = append(dst, `,"target":`...)
	dst = strconv.AppendUint(dst, m.Target, 10)
	dst = appendNameField(dst, `,"from":`, m.From)
	dst = append(dst, `,"ts":`...)
	return strconv.AppendInt(dst, m.TS, 10)
}

// appendSeqField appends key and n, or nothing when n is 0.
func appendSeqField(dst []byte, key string, n uint64) []byte {
	if n == 0 {
		return dst
	}
	return strconv.AppendUint(append(dst, key...), n, 10)
}

// appendNameField appends key and s, or nothing when s is empty.
func appendNameField(dst []byte, key, s string) []byte {
	if s == "" {
		return dst
	}
	return AppendString(append(dst, key...), s)
}
