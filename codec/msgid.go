package codec

import (
	"crypto/sha256"
	"encoding/hex"
)

// MsgID is the id of a message: the first 128 bits of SHA-256 over (sender, id). It is sent as 32 hexadecimal digits.
type MsgID [16]byte

// MakeMsgID is the id of the message that sender sends with id: the first 128 bits of SHA-256 over
// len(sender) as one byte, sender, id. The API and the system use sender "".
func MakeMsgID(sender string, id []byte) MsgID {
	var room [1 + MaxName + 2*MaxName + 1]byte // the longest id is the server's own "<id>/<user>"
	b := append(room[:0], byte(len(sender)))
	b = append(b, sender...)
	b = append(b, id...)
	sum := sha256.Sum256(b)
	return MsgID(sum[:16])
}

// String is the id as it stands in packets.
func (m MsgID) String() string { return hex.EncodeToString(m[:]) }

// ParseMsgID reads the 32 hexadecimal digits of a packet.
func ParseMsgID(text []byte) (m MsgID, ok bool) {
	if len(text) != 2*len(m) {
		return MsgID{}, false
	}
	_, err := hex.Decode(m[:], text)
	return m, err == nil
}
