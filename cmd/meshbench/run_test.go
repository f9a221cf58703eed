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
	"time"

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

// flameGraph is what `meshbench flame` draws of a profile.
func flameGraph(t *testing.T, profile string) string {
	t.Helper()
	cmd := newCommand()
	var svg bytes.Buffer
	cmd.SetOut(&svg)
	cmd.SetArgs([]string{"flame", profile})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("flame: %v", err)
	}
	return svg.String()
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
	// A profile has a sample for each 10 ms of CPU: on a machine that is busy or whose disk stalls, a second
	// of this load may have one only. Then the run is made again, longer.
	svg := flameGraph(t, profile)
	for duration := 5 * time.Second; !strings.Contains(svg, "engine.") && duration <= 20*time.Second; duration *= 2 {
		if out, err := f("private", "--server-profile", profile, "--pairs", "50", "--in-flight", "16", "--duration", duration.String()); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		svg = flameGraph(t, profile)
	}
	if !strings.HasPrefix(svg, "<svg ") || !strings.Contains(svg, "engine.") {
		t.Errorf("flame graph: %.300s", svg)
	}
	if _, err := f("private", "--server-flag=--no-such-flag"); err == nil || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("a server that does not start: %v", err)
	}
	if _, err := f("private", "--data-dir", "x"); !errors.Is(err, errUsage) {
		t.Errorf("--data-dir: %v", err)
	}
}
