package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// message is one line of JSON between the coordinator of a run and one of its workers, in either direction: over a
// worker's standard streams, or over the two bodies of one HTTP request. One field is set.
type message struct {
	// To a worker.
	Job  *job     `json:"job,omitempty"`  // do a share of a run
	Sink *sinkJob `json:"sink,omitempty"` // read and discard, until the input ends

	// Both ways.
	Clock *clockReading `json:"clock,omitempty"` // asked with zeros, answered at once
	Meet  *meeting      `json:"meet,omitempty"`  // a worker has come to a point of the run; all have
	Note  *note         `json:"note,omitempty"`  // between scenes, by way of the coordinator

	// From a worker.
	Ready  bool        `json:"ready,omitempty"`  // the sink is connected
	Drank  *sinkResult `json:"drank,omitempty"`  // what the sink has done
	Counts *counts     `json:"counts,omitempty"` // how far it is, once a second
	Second *secondPart `json:"second,omitempty"` // what it counted in one second
	Result *partial    `json:"result,omitempty"` // its share of the result, at the end
	Error  string      `json:"error,omitempty"`  // it gives up
}

// meeting is a point of a run to which all processes come before any goes on. What each brings along is summed or its
// maximum taken.
type meeting struct {
	Point string           `json:"point"`
	Sum   map[string]int64 `json:"sum,omitempty"`
	Max   map[string]int64 `json:"max,omitempty"`
	Now   int64            `json:"now,omitempty"` // ns of the run's clock, when all had come
}

// add takes what one process brings along.
func (m *meeting) add(o meeting) {
	for k, v := range o.Sum {
		if m.Sum == nil {
			m.Sum = map[string]int64{}
		}
		m.Sum[k] += v
	}
	for k, v := range o.Max {
		if m.Max == nil {
			m.Max = map[string]int64{}
		}
		m.Max[k] = max(m.Max[k], v)
	}
}

// note is what the scene of one process tells those of the others.
type note struct {
	From  int    `json:"from"` // worker
	Key   string `json:"key"`
	Value uint32 `json:"value"`
}

// counts is Progress of one worker.
type counts struct {
	Connections int64 `json:"connections"`
	Sent        int64 `json:"sent"`
	Delivered   int64 `json:"delivered"`
	Failures    int64 `json:"failures"`
	CPU         int64 `json:"cpu_ns"`
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
