package local

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/meshtalk/meshtalk/mq"
	"github.com/meshtalk/meshtalk/mq/mqtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	mqtest.Run(t, func(*testing.T, *mqtest.Node) mq.Log { return New(1 << 16) })
}

type nothing struct{}

func (nothing) AppendRecord(dst []byte) []byte { return dst }
func (nothing) Kept(error)                     {}

func TestFull(t *testing.T) {
	l := New(2)
	for range 2 {
		if err := l.Append("", nothing{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Append("", nothing{}); !errors.Is(err, mq.ErrFull) {
		t.Errorf("the third of two: %v", err)
	}
}

// batches counts batches and their sizes.
type batches struct{ sizes []int }

func (b *batches) Apply(_ context.Context, batch mq.Batch) error {
	b.sizes = append(b.sizes, len(batch.Records))
	return errors.New("what a consumer answers to its senders is no reason to stop")
}

func TestBatchLimit(t *testing.T) {
	l := New(1 << 16)
	for range MaxBatch + 1 {
		if err := l.Append("", nothing{}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var b batches
	if err := l.Run(ctx, &b); err != nil {
		t.Fatal(err)
	}
	if len(b.sizes) != 2 || b.sizes[0] != MaxBatch || b.sizes[1] != 1 {
		t.Errorf("batches of %v", b.sizes)
	}
}
