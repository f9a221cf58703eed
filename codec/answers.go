package codec

import (
	"encoding/hex"
	"strconv"
)

// The functions of this file append one whole packet each (the JSON text, not its framing) to dst and return it. id nil
// = no "id". They allocate only when dst has no room.

// appendStart appends a packet up to the colon of "data".
func appendStart(dst []byte, cmd Cmd, id []byte) []byte {
	dst = append(dst, `{"cmd":`...)
	dst = strconv.AppendInt(dst, int64(cmd), 10)
	if id != nil {
		dst = appendText(append(dst, `,"id":`...), id)
	}
	return append(dst, `,"data":`...)
}

// AppendPacket is for extension commands and for clients: data is raw JSON, nil = absent.
func AppendPacket(dst []byte, cmd Cmd, id []byte, data []byte) []byte {
	if data == nil {
		dst = appendStart(dst, cmd, id)
		return append(dst[:len(dst)-len(`,"data":`)], '}')
	}
	return append(append(appendStart(dst, cmd, id), data...), '}')
}

// AppendError appends an ERROR; id is that of the packet it answers. retryAfterMs ≤ 0 = absent.
func AppendError(dst, id []byte, code Code, message string, retryAfterMs int) []byte {
	dst = appendCode(appendStart(dst, Error, id), code)
	dst = AppendString(append(dst, `,"message":`...), message)
	dst = strconv.AppendBool(append(dst, `,"retryable":`...), code.Retryable())
	if retryAfterMs > 0 {
		dst = strconv.AppendInt(append(dst, `,"retryAfterMs":`...), int64(retryAfterMs), 10)
	}
	return append(dst, "}}"...)
}

// appendCode opens an object with code and name.
func appendCode(dst []byte, code Code) []byte {
	dst = append(dst, `{"code":`...)
	dst = strconv.AppendInt(dst, int64(code.Number()), 10)
	return AppendString(append(dst, `,"name":`...), code.Name())
}

// AppendForceLogout appends a FORCE_LOGOUT; reason is for people.
func AppendForceLogout(dst []byte, code Code, reason string) []byte {
	dst = appendCode(appendStart(dst, ForceLogout, nil), code)
	return append(AppendString(append(dst, `,"reason":`...), reason), "}}"...)
}

// AppendLogin appends the answer to LOGIN.
func AppendLogin(dst, id []byte, r *LoginReply) []byte {
	dst = appendStart(dst, Login, id)
	dst = AppendString(append(dst, `{"userId":`...), r.UserID)
	dst = AppendString(append(dst, `,"terminal":`...), r.Terminal)
	dst = AppendString(append(dst, `,"sessionId":`...), r.SessionID)
	dst = strconv.AppendInt(append(dst, `,"serverTime":`...), r.ServerTime, 10)
	dst = strconv.AppendInt(append(dst, `,"expiresAt":`...), r.ExpiresAt, 10)
	dst = strconv.AppendInt(append(dst, `,"heartbeat":`...), int64(r.Heartbeat), 10)
	dst = AppendString(append(dst, `,"epoch":`...), r.Epoch)
	dst = strconv.AppendUint(append(dst, `,"inbox":{"head":`...), r.Head, 10)
	dst = strconv.AppendUint(append(dst, `,"first":`...), r.First, 10)
	dst = strconv.AppendUint(append(dst, `,"acked":`...), r.Acked, 10)
	dst = strconv.AppendBool(append(dst, `},"resumed":`...), r.Resumed)
	dst = AppendString(append(dst, `,"node":`...), r.Node)
	return append(dst, "}}"...)
}

// AppendHeartBeat appends the answer to HEART_BEAT; head is the newest inbox number, 0 = none (or not logged in).
func AppendHeartBeat(dst, id []byte, head uint64) []byte {
	return appendHead(appendStart(dst, HeartBeat, id), head)
}

// AppendLag appends a LAG.
func AppendLag(dst []byte, head uint64) []byte {
	return appendHead(appendStart(dst, Lag, nil), head)
}

func appendHead(dst []byte, head uint64) []byte {
	dst = strconv.AppendUint(append(dst, `{"head":`...), head, 10)
	return append(dst, "}}"...)
}

// AppendSendAck appends a SEND_ACK; seq 0 = absent, duplicate only when true.
func AppendSendAck(dst, id []byte, msgID MsgID, conv string, ts int64, seq uint64, duplicate bool) []byte {
	dst = append(appendStart(dst, SendAck, id), `{"msgId":"`...)
	dst = hex.AppendEncode(dst, msgID[:])
	dst = AppendString(append(dst, `","conv":`...), conv)
	dst = strconv.AppendInt(append(dst, `,"ts":`...), ts, 10)
	dst = appendSeqField(dst, `,"seq":`, seq)
	if duplicate {
		dst = append(dst, `,"duplicate":true`...)
	}
	return append(dst, "}}"...)
}

// AppendPull appends the answer to PULL.
func AppendPull(dst, id []byte, entries []InboxEntry, head, first uint64, more bool) []byte {
	return append(AppendPullData(appendStart(dst, Pull, id), entries, head, first, more), '}')
}

// AppendPullData appends the "data" of the answer to PULL alone, as the HTTP API shows an inbox.
func AppendPullData(dst []byte, entries []InboxEntry, head, first uint64, more bool) []byte {
	dst = append(dst, `{"entries":[`...)
	for i := range entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		e := &entries[i]
		dst = AppendPushHead(dst, e.Cmd, e.Inbox)
		dst = AppendPushTail(dst, &e.ConvMessage)
	}
	dst = strconv.AppendUint(append(dst, `],"head":`...), head, 10)
	dst = strconv.AppendUint(append(dst, `,"first":`...), first, 10)
	dst = strconv.AppendBool(append(dst, `,"more":`...), more)
	return append(dst, '}')
}

// AppendHistory appends the answer to HISTORY.
func AppendHistory(dst, id []byte, conv string, messages []ConvMessage, more bool) []byte {
	return append(AppendHistoryData(appendStart(dst, History, id), conv, messages, more), '}')
}

// AppendHistoryData appends the "data" of the answer to HISTORY alone, as the HTTP API shows it.
func AppendHistoryData(dst []byte, conv string, messages []ConvMessage, more bool) []byte {
	dst = AppendString(append(dst, `{"conv":`...), conv)
	dst = append(dst, `,"messages":[`...)
	for i := range messages {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendMessageJSON(dst, &messages[i])
	}
	dst = strconv.AppendBool(append(dst, `],"more":`...), more)
	return append(dst, '}')
}

// AppendReceipt appends a RECEIPT; delivered, read 0 = absent.
func AppendReceipt(dst []byte, conv, user string, delivered, read uint64) []byte {
	dst = AppendString(append(appendStart(dst, Receipt, nil), `{"conv":`...), conv)
	dst = AppendString(append(dst, `,"user":`...), user)
	dst = appendSeqField(dst, `,"delivered":`, delivered)
	dst = appendSeqField(dst, `,"read":`, read)
	return append(dst, "}}"...)
}

// AppendTyping appends a TYPING.
func AppendTyping(dst []byte, conv, from string) []byte {
	dst = AppendString(append(appendStart(dst, Typing, nil), `{"conv":`...), conv)
	return append(AppendString(append(dst, `,"from":`...), from), "}}"...)
}

// AppendPresence appends a PRESENCE: the answer with its id, or a change with id nil.
func AppendPresence(dst, id []byte, states []PresenceState) []byte {
	return append(AppendPresenceData(appendStart(dst, Presence, id), states), '}')
}

// AppendPresenceData appends the "data" of a PRESENCE alone, as the HTTP API shows it.
func AppendPresenceData(dst []byte, states []PresenceState) []byte {
	dst = append(dst, `{"states":[`...)
	for i := range states {
		s := &states[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(append(dst, `{"user":`...), s.User)
		dst = strconv.AppendBool(append(dst, `,"online":`...), s.Online)
		dst = append(dst, `,"terminals":[`...)
		for j, terminal := range s.Terminals {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = AppendString(dst, terminal)
		}
		dst = strconv.AppendInt(append(dst, `],"lastSeen":`...), s.LastSeen, 10)
		dst = append(dst, '}')
	}
	return append(dst, "]}"...)
}

// AppendGoAway appends a GOAWAY; reason is for people.
func AppendGoAway(dst []byte, reason string, retryAfterMs int) []byte {
	dst = AppendString(append(appendStart(dst, GoAway, nil), `{"reason":`...), reason)
	dst = strconv.AppendInt(append(dst, `,"retryAfterMs":`...), int64(retryAfterMs), 10)
	return append(dst, "}}"...)
}

// AppendRefresh appends the answer to REFRESH; expiresAt in ms.
func AppendRefresh(dst, id []byte, expiresAt int64) []byte {
	dst = append(appendStart(dst, Refresh, id), `{"expiresAt":`...)
	return append(strconv.AppendInt(dst, expiresAt, 10), "}}"...)
}

// AppendLogout appends the answer to LOGOUT.
func AppendLogout(dst, id []byte) []byte {
	return append(appendStart(dst, Logout, id), "{}}"...)
}

// AppendConversations appends the answer to CONVERSATIONS; cursor empty = absent, there is no next page.
func AppendConversations(dst, id []byte, list []ConversationState, cursor string) []byte {
	return append(AppendConversationsData(appendStart(dst, Conversations, id), list, cursor), '}')
}

// AppendConversationsData appends the "data" of the answer to CONVERSATIONS alone, as the HTTP API shows it.
func AppendConversationsData(dst []byte, list []ConversationState, cursor string) []byte {
	dst = append(dst, `{"conversations":[`...)
	for i := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendConversation(dst, &list[i])
	}
	dst = append(dst, ']')
	dst = appendNameField(dst, `,"cursor":`, cursor)
	return append(dst, '}')
}

func appendConversation(dst []byte, c *ConversationState) []byte {
	dst = AppendString(append(dst, `{"conv":`...), c.Conv)
	dst = AppendString(append(dst, `,"kind":`...), c.Kind)
	dst = appendNameField(dst, `,"peer":`, c.Peer)
	dst = appendNameField(dst, `,"group":`, c.Group)
	dst = strconv.AppendUint(append(dst, `,"head":`...), c.Head, 10)
	dst = strconv.AppendUint(append(dst, `,"read":`...), c.Read, 10)
	dst = strconv.AppendUint(append(dst, `,"unread":`...), c.Unread, 10)
	if c.Kind == "private" {
		dst = strconv.AppendUint(append(dst, `,"peerDelivered":`...), c.PeerDelivered, 10)
		dst = strconv.AppendUint(append(dst, `,"peerRead":`...), c.PeerRead, 10)
	}
	if c.Last != nil {
		dst = AppendMessageJSON(append(dst, `,"last":`...), c.Last)
	}
	return append(dst, '}')
}
