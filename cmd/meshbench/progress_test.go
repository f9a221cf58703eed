package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshtalk/meshtalk/bench"
)

func TestNoLiveLineWithoutTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, l := range []*liveLine{newLiveLine(file), newLiveLine(new(bytes.Buffer))} {
		if l.show() != nil {
			t.Error("there is a live line")
		}
		l.clear()
	}
	if info, err := file.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("%d bytes were written, %v", info.Size(), err)
	}
}

func TestLiveText(t *testing.T) {
	last := bench.Progress{Elapsed: time.Second, Delivered: 1000}
	now := bench.Progress{Stage: "measure", Elapsed: 3 * time.Second, Connections: 20, Sent: 9, Delivered: 5000, P99: 1.25, Done: 0.5}
	f := func(now bench.Progress, width int, want string) {
		t.Helper()
		if got := liveText(now, last, width); got != want {
			t.Errorf("got %q", got)
		}
	}
	f(now, 200, "   3.0 s  measure  [======      ]  20 logged in  2000/s  p99 1.25 ms")
	f(now, 10, "   3.0 s  ")
	f(now, -1, "")
	now.Done, now.P99, now.Failures = -1, 0, 2
	f(now, 200, "2 FAILURES     3.0 s  measure  20 logged in  2000/s")
	if got := liveText(bench.Progress{Done: 7}, last, 200); strings.Count(got, "=") != 12 {
		t.Errorf("got %q", got)
	}
}
