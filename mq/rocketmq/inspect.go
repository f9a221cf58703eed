package rocketmq

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"
)

// Report is what Inspect finds of a cluster of RocketMQ.
type Report struct {
	Brokers []BrokerReport // the masters that name servers know, by name
	Topics  []TopicReport  // in the order in which they were asked for
}

// BrokerReport is what a broker says of itself; with an Err it says nothing.
type BrokerReport struct {
	Name, Address string
	Version       string // such as V5_3_3; "" = it did not tell
	FlushDisk     string // SYNC_FLUSH or ASYNC_FLUSH
	Role          string // SYNC_MASTER, ASYNC_MASTER or SLAVE
	Err           error
}

// TopicReport is where a topic is.
type TopicReport struct {
	Topic  string
	Queues int  // to write to, at all brokers that are up; 0 = it is not there
	Ranges bool // they are laid out as partitions
	Err    error
}

// Inspect asks name servers and brokers what they are and how they are set, and changes nothing. It fails when no name server answers.
func (c *Client) Inspect(ctx context.Context, topics ...string) (r Report, err error) {
	names, err := c.cluster(ctx)
	if err != nil {
		return r, err
	}
	for _, name := range names {
		r.Brokers = append(r.Brokers, c.inspectBroker(ctx, name))
	}
	for _, topic := range topics {
		r.Topics = append(r.Topics, c.inspectTopic(ctx, topic))
	}
	return r, nil
}

func (c *Client) inspectBroker(ctx context.Context, name string) BrokerReport {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c.mu.Lock()
	r := BrokerReport{Name: name, Address: c.mu.brokers[name]}
	c.mu.Unlock()
	config, err := c.call(ctx, name, &command{code: reqBrokerConfig})
	if err != nil {
		r.Err = err
		return r
	}
	r.FlushDisk, r.Role = property(config.body, "flushDiskType"), property(config.body, "brokerRole")
	r.Version, r.Err = c.brokerVersion(ctx, name)
	return r
}

// brokerVersion asks a broker for its version. One that has just started refuses that for some seconds, as it has no statistics yet: when
// ctx ends before, the version is not known.
func (c *Client) brokerVersion(ctx context.Context, name string) (string, error) {
	for {
		runtime, err := c.call(ctx, name, &command{code: reqBrokerRuntime})
		var refused *refusal
		switch {
		case errors.As(err, &refused):
			if !sleep(ctx, 100*time.Millisecond) {
				return "", nil
			}
			continue
		case err != nil:
			return "", err
		}
		var table struct{ Table map[string]string }
		err = decodeJSON(runtime.body, &table)
		return table.Table["brokerVersionDesc"], err
	}
}

// property is a value of Java's properties, name=value in each line.
func property(text []byte, name string) string {
	for line := range bytes.Lines(text) {
		if value, ok := strings.CutPrefix(string(bytes.TrimSpace(line)), name+"="); ok {
			return value
		}
	}
	return ""
}

func (c *Client) inspectTopic(ctx context.Context, topic string) TopicReport {
	r := TopicReport{Topic: topic}
	route, err := c.route(ctx, topic)
	if err != nil {
		if !isRefusal(err, resTopicNotExist) {
			r.Err = err
		}
		return r
	}
	for _, q := range route {
		r.Queues += q.Write
	}
	_, err = spans(route)
	r.Ranges = err == nil
	return r
}
