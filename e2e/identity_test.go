package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/codec"
)

// Who has the ID of a node: whoever is alive, and of two that live the one that took it from the other while that was not heard of.

// clusterArgs are flags of a node of a cluster with a name.
func clusterArgs(t *testing.T, name string) []string {
	t.Helper()
	set := sharedServices(t)
	number := shared.tests.Add(1)
	host, port, err := net.SplitHostPort(set.Redis.Addr)
	must(t, err)
	return []string{
		"--cluster.enable", "--cluster.node-id=" + name, "--store.postgres.url=" + newDatabase(t, set),
		"--redis.host=" + host, "--redis.port=" + port, fmt.Sprintf("--redis.db=%d", number%16),
		"--rocketmq.name-server=" + set.NameServer.Addr, "--rocketmq.log.queues=4",
		fmt.Sprintf("--rocketmq.log.topic=e2e_log_%d", number), fmt.Sprintf("--rocketmq.push.topic=e2e_push_%d", number),
		fmt.Sprintf("--rocketmq.event.topic=e2e_event_%d", number),
		"--websocket.host=127.0.0.1", "--websocket.port=0", "--tcpsocket.host=127.0.0.1", "--tcpsocket.port=0",
	}
}

// A node ID is refused to a second process while the first one lives. One that stood still for longer than its lease, and whose ID
// was taken meanwhile, ends when it goes on: its clients are told to go elsewhere, and the other one serves.
func TestNodeIDIsTaken(t *testing.T) {
	ctx := patient(t)
	args := clusterArgs(t, "twin")
	first, log := serve(t, t.TempDir(), args...)

	line, code := refused(t, append([]string{"serve", "--data-dir", t.TempDir(), "--admin.port=0"}, args...)...)
	if code != 1 || !strings.HasPrefix(line, "meshtalk: cluster.node-id: ") || !strings.Contains(line, `the node ID is in use: "twin" runs since`) {
		t.Errorf("a second process while the first lives: exit code %d, %s", code, line)
	}
	conn, err := connect(ctx, first, "websocket", "alice")
	must(t, err)
	defer func() { _ = conn.Close() }()

	kick(t, first, syscall.SIGSTOP)
	second, _ := serve(t, t.TempDir(), args...) // as its supervisor does that takes it for dead; it waits for the lease to end
	kick(t, first, syscall.SIGCONT)

	must(t, goesAway(ctx, conn))
	first.wait()
	if code := first.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	said := strings.Split(strings.TrimSpace(log.String()), "\n")
	if last := said[len(said)-1]; !strings.HasPrefix(last, "meshtalk: cluster.node-id: the node ID is in use") {
		t.Errorf("the last line is %q", last)
	}
	if n := strings.Count(log.String(), "meshtalk: "); n != 1 {
		t.Errorf("%d lines of error:\n%s", n, log)
	}
	talks(t, second, "tcp", "bob", "carol", "the other one serves")
	if nodes := second.nodes(); len(nodes) != 1 || len(nodes[0].Queues) != 4 {
		t.Errorf("the nodes are %+v", nodes)
	}
	if code := second.terminate(); code != 0 {
		t.Errorf("the other one: exit code %d", code)
	}
}

// goesAway waits for GOAWAY, and for the end of the connection after it.
func goesAway(ctx context.Context, c *client.Conn) error {
	told := false
	for {
		p, err := c.ReceivePacket(ctx)
		switch {
		case err != nil && told && ctx.Err() == nil:
			return nil
		case err != nil:
			return fmt.Errorf("no GOAWAY: %w", err)
		case p.Cmd == codec.GoAway:
			var d struct{ RetryAfterMs int }
			if err := json.Unmarshal(p.Data, &d); err != nil || d.RetryAfterMs <= 0 {
				return errors.Join(fmt.Errorf("GOAWAY says %s", p.Data), err)
			}
			told = true
		}
	}
}
