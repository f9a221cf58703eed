package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"
)

// rounds is how often the server is killed. Each round ends at a random moment of a load that keeps all of its parts busy.
const rounds = 20

// crowdOf makes users who all write to each other and to one group.
func crowdOf(n int, h *history) []*user {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("user%d", i)
	}
	users := make([]*user, n)
	for i, name := range names {
		users[i] = &user{name: name, h: h, peers: names, groups: map[string][]string{"team": names}}
	}
	return users
}

// makeGroup creates the users' group through the HTTP API.
func makeGroup(t *testing.T, p *process, users []*user) {
	t.Helper()
	names := make([]string, len(users))
	for i, u := range users {
		names[i] = fmt.Sprintf("%q", u.name)
	}
	body := fmt.Sprintf(`{"members":[%s]}`, strings.Join(names, ","))
	r, err := http.NewRequest(http.MethodPut, p.urls["admin"]+"/v1/groups/team", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("PUT group: %s", resp.Status)
	}
}

// killRounds kills a server again and again under load, lets everybody finish, and returns what the checker finds.
func killRounds(t *testing.T, n int, env ...string) (wrong []string, h *history) {
	t.Helper()
	h = newHistory()
	dir := t.TempDir()
	users := crowdOf(8, h)
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	defer cancel()
	p := spawn(t, dir, env...)
	makeGroup(t, p, users)
	for round := range n {
		killed := make(chan struct{})
		time.AfterFunc(time.Duration(50+rand.IntN(400))*time.Millisecond, func() {
			_ = p.cmd.Process.Kill()
			close(killed)
		})
		if err := crowd(ctx, p, users, nil); err != nil {
			wrong = append(wrong, fmt.Sprintf("round %d: %v", round, err))
		}
		<-killed
		p.kill()
		p = spawn(t, dir, env...)
	}
	stop := make(chan struct{})
	close(stop) // only what waits for its acknowledgement
	if err := crowd(ctx, p, users, stop); err != nil {
		wrong = append(wrong, err.Error())
	}
	for _, u := range users {
		if len(u.waiting) > 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %d messages were never acknowledged", u.name, len(u.waiting)))
		}
	}
	return append(wrong, h.check(inboxes(t, p, users))...), h
}

// A kill -9 at any moment loses nothing that was acknowledged, doubles nothing and changes no order.
func TestKill(t *testing.T) {
	wrong, h := killRounds(t, rounds)
	sent, acked := h.count()
	t.Logf("%d messages sent, %d acknowledged, %d kills", sent, acked, rounds)
	if len(wrong) > 0 {
		t.Errorf("%d findings:\n%s", len(wrong), summary(wrong))
	}
	if acked < 100*rounds {
		t.Errorf("only %d messages: this was no load", acked)
	}
}

// The same test catches a server that acknowledges before it has synced.
func TestKillCatchesAckBeforeSync(t *testing.T) {
	wrong, _ := killRounds(t, 5, envAckBeforeSync+"=1")
	if len(wrong) == 0 {
		t.Error("a server that acknowledges before it syncs passed")
	}
	t.Logf("%d findings, as there should be:\n%s", len(wrong), summary(wrong))
}

// SIGTERM under load: everybody is told to go away, what was accepted is kept, the exit code is 0; after the restart the epoch is the same
// and the sequences go on.
func TestTerminateUnderLoad(t *testing.T) {
	h := newHistory()
	dir := t.TempDir()
	users := crowdOf(8, h)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	p := spawn(t, dir)
	makeGroup(t, p, users)
	for range 3 {
		done := make(chan int, 1)
		time.AfterFunc(300*time.Millisecond, func() { done <- p.terminate() })
		if err := crowd(ctx, p, users, nil); err != nil {
			t.Error(err)
		}
		if code := <-done; code != 0 {
			t.Fatalf("exit code %d", code)
		}
		p = spawn(t, dir)
	}
	stop := make(chan struct{})
	close(stop)
	if err := crowd(ctx, p, users, stop); err != nil {
		t.Error(err)
	}
	if wrong := h.check(inboxes(t, p, users)); len(wrong) > 0 {
		t.Errorf("%d findings:\n%s", len(wrong), summary(wrong))
	}
}
