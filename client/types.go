package client

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// Message is one message, or the event that took one back.
type Message struct {
	Cmd       codec.Cmd // PrivateMessage, GroupMessage, SystemMessage or Recall; 0 in the answer of History
	MsgID     string    // 32 hexadecimal digits; empty for Recall
	Conv      string
	Seq       uint64 // in its conversation; 0 = ephemeral
	Inbox     uint64 // in the user's inbox; 0 = ephemeral, of a large group, or from History
	From      string // empty = the system
	To, Group string // one of them, or neither
	Time      int64  // ms since the Unix epoch, by the server's clock
	Type      int64
	Content   json.RawMessage // as the sender wrote it, byte for byte
	ID        string          // the sender's id
	Recalled  bool            // Content is null
	Target    uint64          // Recall only: the seq of the message that was taken back
}

// parseMessage reads the data of a message. Everything in the result is a copy but Content, which aliases data.
func parseMessage(cmd codec.Cmd, data []byte) (Message, error) {
	p, ok := codec.ParsePush(data)
	if !ok {
		return Message{}, fmt.Errorf("client: unreadable message (cmd %d)", cmd)
	}
	return Message{Cmd: cmd, MsgID: string(p.MsgID), Conv: string(p.Conv), Seq: p.Seq, Inbox: p.Inbox, From: string(p.From),
		To: string(p.To), Group: string(p.Group), Time: p.TS, Type: p.Type, Content: p.Content, ID: string(p.ID),
		Recalled: p.Recalled, Target: p.Target}, nil
}

// SendAck is the server's promise that a message is kept.
type SendAck struct {
	ID        string `json:"-"` // of the send
	MsgID     string `json:"msgId"`
	Conv      string `json:"conv"`
	Time      int64  `json:"ts"`        // ms since the Unix epoch
	Seq       uint64 `json:"seq"`       // 0 = ephemeral, or not known yet
	Duplicate bool   `json:"duplicate"` // the id was sent before; this is the first answer
}

// Receipt says how far the other side, or another terminal of one's own, has come in a conversation.
type Receipt struct {
	Conv      string `json:"conv"`
	User      string `json:"user"`
	Delivered uint64 `json:"delivered"` // seq; 0 = not told
	Read      uint64 `json:"read"`      // seq; 0 = not told
}

// Typing says that From is writing in Conv.
type Typing struct {
	Conv string `json:"conv"`
	From string `json:"from"`
}

// PresenceState is where a watched user is.
type PresenceState struct {
	User      string   `json:"user"`
	Online    bool     `json:"online"`
	Terminals []string `json:"terminals"`
	LastSeen  int64    `json:"lastSeen"` // ms since the Unix epoch
}

// Session is what LOGIN answered.
type Session struct {
	User       string
	Terminal   string
	ID         string // new at every login
	Node       string
	Epoch      string
	ServerTime time.Time
	ExpiresAt  time.Time
	HeartBeat  time.Duration // what the server asks for
	Head       uint64        // newest number of the inbox
	First      uint64        // oldest number of the inbox that is still kept
	Acked      uint64        // the terminal's position, as the server knows it
	Resumed    bool
}

// loginData is the wire form of Session.
type loginData struct {
	UserID     string `json:"userId"`
	Terminal   string `json:"terminal"`
	SessionID  string `json:"sessionId"`
	ServerTime int64  `json:"serverTime"`
	ExpiresAt  int64  `json:"expiresAt"`
	Heartbeat  int64  `json:"heartbeat"`
	Epoch      string `json:"epoch"`
	Inbox      struct {
		Head  uint64 `json:"head"`
		First uint64 `json:"first"`
		Acked uint64 `json:"acked"`
	} `json:"inbox"`
	Resumed bool   `json:"resumed"`
	Node    string `json:"node"`
}

func parseSession(data []byte) (*Session, error) {
	var d loginData
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("client: LOGIN answer: %w", err)
	}
	return &Session{User: d.UserID, Terminal: d.Terminal, ID: d.SessionID, Node: d.Node, Epoch: d.Epoch,
		ServerTime: time.UnixMilli(d.ServerTime), ExpiresAt: time.UnixMilli(d.ExpiresAt),
		HeartBeat: time.Duration(d.Heartbeat) * time.Second, Head: d.Inbox.Head, First: d.Inbox.First,
		Acked: d.Inbox.Acked, Resumed: d.Resumed}, nil
}

// State is a change of the connection.
type State struct {
	Connected bool
	Session   *Session // of the new connection; nil when not connected
	// Err is why there is no connection; nil when connected.
	Err error
	// Retry is how long the client waits before it connects again.
	Retry time.Duration
	// Final: the client has ended and will not connect again; Err is what Client.Err returns.
	Final bool
}

// Handler is the application's side of a Client. Any func may be nil. All but OnPacket are called one after the other by
// one goroutine, in the order in which things happened; they may call the Client's methods except Close and Logout, and
// may take their time: the server is slowed down by missing acknowledgements, nothing is lost.
type Handler struct {
	// OnMessage gets every message once, in order: stored ones by their inbox number (large groups: by their seq), and
	// those that are ephemeral (Seq 0). When it returns, the message counts as taken.
	OnMessage func(Message)
	// OnRecall gets the event that takes a message back: Target in Conv has no content from now on. It stands in the same
	// order as messages.
	OnRecall   func(Message)
	OnReceipt  func(Receipt)
	OnTyping   func(Typing)
	OnPresence func([]PresenceState)
	OnState    func(State)
	// OnError gets what belongs to no call: a *ServerError without a waiting call, an error of the PositionStore or of the
	// token source, a packet that cannot be read.
	OnError func(error)
	// OnPacket gets every received packet as it is, before any rule, from the goroutine that reads: it must be quick and
	// must not call methods of the Client that wait. It may keep the bytes but not change them.
	OnPacket func(raw []byte)
}
