package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
)

// message is one line of JSON between the coordinator of a run and one of its workers, in either direction: over a
// worker's standard streams, or over the two bodies of one HTTP request. One field is set.
type message struct {
	Sink  *sinkJob    `json:"sink,omitempty"`  // to a worker: read and discard
	Drank *sinkResult `json:"drank,omitempty"` // its answer, when its input has ended
	Ready bool        `json:"ready,omitempty"` // from a worker: it is about to do what it was told
	Error string      `json:"error,omitempty"` // from a worker: it gives up
}

// link is the coordinator's or the worker's end. One goroutine reads; any may write.
type link struct {
	in  *bufio.Reader
	dec *json.Decoder

	mu  sync.Mutex // guards out
	out io.Writer
}

func newLink(in io.Reader, out io.Writer) *link {
	b := bufio.NewReader(in)
	return &link{in: b, dec: json.NewDecoder(b), out: out}
}

func (k *link) send(m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("bench: worker: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.out.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("bench: worker: %w", err)
	}
	return nil
}

// receive is the other side's next message. A worker's error comes back as an error; io.EOF is the end.
func (k *link) receive() (m message, err error) {
	if err := k.dec.Decode(&m); err != nil {
		if errors.Is(err, io.EOF) {
			return m, io.EOF
		}
		return m, fmt.Errorf("bench: worker: %w", err)
	}
	if m.Error != "" {
		return m, errors.New(m.Error)
	}
	return m, nil
}

// worker is a process of its own that runs Worker, from the coordinator's side.
type worker struct {
	*link
	cmd   *exec.Cmd
	stdin io.Closer
}

// startWorker starts command, which is to run Worker on its standard streams; empty = this program with the argument
// "worker". Its standard error is ours.
func startWorker(command []string) (*worker, error) {
	if len(command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("bench: worker: %w", err)
		}
		command = []string{self, "worker"}
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("bench: worker: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("bench: worker: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("bench: worker: %w", err)
	}
	return &worker{link: newLink(stdout, stdin), cmd: cmd, stdin: stdin}, nil
}

// end closes the worker's input, at which it ends what it does.
func (w *worker) end() { _ = w.stdin.Close() }

// stop ends the worker and waits for it. What it has not said yet is lost.
func (w *worker) stop() {
	w.end()
	_, _ = io.Copy(io.Discard, w.in)
	_ = w.cmd.Wait() // it has said on the link what went wrong, or on standard error
}
