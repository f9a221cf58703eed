package server

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/meshtalk/meshtalk/mq/rocketmq"
)

func diagnoseRocketMQ(ctx context.Context, o Options) []Finding {
	const key = "rocketmq.name-server"
	q := o.RocketMQ
	if q.NameServer == "" {
		return nil
	}
	c, err := rocketmq.Connect(ctx, rocketmq.Options{
		NameServers: strings.Split(q.NameServer, ";"), AccessKey: q.AccessKey, SecretKey: q.SecretKey, Group: q.ProducerGroup,
	})
	if err != nil {
		return []Finding{away(key, q.NameServer, err)}
	}
	defer func() { _ = c.Close() }()
	topics := []string{q.EventTopic, q.PushTopic}
	keys := []string{"rocketmq.event.topic", "rocketmq.push.topic"}
	if o.logged() {
		topics, keys = append([]string{q.LogTopic}, topics...), append([]string{"rocketmq.log.topic"}, keys...)
	}
	r, err := c.Inspect(ctx, topics...)
	if err != nil {
		return []Finding{away(key, q.NameServer, err)}
	}
	f := Finding{Check: key, Value: fmt.Sprintf("%s, brokers: %d", q.NameServer, len(r.Brokers))}
	if len(r.Brokers) == 0 {
		return []Finding{f.but(Failure, "it knows no broker", "the server does not start", "start a broker with namesrvAddr="+q.NameServer)}
	}
	list := []Finding{f}
	for _, b := range r.Brokers {
		list = append(list, judgeBroker(b, o.logged()))
	}
	for i, t := range r.Topics {
		list = append(list, judgeTopic(keys[i], t, o))
	}
	return list
}

// judgeBroker: what it acknowledges must be on its disk, or in two memories.
func judgeBroker(b rocketmq.BrokerReport, log bool) Finding {
	f := Finding{Check: "rocketmq broker", Value: fmt.Sprintf("%s at %s, %s, %s, %s", b.Name, b.Address, cmp.Or(b.Version, "version not told"), b.FlushDisk, b.Role)}
	if b.Err != nil {
		f.Value = fmt.Sprintf("%s at %s", b.Name, b.Address)
		return f.but(Failure, "does not answer: "+b.Err.Error(), "messages: those whose partition is there are UNAVAILABLE",
			"start it, open the firewall, or set rocketmq.access-key and rocketmq.secret-key")
	}
	switch {
	case b.FlushDisk != "SYNC_FLUSH" && b.Role != "SYNC_MASTER":
		level, limits := Warning, "events: some may be lost when that host crashes"
		if log {
			level, limits = Failure, "durability: acknowledged messages are lost when that host crashes"
		}
		return f.but(level, "it acknowledges what is not on its disk", limits, "flushDiskType=SYNC_FLUSH in the broker's configuration file, and its restart")
	case outdated(b.Version):
		return f.but(Warning, "has known holes", "security: whoever reaches it may run programs there", "RocketMQ 4.9.7 and later 4.9, or 5.1.2 and later")
	}
	return f
}

// outdated tells of versions before 4.9.7 and of 5.0.0 to 5.1.1, as brokers write them: V5_3_3.
func outdated(version string) bool {
	var major, minor, patch int
	if _, err := fmt.Sscanf(version, "V%d_%d_%d", &major, &minor, &patch); err != nil {
		return false // what that is nobody knows here
	}
	n := major*10000 + minor*100 + patch
	return n < 40907 || n >= 50000 && n < 50102
}

func judgeTopic(key string, t rocketmq.TopicReport, o Options) Finding {
	f := Finding{Check: key, Value: fmt.Sprintf("%s, queues: %d", t.Topic, t.Queues)}
	log := key == "rocketmq.log.topic"
	switch {
	case t.Err != nil:
		f.Value = t.Topic
		return f.but(Failure, t.Err.Error(), "the server does not start", "look at the name server's log")
	case t.Queues == 0:
		f.Value = t.Topic + ", not there yet: the first start makes it"
	case log && !t.Ranges:
		return f.but(Failure, "its queues are not laid out as partitions", "the server does not start",
			fmt.Sprintf("mqadmin updateTopic -n %s -b BROKER -t %s -r TO -w COUNT for each broker (docs/rocketmq.md), or another %s", o.RocketMQ.NameServer, t.Topic, key))
	case log && t.Queues != o.RocketMQ.LogQueues:
		return f.but(Warning, fmt.Sprintf("rocketmq.log.queues is %d", o.RocketMQ.LogQueues),
			"the start: it is refused while messages wait, or a broker is down that has the others",
			fmt.Sprintf("serve --rocketmq.log.queues=%d, or the change of docs/rocketmq.md", t.Queues))
	}
	return f
}
