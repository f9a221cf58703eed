package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// worker is a process that runs Worker, from the coordinator's side.
type worker struct {
	*link
	name string
	end  func() // ends its input, at which it ends what it does
	wait func() // until it is gone, behind end and the end of its output
}

// stop ends the worker and waits for it. What it has not said yet is lost.
func (w *worker) stop() {
	w.end()
	_, _ = io.Copy(io.Discard, w.in)
	w.wait()
}

// startWorker starts command, which is to run Worker on its standard streams; empty = this program with the argument
// "worker". Its standard error is ours.
func startWorker(command []string) (*worker, error) {
	if len(command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("bench: worker: %w", err)
		}
		command = []string{self, "worker"}
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("bench: worker: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("bench: worker: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("bench: worker: %w", err)
	}
	return &worker{link: newLink(stdout, stdin), name: fmt.Sprintf("process %d", cmd.Process.Pid), end: func() { _ = stdin.Close() },
		wait: func() { _ = cmd.Wait() }}, nil // it has said on the link what went wrong, or on standard error
}

// crew is the coordinator's side of a team.
type crew struct {
	epoch   time.Time
	workers []*worker
	offsets []clockOffset
	series  *series

	events  chan crewEvent
	done    chan struct{} // closed by close
	readers sync.WaitGroup
	latest  []atomic.Pointer[counts]
}

// crewEvent is what a worker says that the goroutine which drives the run waits for.
type crewEvent struct {
	from int
	m    message
	err  error
}

// crewLead is how long, in ns, the coordinator's answer may take to the slowest worker before a time in it has passed.
const crewLead = 100_000_000

// hireCrew starts the workers that p names, at most one per unit, and gives them their shares.
func hireCrew(ctx context.Context, p *plan, scenario string, params any, units int) (_ *crew, err error) {
	c := &crew{epoch: p.epoch, events: make(chan crewEvent), done: make(chan struct{})}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("bench: worker: %w", err)
	}
	for i := range min(p.Procs+len(p.Workers), units) {
		var w *worker
		if i < len(p.Workers) {
			w, err = callWorker(ctx, p.Workers[i], p.WorkerToken)
		} else {
			w, err = startWorker(p.WorkerCommand)
		}
		if err != nil {
			return nil, err
		}
		c.workers = append(c.workers, w)
		offset, err := compareClocks(w.clock)
		if err != nil {
			return nil, fmt.Errorf("bench: worker %s: %w", w.name, err)
		}
		c.offsets = append(c.offsets, offset)
	}
	c.latest = make([]atomic.Pointer[counts], len(c.workers))
	epoch := monotonic() - int64(time.Since(p.epoch))
	for i, w := range c.workers {
		j := &job{Scenario: scenario, Params: raw, Options: p.Options, Index: i, Of: len(c.workers), Run: p.run, Epoch: epoch + c.offsets[i].ahead}
		j.Options.ServerPID, j.Options.AdminAuth, j.Options.ServerProfile = 0, "", ""
		j.Options.Workers, j.Options.Procs, j.Options.WorkerToken = nil, 0, ""
		if err := w.send(message{Job: j}); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// listen begins to take what the workers say.
func (c *crew) listen(s *series) {
	c.series = s
	for i := range c.workers {
		c.readers.Go(func() { c.read(i) })
	}
}

// read takes what worker i says, until the link ends.
func (c *crew) read(i int) {
	for {
		m, err := c.workers[i].receive()
		switch {
		case err != nil:
			if errors.Is(err, io.EOF) {
				err = errors.New("it ended before its work was done")
			}
			c.emit(crewEvent{from: i, err: fmt.Errorf("bench: worker %s: %w", c.workers[i].name, err)})
			return
		case m.Counts != nil:
			c.latest[i].Store(m.Counts)
		case m.Second != nil:
			c.series.give(m.Second.Index, m.Second.slice())
		case m.Note != nil:
			m.Note.From = i
			for j, w := range c.workers {
				if j != i {
					_ = w.send(message{Note: m.Note}) // a broken link is found by its own reader
				}
			}
		default:
			c.emit(crewEvent{from: i, m: m})
		}
	}
}

func (c *crew) emit(e crewEvent) {
	select {
	case c.events <- e:
	case <-c.done:
	}
}

func (c *crew) leads() bool       { return true }
func (c *crew) share() (int, int) { return 0, 0 }
func (c *crew) tell(note)         {} // it has no scenes
func (c *crew) hear(func(note))   {}

// gather waits for one event from every worker.
func (c *crew) gather(ctx context.Context, take func(from int, m message) error) error {
	for range c.workers {
		select {
		case e := <-c.events:
			if e.err != nil {
				return e.err
			}
			if err := take(e.from, e.m); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (c *crew) meet(ctx context.Context, mine meeting) (all meeting, err error) {
	all.Point = mine.Point
	all.add(mine)
	err = c.gather(ctx, func(from int, m message) error {
		if m.Meet == nil || m.Meet.Point != mine.Point {
			return fmt.Errorf("bench: worker %s is somewhere else than at %q", c.workers[from].name, mine.Point)
		}
		all.add(*m.Meet)
		return nil
	})
	if err != nil {
		return all, err
	}
	all.Now = int64(time.Since(c.epoch)) + crewLead
	for _, w := range c.workers {
		if err := w.send(message{Meet: &all}); err != nil {
			return all, err
		}
	}
	return all, nil
}

func (c *crew) finish(ctx context.Context, _ *partial) (all []*partial, err error) {
	err = c.gather(ctx, func(from int, m message) error {
		if m.Result == nil || m.Result.Stats == nil {
			return fmt.Errorf("bench: worker %s sent no result", c.workers[from].name)
		}
		for i, e := range m.Result.Evidence {
			m.Result.Evidence[i] = fmt.Sprintf("%s (worker %d)", e, from)
		}
		all = append(all, m.Result)
		return nil
	})
	if err == nil {
		err = c.recheck(ctx)
	}
	return all, err
}

func (c *crew) counts() (all []counts) {
	for i := range c.latest {
		if n := c.latest[i].Load(); n != nil {
			all = append(all, *n)
		}
	}
	return all
}

func (c *crew) clockError() (most int64) {
	for _, o := range c.offsets {
		most = max(most, o.err)
	}
	return most
}

// close ends the workers and waits for them.
func (c *crew) close() {
	close(c.done)
	for _, w := range c.workers {
		w.end()
	}
	c.readers.Wait()
	for _, w := range c.workers {
		w.stop()
	}
}
