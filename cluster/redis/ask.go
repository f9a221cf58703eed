package redis

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/meshtalk/meshtalk/cluster"
)

// question is a question to another node, or its answer.
type question struct {
	number uint64 // of the asker's
	text   []byte
}

// asking are the questions of this node that wait for their answers.
type asking struct {
	mu      sync.Mutex // guards the rest
	next    uint64
	waiting map[uint64]chan []byte
}

func (a *asking) begin() (uint64, chan []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == nil {
		a.waiting = map[uint64]chan []byte{}
	}
	a.next++
	answer := make(chan []byte, 1)
	a.waiting[a.next] = answer
	return a.next, answer
}

func (a *asking) end(number uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, number)
}

// told takes an answer. The second one to a question is dropped.
func (a *asking) told(q question) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if answer, ok := a.waiting[q.number]; ok {
		answer <- q.text
		delete(a.waiting, q.number)
	}
}

// Ask implements cluster.Cluster.
func (c *Cluster) Ask(ctx context.Context, node string, text []byte) ([]byte, error) {
	incarnation, ok := c.nodes.snapshot.Load().incarnation(node)
	if !ok {
		return nil, fmt.Errorf("redis: no live node %s", node)
	}
	number, answer := c.asking.begin()
	defer c.asking.end(number)
	c.out.one(item{kind: kindAsk, to: incarnation, other: question{number, text}})
	select {
	case text := <-answer:
		return text, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("redis: node %s does not answer: %w", node, ctx.Err())
	}
}

// answerTime bounds an answer: who asks waits no longer.
const answerTime = 5 * time.Second

// answer has the receiver answer a question of the node asker, on a goroutine of its own.
func (c *Cluster) answer(ctx context.Context, r cluster.Receiver, asker string, q question) {
	c.answers.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		c.out.one(item{kind: kindTold, to: asker, other: question{q.number, r.Asked(ctx, q.text)}})
	})
}
