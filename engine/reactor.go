package engine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// reactor is the engine as gnet's handler. gnet runs level-triggered and without listeners ("client"), one event loop
// per Loop.
type reactor struct {
	gnet.BuiltinEventEngine
}

// wakeup is what gnet keeps for a loop's wake-up socket.
type wakeup struct{ l *Loop }

// OnOpen implements gnet.EventHandler.
func (*reactor) OnOpen(gc gnet.Conn) ([]byte, gnet.Action) {
	switch x := gc.Context().(type) {
	case *wakeup:
		x.l.el = gc.EventLoop()
	case *Conn:
		l := x.loop
		if l.begin() {
			defer l.end()
		}
		x.socketOpen(gc)
		l.settle()
	}
	return nil, gnet.None
}

// OnTraffic implements gnet.EventHandler.
func (*reactor) OnTraffic(gc gnet.Conn) gnet.Action {
	// All of it is taken, so gnet keeps nothing and the bytes are those of its read buffer, not a copy.
	data, err := gc.Next(-1)
	if err != nil {
		return gnet.Close
	}
	switch x := gc.Context().(type) {
	case *wakeup:
		if x.l.begin() {
			defer x.l.end()
		}
		x.l.turn()
	case *Conn:
		l := x.loop
		if l.begin() {
			defer l.end()
		}
		l.stats.bytesIn.Add(int64(len(data)))
		x.receive(data)
		l.settle()
	}
	return gnet.None
}

// OnClose implements gnet.EventHandler.
func (*reactor) OnClose(gc gnet.Conn, err error) gnet.Action {
	if c, ok := gc.Context().(*Conn); ok {
		if c.loop.begin() {
			defer c.loop.end()
		}
		c.socketClosed(err)
		c.loop.settle()
	}
	return gnet.None
}

// socketOpen takes a socket into the loop.
func (c *Conn) socketOpen(gc gnet.Conn) {
	l := c.loop
	l.slim.apply(gc)
	c.gc, c.fd = gc, int32(gc.Fd())
	c.slot = l.table.add(c)
	l.stats.connections[c.Transport()].Add(1)
	if c.state == stateUpgrade {
		c.setDue(l.engine.o.HandshakeTimeout.Milliseconds())
		return
	}
	c.opened(nil)
}

// startLoops starts gnet and learns its event loops by one wake-up socket in each.
func (e *Engine) startLoops() error {
	client, err := gnet.NewClient(&reactor{},
		gnet.WithNumEventLoop(e.o.Loops),
		gnet.WithTCPNoDelay(gnet.TCPDelay), // means: leave it; accept has set it
		gnet.WithLogger(gnetLog{e}),
	)
	if err != nil {
		return err
	}
	e.client = client
	if err := client.Start(); err != nil {
		return err
	}
	for _, l := range e.loops {
		if err = e.startLoop(l); err != nil {
			break
		}
	}
	if err == nil {
		e.watcher, err = startWatcher(e.loops)
	}
	if err != nil {
		e.stopLoops()
	}
	return err
}

// startLoop opens l's wake-up socket. gnet gives it to the event loop with the fewest connections, which is one that has
// none yet.
func (e *Engine) startLoop(l *Loop) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("wake-up socket: %w", err)
	}
	l.wakeFD = pair[0]
	f := os.NewFile(uintptr(pair[1]), "wake-up")
	conn, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("wake-up socket: %w", err)
	}
	gc, err := e.client.EnrollContext(conn, &wakeup{l})
	if err != nil {
		return fmt.Errorf("wake-up socket: %w", err)
	}
	for _, other := range e.loops[:l.Index] {
		if other.el == l.el {
			return errors.New("gnet gave one event loop twice")
		}
	}
	if l.slim, err = slimOf(gc); err != nil {
		return err
	}
	l.epoll, err = epollOf(l.el)
	return err
}

// epollOf reads the descriptor of an event loop's epoll, for Conn.interest. gnet keeps it in unexported fields, which
// reflection may read; should another version of gnet name them differently, the engine does not start.
func epollOf(el gnet.EventLoop) (int, error) {
	v := reflect.ValueOf(el)
	for _, name := range []string{"poller", "fd"} {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			break
		}
		v = v.FieldByName(name)
	}
	if !v.IsValid() || v.Kind() != reflect.Int {
		return 0, errors.New("this version of gnet does not show its epoll descriptor")
	}
	return int(v.Int()), nil
}

// stopLoops ends gnet and what was opened beside it.
func (e *Engine) stopLoops() {
	err := e.client.Stop()
	for _, l := range e.loops {
		if l.wakeFD >= 0 {
			err = errors.Join(err, unix.Close(l.wakeFD))
		}
	}
	if e.watcher != nil {
		err = errors.Join(err, e.watcher.close())
	}
	if err != nil {
		e.logf("engine: stop: %v", err)
	}
}

// gnetLog is what gnet logs, from warnings up. gnet's logger is global to the process: with two engines the later one's
// hears a part of what the other's loops say.
type gnetLog struct{ e *Engine }

func (gnetLog) Debugf(string, ...any)               {}
func (gnetLog) Infof(string, ...any)                {}
func (g gnetLog) Warnf(format string, args ...any)  { g.e.logf("gnet: "+format, args...) }
func (g gnetLog) Errorf(format string, args ...any) { g.e.logf("gnet: "+format, args...) }
func (g gnetLog) Fatalf(format string, args ...any) { g.e.logf("gnet: "+format, args...) }

var _ gnet.EventHandler = (*reactor)(nil)
