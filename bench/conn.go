package bench

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/codec"
)

// phase is how far a connection has come.
type phase uint8

const (
	unborn     phase = iota
	connecting       // connect(2) is under way
	upgrading        // the WebSocket request is sent
	loggingIn        // LOGIN is sent
	live
	dead
)

// ackLargeEvery is after how many messages of a large group its position is acknowledged. There is no window for them, so
// that the position only says where a reconnect goes on; it goes with every heartbeat too.
const ackLargeEvery = 1024

// maxPacket is the largest packet that is received, in bytes: an answer of PULL has 256 KiB and one entry.
const maxPacket = 1 << 20

// conn is one connection: some 200 bytes, and no buffer unless a packet is incomplete or a write did not fit. It is
// owned by its loop.
type conn struct {
	fd        int32
	index     int32 // in loop.conns
	number    int   // of all loops' connections; names the user
	phase     phase
	transport codec.Transport
	armed     bool // waiting for EPOLLOUT
	dirty     bool // in loop.dirty
	ackDue    bool
	ackQueued bool // in loop.acks
	unacked   uint16
	pulling   bool // a gap is being filled by PULL
	midway    bool // only a part of a WebSocket message has come
	stalled   bool // it does not read
	resumes   bool // LOGIN says how far the connection before has come
	largeDue  bool // there is something of the large group to acknowledge
	ws        codec.WSFramer
	in, out   []byte // from the loop's buffers; nil when empty
	started   int64  // when connect began, ns of the run's clock

	inbox uint64 // newest number taken
	seq   uint64 // newest taken of its large group
	again uint64 // newest of its large group that was pushed again after a reconnect, while there may be more of them
	first bool   // the next one of its large group is the first on this connection
	flow  int32  // the scene's own
}

// dial begins to connect c.
func (l *loop) dial(c *conn) error {
	t := l.o.targets[c.number%len(l.o.targets)]
	c.transport = t.transport
	c.started = l.clock()
	fd, err := startConnect(t.addr, l.o.source(c.number))
	if err != nil {
		return err
	}
	c.fd, c.phase, c.armed = fd, connecting, true
	c.ws, c.midway, c.first = codec.WSFramer{Max: maxPacket, Client: true}, false, true
	return l.poll.set(unix.EPOLL_CTL_ADD, fd, c.index, unix.EPOLLIN|unix.EPOLLOUT)
}

// connected goes on after connect(2).
func (l *loop) connected(c *conn) {
	if err := connectError(c.fd); err != nil {
		l.drop(c, fmt.Sprintf("connect: %v", err))
		return
	}
	c.armed = false
	if err := l.poll.set(unix.EPOLL_CTL_MOD, c.fd, c.index, unix.EPOLLIN); err != nil {
		l.drop(c, err.Error())
		return
	}
	if c.transport == codec.TCP {
		l.login(c)
		return
	}
	c.phase = upgrading
	t := l.o.targets[c.number%len(l.o.targets)]
	l.append(c, codec.AppendHandshake(l.scratch[:0], t.host, t.path, l.wsKey(c), ""))
}

// wsKey is the handshake's key of c. It is made from the loop's seed instead of being kept.
func (l *loop) wsKey(c *conn) string {
	var nonce [16]byte
	r := rand.NewPCG(l.seed, uint64(c.number))
	binary.LittleEndian.PutUint64(nonce[:8], r.Uint64())
	binary.LittleEndian.PutUint64(nonce[8:], r.Uint64())
	return base64.StdEncoding.EncodeToString(nonce[:])
}

// login sends LOGIN.
func (l *loop) login(c *conn) {
	token, err := l.o.Token(l.o.user(c.number), l.o.Terminal)
	if err != nil {
		l.drop(c, err.Error())
		return
	}
	c.phase = loggingIn
	b := append(l.scratch[:0], `{"cmd":0,"id":"login","data":{"accessToken":`...)
	b = codec.AppendString(b, token)
	b = codec.AppendString(append(b, `,"terminal":`...), l.o.Terminal)
	b = codec.AppendString(append(b, `,"ack":`...), l.o.Ack)
	if l.o.Window > 0 {
		b = strconv.AppendInt(append(b, `,"window":`...), int64(l.o.Window), 10)
	}
	if c.resumes {
		b = codec.AppendString(append(b, `,"resume":{"epoch":`...), l.epoch)
		b = append(strconv.AppendUint(append(b, `,"inbox":`...), c.inbox, 10), '}')
	}
	l.send(c, append(b, "}}"...))
}

// loggedIn takes the LOGIN answer.
func (l *loop) loggedIn(c *conn, data []byte) {
	var d struct {
		Inbox   struct{ Head, First, Acked uint64 }
		Epoch   string
		Resumed bool
	}
	if err := json.Unmarshal(data, &d); err != nil {
		l.drop(c, "unreadable LOGIN answer")
		return
	}
	if c.resumes && !d.Resumed {
		l.fail("not resumed", "user %s came back with inbox %d, the server has %d to %d", l.o.user(c.number), c.inbox, d.Inbox.First, d.Inbox.Head)
	}
	if l.epoch != "" && l.epoch != d.Epoch {
		l.fail("epoch", "user %s got epoch %q after %q", l.o.user(c.number), d.Epoch, l.epoch)
	}
	c.phase, l.epoch = live, d.Epoch
	if !c.resumes || !d.Resumed {
		c.inbox = d.Inbox.Acked
	}
	if d.Inbox.First > 0 {
		c.inbox = max(c.inbox, d.Inbox.First-1)
	}
	l.handshakes--
	l.lives++
	if c.resumes {
		l.stats.hist(histReLogin).record(l.now - c.started)
	} else {
		l.stats.login.record(l.now - c.started)
	}
	l.scene.loggedIn(l, c)
}

// received cuts what was read from c into packets. Whatever is incomplete is kept.
func (l *loop) received(c *conn, fresh []byte) {
	b := fresh
	if len(c.in) > 0 {
		c.in = l.grow(c.in, fresh)
		b = c.in
	}
	rest := l.cut(c, b)
	switch {
	case c.phase == dead:
	case len(rest) == 0:
		l.free(c.in)
		c.in = nil
	case len(c.in) > 0:
		c.in = c.in[:copy(c.in, rest)]
	default:
		c.in = l.grow(nil, rest)
	}
	switch {
	case !c.ackDue || c.phase == dead:
	case l.o.AckDelay <= 0 || int(c.unacked) >= l.o.AckEvery:
		l.acknowledge(c)
	case !c.ackQueued:
		c.ackQueued = true
		l.acks.push(ackTime{c, l.now + int64(l.o.AckDelay)})
	}
}

// cut handles the whole packets at the front of b and returns what is left.
func (l *loop) cut(c *conn, b []byte) []byte {
	for c.phase != dead && len(b) > 0 {
		n := 0
		switch {
		case c.phase == upgrading:
			n = l.upgraded(c, b)
		case l.repeats != nil:
			n = l.repeated(c, b)
		default:
			n = l.one(c, b)
		}
		if n == 0 {
			return b
		}
		b = b[n:]
	}
	return b
}

// upgraded takes the answer of the upgrade, if it is at the front of b, and returns its length.
func (l *loop) upgraded(c *conn, b []byte) int {
	n, err := codec.ReadHandshakeReply(b, l.wsKey(c))
	if err != nil {
		l.drop(c, err.Error())
		return 0
	}
	if n > 0 {
		l.login(c)
	}
	return n
}

// one handles the packet at the front of b and returns its length, 0 while it is incomplete.
func (l *loop) one(c *conn, b []byte) int {
	if c.transport == codec.TCP {
		if len(b) < 4 {
			return 0
		}
		n := int(binary.BigEndian.Uint32(b))
		if n > maxPacket {
			l.drop(c, fmt.Sprintf("a packet of %d bytes", n))
			return 0
		}
		if len(b) < 4+n {
			return 0
		}
		l.packet(c, b[4:4+n])
		return 4 + n
	}
	msg, n, _, err := c.ws.Next(b)
	switch {
	case err != nil:
		l.drop(c, "framing: "+err.Error())
		return 0
	case n > 0:
		c.midway = msg.Op == 0
		l.frame(c, msg)
	}
	return n
}

// repeated is one for a large group, most of whose frames are known already.
func (l *loop) repeated(c *conn, b []byte) int {
	if k := l.repeats.next(c, b); k != nil && c.phase == live && !c.midway {
		l.stats.packetsIn++
		l.takeLarge(c, k.p)
		return len(k.frame)
	}
	seq, midway := c.seq, c.midway
	n := l.one(c, b)
	if c.seq != seq && !midway {
		l.repeats.learn(c, b[:n], l.taken)
	}
	return n
}

// frame handles one WebSocket frame.
func (l *loop) frame(c *conn, msg codec.Message) {
	switch msg.Op {
	case codec.OpText:
		l.packet(c, msg.Payload)
	case codec.OpPing:
		var mask [4]byte
		binary.LittleEndian.PutUint32(mask[:], rand.Uint32())
		l.append(c, codec.AppendMaskedFrame(l.scratch[:0], codec.OpPong, msg.Payload, mask))
	case codec.OpClose:
		code, _ := codec.CloseCode(msg.Payload)
		l.drop(c, fmt.Sprintf("closed by the server with %d", code))
	}
}

// packet handles one packet.
func (l *loop) packet(c *conn, b []byte) {
	l.stats.packetsIn++
	switch cmd := commandOf(b); cmd {
	case codec.PrivateMessage, codec.GroupMessage, codec.SystemMessage:
		p, ok := readPush(b)
		if !ok {
			l.fail("unreadable", "user %s got %.200q", l.o.user(c.number), b)
			return
		}
		l.take(c, p)
	case codec.SendAck:
		if m, ok := findMark(b); ok && m.run == l.o.run {
			l.scene.accepted(l, c, m)
		}
	case codec.HeartBeat:
		l.stats.heartBeats++
		l.scene.beat(l, c, b)
	case codec.Lag:
		l.stats.lags++
	case codec.Typing:
		l.stats.typings++
	case codec.Receipt:
	default:
		l.rare(c, b)
	}
}

// rare handles the packets whose cost does not matter.
func (l *loop) rare(c *conn, b []byte) {
	p, problem := codec.Parse(b)
	if !problem.OK() {
		l.fail("unreadable", "user %s got %.200q", l.o.user(c.number), b)
		return
	}
	switch p.Cmd {
	case codec.Login:
		if c.phase == loggingIn {
			l.loggedIn(c, p.Data)
		}
	case codec.Pull:
		l.pulled(c, p.Data)
	case codec.History:
		l.scene.answered(l, c, p.ID, p.Data)
	case codec.Error:
		var d struct{ Name, Message string }
		_ = json.Unmarshal(p.Data, &d)
		l.fail("error "+d.Name, "user %s, packet %q: %s", l.o.user(c.number), p.ID, d.Message)
	case codec.ForceLogout, codec.GoAway:
		l.fail("sent away", "user %s got %.200q", l.o.user(c.number), b)
	}
}

// take applies the client's rule.
func (l *loop) take(c *conn, p push) {
	if p.inbox == 0 {
		if p.seq > 0 {
			l.takeLarge(c, p)
		}
		return
	}
	switch {
	case p.inbox == c.inbox+1:
		c.inbox = p.inbox
		c.ackDue = true
		c.unacked++
		l.scene.message(l, c, p)
	case p.inbox <= c.inbox:
		l.fail("inbox repeated", "user %s got inbox %d after %d on one connection", l.o.user(c.number), p.inbox, c.inbox)
	case !c.pulling:
		// The client's rule fills the gap, but a server that leaves one on a connection has broken the order.
		l.fail("inbox not contiguous", "user %s got inbox %d after %d on one connection", l.o.user(c.number), p.inbox, c.inbox)
		l.stats.gaps++
		l.pull(c)
	}
}

// takeLarge is take for a large group, which has no inbox number. Its first message begins the count; after a reconnect the
// server goes on behind what was acknowledged, so that some may be known already.
func (l *loop) takeLarge(c *conn, p push) {
	known := c.seq != 0 && p.seq <= c.seq && (c.first || c.again > 0)
	switch {
	case known && !c.first && p.seq != c.again+1, !known && c.seq != 0 && p.seq != c.seq+1:
		l.fail("seq not contiguous", "user %s got seq %d of the group after %d", l.o.user(c.number), p.seq, max(c.seq, c.again))
	}
	c.first, c.again = false, 0
	if known {
		if p.seq < c.seq {
			c.again = p.seq
		}
		return
	}
	c.seq, c.largeDue = p.seq, true
	l.taken = p
	if p.seq%ackLargeEvery == 0 {
		c.ackDue = true
	}
	l.scene.message(l, c, p)
}

func (l *loop) pull(c *conn) {
	if c.pulling {
		return
	}
	c.pulling = true
	b := strconv.AppendUint(append(l.scratch[:0], `{"cmd":8,"id":"pull","data":{"limit":500,"after":`...), c.inbox, 10)
	l.send(c, append(b, "}}"...))
}

// pulled takes the answer of PULL.
func (l *loop) pulled(c *conn, data []byte) {
	var d struct {
		Entries []json.RawMessage
		First   uint64
		More    bool
	}
	if err := json.Unmarshal(data, &d); err != nil {
		l.fail("unreadable", "PULL answer of user %s: %v", l.o.user(c.number), err)
		return
	}
	if d.First > c.inbox+1 {
		c.inbox = d.First - 1
	}
	for _, e := range d.Entries {
		if p, ok := readPush(e); ok && p.inbox == c.inbox+1 {
			l.take(c, p)
		}
	}
	c.pulling = false
	if d.More {
		l.pull(c)
	}
}
