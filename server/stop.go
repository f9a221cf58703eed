package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// background is what the server runs beside the loops; stop ends it and waits.
type background struct {
	quit   chan struct{}
	wg     sync.WaitGroup
	ready  bool
	onceUp []func() // run once the start has succeeded: nothing is logged before
}

// later runs f when the start has succeeded, or at once after that.
func (s *Server) later(f func()) {
	if s.ready {
		f()
		return
	}
	s.onceUp = append(s.onceUp, f)
}

// announce logs what was held back during the start.
func (s *Server) announce() {
	s.ready = true
	for _, f := range s.onceUp {
		f()
	}
	s.onceUp = nil
}

// expireInterval is how often retention looks for buckets that have gone out of date.
const expireInterval = 5 * time.Minute

// run starts the committer and the clockwork.
func (s *Server) run() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stopHub, s.hubDone = cancel, make(chan error, 1)
	go func() { s.hubDone <- s.hub.Run(ctx) }()
	if s.pushes != nil {
		s.wg.Go(func() { s.runPushes(ctx) })
	}
	s.quit = make(chan struct{})
	if s.redis != nil {
		s.every(time.Second, s.share)
	}
	s.every(expireInterval, s.expire)
	s.every(trimInterval, (&trimmer{}).look)
}

// every calls f every d until the stop.
func (s *Server) every(d time.Duration, f func()) {
	s.wg.Go(func() {
		t := time.NewTicker(d)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				f()
			case <-s.quit:
				return
			}
		}
	})
}

// share looks who of the live nodes can consume now.
func (s *Server) share() {
	if nodes, err := s.cluster.Nodes(context.Background()); err == nil {
		s.partitions.nodesChanged(nodes)
	}
}

func (s *Server) expire() {
	n, err := s.store.Expire(context.Background(), time.Now())
	switch {
	case err != nil:
		s.log.Warn("retention failed", "error", err)
	case n > 0:
		s.log.Info("retention dropped old days", "buckets", n)
	}
}

// goAwayDelay is what clients are told to wait before they come back, at least: long enough for a restart.
const goAwayDelay = time.Second

// Stop ends the server gracefully: /readyz turns 503, nothing new is accepted, clients are told to come back, what was
// accepted is kept and answered, and everything ends; at the latest when ctx does, and then with an error that says what was cut short.
// It does nothing before Start and after a Stop.
func (s *Server) Stop(ctx context.Context) error {
	if s.hubDone == nil || s.draining.Swap(true) {
		return nil
	}
	s.log.Info("stopping", "sessions", s.sessions.Stats().Sessions)
	s.engine.StopAccepting()
	s.sessions.GoAway(ctx, "the server restarts", goAwayDelay)
	var errs []error
	s.stopHub() // applies what was accepted, and answers it
	select {
	case err := <-s.hubDone:
		errs = append(errs, err)
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("shutdown.timeout: accepted messages still wait: %w", ctx.Err()))
	}
	s.sessions.CloseAll(ctx)
	if err := s.engine.Stop(ctx); err != nil {
		errs = append(errs, fmt.Errorf("shutdown.timeout: connections still open: %w", err))
	}
	errs = append(errs, s.close(ctx))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.log.Info("stopped")
	return nil
}

// close ends what is left after the loops: the admin port, the clockwork, the pool and at last the store.
func (s *Server) close(ctx context.Context) error {
	if s.console != nil {
		s.console.Close() // its streams have no end of their own
	}
	if s.admin != nil {
		if s.admin.Shutdown(ctx) != nil {
			_ = s.admin.Close() // cuts the requests that hang
		}
	}
	if s.stopKeys != nil {
		s.stopKeys()
	}
	if s.quit != nil {
		close(s.quit)
	}
	err := s.waitForWork(ctx)
	if s.hubDone == nil && s.redis != nil {
		s.redis.Close() // it was never run
	}
	if s.events != nil {
		err = errors.Join(err, s.events.Close())
	}
	if s.mq != nil {
		err = errors.Join(err, s.mq.Close())
	}
	if s.store != nil {
		if e := s.store.Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("close the store: %w", e))
		}
	}
	return err
}

// waitForWork waits for the clockwork and the pool. A hook that hangs must not keep the store open for ever.
func (s *Server) waitForWork(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.wg.Wait()
		if s.hub != nil {
			s.hub.Close()
		}
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shutdown.timeout: requests still run: %w", ctx.Err())
	}
}

// abort closes what a failed Start had opened.
func (s *Server) abort() {
	s.draining.Store(true) // there is nothing to Stop
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if s.stopHub != nil {
		s.stopHub()
		<-s.hubDone
	}
	if s.engine != nil {
		_ = s.engine.Stop(ctx)
	}
	_ = s.close(ctx)
}
