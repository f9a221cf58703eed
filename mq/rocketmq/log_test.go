package rocketmq

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/meshtalk/meshtalk/internal/services"
	"github.com/meshtalk/meshtalk/mq/mqtest"
)

func size100(int) int { return 100 }

// sealed is the body of a message with one record.
func sealed(id mqtest.ID) []byte {
	var c composite
	c.reset()
	c.add((&mqtest.Record{ID: id}).AppendRecord)
	return slices.Clone(c.seal())
}

// A message that no node wrote is dropped; one that is damaged or of a newer version stops its partition, before which all is applied,
// and no other.
func TestUnreadableMessages(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name  string
		spoil func([]byte) []byte
		want  error // nil: the partition goes on
	}{
		{"foreign", func([]byte) []byte { return []byte(`{"to":"bob"}`) }, nil},
		{"damaged", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, errChecksum},
		{"newer", func(b []byte) []byte { b[2] = 9; return b }, errNewer},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := mqtest.NewStore()
			n := s.Node(0, 1)
			l := openLog(t, shared.NameServer.Addr, newTopic(), 2, n)
			first, bad, last, other := mqtest.ID{Sender: 1}, mqtest.ID{Sender: 2}, mqtest.ID{Sender: 3}, mqtest.ID{Sender: 4}
			for _, body := range [][]byte{sealed(first), c.spoil(sealed(bad)), sealed(last)} {
				must(t, l.client.send(ctx, l.o.Topic, l.places.at(0), "", body))
			}
			must(t, l.client.send(ctx, l.o.Topic, l.places.at(1), "", sealed(other)))
			run(t, l, n)
			if !s.Await([]mqtest.ID{first, other}, patience) {
				t.Fatal("what can be read is not applied")
			}
			if c.want == nil {
				if !s.Await([]mqtest.ID{last}, patience) {
					t.Error("what stands behind it is not applied")
				}
				return
			}
			eventually(t, "the state tells", func() bool { return errors.Is(l.State(), c.want) })
			if got := s.Offsets(); got[0] != 1 || got[1] != 1 || s.Total() != 2 {
				t.Errorf("offsets %v, %d records", got, s.Total())
			}
		})
	}
}

// A broker that has lost its files brings what it gets from then on, although the store stands further.
func brokerLosesItsFiles(t *testing.T, set *services.Set) {
	s := mqtest.NewStore()
	n := s.Node(0)
	l := openLog(t, set.NameServer.Addr, "log", 1, n)
	end := run(t, l, n)
	var h mqtest.History
	for sender := range uint32(5) {
		h.Send(t, l, sender, 20, size100)
		h.Wait() // so that they are several messages
	}
	if !s.Await(h.Kept(), patience) {
		t.Fatal("not all is applied")
	}
	end()
	before := s.Offsets()[0]
	must(t, set.Broker.Kill())
	must(t, os.RemoveAll(filepath.Join(set.Dir, "broker", "store")))
	must(t, set.Broker.Start())
	l = openLog(t, set.NameServer.Addr, "log", 1, n)
	run(t, l, n)
	h.Send(t, l, 100, 10, size100)
	h.Wait()
	if !s.Await(h.Kept(), patience) {
		t.Error("not all is applied")
	}
	if after := s.Offsets()[0]; after >= before {
		t.Errorf("the offset went from %d to %d", before, after)
	}
}
