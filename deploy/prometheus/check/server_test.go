package check

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen; only one that fails waits for it.
const patience = 60 * time.Second

var scraped struct {
	once   sync.Once
	series map[string][]string
	err    error
}

// scrape is what a running server has: its metrics by name, with the names of their labels.
func scrape(t *testing.T) map[string][]string {
	t.Helper()
	scraped.once.Do(func() { scraped.series, scraped.err = ask(t) })
	if scraped.err != nil {
		t.Fatal(scraped.err)
	}
	return scraped.series
}

// ask builds the server of this repository, starts it, gives it something to count, and reads /metrics.
func ask(t *testing.T) (map[string][]string, error) {
	program := filepath.Join(t.TempDir(), "meshtalk")
	build := exec.Command("go", "build", "-o", program, "./cmd/meshtalk")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build: %w\n%s", err, out)
	}
	server := exec.Command(program, "serve", "--data-dir", filepath.Join(t.TempDir(), "data"),
		"--websocket.host=127.0.0.1", "--websocket.port=0", "--tcpsocket.host=127.0.0.1", "--tcpsocket.port=0", "--admin.port=0")
	server.Stderr = os.Stderr
	stdout, err := server.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := server.Start(); err != nil {
		return nil, err
	}
	defer func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = server.Wait()
	}()
	addresses := map[string]string{}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && lines.Text() != "ready" {
		name, url, _ := strings.Cut(lines.Text(), " ")
		addresses[name] = url
	}
	if err := use(addresses); err != nil {
		return nil, err
	}
	return metrics(addresses["admin"] + "/metrics")
}

// use makes the server count a message, an error and a close.
func use(addresses map[string]string) error {
	client := http.Client{Timeout: patience}
	a, err := client.Post(addresses["admin"]+"/v1/messages", "application/json", strings.NewReader(`{"id":"1","from":"a","to":"b","content":1}`))
	if err != nil {
		return err
	}
	_ = a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("a message: %s", a.Status)
	}
	c, err := net.DialTimeout("tcp", strings.TrimPrefix(addresses["tcp"], "tcp://"), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("\x00\x00\x00\x01x")); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c) // the ERROR, then the end
	return err
}

// metrics reads names and labels of what stands at a URL.
func metrics(url string) (map[string][]string, error) {
	client := http.Client{Timeout: patience}
	a, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	series := map[string][]string{}
	line := regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? `)
	label := regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="`)
	text := bufio.NewScanner(a.Body)
	for text.Scan() {
		m := line.FindStringSubmatch(text.Text())
		if m == nil {
			continue
		}
		var names []string
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			names = append(names, l[1])
		}
		series[m[1]] = names
	}
	if err := text.Err(); err != nil {
		return nil, err
	}
	if len(series["meshtalk_errors_total"]) == 0 || len(series["meshtalk_closes_total"]) == 0 {
		return nil, fmt.Errorf("the server has counted no error or no close: %d metrics", len(series))
	}
	source, err := os.ReadFile(filepath.Join(root, "server/metrics.go"))
	if err != nil {
		return nil, err
	}
	for name, labels := range clusterOnly {
		if !strings.Contains(string(source), `"`+name+`"`) {
			return nil, fmt.Errorf("server/metrics.go does not make %s", name)
		}
		series[name] = labels
	}
	for name, labels := range own {
		series[name] = labels
	}
	return series, nil
}
