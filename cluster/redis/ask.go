package redis

import (
	"context"
	"fmt"
	"sync"

	"github.com/meshtalk/meshtalk/cluster"
)

// answersMax is how many questions of others are being answered at a time; more are not answered.
const answersMax = 128

// questions are those that were asked from here, and the answering of those that were asked from elsewhere.
type questions struct {
	room chan struct{}   // one element for each that is being answered
	ctx  context.Context // ends with Run; set by it
	all  sync.WaitGroup

	mu      sync.Mutex // guards the rest
	last    uint64
	waiting map[uint64]chan<- []byte
}

func newQuestions() *questions {
	return &questions{room: make(chan struct{}, answersMax), waiting: map[uint64]chan<- []byte{}}
}

// ask gives a number for a question, the channel of its answer, and what forgets it.
func (q *questions) ask() (number uint64, answer <-chan []byte, forget func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last++
	number = q.last
	c := make(chan []byte, 1)
	q.waiting[number] = c
	return number, c, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.waiting, number)
	}
}

// told hands answers to who waits for them.
func (q *questions) told(answers []question) {
	for _, a := range answers {
		q.mu.Lock()
		c := q.waiting[a.number]
		delete(q.waiting, a.number)
		q.mu.Unlock()
		if c != nil {
			c <- a.text
		}
	}
}

// Ask implements cluster.Cluster. The question and its answer share the queues of all else: up to 256 KiB each is fair.
func (c *Cluster) Ask(ctx context.Context, node string, text []byte) ([]byte, error) {
	incarnation, ok := c.nodes.snapshot.Load().incarnation(node)
	if !ok {
		return nil, fmt.Errorf("cluster/redis: no node %q", node)
	}
	if err := c.State(); err != nil {
		return nil, fmt.Errorf("asking node %q: %w", node, err)
	}
	number, answer, forget := c.questions.ask()
	defer forget()
	c.out.put(item{kind: kindAsk, to: incarnation, other: question{number, text}, bytes: len(text)})
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("asking node %q: %w", node, context.Cause(ctx))
	}
}

// answer answers a question of another node from a goroutine of its own. One too many is dropped: who asked waits no longer than
// its ctx.
func (c *Cluster) answer(r cluster.Receiver, from string, ask question) {
	q := c.questions
	select {
	case q.room <- struct{}{}:
	default:
		c.drop(1)
		return
	}
	q.all.Go(func() {
		defer func() { <-q.room }()
		text := r.Asked(q.ctx, ask.text)
		c.out.put(item{kind: kindTold, to: from, other: question{ask.number, text}, bytes: len(text)})
	})
}
