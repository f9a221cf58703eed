package hub

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/meshtalk/meshtalk/store"
)

// What a log outside the process gives back is the draft that was appended.
func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 64, 200)
		s := Submission{hub: &Hub{origin: origin{node: text.Draw(t, "node"), token: rapid.Uint64().Draw(t, "token")}}, Draft: store.Draft{
			Kind: store.Kind(rapid.IntRange(1, 4).Draw(t, "kind")), From: text.Draw(t, "from"),
			ID: []byte(text.Draw(t, "id")), Conv: text.Draw(t, "conv"), Content: []byte(text.Draw(t, "content")),
			Type: rapid.Int64().Draw(t, "type"), TS: rapid.Int64().Draw(t, "ts"),
			Target: rapid.Uint64Range(0, 1<<53).Draw(t, "target"), RecallAfter: rapid.Int64().Draw(t, "after"),
			Promised: rapid.Bool().Draw(t, "promised"),
		}, Ref: Ref(rapid.Uint64().Draw(t, "ref"))}
		copy(s.Draft.MsgID[:], text.Draw(t, "msgid"))
		b := s.AppendRecord(nil)
		got, from, err := decodeRecord(b)
		if err != nil || !reflect.DeepEqual(got, s.Draft) {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, s.Draft)
		}
		if want := (origin{s.hub.origin.node, uint64(s.Ref), s.hub.origin.token}); from != want {
			t.Fatalf("from %+v, want %+v", from, want)
		}
		for i := range b { // a cut record is refused, never read beyond
			if _, _, err := decodeRecord(b[:i]); err == nil {
				t.Fatalf("%d of %d bytes were taken for a record", i, len(b))
			}
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	s := Submission{hub: &Hub{}, Draft: store.Draft{Kind: store.Private, From: "a", Conv: "p:a:b", ID: []byte("1"), Content: []byte("{}")}}
	f.Add(s.AppendRecord(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, _, err := decodeRecord(b)
		if err != nil {
			return
		}
		again, _, err := decodeRecord((&Submission{hub: &Hub{}, Draft: d}).AppendRecord(nil))
		if err != nil || !bytes.Equal(again.Content, d.Content) || again.Conv != d.Conv {
			t.Errorf("%q: %+v, %v", b, again, err)
		}
	})
}
