package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// StormOptions are those of Storm.
type StormOptions struct {
	Clients  int
	Messages int // that are sent to each client while it is away
	Rounds   int // storms, one after the other; 1
	Size     int // of a content, in bytes; at least 44
}

// StormResult is what Storm found.
type StormResult struct {
	Rounds []StormRound `json:"rounds"`
	// CatchUp is the time from the begin of the storm until a client had all its messages, Login that from its connect until
	// its LOGIN answer, both of all rounds.
	CatchUp Latency `json:"catch_up"`
	Login   Latency `json:"login"`
}

// StormRound is one storm.
type StormRound struct {
	SendSeconds  float64 `json:"send_seconds"`   // it took to send to all while they were away
	LoginSeconds float64 `json:"login_seconds"`  // until the last one was logged in again
	AllCaughtUp  float64 `json:"caught_up_secs"` // until the last one had everything: the round's result
	CaughtUp     int     `json:"caught_up"`      // clients that had everything at the end
}

// Names of histograms.
const (
	histCatchUp = "catch up"
	histReLogin = "login again"
)

// Storm lets all clients lose their connections at once, sends to each of them while they are away, and lets all come back
// at once with their positions: the messages must arrive once and in order. Everything is sent through the admin port.
func Storm(ctx context.Context, o Options, so StormOptions) (*Result, error) {
	switch {
	case so.Clients < 1 || so.Messages < 1:
		return nil, errors.New("bench: storm: want at least one client and one message")
	case o.Admin == "":
		return nil, errors.New("bench: storm: needs the admin port, to send to those who are away")
	}
	so.Rounds, so.Size = max(so.Rounds, 1), max(so.Size, minContent)
	r, err := newRunner(ctx, o, "storm", so, so.Clients, 1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.close() }()
	r.result.Parameters = map[string]any{"clients": so.Clients, "messages": so.Messages, "rounds": so.Rounds, "size": so.Size}
	r.result.Storm = &StormResult{}
	r.sum = func(s *stats) {
		r.result.Storm.CatchUp, r.result.Storm.Login = s.hist(histCatchUp).summary(), s.hist(histReLogin).summary()
	}
	for _, l := range r.loops {
		l.scene = &stormScene{}
	}
	if err := r.connect(ctx, func(l *loop) int { return len(l.conns) }); err != nil {
		return nil, err
	}
	s := storm{r: r, o: so}
	if r.failed == 0 {
		if err := s.first(ctx); err != nil {
			return nil, err
		}
	}
	for i := 0; i < so.Rounds && r.failed == 0; i++ {
		if err := s.round(ctx); err != nil {
			return nil, err
		}
	}
	return r.conclude(ctx)
}

// storm drives Storm.
type storm struct {
	r    *runner
	o    StormOptions
	sent uint32 // to every client
}

// first sends one message to all while they are there, so that they have positions to come back with.
func (s *storm) first(ctx context.Context) error {
	if _, err := s.send(ctx, 1); err != nil {
		return err
	}
	err := s.r.each(ctx, s.stage("first message"), func(l *loop) error {
		l.scene.(*stormScene).begin(0, s.sent)
		return s.await(l)
	})
	if err == nil {
		_, err = s.r.meet(ctx, meeting{Point: "first"})
	}
	return err
}

func (s *storm) stage(name string) func() string { return func() string { return name } }

// round is one storm.
func (s *storm) round(ctx context.Context) error {
	err := s.r.each(ctx, s.stage("lose"), func(l *loop) error {
		for i := range l.conns {
			l.lose(&l.conns[i])
		}
		l.nextDial = 0
		return nil
	})
	if err == nil {
		_, err = s.r.meet(ctx, meeting{Point: "lost"})
	}
	if err != nil {
		return err
	}
	s.r.stage = s.stage("send")
	begin := time.Now()
	start, err := s.send(ctx, s.o.Messages)
	if err != nil {
		return err
	}
	round := StormRound{SendSeconds: time.Since(begin).Seconds()}
	sleepUntil(ctx, s.r.o.epoch.Add(time.Duration(start)))
	before := s.r.sample(ctx)
	err = s.r.each(ctx, s.stage("come back"), func(l *loop) error {
		l.scene.(*stormScene).begin(start, s.sent)
		return s.await(l)
	})
	if err != nil {
		return err
	}
	const done, lastLogin, lastDone = "caught up", "last login", "last done"
	mine := meeting{Point: "back", Sum: map[string]int64{}, Max: map[string]int64{}}
	for _, l := range s.r.loops {
		scene := l.scene.(*stormScene)
		mine.add(meeting{Sum: map[string]int64{done: int64(scene.done)}, Max: map[string]int64{lastLogin: scene.lastLogin - start, lastDone: scene.lastDone - start}})
	}
	all, err := s.r.meet(ctx, mine)
	if err != nil {
		return err
	}
	s.r.usage(before, s.r.sample(ctx))
	round.CaughtUp, round.LoginSeconds, round.AllCaughtUp = int(all.Sum[done]), seconds(all.Max[lastLogin]), seconds(all.Max[lastDone])
	s.r.result.Storm.Rounds = append(s.r.result.Storm.Rounds, round)
	return nil
}

// await runs l until all its clients have everything that was sent, or nothing has come for the time of Drain, which is a
// failure.
func (s *storm) await(l *loop) error {
	scene := l.scene.(*stormScene)
	packets, since := l.stats.packetsIn-l.stats.heartBeats, l.clock()
	err := l.spin(len(l.conns), func() bool {
		if fresh := l.stats.packetsIn - l.stats.heartBeats; fresh != packets {
			packets, since = fresh, l.now
		}
		return scene.complete(l) || l.now-since > int64(l.o.Drain)
	})
	scene.check(l)
	return err
}

const (
	stormChunk   = 1000 // users of one request: the API's maximum
	stormSenders = 4    // requests at a time, so that the server's commits have something to gather
)

// send sends n messages to every client, in order, and returns when that was done, in ns of the run's clock.
func (s *storm) send(ctx context.Context, n int) (at int64, err error) {
	if s.r.team.leads() {
		if err := s.sendAll(ctx, n); err != nil {
			return 0, err
		}
	}
	s.sent += uint32(n)
	all, err := s.r.meet(ctx, meeting{Point: "sent"})
	return all.Now, err
}

func (s *storm) sendAll(ctx context.Context, n int) error {
	chunks := (s.o.Clients + stormChunk - 1) / stormChunk
	errs := make([]error, chunks)
	var senders sync.WaitGroup
	slots := make(chan struct{}, stormSenders)
	for c := range chunks {
		senders.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			for i := range n {
				if errs[c] = s.post(ctx, s.sent+uint32(i)+1, c*stormChunk, min((c+1)*stormChunk, s.o.Clients)); errs[c] != nil {
					return
				}
			}
		})
	}
	senders.Wait()
	return errors.Join(errs...)
}

// post sends message number to clients first to end−1.
func (s *storm) post(ctx context.Context, number uint32, first, end int) error {
	content := make([]byte, s.o.Size-2)
	for i := range content {
		content[i] = 'x'
	}
	mark{run: s.r.o.run, number: number, time: int64(time.Since(s.r.o.epoch))}.put(content)
	users := make([]string, 0, end-first)
	for i := first; i < end; i++ {
		users = append(users, s.r.o.user(i))
	}
	body, err := json.Marshal(map[string]any{"id": string(content[:markLen]), "users": users, "content": string(content)})
	if err != nil {
		return fmt.Errorf("bench: storm: %w", err)
	}
	answer, err := (admin{s.r.o.Admin, s.r.o.AdminAuth}).call(ctx, http.MethodPost, "/v1/messages", body)
	if err != nil {
		return err
	}
	var a struct {
		Results []struct {
			To    string
			Error *struct{ Name, Message string }
		}
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return fmt.Errorf("bench: storm: %w", err)
	}
	for _, result := range a.Results {
		if result.Error != nil {
			return fmt.Errorf("bench: storm: send to %s: %s: %s", result.To, result.Error.Name, result.Error.Message)
		}
	}
	if len(a.Results) != len(users) {
		return fmt.Errorf("bench: storm: %d answers for %d users", len(a.Results), len(users))
	}
	return nil
}

// stormScene is Storm on one loop. A connection's flow is the newest number that its client has.
type stormScene struct {
	quiet
	target uint32 // number that all are to have

	// of a round
	start     int64 // 0 = none, only the first message is awaited
	done      int   // clients that have everything
	lastDone  int64
	lastLogin int64
}

// begin begins a round at time start, at the end of which all are to have number target.
func (s *stormScene) begin(start int64, target uint32) {
	*s = stormScene{target: target, start: start}
}

// complete reports whether everyone who may still come has everything.
func (s *stormScene) complete(l *loop) bool {
	if s.done+l.deads < len(l.conns) {
		return false
	}
	for i := range l.conns {
		if c := &l.conns[i]; c.phase != dead && uint32(c.flow) < s.target {
			return false
		}
	}
	return true
}

func (s *stormScene) message(l *loop, c *conn, p push) {
	if !p.marked || p.mark.run != l.o.run {
		return // what an earlier run left in the inbox
	}
	if last := uint32(c.flow); p.mark.number != last+1 {
		l.fail("order", "user %s got message %d after %d, inbox %d", l.o.user(c.number), p.mark.number, last, p.inbox)
		if p.mark.number <= last {
			return
		}
	}
	c.flow = int32(p.mark.number)
	l.stats.delivered++
	if p.mark.number != s.target {
		return
	}
	s.done++
	s.lastDone = l.now
	if s.start > 0 {
		l.tally.arrived(l.now - s.start)
		l.stats.hist(histCatchUp).record(l.now - s.start)
	}
}

func (s *stormScene) loggedIn(l *loop, _ *conn) { s.lastLogin = l.now }

// check records who has not got everything: what came later, by the next storm's resume, would hide it.
func (s *stormScene) check(l *loop) {
	for i := range l.conns {
		if c := &l.conns[i]; uint32(c.flow) != s.target {
			l.fail("missing", "%d messages sent to user %s, %d came", s.target, l.o.user(c.number), c.flow)
		}
	}
}
