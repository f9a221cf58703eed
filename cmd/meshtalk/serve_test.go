package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stuck is a server that does not stop.
type stuck struct{ begun chan struct{} }

func (s stuck) Stop(ctx context.Context) error {
	close(s.begun)
	<-ctx.Done()
	return ctx.Err()
}

func TestSecondSignalForces(t *testing.T) {
	s := stuck{make(chan struct{})}
	signals := make(chan os.Signal, 2)
	ended := make(chan error, 1)
	go func() { ended <- stop(s, time.Hour, signals) }()
	<-s.begun
	signals <- syscall.SIGHUP // says nothing now
	signals <- syscall.SIGTERM
	err := <-ended
	var code *exitError
	if !errors.As(err, &code) || code.code != exitFailure || !strings.Contains(err.Error(), "second signal") {
		t.Fatalf("got %v", err)
	}
}

func TestStopTimesOut(t *testing.T) {
	err := stop(stuck{make(chan struct{})}, time.Nanosecond, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestHeldWriter(t *testing.T) {
	var out bytes.Buffer
	w := &heldWriter{to: &out}
	for _, s := range []string{"a", "b"} {
		if n, err := w.Write([]byte(s)); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if out.Len() > 0 {
		t.Fatal("written before the start has succeeded:", out.String())
	}
	w.release()
	if _, err := w.Write([]byte("c")); err != nil {
		t.Fatal(err)
	}
	if out.String() != "abc" {
		t.Fatal(out.String())
	}
}
