package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/meshtalk/meshtalk/mq"
)

const (
	// One attempt to send, and all of them for one message. What was not kept by then is answered to its senders, and the
	// partition takes nothing more until the broker has kept a message without records.
	sendTimeout  = 2 * time.Second
	sendPatience = 4 * time.Second
	probeEvery   = 250 * time.Millisecond
	retryPause   = 50 * time.Millisecond
)

// sender sends the records of one partition, in their order and one message at a time.
//
// A message whose outcome is unknown (a time-out, a broken connection, FLUSH_DISK_TIMEOUT) is sent again as it is until it is
// known to be kept: the commit drops what comes twice, and nothing behind it has gone out meanwhile. When that does not
// succeed in time, it and all behind it is refused. It may still turn up later, as after any time-out; then it comes after
// nothing that its sender was promised later and had not sent again before.
type sender struct {
	log       *Log
	partition int
	wake      chan struct{} // one token: queue may hold something, or it is closed

	mu     sync.Mutex
	queue  []mq.Record // appended at the end
	down   error       // why nothing is taken; nil = it is
	closed bool

	// Of run's goroutine.
	taken []mq.Record
	body  composite
}

func newSender(l *Log, partition int) *sender {
	return &sender{log: l, partition: partition, wake: make(chan struct{}, 1)}
}

func (s *sender) append(r mq.Record) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return mq.ErrClosed
	}
	if s.down != nil {
		err := s.down
		s.mu.Unlock()
		return err
	}
	s.queue = append(s.queue, r)
	first := len(s.queue) == 1
	s.mu.Unlock()
	if first {
		s.signal()
	}
	return nil
}

func (s *sender) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *sender) state() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

// close refuses what comes from now on.
func (s *sender) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
}

// run sends until close was called and everything before it is sent or refused.
func (s *sender) run(ctx context.Context) {
	for {
		records, last := s.take()
		for len(records) > 0 {
			n, err := s.sendSome(ctx, records)
			if err != nil {
				s.refuse(records, err)
				s.probe(ctx)
				break
			}
			records = records[n:]
		}
		if last {
			return
		}
	}
}

// take swaps the queue for the one that was taken before, waiting until it holds something. last: nothing will come any more.
func (s *sender) take() (records []mq.Record, last bool) {
	clear(s.taken)
	for {
		s.mu.Lock()
		if len(s.queue) > 0 || s.closed {
			records, s.queue = s.queue, s.taken[:0]
			s.taken = records
			last = s.closed
			s.mu.Unlock()
			return records, last
		}
		s.mu.Unlock()
		<-s.wake
	}
}

// sendSome sends one message with the first of records and answers them; n is how many. After an error none of them was
// answered.
func (s *sender) sendSome(ctx context.Context, records []mq.Record) (n int, err error) {
	s.body.reset()
	var unfit []mq.Record
	for n < len(records) && !s.body.full() {
		if !s.body.add(records[n].AppendRecord) {
			unfit = append(unfit, records[n])
			records[n] = nil
		}
		n++
	}
	if s.body.n > 0 {
		err = s.send(ctx, s.body.seal())
	}
	s.answer(unfit, errTooLarge)
	if err == nil {
		s.answer(records[:n], nil)
	}
	return n, err
}

func (s *sender) answer(records []mq.Record, err error) {
	n := 0
	for _, r := range records {
		if r != nil { // answered before
			r.Kept(err)
			n++
		}
	}
	s.log.backlog.Add(-int64(n))
}

// send sends body until it is kept, for sendPatience.
func (s *sender) send(ctx context.Context, body []byte) error {
	for begin := time.Now(); ; {
		err := s.attempt(ctx, body)
		if err == nil {
			return nil
		}
		s.log.places.kick()
		if time.Since(begin) > sendPatience || !sleep(ctx, retryPause) {
			return err
		}
	}
}

func (s *sender) attempt(ctx context.Context, body []byte) error {
	q := s.log.places.at(s.partition)
	if q.broker == "" {
		return errNowhere
	}
	ctx, cancel := context.WithTimeoutCause(ctx, sendTimeout, errSendTimeout)
	defer cancel()
	return s.log.client.send(ctx, s.log.o.Topic, q, "", body)
}

var errNowhere = errors.New("rocketmq: no broker is up that has this partition")

var errSendTimeout = fmt.Errorf("rocketmq: a message was not acknowledged within %s", sendTimeout)

// refuse answers records and all that has gathered behind them, and takes nothing more.
func (s *sender) refuse(records []mq.Record, err error) {
	s.mu.Lock()
	s.down = err
	behind := s.queue
	s.queue = nil
	s.mu.Unlock()
	s.log.log.Error("a partition takes nothing", "partition", s.partition, "queue", s.log.places.at(s.partition), "error", err)
	s.answer(records, err)
	s.answer(behind, err)
}

// probe sends messages without records until one is kept, or the log is closed.
func (s *sender) probe(ctx context.Context) {
	for {
		s.body.reset()
		err := s.attempt(ctx, s.body.seal())
		s.mu.Lock()
		s.down = err
		closed := s.closed
		s.mu.Unlock()
		switch {
		case err == nil:
			s.log.log.Info("a partition takes messages again", "partition", s.partition)
			return
		case closed:
			return
		}
		s.log.places.kick()
		if !sleep(ctx, probeEvery) {
			return
		}
	}
}
