// Command events is a business service beside Mesh-Talk, on RocketMQ's own Go client: it prints what happens (topic
// meshtalk_event), and sends a message into the server (topic meshtalk_push) when it is told to.
//
//	events --name-server 127.0.0.1:9876
//	events --name-server 127.0.0.1:9876 --send '{"id":"order-7","to":"bob","content":{"text":"shipped"}}'
//
// Events come as JSON arrays, at least once, and in order per conversation as long as a queue is read in order: hence the
// orderly consumer, and the memory of what was seen of each conversation. What becomes of a push comes as the event push.result.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	rlog.SetLogLevel("fatal") // it logs whole messages otherwise, with what people write
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "events:", err)
		os.Exit(1)
	}
}

// run does what the arguments say; it reads events until ctx is done.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("events", flag.ContinueOnError)
	servers := flags.String("name-server", "127.0.0.1:9876", "host:port, several separated by semicolons")
	events := flags.String("event-topic", "meshtalk_event", "topic to read")
	pushes := flags.String("push-topic", "meshtalk_push", "topic to send to")
	group := flags.String("group", "events-example", "consumer group: the same at every start, else everything that is kept comes again")
	push := flags.String("send", "", "send this `JSON`, the body of POST /v1/messages, and end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	resolver := primitive.NewPassthroughResolver(strings.Split(*servers, ";"))
	if *push != "" {
		return send(ctx, resolver, *pushes, []byte(*push))
	}
	return read(ctx, resolver, *events, *group, stdout)
}

// send puts one push into the topic. Only SEND_OK means that it is kept.
func send(ctx context.Context, servers primitive.NsResolver, topic string, body []byte) error {
	if !json.Valid(body) {
		return fmt.Errorf("not JSON: %s", body)
	}
	p, err := rocketmq.NewProducer(producer.WithNsResolver(servers), producer.WithGroupName("events-example"))
	if err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	result, err := p.SendSync(ctx, primitive.NewMessage(topic, body))
	if err == nil && result.Status != primitive.SendOK {
		err = fmt.Errorf("the broker answers status %d", result.Status)
	}
	if stopped := p.Shutdown(); err == nil {
		err = stopped
	}
	return err
}

// read prints one event a line until ctx is done.
func read(ctx context.Context, servers primitive.NsResolver, topic, group string, stdout io.Writer) error {
	c, err := rocketmq.NewPushConsumer(consumer.WithNsResolver(servers), consumer.WithGroupName(group),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset), consumer.WithConsumerOrder(true))
	if err != nil {
		return err
	}
	seen := &positions{of: map[string]int64{}}
	err = c.Subscribe(topic, consumer.MessageSelector{}, func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range messages {
			if err := show(stdout, seen, m.Body); err != nil {
				fmt.Fprintf(os.Stderr, "events: message %s: %v\n", m.MsgId, err) // not ours; a retry would not mend it
			}
		}
		return consumer.ConsumeSuccess, nil
	})
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	<-ctx.Done()
	return c.Shutdown()
}

// positions are the newest message.stored of each conversation: (conv, seq) tells repeats. A service that acts on events keeps
// them where it keeps what it does. Queues are read at the same time.
type positions struct {
	mu sync.Mutex
	of map[string]int64
}

// show prints the events of one array, those that come again left out.
func show(stdout io.Writer, seen *positions, body []byte) error {
	var list []json.RawMessage
	if err := json.Unmarshal(body, &list); err != nil {
		return err
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for _, raw := range list {
		var e struct {
			Event   string
			Message struct {
				Conv string
				Seq  int64
			}
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			return err
		}
		if e.Event == "message.stored" {
			if e.Message.Seq <= seen.of[e.Message.Conv] {
				continue
			}
			seen.of[e.Message.Conv] = e.Message.Seq
		}
		if _, err := fmt.Fprintf(stdout, "%s\n", raw); err != nil {
			return err
		}
	}
	return nil
}
