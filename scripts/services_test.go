package scripts_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// services runs services.sh with more environment and returns its exit code and what it printed.
func services(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command("./services.sh", args...)
	cmd.Env = append(os.Environ(), env...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), problems.String()
}

// started is services, which must succeed.
func started(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := services(t, nil, args...)
	if code != 0 {
		t.Fatalf("services.sh %q exits %d: %s", args, code, stderr)
	}
	return stdout
}

func text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// folder is one that the user postgres can reach too, whose services end with the test.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "meshtalk-scripts-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		services(t, nil, "down", "--now", "--dir", dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestServicesUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"up", "down"}, {"up", "mysql"}, {"up", "broker10"}, {"up", "--dir"}, {"up", "--for", "x"}, {"watch"}, {"up", "--wrong"},
	} {
		code, stdout, stderr := services(t, nil, args...)
		if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "usage: ") {
			t.Errorf("%q: exit %d, %q, %q", args, code, stdout, stderr)
		}
	}
	if out := started(t, "--help"); !strings.Contains(out, "\n  up ") || !strings.HasPrefix(out, "services.sh: ") {
		t.Error(out)
	}
}

func TestServicesUpAndDown(t *testing.T) {
	dir := folder(t)
	if code, _, stderr := services(t, nil, "status", "--dir", filepath.Join(dir, "none")); code != 1 || !strings.Contains(stderr, "nothing was started") {
		t.Errorf("status of nothing: exit %d, %s", code, stderr)
	}
	up := started(t, "up", "redis", "postgres", "--dir", dir)
	if lines := strings.Split(up, "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "redis 127.0.0.1:") || !strings.HasPrefix(lines[1], "postgres postgres://") {
		t.Fatalf("up prints %q", up)
	}
	if again := started(t, "up", "redis", "postgres", "--dir", dir); again != up {
		t.Errorf("a second up prints %q, the first %q", again, up)
	}
	status := started(t, "status", "--dir", dir)
	for _, name := range []string{"redis", "postgres"} {
		pid := strings.TrimSpace(text(t, filepath.Join(dir, name, "pid")))
		if !strings.Contains(status, name+" up "+pid+" ") {
			t.Errorf("status without %s of %s: %q", pid, name, status)
		}
	}
	if logs := started(t, "logs", "redis", "--dir", dir); !strings.Contains(logs, "Ready to accept connections") {
		t.Errorf("logs: %q", logs)
	}

	started(t, "down", "redis", "--dir", dir)
	if code, status, _ := services(t, nil, "status", "--dir", dir); code != 1 || !strings.Contains(status, "redis down - ") || !strings.Contains(status, "postgres up ") {
		t.Errorf("after one is down: exit %d, %q", code, status)
	}
	started(t, "down", "--dir", dir)
	started(t, "down", "--dir", dir)
	if _, status, _ := services(t, nil, "status", "--dir", dir); strings.Contains(status, " up ") {
		t.Errorf("after down: %q", status)
	}
	if again := started(t, "up", "postgres", "redis", "--dir", dir); len(again) != len(up) || !strings.Contains(up, strings.Split(again, "\n")[0]) {
		t.Errorf("up after down prints %q, before it %q", again, up)
	}
}

// Folders do not get each other's ports, however many begin at once, and a service that has ended keeps its.
func TestServicesPorts(t *testing.T) {
	const many = 6
	var group sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]bool{}
	for range many {
		dir := folder(t)
		group.Go(func() {
			_, out, stderr := services(t, nil, "up", "redis", "--dir", dir)
			services(t, nil, "down", "--dir", dir)
			mu.Lock()
			defer mu.Unlock()
			if seen[out] || out == "" {
				t.Errorf("%q was there before; %s", out, stderr)
			}
			seen[out] = true
		})
	}
	group.Wait()
}

// What was started for a process ends with it, and the folder goes.
func TestServicesEndWithTheirProcess(t *testing.T) {
	dir := folder(t)
	owner := exec.Command("sleep", "1000")
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	_, addr, _ := strings.Cut(strings.TrimSpace(started(t, "up", "redis", "--dir", dir, "--for", strconv.Itoa(owner.Process.Pid))), " ")
	if _, err := net.Dial("tcp", addr); err != nil {
		t.Fatal(err)
	}
	_ = owner.Process.Kill()
	_ = owner.Wait()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(dir); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the folder is still there")
		}
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the service is still there")
	}
}

// fakeMaven is a PATH on which mvn writes a jar after some time and counts its calls; fail makes it break off half-way.
func fakeMaven(t *testing.T, fail string) (env []string, calls, cache string) {
	t.Helper()
	bin, cache := t.TempDir(), t.TempDir()
	calls = filepath.Join(bin, "calls")
	mvn := "#!/bin/bash\necho call >>" + calls + "\nfor a; do [[ $a != -DoutputDirectory=* ]] || lib=${a#*=}; done\n" +
		"mkdir \"$lib\" && echo half >\"$lib/a.jar\" && sleep 0.2\n" + fail + "\necho whole >\"$lib/a.jar\"\n"
	if err := os.WriteFile(filepath.Join(bin, "mvn"), []byte(mvn), 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "XDG_CACHE_HOME=" + cache}, calls, cache
}

func TestServicesFetchOnce(t *testing.T) {
	env, calls, cache := fakeMaven(t, "")
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if code, _, stderr := services(t, env, "install", "rocketmq"); code != 0 {
				t.Errorf("exit %d: %s", code, stderr)
			}
		})
	}
	group.Wait()
	if got := text(t, calls); got != "call\n" {
		t.Errorf("Maven was called %d times", strings.Count(got, "call"))
	}
	jars, _ := filepath.Glob(filepath.Join(cache, "meshtalk", "rocketmq-*", "lib", "a.jar"))
	if len(jars) != 1 || text(t, jars[0]) != "whole\n" {
		t.Errorf("jars: %q", jars)
	}
}

func TestServicesBrokenFetch(t *testing.T) {
	env, calls, _ := fakeMaven(t, "exit 1")
	for range 2 {
		if code, _, _ := services(t, env, "install", "rocketmq"); code == 0 {
			t.Error("a fetch that breaks off is told as done")
		}
	}
	if got := text(t, calls); strings.Count(got, "call") != 2 {
		t.Errorf("half a cache was taken for a whole one: %d calls", strings.Count(got, "call"))
	}
	dir := folder(t)
	code, stdout, stderr := services(t, env, "up", "rocketmq", "--no-install", "--dir", dir)
	if code != 1 || stdout != "" || !strings.Contains(stderr, "scripts/services.sh install rocketmq") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}

// A service that ends at its start is told with its own words.
func TestServicesFailure(t *testing.T) {
	dir := folder(t)
	_, addr, _ := strings.Cut(strings.TrimSpace(started(t, "up", "redis", "--dir", dir)), " ")
	started(t, "down", "--now", "--dir", dir)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	code, stdout, stderr := services(t, nil, "up", "redis", "--dir", dir)
	if code != 1 || stdout != "" || !strings.Contains(stderr, "Address already in use") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}
