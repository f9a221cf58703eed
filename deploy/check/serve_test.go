package check

import (
	"bufio"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
)

// process is a server that runs.
type process struct {
	cmd   *exec.Cmd
	ended chan error
}

// startServer starts it and returns when it is ready.
func startServer(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
	}
	if lines.Text() != "ready" {
		t.Fatalf("%v: %v\n%s", cmd.Args, cmd.Wait(), log.String())
	}
	p := &process{cmd, make(chan error, 1)}
	go func() { p.ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // unless it has ended
		<-p.ended
	})
	return p
}

// stop ends it as systemd and the kubelet do. It must end well within limit.
func (p *process) stop(t *testing.T, limit time.Duration) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.ended:
		p.ended <- err
		if err != nil {
			t.Errorf("the stop: %v", err)
		}
	case <-time.After(limit):
		t.Errorf("it still runs after %s", limit)
	}
}

// freePorts are ports that nobody listens on just now.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	ports := make([]string, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// The server starts with what the chart gives it, and the probes find what they ask for.
func TestChartServes(t *testing.T) {
	ports := freePorts(t, 3)
	r := render(t, "config.websocket.port="+ports[0], "config.tcpsocket.port="+ports[1], "config.admin.port="+ports[2])
	c := r.container(t)
	p := startServer(t, r.meshtalk(t, nil, append(c.Args, "--data-dir", t.TempDir())...))

	get := func(path, token string) int {
		req, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+ports[2]+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, probe := range []*core.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if code := get(probe.HTTPGet.Path, ""); code != http.StatusOK {
			t.Errorf("%s: %d", probe.HTTPGet.Path, code)
		}
	}
	if code := get("/metrics", string(r.secret.Data["admin-token"])); code != http.StatusOK {
		t.Errorf("/metrics with the token: %d", code)
	}
	if code := get("/metrics", ""); code != http.StatusUnauthorized {
		t.Errorf("/metrics without it: %d", code)
	}
	for _, port := range ports {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	p.stop(t, time.Duration(*r.pod().Spec.TerminationGracePeriodSeconds)*time.Second)
}
