package rocketmq

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// queue is one queue of a topic at one broker; no broker = nobody has told where it is.
type queue struct {
	broker string
	id     int
}

func (q queue) String() string { return fmt.Sprintf("%s/%d", q.broker, q.id) }

// stored maps the answer to a send: nil only when the broker has made the message as durable as it is configured to
// (SEND_OK). Everything else is an unknown outcome: FLUSH_DISK_TIMEOUT and its like come with a message that is stored already.
func stored(code int, remark string) error {
	if code == resSuccess {
		return nil
	}
	return &refusal{code, remark}
}

// send stores one message.
func (c *Client) send(ctx context.Context, topic string, q queue, keys string, body []byte) error {
	r := &command{code: reqSend, body: body, fields: []field{
		{"a", c.o.Group},
		{"b", topic},
		{"c", "TBW102"}, // the topic whose settings an automatically made one would get
		{"d", "4"},
		{"e", strconv.Itoa(q.id)},
		{"f", "0"},
		{"g", strconv.FormatInt(time.Now().UnixMilli(), 10)},
		{"h", "0"},
		{"j", "0"},
		{"k", "false"},
		{"m", "false"},
	}}
	if keys != "" {
		r.fields = append(r.fields, field{"i", "KEYS\x01" + keys + "\x02"})
	}
	a, err := c.call(ctx, q.broker, r)
	if a != nil {
		return stored(a.code, a.remark)
	}
	return err
}

// pulled is the answer to a pull.
type pulled struct {
	messages []message
	next     int64 // where the broker would go on
	min, max int64 // the first offset that is there, and the one that the next message gets
	moved    bool  // no message can be at the offset that was asked for
}

// How pulls wait for messages. A broker looks for those that have waited long enough every 5 s.
const (
	pullWait    = 10 * time.Second
	pullTimeout = pullWait + 10*time.Second
	pullCount   = 32 // messages; brokers give no more, and 256 KiB
)

// pull asks for the messages from an offset on. When there is none the broker waits pullWait for one.
func (c *Client) pull(ctx context.Context, group, topic string, q queue, offset int64, count int) (pulled, error) {
	if q.broker == "" {
		return pulled{}, errNowhere
	}
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	a, err := c.call(ctx, q.broker, &command{code: reqPull, fields: []field{
		{"consumerGroup", group},
		{"topic", topic},
		{"queueId", strconv.Itoa(q.id)},
		{"queueOffset", strconv.FormatInt(offset, 10)},
		{"maxMsgNums", strconv.Itoa(count)},
		{"sysFlag", "6"}, // it may wait, and the subscription is in the request
		{"commitOffset", "0"},
		{"suspendTimeoutMillis", strconv.FormatInt(pullWait.Milliseconds(), 10)},
		{"subscription", "*"},
		{"subVersion", "0"},
		{"expressionType", "TAG"},
	}})
	if a == nil {
		return pulled{}, err
	}
	var p pulled
	switch a.code {
	case resSuccess:
		if p.messages, err = decodeMessages(a.body); err != nil {
			return p, fmt.Errorf("%s of %s: %w", q, topic, err)
		}
	case resPullNotFound, resPullRetry:
	case resPullMoved:
		p.moved = true
	default:
		return p, err
	}
	for _, f := range []struct {
		name string
		to   *int64
	}{{"nextBeginOffset", &p.next}, {"minOffset", &p.min}, {"maxOffset", &p.max}} {
		if *f.to, err = strconv.ParseInt(a.get(f.name), 10, 64); err != nil {
			return p, fmt.Errorf("rocketmq: %s of a pull: %w", f.name, err)
		}
	}
	return p, nil
}

// offsetOf asks for a number that a broker keeps of a queue.
func (c *Client) offsetOf(ctx context.Context, code int, topic string, q queue, more ...field) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, err := c.call(ctx, q.broker, &command{code: code, fields: append(more, field{"topic", topic}, field{"queueId", strconv.Itoa(q.id)})})
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(a.get("offset"), 10, 64)
}

func (c *Client) maxOffset(ctx context.Context, topic string, q queue) (int64, error) {
	return c.offsetOf(ctx, reqMaxOffset, topic, q)
}

func (c *Client) minOffset(ctx context.Context, topic string, q queue) (int64, error) {
	return c.offsetOf(ctx, reqMinOffset, topic, q)
}

// groupOffset is where a consumer group stands; ok = false: nowhere yet.
func (c *Client) groupOffset(ctx context.Context, group, topic string, q queue) (offset int64, ok bool, err error) {
	offset, err = c.offsetOf(ctx, reqQueryOffset, topic, q, field{"consumerGroup", group})
	if isRefusal(err, resQueryNotFound) {
		return 0, false, nil
	}
	return offset, err == nil && offset >= 0, err
}

// moveGroup keeps where a consumer group stands.
func (c *Client) moveGroup(ctx context.Context, group, topic string, q queue, offset int64) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.call(ctx, q.broker, &command{code: reqUpdateOffset, fields: []field{
		{"consumerGroup", group},
		{"topic", topic},
		{"queueId", strconv.Itoa(q.id)},
		{"commitOffset", strconv.FormatInt(offset, 10)},
	}})
	return err
}

// createTopic makes or changes a topic at one broker.
func (c *Client) createTopic(ctx context.Context, broker, topic string, read, write int) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.call(ctx, broker, &command{code: reqCreateTopic, fields: []field{
		{"topic", topic},
		{"defaultTopic", "TBW102"},
		{"readQueueNums", strconv.Itoa(read)},
		{"writeQueueNums", strconv.Itoa(write)},
		{"perm", "6"},
		{"topicFilterType", "SINGLE_TAG"},
		{"topicSysFlag", "0"},
		{"order", "false"},
	}})
	if err != nil {
		return fmt.Errorf("making topic %s at broker %s: %w", topic, broker, err)
	}
	return nil
}
