package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/client"
	"github.com/meshtalk/meshtalk/codec"
)

// diskSize is that of the file systems that run full, in MB.
const diskSize = 64

// The disk runs full under load: senders get UNAVAILABLE, connections and reads stay, operators see it, and when there is room again
// everything goes on by itself. Whatever was acknowledged is there, also after a kill -9 in the middle.
func TestDiskFull(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			ctx := patient(t)
			disk := smallDisk(t, diskSize)
			dir := filepath.Join(disk, "data")
			p := spawn(t, dir)
			users := crowdOf(8, newHistory())
			makeGroup(t, p, users)
			known(ctx, t, p, "reader")
			l := startLoad(ctx, p, users)
			l.acknowledged(t, 500)
			file := hog(t, disk)
			l.unavailable(t, len(users)*window)
			readOnly(t, p)
			readsStay(ctx, t, p, "reader")
			refusals(ctx, t, p, "reader")
			if killed {
				p.kill()
				_ = l.end() // their connections have ended
				cannotStart(t, dir)
				remove(t, file)
				p = spawn(t, dir)
				l = startLoad(ctx, p, users)
			} else {
				remove(t, file)
				keepsAgain(t, p)
			}
			l.acknowledged(t, 500)
			finish(t, p, l)
		})
	}
}

// The messages themselves fill the disk.
func TestDiskFilledByMessages(t *testing.T) {
	ctx := patient(t)
	disk := smallDisk(t, diskSize)
	dir := filepath.Join(disk, "data")
	p := spawn(t, dir)
	users := crowdOf(4, newHistory())
	makeGroup(t, p, users)
	known(ctx, t, p, "reader")
	for _, u := range users {
		u.padding = 30_000
	}
	l := startLoad(ctx, p, users)
	l.unavailable(t, len(users)*window)
	readOnly(t, p)
	readsStay(ctx, t, p, "reader")
	p.kill()
	_ = l.end()
	p = spawn(t, dir) // on the full disk
	readsStay(ctx, t, p, "reader")
	_, acked := l.h.count()
	t.Logf("%d messages of %d bytes fit on %d MB", acked, users[0].padding, diskSize)
	if wrong := l.h.check(inboxes(t, p, users)); len(wrong) > 0 {
		t.Errorf("on the full disk: %d findings:\n%s", len(wrong), summary(wrong))
	}
	l = startLoad(ctx, p, users)
	l.unavailable(t, 2*len(users)*window)
	resize(t, disk, 2*diskSize)
	keepsAgain(t, p)
	l.acknowledged(t, 100)
	finish(t, p, l)
}

// cannotStart starts a server where there is no room at all: it says so in one line.
func cannotStart(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envChild+"="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "no space left on device") {
		t.Errorf("start on a full disk: %v\n%s", err, out)
	}
}

// finish ends a load whose connections have all lasted, and judges what there is.
func finish(t *testing.T, p *process, l *load) {
	t.Helper()
	for _, err := range l.end() {
		t.Errorf("a connection did not last: %s", err)
	}
	sent, acked, refusals := l.h.counts()
	t.Logf("%d messages sent, %d acknowledged, %d times refused", sent, acked, refusals)
	if wrong := l.h.check(inboxes(t, p, l.users)); len(wrong) > 0 {
		t.Errorf("%d findings:\n%s", len(wrong), summary(wrong))
	}
	p.unharmed()
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// readOnly waits until operators see that nothing can be kept, and why.
func readOnly(t *testing.T, p *process) {
	t.Helper()
	until(t, "/readyz tells of the store", func() (any, bool) {
		r := p.readiness()
		s := r.Parts["store"]
		return r, r.status == http.StatusServiceUnavailable && !s.OK && strings.Contains(s.State, "read-only") && len(s.State) > len("read-only: ")
	})
	until(t, "meshtalk_store_readonly is 1", func() (any, bool) {
		v := p.metrics()["meshtalk_store_readonly"]
		return v, v == 1
	})
}

// keepsAgain waits until operators see that messages are kept.
func keepsAgain(t *testing.T, p *process) {
	t.Helper()
	until(t, "/readyz is 200 again", func() (any, bool) {
		r := p.readiness()
		return r, r.status == http.StatusOK
	})
	if v := p.metrics()["meshtalk_store_readonly"]; v != 0 {
		t.Errorf("meshtalk_store_readonly is %v", v)
	}
}

// known logs a user in for the first time, and gives it something to read.
func known(ctx context.Context, t *testing.T, p *process, name string) {
	t.Helper()
	c, err := connect(ctx, p, "tcp", name)
	if err == nil {
		_, err = exchange(ctx, c, fmt.Sprintf(`{"cmd":3,"id":"first","data":{"to":%q,"content":"kept"}}`, name))
	}
	if err == nil {
		err = c.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readsStay goes through what must work while nothing can be kept, as a user who is known.
func readsStay(ctx context.Context, t *testing.T, p *process, name string) {
	t.Helper()
	c, err := connect(ctx, p, "tcp", name)
	if err != nil {
		t.Fatalf("LOGIN of a known terminal: %v", err)
	}
	defer func() { _ = c.Close() }()
	for _, step := range []struct{ packet, want string }{
		{`{"cmd":1,"id":"beat"}`, `"head":1`},
		{`{"cmd":8,"id":"pull","data":{"after":0}}`, `"content":"kept"`},
		{fmt.Sprintf(`{"cmd":9,"id":"history","data":{"conv":"p:%s:%s"}}`, name, name), `"content":"kept"`},
		{fmt.Sprintf(`{"cmd":13,"id":"presence","data":{"watch":[%q]}}`, name), `"online":true`},
		{`{"cmd":19,"id":"conversations","data":{}}`, `"content":"kept"`},
		{fmt.Sprintf(`{"cmd":3,"id":"ephemeral","data":{"to":%q,"content":1,"ephemeral":true}}`, name), `msgId`},
	} {
		got, err := exchange(ctx, c, step.packet)
		if err != nil || !strings.Contains(string(got.Data), step.want) {
			t.Errorf("%s: got %s %v, want %s", step.packet, got.Data, err, step.want)
		}
	}
}

// refusals goes through what cannot work meanwhile.
func refusals(ctx context.Context, t *testing.T, p *process, name string) {
	t.Helper()
	c, err := connect(ctx, p, "websocket", name)
	if err != nil {
		t.Fatalf("LOGIN of a known terminal: %v", err)
	}
	defer func() { _ = c.Close() }()
	refuses := func(what string, err error) {
		var r *refusal
		if !errors.As(err, &r) || r.Code != int(codec.CodeUnavailable) || !r.Retryable || r.RetryAfterMs <= 0 {
			t.Errorf("%s: %v, want UNAVAILABLE to be tried again", what, err)
		}
	}
	_, err = exchange(ctx, c, fmt.Sprintf(`{"cmd":3,"id":"keep","data":{"to":%q,"content":1}}`, name))
	refuses("a message", err)
	status, body, err := p.request(http.MethodPost, "/v1/messages", fmt.Sprintf(`{"id":"x","to":%q,"content":1}`, name))
	if err != nil || status != http.StatusServiceUnavailable || !strings.Contains(string(body), "5003") {
		t.Errorf("POST /v1/messages: %d %s %v", status, body, err)
	}
	// A terminal never seen must be kept before the reply: it cannot log in now, and may try again on the same connection.
	stranger, err := client.DialConn(ctx, p.urls["tcp"], client.ConnOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Close() }()
	for range 2 {
		refuses("LOGIN of a new terminal", login(ctx, stranger, p.token("stranger")))
	}
}
