// Package rocketmq is the hand-over and the way of events over Apache RocketMQ, 4.9.7 and later 4.9 and 5.x: an mq.Log on one
// topic with a fixed number of queues, mq.Events and mq.Pushes. It speaks RocketMQ's remoting protocol itself (why:
// docs/adr/0012-rocketmq-protocol.md) and needs of it: routes, topics, sending to a queue, pulling from an offset, and the
// offsets of a consumer group.
package rocketmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// callTimeout bounds requests that a server answers at once.
const callTimeout = 3 * time.Second

// Options of a connection to RocketMQ.
type Options struct {
	// NameServers are host:port, several also separated by semicolons in one. At least one; any of them is asked.
	NameServers []string
	// AccessKey and SecretKey sign requests for brokers with an ACL; empty = none.
	AccessKey, SecretKey string
	// Group is the producer group that the brokers see, by default im-producer-group.
	Group string
	// Logger gets what an operator should know, never a body.
	Logger *slog.Logger
}

// Client holds the connections to name servers and brokers. Safe for concurrent use. Close ends it.
type Client struct {
	o     Options
	names []string
	log   *slog.Logger
	wg    sync.WaitGroup // of connections

	mu struct {
		sync.Mutex
		links   map[string]*link  // by address
		brokers map[string]string // master's address by the broker's name: the last that was heard of
		first   int               // the name server that answered last
		closed  bool
	}
}

// Connect makes a client. It fails when no name server answers.
func Connect(ctx context.Context, o Options) (*Client, error) {
	c := &Client{o: o, log: o.Logger}
	if c.o.Group == "" {
		c.o.Group = "im-producer-group"
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.mu.links, c.mu.brokers = map[string]*link{}, map[string]string{}
	for _, list := range o.NameServers {
		for a := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ';' || r == ',' || r == ' ' }) {
			c.names = append(c.names, strings.TrimPrefix(a, "http://"))
		}
	}
	if len(c.names) == 0 {
		return nil, errors.New("rocketmq: no name server")
	}
	if _, err := c.cluster(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close ends all connections; what is under way fails.
func (c *Client) Close() error {
	c.mu.Lock()
	c.mu.closed = true
	links := c.mu.links
	c.mu.links = map[string]*link{}
	c.mu.Unlock()
	for _, l := range links {
		l.close()
	}
	c.wg.Wait()
	return nil
}

// link is the connection to an address. Brokers are pinged, with a question for a topic that need not exist.
func (c *Client) link(addr string, broker bool) (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return nil, errClosed
	}
	l := c.mu.links[addr]
	if l == nil {
		l = &link{addr: addr, wg: &c.wg}
		if c.o.AccessKey != "" {
			l.sign = func(r *command) { r.sign(c.o.AccessKey, c.o.SecretKey) }
		}
		if broker {
			l.ping = func() *command {
				r := &command{code: reqMaxOffset, fields: []field{{"topic", "SELF_TEST_TOPIC"}, {"queueId", "0"}}}
				if l.sign != nil {
					l.sign(r)
				}
				return r
			}
		}
		c.mu.links[addr] = l
	}
	return l, nil
}

// refusal is an answer other than success.
type refusal struct {
	code   int
	remark string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("rocketmq: code %d: %s", r.code, firstLine(r.remark))
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n") // Java puts stacks below
	return s
}

// isRefusal tells whether err is that answer.
func isRefusal(err error, code int) bool {
	var r *refusal
	return errors.As(err, &r) && r.code == code
}

// ask asks the name servers, beginning with the one that answered last.
func (c *Client) ask(ctx context.Context, r command) ([]byte, error) {
	c.mu.Lock()
	first := c.mu.first
	c.mu.Unlock()
	var errs []error
	for i := range c.names {
		n := (first + i) % len(c.names)
		request := r
		body, err := c.askOne(ctx, c.names[n], &request)
		if err == nil || isRefusal(err, resTopicNotExist) {
			c.mu.Lock()
			c.mu.first = n
			c.mu.Unlock()
			return body, err
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("name servers: %w", errors.Join(errs...))
}

func (c *Client) askOne(ctx context.Context, addr string, r *command) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	l, err := c.link(addr, false)
	if err != nil {
		return nil, err
	}
	a, err := l.call(ctx, r)
	if err != nil {
		return nil, err
	}
	if a.code != resSuccess {
		return nil, &refusal{a.code, a.remark}
	}
	return a.body, nil
}

// numberedKeys finds the keys of Java's maps from numbers, which stand without quotes.
var numberedKeys = regexp.MustCompile(`([{,])(\d+):`)

func decodeJSON(b []byte, v any) error {
	if err := json.Unmarshal(numberedKeys.ReplaceAll(b, []byte(`$1"$2":`)), v); err != nil {
		return fmt.Errorf("rocketmq: a name server's answer: %w", err)
	}
	return nil
}

// broker is what name servers tell of one.
type broker struct {
	Name      string            `json:"brokerName"`
	Addresses map[string]string `json:"brokerAddrs"` // by id; "0" is the master
}

// queues is how many queues a topic has at one broker.
type queues struct {
	Broker string `json:"brokerName"`
	Read   int    `json:"readQueueNums"`
	Write  int    `json:"writeQueueNums"`
	Perm   int    `json:"perm"`
}

// route asks where a topic is: only of brokers that are up. isRefusal(err, resTopicNotExist): at none of them.
func (c *Client) route(ctx context.Context, topic string) ([]queues, error) {
	body, err := c.ask(ctx, command{code: reqRoute, fields: []field{{"topic", topic}, {"acceptStandardJsonOnly", "true"}}})
	if err != nil {
		return nil, err
	}
	var r struct {
		Brokers []broker `json:"brokerDatas"`
		Queues  []queues `json:"queueDatas"`
	}
	if err := decodeJSON(body, &r); err != nil {
		return nil, err
	}
	c.learn(r.Brokers)
	slices.SortFunc(r.Queues, func(a, b queues) int { return strings.Compare(a.Broker, b.Broker) })
	return r.Queues, nil
}

// cluster asks for the names of all brokers that have a master now, sorted.
func (c *Client) cluster(ctx context.Context) ([]string, error) {
	body, err := c.ask(ctx, command{code: reqCluster})
	if err != nil {
		return nil, err
	}
	var r struct {
		Brokers map[string]broker `json:"brokerAddrTable"`
	}
	if err := decodeJSON(body, &r); err != nil {
		return nil, err
	}
	var names []string
	for name, b := range r.Brokers {
		c.learn([]broker{b})
		if b.Addresses["0"] != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// learn keeps the addresses of masters. Those of brokers that name servers do not know any more stay.
func (c *Client) learn(brokers []broker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range brokers {
		if a := b.Addresses["0"]; a != "" {
			c.mu.brokers[b.Name] = a
		}
	}
}

// call asks a broker's master; anything but success is a refusal.
func (c *Client) call(ctx context.Context, broker string, r *command) (*command, error) {
	c.mu.Lock()
	addr := c.mu.brokers[broker]
	c.mu.Unlock()
	if addr == "" {
		return nil, fmt.Errorf("rocketmq: no address of broker %q", broker)
	}
	l, err := c.link(addr, true)
	if err != nil {
		return nil, err
	}
	a, err := l.call(ctx, r)
	if err != nil {
		return nil, err
	}
	if a.code != resSuccess {
		return a, &refusal{a.code, a.remark}
	}
	return a, nil
}
