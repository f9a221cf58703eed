package bench

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// A worker on another machine is one HTTP request: its body is what the coordinator says, that of the answer is what the
// worker says, both line by line and at the same time.

const (
	workerPath = "/v1/work"
	// linesType is the type of both bodies. A web page cannot send it without being asked first, so that none can make its
	// reader's worker do anything.
	linesType = "application/x-ndjson"
)

// callTimeout is how long a worker on the network may take to answer that it will work.
const callTimeout = 10 * time.Second

// callWorker connects to a worker that listens at addr, host:port.
func callWorker(ctx context.Context, addr, token string) (*worker, error) {
	body, out := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+workerPath, body)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("bench: worker %s: %w", addr, err)
	}
	req.Header.Set("Content-Type", linesType)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{}
	answered := time.AfterFunc(callTimeout, cancel)
	resp, err := transport.RoundTrip(req) //nolint:bodyclose // it is, by wait
	if !answered.Stop() && err == nil {
		err = context.DeadlineExceeded
		_ = resp.Body.Close()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("bench: worker %s: %w", addr, err)
	}
	wait := func() {
		cancel()
		_ = resp.Body.Close()
		transport.CloseIdleConnections()
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		_ = out.Close()
		wait()
		return nil, fmt.Errorf("bench: worker %s: %s: %s", addr, resp.Status, strings.TrimSpace(string(text)))
	}
	return &worker{link: newLink(resp.Body, out), name: addr, end: func() { _ = out.Close() }, wait: wait}, nil
}

// WorkerHandler serves coordinators on the network, each request for one of its runs. An empty token lets everybody in:
// whoever gets in can make this machine connect to any address.
func WorkerHandler(token string, o WorkerOptions) http.Handler {
	o.Remote = true
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+workerPath, func(w http.ResponseWriter, r *http.Request) {
		// First of all: else the answer would wait for the end of the question.
		answer := http.NewResponseController(w)
		if err := answer.EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusHTTPVersionNotSupported)
			return
		}
		if token != "" && subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+token)) != 1 {
			http.Error(w, "want the worker's token", http.StatusUnauthorized)
			return
		}
		if r.Header.Get("Content-Type") != linesType {
			http.Error(w, "want "+linesType, http.StatusUnsupportedMediaType)
			return
		}
		w.Header().Set("Content-Type", linesType)
		if err := answer.Flush(); err != nil {
			return
		}
		_ = Worker(r.Context(), r.Body, flushing{w, answer}, o) // the coordinator has been told, or has gone
	})
	return mux
}

// flushing is an answer of which every write goes out at once.
type flushing struct {
	w      io.Writer
	answer *http.ResponseController
}

func (f flushing) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	return n, errors.Join(err, f.answer.Flush())
}
