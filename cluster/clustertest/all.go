package clustertest

import (
	"context"
	"reflect"
	"slices"
	"testing"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
)

// testSignalsForAll: what is for a large group and what is for everybody comes to every other node.
func testSignalsForAll(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b", "c")
	signals := []cluster.Signal{
		{Group: "crowd", Except: "alice", Packet: []byte(`{"cmd":12}`)},
		{Broadcast: &codec.ConvMessage{Cmd: codec.SystemMessage, MsgID: codec.MsgID{7}, TS: 5, Type: 2, Content: []byte(`"all"`)}},
	}
	nodes[0].Send(signals)
	for _, n := range nodes[1:] {
		for i := range signals {
			n.Wait(t, "a signal for all", func() bool {
				return slices.ContainsFunc(n.signals, func(s cluster.Signal) bool { return reflect.DeepEqual(s, signals[i]) })
			})
		}
	}
	nodes[0].Read(func() {
		if len(nodes[0].signals) != 0 {
			t.Errorf("the sender got %+v", nodes[0].signals)
		}
	})
}

// testAsk: questions are answered by the node that is asked, many at a time, and one that is not there is an error.
func testAsk(t *testing.T, open Open) {
	nodes := StartNodes(t, open, "a", "b")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan error, 20)
	for i := range cap(done) {
		go func() {
			q := string(rune('a' + i))
			got, err := nodes[0].Ask(ctx, "b", []byte(q))
			if err == nil && string(got) != q+q {
				t.Errorf("%q was answered with %q", q, got)
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if _, err := nodes[0].Ask(ctx, "nobody", []byte("x")); err == nil {
		t.Error("nobody answered")
	}
	short, end := context.WithCancel(ctx)
	end()
	if _, err := nodes[0].Ask(short, "b", []byte("x")); err == nil {
		t.Error("no error without time")
	}
}
