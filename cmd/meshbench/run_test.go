package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/bench"
)

// meshtalk builds the server's program.
func meshtalk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "meshtalk")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../meshtalk").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

func TestRunLocal(t *testing.T) {
	server := meshtalk(t)
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("MESHTALK_WEBSOCKET_ENABLE", "false") // not its business
	f := func(args ...string) (string, error) {
		cmd := newCommand()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(append([]string{"run", "--local", "--server", server}, args...))
		err := cmd.ExecuteContext(t.Context())
		if left, globErr := filepath.Glob(filepath.Join(os.TempDir(), "meshbench-*")); globErr != nil || len(left) > 0 {
			t.Errorf("%v: left behind: %q, %v", args, left, globErr)
		}
		return out.String(), err
	}
	profile := filepath.Join(t.TempDir(), "cpu.pprof")
	out, err := f("private", "--server-profile", profile, "--pairs", "5", "--in-flight", "2", "--warmup", "100ms", "--duration", "1200ms", "--json")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var r bench.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if !r.OK || r.Messages == nil || r.Messages.Delivered == 0 || len(r.Transport) != 2 || len(r.Metrics) == 0 || len(r.Distribution) == 0 {
		t.Errorf("%+v", r)
	}
	if !slices.ContainsFunc(r.Series, func(s bench.Sample) bool {
		return s.Delivery != nil && s.Connections == 10 && s.ServerRSSAnon > 0 && s.ServerResident > s.ServerHeap && s.ServerHeap > 0
	}) {
		t.Errorf("series %+v", r.Series)
	}
	if r.Floor == nil || r.Floor.DeliveriesShare == 0 || len(r.Floor.Syncs) == 0 || r.Commits == nil || r.Commits.PerSecond == 0 || r.Commits.P99 < r.Commits.P50 {
		t.Errorf("floor %+v, commits %+v", r.Floor, r.Commits)
	}
	flame := newCommand()
	var svg bytes.Buffer
	flame.SetOut(&svg)
	flame.SetArgs([]string{"flame", profile})
	if err := flame.ExecuteContext(t.Context()); err != nil || !strings.HasPrefix(svg.String(), "<svg ") || !strings.Contains(svg.String(), "engine.") {
		t.Errorf("flame graph: %v, %.300s", err, svg.String())
	}
	if _, err := f("private", "--server-flag=--no-such-flag"); err == nil || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("a server that does not start: %v", err)
	}
	if _, err := f("private", "--data-dir", "x"); !errors.Is(err, errUsage) {
		t.Errorf("--data-dir: %v", err)
	}
}
