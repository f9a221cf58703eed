package session

import (
	"context"
	"sync"
	"time"
)

const (
	// requestTimeout bounds what one packet may wait for (store, keys, hooks): longer than any healthy part takes, shorter than
	// a client waits.
	requestTimeout = 10 * time.Second
	// sharedFor is how long the requests that come share one context, and how much later than requestTimeout some of them end.
	sharedFor = time.Second
)

// deadlines gives requests contexts that end requestTimeout to requestTimeout + sharedFor after they came. A context with a timer for each would
// be 270 bytes of garbage a login, some of it in the size class of sessions, and leave gaps between them that stay resident.
type deadlines struct {
	mu   sync.Mutex
	ctx  context.Context
	made time.Time
}

// context is one for a request that comes now. It is shared, so nobody ends it early; safe for concurrent use.
func (d *deadlines) context() context.Context {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil || now.Sub(d.made) >= sharedFor {
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout+sharedFor)
		context.AfterFunc(ctx, cancel)
		d.ctx, d.made = ctx, now
	}
	return d.ctx
}

// call is a context of its own for a call of an extension, which may count on it to end with the call.
func (d *deadlines) call() (context.Context, context.CancelFunc) {
	return context.WithCancel(d.context())
}
