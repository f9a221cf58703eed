package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/meshtalk/meshtalk/bench"
)

// doubling is a proxy in front of a TCP listener that repeats one push, the tenth of a connection.
func doubling(t *testing.T, target string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	t.Cleanup(func() { _ = l.Close() })
	serve := func(c net.Conn) {
		s, err := net.Dial("tcp", target)
		if err != nil {
			_ = c.Close()
			return
		}
		serving.Go(func() {
			_, _ = io.Copy(s, c) // ends with the connection
			_ = s.Close()
		})
		r := bufio.NewReaderSize(s, 64<<10)
		for pushes := 0; err == nil; {
			var head, frame []byte
			if head, err = r.Peek(4); err != nil {
				break
			}
			frame = make([]byte, 4+binary.BigEndian.Uint32(head))
			if _, err = io.ReadFull(r, frame); err != nil {
				break
			}
			if bytes.HasPrefix(frame[4:], []byte(`{"cmd":3,`)) {
				if pushes++; pushes == 10 {
					frame = append(frame, frame...)
				}
			}
			_, err = c.Write(frame)
		}
		_ = c.Close()
	}
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(c) })
		}
	})
	return l.Addr().String()
}

// A broken promise ends the program with exit code 1 and the evidence, in the table and in JSON; so does a server that
// lets nobody in.
func TestExitCodeAndEvidence(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "meshbench")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	s, err := startServer(t.Context(), meshtalk(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.end(); err != nil {
			t.Error(err)
		}
	}()
	data := s.dataDir()
	tcp := ""
	for _, a := range s.addrs {
		if rest, ok := strings.CutPrefix(a, "tcp://"); ok {
			tcp = rest
		}
	}
	f := func(code int, args ...string) string {
		t.Helper()
		args = append([]string{"private", "--pairs", "2", "--in-flight", "4", "--warmup", "0s", "--duration", "300ms"}, args...)
		out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
		if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		} else if got := exit.ExitCode(); err == nil && code != 0 || err != nil && got != code {
			t.Errorf("%v: exit code %d, want %d\n%s", args, got, code, out)
		}
		return string(out)
	}
	good, liar := "tcp://"+tcp, "tcp://"+doubling(t, tcp)
	if out := f(0, "--data-dir", data, "--addr", good); !strings.Contains(out, "nothing missing") {
		t.Error(out)
	}
	if out := f(1, "--data-dir", data, "--addr", liar); !strings.Contains(out, "FAILED") || !strings.Contains(out, "on one connection") {
		t.Error(out)
	}
	var r bench.Result
	if err := json.Unmarshal([]byte(f(1, "--data-dir", data, "--addr", liar, "--json")), &r); err != nil || r.OK ||
		r.Failures["inbox repeated"] == 0 || len(r.Evidence) == 0 {
		t.Errorf("%v: %v, %q", err, r.Failures, r.Evidence)
	}
	if out := f(1, "--token-command", "echo nonsense", "--addr", good); !strings.Contains(out, "UNAUTHORIZED") {
		t.Error(out)
	}
	f(2, "--addr", good)
	if out := f(1, "--data-dir", data, "--addr", "tcp://127.0.0.1:1"); !strings.Contains(out, "login failed") {
		t.Error(out)
	}
}
