package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// Client is a user's session that outlives its connections. All methods are safe for concurrent use.
//
// Goroutines: run owns the connection's life and reads, each connection has a writer and a keeper (link.go), and
// deliver calls the Handler. All state is guarded by mu, which is never held across I/O or a callback.
type Client struct {
	opt    Options // static
	prefix string  // of ids: random, so that two clients never use the same
	ctx    context.Context
	cancel context.CancelFunc
	ready  chan struct{} // closed at the first login
	done   chan struct{} // closed when everything has ended

	// owned by run
	addr      int    // next of opt.Addrs
	refused   string // the token that was refused last, "" = none; refusal is the server's reason
	refusal   string
	attempt   int // failures in a row
	wasReady  bool
	delivered chan struct{} // closed when deliver has returned

	tokens   sync.Mutex // serialises the token source; never taken with another lock
	flushing sync.Mutex // serialises PositionStore.Save; taken before mu

	mu      sync.Mutex
	link    *link         // nil while not logged in
	up      chan struct{} // closed while logged in
	session *Session
	err     error // why the client has ended
	closing bool  // Close was called
	leaving bool  // Logout was called
	counter uint64
	token   string // of the present session

	events        events
	inbox         inbox
	groups        map[string]*group   // large ones, by conversation
	starvedGroups map[string]struct{} // whose message found no room in the queue
	outbox        outbox
	calls         map[string]func(Packet, error) // by id: what takes the answer, without mu
	watched       map[string]struct{}            // users of PRESENCE, watched again after a reconnect
}

// Dial connects and logs in. It returns after the first LOGIN answer; from then on the client keeps itself connected
// until Close, or until the server ends the session for good. ctx bounds the first login only.
//
// A refusal is an *EndError. Other failures of the first attempt are returned too, unless Options.RetryDial is set.
func Dial(ctx context.Context, o Options) (*Client, error) {
	c, err := begin(o)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.ready:
		return c, nil
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		c.cancel()
		<-c.done
		return nil, fmt.Errorf("client: dial: %w", ctx.Err())
	}
}

// begin is Dial without waiting for the first login.
func begin(o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	position, err := o.Positions.Load()
	if err != nil {
		return nil, err
	}
	c := &Client{opt: o, prefix: newPrefix(), ready: make(chan struct{}), done: make(chan struct{}),
		delivered: make(chan struct{}), up: make(chan struct{}), groups: map[string]*group{},
		calls: map[string]func(Packet, error){}, watched: map[string]struct{}{}}
	c.events.wake = make(chan struct{}, 1)
	c.outbox.init(o.MaxOutbox)
	c.restore(position)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	go c.run()
	go c.deliver()
	return c, nil
}

// newPrefix is 80 random bits in 16 digits of base 32.
func newPrefix() string {
	return fmt.Sprintf("%013s%03s", strconv.FormatUint(rand.Uint64(), 32), strconv.FormatUint(rand.Uint64N(1<<15), 32))
}

// NewID returns an id that no other call and no other client returns.
func (c *Client) NewID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.newID()
}

func (c *Client) newID() string {
	c.counter++
	return c.prefix + "-" + strconv.FormatUint(c.counter, 36)
}

// Session is what the newest LOGIN answered.
func (c *Client) Session() Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil {
		return Session{}
	}
	return *c.session
}

// Done is closed when the client has ended: after Close, Logout or a refusal.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the client has ended, nil as long as it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the client: the callback in progress is waited for, what was handled is acknowledged, and the connection
// is closed in order. Events that still wait for the Handler are not called: they will be pushed to the next session.
// Sends without an answer end with ErrClosed. It must not be called by a callback.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closing = true
	if c.err == nil {
		c.err = ErrClosed
	}
	c.mu.Unlock()
	c.events.signal()
	<-c.delivered
	c.flush()
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil {
		l.shutdown()
	}
	c.cancel()
	<-c.done
	return nil
}

// Logout ends the session on the server, waits for its answer and closes the client.
func (c *Client) Logout(ctx context.Context) error {
	c.flush()
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
	_, err := c.call(ctx, codec.Logout, []byte("{}"), false)
	var ended *CloseError
	if errors.As(err, &ended) || errors.Is(err, ErrDisconnected) {
		err = nil // the close overtook the answer
	}
	return errors.Join(err, c.Close())
}

// run connects, serves and connects again until the client ends.
func (c *Client) run() {
	defer close(c.done)
	for {
		l, err := c.connect()
		if err == nil {
			err = c.serve(l)
		}
		wait, final := c.judge(err)
		if final != nil {
			c.finish(final)
			return
		}
		c.addr++
		c.push(event{run: func(h *Handler) {
			if h.OnState != nil {
				h.OnState(State{Err: err, Retry: wait})
			}
		}})
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
		}
	}
}

// judge decides after the end of a connection or of an attempt: how long to wait, or the error that ends the client.
func (c *Client) judge(err error) (wait time.Duration, final error) {
	c.mu.Lock()
	ended, leaving := c.err, c.leaving
	c.mu.Unlock()
	if ended != nil {
		return 0, ended
	}
	if leaving || c.ctx.Err() != nil {
		return 0, ErrClosed
	}
	var end *EndError
	var away *goAwayError
	var refusal *ServerError
	switch {
	case errors.As(err, &end):
		return 0, err
	case errors.Is(err, errTokenRefused):
		return 0, nil // once, with a fresh token
	case !c.wasReady && !c.opt.RetryDial:
		return 0, err
	case errors.As(err, &away):
		c.attempt = 0
		return max(0, time.Until(away.until)), nil
	}
	wait = c.opt.BackoffMax
	if c.attempt < 30 {
		wait = min(wait, c.opt.BackoffMin<<c.attempt)
	}
	c.attempt++
	wait = wait/2 + rand.N(wait/2+1)
	if errors.As(err, &refusal) && refusal.RetryAfter > 0 {
		wait = refusal.RetryAfter + rand.N(c.opt.BackoffMin)
	}
	return wait, nil
}

// finish ends the client with err and everything that waits for it.
func (c *Client) finish(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	final := c.err
	sends := c.outbox.takeAll()
	calls := c.calls
	c.calls = map[string]func(Packet, error){}
	c.mu.Unlock()
	for _, s := range sends {
		s.finish(SendAck{}, final)
	}
	for _, reply := range calls {
		reply(Packet{}, final)
	}
	c.cancel()
	c.events.signal()
	<-c.delivered
	c.flush()
	if h := c.opt.Handler.OnState; h != nil {
		h(State{Err: final, Final: true})
	}
}

// report gives an error to the Handler.
func (c *Client) report(err error) {
	c.push(event{run: func(h *Handler) {
		if h.OnError != nil {
			h.OnError(err)
		}
	}})
}
