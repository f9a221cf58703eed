package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// watchEvery is how often each broker is asked whether it is there.
const watchEvery = 5 * time.Second

// watch asks every broker for the end of one of its queues, until ctx ends: a node that sends nothing and has no partition to consume
// would not know that a broker is away.
func (l *Log) watch(ctx context.Context) {
	for sleep(ctx, watchEvery) {
		asked := map[string]bool{}
		for _, q := range *l.places.now.Load() {
			if q.broker == "" || asked[q.broker] {
				continue
			}
			asked[q.broker] = true
			err := l.ask(ctx, q)
			l.mu.Lock()
			if err == nil {
				delete(l.mu.away, q.broker)
			} else {
				l.mu.away[q.broker] = err
			}
			l.mu.Unlock()
		}
	}
}

// ask is nil when the broker of q answers, or when ctx has ended.
func (l *Log) ask(ctx context.Context, q queue) error {
	one, cancel := context.WithTimeoutCause(ctx, sendTimeout, errWatchTimeout)
	defer cancel()
	_, err := l.client.maxOffset(one, l.o.Topic, q)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	l.places.kick()
	return fmt.Errorf("broker %s: %w", q.broker, err)
}

var errWatchTimeout = errors.New("rocketmq: no answer within " + sendTimeout.String())
