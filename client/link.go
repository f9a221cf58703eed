package client

import (
	"context"
	"sync"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

const (
	// defaultHeartBeat is used when neither side names one.
	defaultHeartBeat = 30 * time.Second
	// silenceFactor × heartbeat without any packet means that the connection is dead: three answers are missing.
	silenceFactor = 3
	// lastWords is how long a closing connection waits for the server's end.
	lastWords = time.Second
	// refreshAhead before the expiry the token is renewed, or at 4/5 of its life if that is later.
	refreshAhead = 5 * time.Minute
)

// link is one logged-in connection. Its writer gathers what is put while it writes and sends that with one call.
type link struct {
	conn      *Conn
	heartBeat time.Duration
	since     time.Time
	skew      time.Duration   // local clock − server clock
	ctx       context.Context // ends with the connection
	cancel    context.CancelFunc
	kick      chan struct{}  // capacity 1
	away      chan time.Time // capacity 1: when to leave after GOAWAY
	tasks     sync.WaitGroup // writer and keeper

	end error // owned by the reader: why the server said that it ends

	mu      sync.Mutex
	pending []byte // frames
	drained *sync.Cond
	writing bool
	broken  bool
}

func newLink(ctx context.Context, conn *Conn, heartBeat time.Duration, s *Session) *link {
	now := time.Now()
	l := &link{conn: conn, heartBeat: heartBeat, since: now, skew: now.Sub(s.ServerTime),
		kick: make(chan struct{}, 1), away: make(chan time.Time, 1)}
	l.ctx, l.cancel = context.WithCancel(ctx)
	if l.heartBeat <= 0 {
		l.heartBeat = s.HeartBeat
	}
	if l.heartBeat <= 0 {
		l.heartBeat = defaultHeartBeat
	}
	l.drained = sync.NewCond(&l.mu)
	return l
}

// start runs the writer and the keeper until stop.
func (l *link) start(c *Client) {
	l.tasks.Go(l.write)
	l.tasks.Go(func() { l.keep(c) })
}

// stop closes the connection and waits for the link's goroutines.
func (l *link) stop() {
	l.cancel()
	_ = l.conn.Close()
	l.tasks.Wait()
}

// put queues one packet. What is put by one goroutine is sent in that order; on a broken link it is dropped.
func (l *link) put(packet []byte) {
	l.mu.Lock()
	if !l.broken {
		l.pending = appendFrame(l.pending, l.conn.transport, codec.OpText, packet)
	}
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

func (l *link) write() {
	var spare []byte
	for {
		select {
		case <-l.kick:
		case <-l.ctx.Done():
			l.finishWrites()
			return
		}
		l.mu.Lock()
		out := l.pending
		l.pending, l.writing = spare[:0], true
		l.mu.Unlock()
		var err error
		if len(out) > 0 {
			err = l.conn.SendBytes(context.Background(), out)
		}
		spare = out
		if cap(spare) > 1<<20 { // do not keep what a burst needed
			spare = nil
		}
		l.mu.Lock()
		l.writing = false
		l.drained.Broadcast()
		l.mu.Unlock()
		if err != nil {
			l.finishWrites()
			_ = l.conn.Close() // the reader finds out
			return
		}
	}
}

func (l *link) finishWrites() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken, l.pending = true, nil
	l.drained.Broadcast()
}

// shutdown sends what is queued and the end of the stream; the reader goes on to the server's end, for lastWords at most.
func (l *link) shutdown() {
	guard := time.AfterFunc(lastWords, func() { _ = l.conn.Close() })
	l.mu.Lock()
	for !l.broken && (l.writing || len(l.pending) > 0) {
		l.drained.Wait()
	}
	l.mu.Unlock()
	if err := l.conn.Shutdown(context.Background(), 1000, ""); err != nil {
		_ = l.conn.Close()
	}
	<-l.ctx.Done()
	guard.Stop()
}

// keep sends heartbeats, renews the token and leaves after GOAWAY.
func (l *link) keep(c *Client) {
	beat := time.NewTicker(l.heartBeat)
	defer beat.Stop()
	renew := time.NewTimer(l.untilRenewal(c))
	defer renew.Stop()
	leave := time.NewTimer(1 << 62)
	defer leave.Stop()
	for {
		select {
		case <-l.ctx.Done():
			_ = l.conn.Close()
			return
		case <-beat.C:
			l.put(codec.AppendPacket(nil, codec.HeartBeat, nil, []byte("{}")))
		case <-renew.C:
			if err := c.renew(l.ctx, false); err != nil && l.ctx.Err() == nil {
				c.report(err)
			}
			renew.Reset(l.untilRenewal(c))
		case at := <-l.away:
			leave.Reset(time.Until(at))
		case <-leave.C:
			_ = l.conn.Close()
		}
	}
}

// untilRenewal is when to renew the token: shortly before its expiry, then ever more often.
func (l *link) untilRenewal(c *Client) time.Duration {
	left := time.Until(c.Session().ExpiresAt.Add(l.skew))
	wait := max(left-refreshAhead, left*4/5, time.Second)
	return min(wait, 24*time.Hour) // a timer for years would overflow
}
