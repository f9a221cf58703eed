package client

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/meshtalk/meshtalk/codec"
)

// Packet is a received packet. Data aliases Raw.
type Packet struct {
	Cmd  codec.Cmd
	ID   string          // empty = none
	Data json.RawMessage // nil = none
	Raw  []byte          // the whole packet
}

// parsePacket reads the envelope of raw, which then belongs to the Packet.
func parsePacket(raw []byte) (Packet, error) {
	p, problem := codec.Parse(raw)
	if !problem.OK() {
		return Packet{Raw: raw}, fmt.Errorf("client: packet from the server: %s", problem.Message)
	}
	return Packet{Cmd: p.Cmd, ID: string(p.ID), Data: p.Data, Raw: raw}, nil
}

// newMask is the masking key of one frame; RFC 6455 §5.3 wants it unpredictable, and the generator is ChaCha8.
func newMask() (mask [4]byte) {
	binary.LittleEndian.PutUint32(mask[:], rand.Uint32())
	return mask
}
