package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// maxPush bounds a received packet in bytes. A pushed message may be longer than the server's max-frame-size and an
// answer of entries is cut at about 256 KiB plus one entry; the rest is room for servers with larger frames.
const maxPush = 16 << 20

// ConnOptions are the settings of one connection. The zero value is ready.
type ConnOptions struct {
	Header http.Header // added to the WebSocket upgrade: Authorization, Origin, Sec-WebSocket-Protocol …
	TLS    *tls.Config // for wss://; nil = the system's roots and the address's host
	// Dial opens the socket; nil = net.Dialer.
	Dial func(ctx context.Context, network, hostPort string) (net.Conn, error)
	// MaxPacket is the largest packet that is received, in bytes. 0 = 16 MiB.
	MaxPacket int
}

// Conn is one connection, nothing but packets: no login, no heartbeat, no rule. The sending methods are safe for
// concurrent use; the receiving methods must be called by one goroutine at a time. A context that ends makes a call
// return its error; a receiving call may be repeated after that, a sending one may have written a part, so that the
// connection is of no more use.
type Conn struct {
	nc        net.Conn
	transport codec.Transport

	write struct {
		sync.Mutex
		buf       []byte // the frame being written; kept for the next one
		sentClose bool
	}

	// owned by the receiving goroutine
	framer codec.Framer
	proto  string // the selected sub-protocol
	buf    []byte // received bytes; r..w are not read yet
	r, w   int
	err    error // why nothing more can be received
}

// DialConn opens a connection to addr (ws://host:port/im, wss://… or tcp://host:port) and, for WebSocket, upgrades it.
// A refused upgrade wraps a *codec.HandshakeError with the HTTP status.
func DialConn(ctx context.Context, addr string, o ConnOptions) (*Conn, error) {
	t, err := parseAddr(addr)
	if err != nil {
		return nil, err
	}
	dial := o.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	nc, err := dial(ctx, "tcp", t.hostPort)
	if err != nil {
		return nil, fmt.Errorf("client: dial: %w", err)
	}
	c, err := newConn(ctx, nc, t, o)
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return c, nil
}

// newConn makes a Conn of an open socket. The caller closes nc on error.
func newConn(ctx context.Context, nc net.Conn, t target, o ConnOptions) (*Conn, error) {
	if t.secure {
		cfg := o.TLS.Clone()
		if cfg == nil {
			cfg = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if cfg.ServerName == "" {
			cfg.ServerName, _, _ = net.SplitHostPort(t.hostPort)
		}
		tc := tls.Client(nc, cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("client: TLS: %w", err)
		}
		nc = tc
	}
	limit := o.MaxPacket
	if limit <= 0 {
		limit = maxPush
	}
	c := &Conn{nc: nc, transport: t.transport}
	if t.transport == codec.TCP {
		c.framer = &codec.TCPFramer{Max: limit}
		return c, nil
	}
	c.framer = &codec.WSFramer{Max: limit, Client: true}
	if err := c.upgrade(ctx, t, o.Header); err != nil {
		return nil, err
	}
	return c, nil
}

// Transport is the framing of the connection.
func (c *Conn) Transport() codec.Transport { return c.transport }

// Subprotocol is the WebSocket sub-protocol that the server selected; empty = none.
func (c *Conn) Subprotocol() string { return c.proto }

// LocalAddr is the socket's own address, such as 127.0.0.1:51234.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// NetConn is the socket below, for tests that half-close it, set its buffers or stop reading. Bytes that were already
// received stay with the Conn.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Send writes one packet, in one write. It does not look at it: malformed JSON goes out as it is.
func (c *Conn) Send(ctx context.Context, packet []byte) error {
	return c.SendFrame(ctx, codec.OpText, packet)
}

// SendFrame writes one frame. On TCP op is not looked at.
func (c *Conn) SendFrame(ctx context.Context, op codec.Op, payload []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	c.write.buf = appendFrame(c.write.buf[:0], c.transport, op, payload)
	return c.writeLocked(ctx, c.write.buf)
}

// SendBytes writes raw bytes below the framing: half frames, wrong headers, several frames at once.
func (c *Conn) SendBytes(ctx context.Context, p []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	return c.writeLocked(ctx, p)
}

func (c *Conn) writeLocked(ctx context.Context, p []byte) error {
	release := interruptible(ctx, c.nc.SetWriteDeadline)
	_, err := c.nc.Write(p)
	if ctxErr := release(); err != nil && ctxErr != nil {
		err = ctxErr
	}
	if err != nil {
		return fmt.Errorf("client: send: %w", err)
	}
	return nil
}

// Receive returns the next packet; the bytes are the caller's. WebSocket pings are answered and pongs passed over. The
// end of the connection is a *CloseError when it was orderly, and a close frame has then been echoed.
func (c *Conn) Receive(ctx context.Context) ([]byte, error) {
	for {
		msg, err := c.next(ctx)
		if err != nil {
			return nil, err
		}
		switch msg.Op {
		case codec.OpPing:
			if err := c.SendFrame(ctx, codec.OpPong, msg.Payload); err != nil {
				return nil, err
			}
		case codec.OpPong:
		case codec.OpClose:
			c.err = c.closedBy(ctx, msg.Payload)
			return nil, c.err
		default:
			return append([]byte(nil), msg.Payload...), nil
		}
	}
}

// ReceiveFrame returns the next message or control frame as it is and answers nothing. The payload is valid until the
// next receiving call.
func (c *Conn) ReceiveFrame(ctx context.Context) (codec.Message, error) { return c.next(ctx) }

// ReceivePacket is Receive and the envelope taken apart.
func (c *Conn) ReceivePacket(ctx context.Context) (Packet, error) {
	raw, err := c.Receive(ctx)
	if err != nil {
		return Packet{}, err
	}
	return parsePacket(raw)
}

// next cuts the next message from what was received and reads more as needed.
func (c *Conn) next(ctx context.Context) (codec.Message, error) {
	if c.err != nil {
		return codec.Message{}, c.err
	}
	for {
		msg, n, need, err := c.framer.Next(c.buf[c.r:c.w])
		c.r += n
		switch {
		case err != nil:
			c.err = c.violation(ctx, err)
			return codec.Message{}, c.err
		case msg.Op != 0:
			return msg, nil
		case n > 0:
			continue
		}
		if err := c.fill(ctx, need); err != nil {
			return codec.Message{}, err
		}
	}
}

// fill reads at least one byte behind the unread ones and makes room for need of them.
func (c *Conn) fill(ctx context.Context, need int) error {
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	if len(c.buf)-c.r < max(need, c.w-c.r+1) {
		if size := max(need, 2*(c.w-c.r), 4<<10); size > len(c.buf) {
			grown := make([]byte, size)
			copy(grown, c.buf[c.r:c.w])
			c.buf, c.w, c.r = grown, c.w-c.r, 0
		} else {
			c.w = copy(c.buf, c.buf[c.r:c.w])
			c.r = 0
		}
	}
	release := interruptible(ctx, c.nc.SetReadDeadline)
	n, err := c.nc.Read(c.buf[c.w:])
	ctxErr := release()
	c.w += n
	switch {
	case n > 0 || err == nil:
		return nil
	case ctxErr != nil:
		return fmt.Errorf("client: receive: %w", ctxErr)
	case errors.Is(err, io.EOF):
		ended := &CloseError{}
		if c.transport == codec.WebSocket {
			ended.Code = 1006
		}
		c.err = ended
	default:
		c.err = fmt.Errorf("client: receive: %w", err)
	}
	return c.err
}

// violation closes a WebSocket whose server broke the framing.
func (c *Conn) violation(ctx context.Context, err error) error {
	var frame *codec.FrameError
	if errors.As(err, &frame) && c.transport == codec.WebSocket {
		_ = c.sendClose(ctx, frame.Close, frame.Reason)
	}
	return fmt.Errorf("client: receive: %w", err)
}

// closedBy echoes a received close frame and makes its error.
func (c *Conn) closedBy(ctx context.Context, payload []byte) error {
	code, err := codec.CloseCode(payload)
	if err != nil {
		_ = c.sendClose(ctx, 1002, "")
		return fmt.Errorf("client: receive: %w", err)
	}
	ended := &CloseError{Code: code}
	if len(payload) > 2 {
		ended.Reason = string(payload[2:])
	}
	_ = c.sendClose(ctx, code, "")
	return ended
}

// sendClose writes one close frame in the life of the connection. Code 1005 makes an empty one.
func (c *Conn) sendClose(ctx context.Context, code uint16, reason string) error {
	c.write.Lock()
	defer c.write.Unlock()
	if c.write.sentClose {
		return nil
	}
	c.write.sentClose = true
	var payload []byte
	if code != 1005 {
		payload = append([]byte{byte(code >> 8), byte(code)}, reason...)
	}
	c.write.buf = appendFrame(c.write.buf[:0], c.transport, codec.OpClose, payload)
	return c.writeLocked(ctx, c.write.buf)
}

// Shutdown says that nothing more will be sent: a close frame with code on WebSocket (1005 = without a code), the end
// of the stream on TCP. What the server still sends can be received, up to its *CloseError.
func (c *Conn) Shutdown(ctx context.Context, code uint16, reason string) error {
	if c.transport == codec.WebSocket {
		return c.sendClose(ctx, code, reason)
	}
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.nc.Close()
}

// Close closes the socket at once, without a close frame. It makes calls in progress fail.
func (c *Conn) Close() error { return c.nc.Close() }

// appendFrame appends one frame as a client sends it.
func appendFrame(dst []byte, t codec.Transport, op codec.Op, payload []byte) []byte {
	if t == codec.WebSocket {
		return codec.AppendMaskedFrame(dst, op, payload, newMask())
	}
	dst = codec.AppendHeader(dst, codec.TCP, op, len(payload))
	return append(dst, payload...)
}

// interruptible makes the I/O that setDeadline governs end with ctx. The caller runs release after the I/O; it lifts
// the deadline and returns the context's error if that was what ended the I/O.
func interruptible(ctx context.Context, setDeadline func(time.Time) error) (release func() error) {
	if ctx.Done() == nil {
		return func() error { return nil }
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = setDeadline(time.Unix(1, 0))
		close(fired)
	})
	return func() error {
		if stop() {
			return nil
		}
		<-fired
		_ = setDeadline(time.Time{})
		return ctx.Err()
	}
}
