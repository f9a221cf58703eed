package codec

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// The tables in testdata are shared with clients in other languages; testdata/README.md says what their members mean.

// requestVector is a packet of a client: taken, or refused with BAD_PACKET and, where one is given, this id.
type requestVector struct {
	Name string
	Text string
	Hex  hexBytes // instead of Text, where that is not UTF-8
	OK   bool
	ID   *string
}

func (v *requestVector) packet() []byte {
	if v.Hex != nil {
		return v.Hex
	}
	return []byte(v.Text)
}

// frameVector is a stream of frames: these messages, then, if Close is not 0, a violation.
type frameVector struct {
	Name     string
	Bytes    hexBytes
	Messages []vectorMessage
	Close    uint16
	Max      int
	Client   bool
}

type vectorMessage struct {
	Op      Op
	Payload hexBytes
}

type msgIDVector struct{ Sender, ID, MsgID string }

// upgradeVector is a request head and what answers it.
type upgradeVector struct {
	Name     string
	Request  string
	Allowed  []string // AllowedOrigins
	Status   int      // 0 = incomplete
	Accept   string
	Protocol string // the sub-protocol in the answer
	Token    string
	Origin   string
	Rest     string // what follows the head
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode([]byte{}, text)
	return err
}

// vectors reads testdata/name into a list of T.
func vectors[T any](t testing.TB, name string) (list []T) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(name, err)
	}
	return list
}
