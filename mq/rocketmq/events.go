package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/meshtalk/meshtalk/mq"
)

const (
	eventQueues  = 16        // of an event topic that we make, laid out as the log's
	maxEvents    = 512 << 10 // bytes of an array from which on no event is added; one event may be larger
	eventTimeout = 3 * time.Second
)

// Events is an mq.Events on one topic. Safe for concurrent use.
type Events struct {
	client *Client
	topic  string
	places *places
	n      int // queues that keys are spread over
	cancel context.CancelFunc
	done   chan struct{}
}

var _ mq.Events = (*Events)(nil)

// OpenEvents finds the topic or makes it. Close ends it.
func (c *Client) OpenEvents(ctx context.Context, topic string) (*Events, error) {
	route, err := c.find(ctx, topic, eventQueues)
	if err != nil {
		return nil, fmt.Errorf("rocketmq: topic %s: %w", topic, err)
	}
	e := &Events{client: c, topic: topic, done: make(chan struct{})}
	following, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e.cancel = cancel
	list, err := spans(route)
	if err == nil {
		e.n = end(list)
		e.places = newPlaces(c, topic, list, e.n)
		go func() {
			defer close(e.done)
			e.places.follow(following)
		}()
		return e, nil
	}
	// Somebody else has made it as topics usually are: the queues that are there now are the places.
	close(e.done)
	var fixed layout
	for _, q := range route {
		for id := range q.Write {
			fixed = append(fixed, queue{q.Broker, id})
		}
	}
	if len(fixed) == 0 {
		cancel()
		return nil, fmt.Errorf("rocketmq: topic %s has no queue to write to", topic)
	}
	e.n = len(fixed)
	e.places = newPlaces(c, topic, nil, e.n)
	e.places.now.Store(&fixed)
	return e, nil
}

// Close ends what keeps the places fresh.
func (e *Events) Close() error {
	e.cancel()
	<-e.done
	return nil
}

// Publish implements mq.Events. The events of one key go to one queue, as JSON arrays of up to maxEvents bytes, in messages whose
// KEYS is the key. After an error some of them may be there: publish all of them again.
func (e *Events) Publish(ctx context.Context, key string, events [][]byte) error {
	q := e.places.at(Partition(key, e.n))
	if q.broker == "" {
		e.places.kick()
		return fmt.Errorf("topic %s: %w", e.topic, errNowhere)
	}
	for len(events) > 0 {
		var body []byte
		body, events = array(events)
		if err := e.send(ctx, q, key, body); err != nil {
			e.places.kick()
			return fmt.Errorf("topic %s: %w", e.topic, err)
		}
	}
	return nil
}

var errEventTimeout = fmt.Errorf("rocketmq: an event was not acknowledged within %s", eventTimeout)

func (e *Events) send(ctx context.Context, q queue, key string, body []byte) error {
	if len(body) > maxRecord {
		return errors.New("rocketmq: an event larger than a message may be")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, eventTimeout, errEventTimeout)
	defer cancel()
	return e.client.send(ctx, e.topic, q, key, body)
}

// array is a JSON array of the first events, and the others.
func array(events [][]byte) (body []byte, rest [][]byte) {
	body = append(body, '[')
	for i, event := range events {
		if i > 0 {
			if len(body)+len(event) > maxEvents {
				return append(body, ']'), events[i:]
			}
			body = append(body, ',')
		}
		body = append(body, event...)
	}
	return append(body, ']'), nil
}
