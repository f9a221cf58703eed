package services

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask sends a line of Redis's inline commands and returns the first line of the answer.
func ask(addr, line string) (string, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, line+"\r\n"); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 256)
	n, err := c.Read(b)
	first, _, _ := strings.Cut(string(b[:n]), "\r\n")
	return first, err
}

func wantAnswer(t *testing.T, addr, line, want string) {
	t.Helper()
	if got, err := ask(addr, line); err != nil || got != want {
		t.Fatalf("%s: %q, %v, want %q", line, got, err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sql(t *testing.T, url, command string) string {
	t.Helper()
	psql, err := exec.LookPath("psql")
	if err != nil {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/psql")
		psql = found[len(found)-1]
	}
	out, err := exec.Command(psql, "-qAt", "-d", url, "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestRedis(t *testing.T) {
	s := Start(t, Redis)
	addr := s.Redis.Addr
	wantAnswer(t, addr, "SET a 1", "+OK")

	must(t, s.Redis.Pause())
	c, err := net.Dial("tcp", addr)
	must(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "PING\r\n")
	must(t, err)
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // nothing may come, however long
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a paused server answers: %v", err)
	}
	must(t, s.Redis.Resume())
	wantAnswer(t, addr, "GET a", "$1")

	must(t, s.Redis.Kill())
	if _, err := ask(addr, "PING"); err == nil {
		t.Error("a killed server answers")
	}
	must(t, s.Redis.Kill())
	must(t, s.Redis.Start())
	wantAnswer(t, addr, "GET a", "$-1")

	must(t, s.Redis.Stop())
	if err := s.Redis.Pause(); err == nil {
		t.Error("what does not run was paused")
	}
	must(t, s.Redis.Start())
	wantAnswer(t, addr, "PING", "+PONG")
	must(t, s.Close())
	if _, err := os.Stat(s.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", s.Dir, err)
	}
	if _, err := ask(addr, "PING"); err == nil {
		t.Error("a server answers after the end")
	}
}

// PostgreSQL keeps what it has committed through a crash, and a second start is not stopped by what the first left.
func TestPostgres(t *testing.T) {
	s := Start(t, Postgres)
	url := s.Postgres.URL
	sql(t, url, "create table t as select generate_series(1, 10) n")
	for range 2 {
		must(t, s.Postgres.Kill())
		must(t, s.Postgres.Start())
		if got := sql(t, url, "select count(*) from t"); got != "10" {
			t.Errorf("%s rows", got)
		}
	}
	if got := sql(t, url, "show fsync"); got != "on" {
		t.Errorf("fsync is %s", got)
	}
}

// A broker that was killed is told of by its name server again, at the same address.
func TestRocketMQ(t *testing.T) {
	s := Start(t, RocketMQ, Broker2)
	for _, b := range []*Service{s.Broker, s.Broker2} {
		conf, err := os.ReadFile(filepath.Join(s.Dir, string(b.Name), "conf"))
		must(t, err)
		if !bytes.Contains(conf, []byte("\nflushDiskType=SYNC_FLUSH\n")) {
			t.Errorf("%s does not sync", b.Name)
		}
	}
	must(t, s.Broker.Kill())
	must(t, s.Broker.Start())
	for _, svc := range s.all {
		c, err := net.Dial("tcp", svc.Addr)
		if err != nil {
			t.Errorf("%s: %v", svc.Name, err)
			continue
		}
		c.Close()
	}

	// Starting what runs is no error, however much it has logged.
	log, err := os.OpenFile(filepath.Join(s.Broker.dir, "log"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = log.Write(bytes.Repeat([]byte("the log of a broker that has run for a while\n"), 10_000))
	must(t, errors.Join(err, log.Close()))
	must(t, s.Broker.Start())
}

func TestProxy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	defer func() { _ = l.Close(); <-served }()
	p := NewProxy(t, l.Addr().String())
	echo := func() (net.Conn, error) {
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			return nil, err
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		b := []byte("x")
		if _, err = c.Write(b); err == nil {
			_, err = io.ReadFull(c, b)
		}
		return c, err
	}
	c, err := echo()
	must(t, err)
	defer c.Close()
	p.Cut()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a cut connection ends with %v, not with a reset", err)
	}
	if _, err := echo(); err == nil {
		t.Error("a cut proxy answers")
	}
	p.Restore()
	c, err = echo()
	must(t, err)
	c.Close()
}

func TestRewriteFrames(t *testing.T) {
	in := "\x00\x00\x00\x0cat 1.1:1 end\x00\x00\x00\x02ok"
	var out bytes.Buffer
	err := rewriteFrames(&out, strings.NewReader(in), map[string]string{"1.1:1": "2.2:2"})
	if want := strings.Replace(in, "1.1:1", "2.2:2", 1); !errors.Is(err, io.EOF) || out.String() != want {
		t.Errorf("%q, %v, want %q", out.String(), err, want)
	}
}
