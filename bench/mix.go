package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.yaml.in/yaml/v3"
)

// MixOptions are those of Mix: a day's shape.
type MixOptions struct {
	Users   int       // all that there are; a multiple of Members
	Members int       // of a group, an even number: every user is in one group, and has one partner for private messages
	Size    int       // of a content, in bytes; at least 44
	Steps   []MixStep // one after the other
}

// MixStep is a part of the day: Ramp is the time in which the levels move evenly from those of the step before to its
// own, For the time for which they stay.
type MixStep struct {
	Name string        `json:"name"`
	Ramp time.Duration `json:"ramp_ns"`
	For  time.Duration `json:"for_ns"`
	Levels
}

// Levels are what goes on at a time. All but Online are per second, over all users.
type Levels struct {
	Online     float64 `json:"online"`     // users that are logged in
	Private    float64 `json:"private"`    // messages to a user's partner, who may be away
	Group      float64 `json:"group"`      // messages to a group, of which some may be away
	Typing     float64 `json:"typing"`     // TYPING packets to a partner
	History    float64 `json:"history"`    // reads of the newest page of a conversation
	Reconnects float64 `json:"reconnects"` // connections that are lost and made again at once
}

// between are the levels a share of the way from l to o.
func (l Levels) between(o Levels, share float64) Levels {
	f := func(a, b float64) float64 { return a + (b-a)*share }
	return Levels{f(l.Online, o.Online), f(l.Private, o.Private), f(l.Group, o.Group), f(l.Typing, o.Typing), f(l.History, o.History),
		f(l.Reconnects, o.Reconnects)}
}

// at are the step and the levels at time t after the begin of the first step.
func (o *MixOptions) at(t time.Duration) (step int, l Levels) {
	t = max(t, 0) // what comes before is as the day begins
	before := o.Steps[0].Levels
	for i, s := range o.Steps {
		switch {
		case t < s.Ramp:
			return i, before.between(s.Levels, float64(t)/float64(s.Ramp))
		case t < s.Ramp+s.For || i == len(o.Steps)-1:
			return i, s.Levels
		}
		t -= s.Ramp + s.For
		before = s.Levels
	}
	return 0, before // not reached: the last step has no end
}

// length is the whole day's.
func (o *MixOptions) length() (d time.Duration) {
	for _, s := range o.Steps {
		d += s.Ramp + s.For
	}
	return d
}

func (o *MixOptions) check() error {
	switch {
	case o.Users < 2 || o.Members < 2 || o.Members%2 != 0 || o.Users%o.Members != 0:
		return errors.New("bench: mix: want an even number of members of a group, and a multiple of it as number of users")
	case o.Users > mixGroupFlow:
		return fmt.Errorf("bench: mix: more than %d users", mixGroupFlow)
	case o.Size < minContent:
		return fmt.Errorf("bench: mix: size: want at least %d bytes", minContent)
	case len(o.Steps) == 0:
		return errors.New("bench: mix: no steps")
	}
	for i, s := range o.Steps {
		l := s.Levels
		switch {
		case s.Ramp < 0 || s.For < 0 || s.Ramp+s.For == 0:
			return fmt.Errorf("bench: mix: step %d (%s): want a time: ramp, for", i+1, s.Name)
		case l.Online < 0 || l.Online > float64(o.Users):
			return fmt.Errorf("bench: mix: step %d (%s): online is not within 0 and %d, the users", i+1, s.Name, o.Users)
		case min(l.Private, l.Group, l.Typing, l.History, l.Reconnects) < 0:
			return fmt.Errorf("bench: mix: step %d (%s): a rate below 0", i+1, s.Name)
		}
	}
	return nil
}

// ReadMix reads a day's shape from a YAML file.
func ReadMix(path string) (o MixOptions, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return o, fmt.Errorf("bench: mix: %w", err)
	}
	if o, err = ParseMix(b); err != nil {
		return o, fmt.Errorf("%w (%s)", err, path)
	}
	return o, nil
}

// ParseMix reads a day's shape from YAML. A level that a step does not name stays as it was in the step before. Keys that
// are not known are an error.
func ParseMix(text []byte) (o MixOptions, err error) {
	var file struct {
		Users, Members, Size int
		Steps                []struct {
			Name                                                string
			Ramp, For                                           time.Duration
			Online, Private, Group, Typing, History, Reconnects *float64
		}
	}
	file.Members, file.Size = 50, 64
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return o, fmt.Errorf("bench: mix: %w", err)
	}
	o = MixOptions{Users: file.Users, Members: file.Members, Size: file.Size}
	var l Levels
	for _, s := range file.Steps {
		for _, set := range []struct {
			to   *float64
			from *float64
		}{{&l.Online, s.Online}, {&l.Private, s.Private}, {&l.Group, s.Group}, {&l.Typing, s.Typing}, {&l.History, s.History},
			{&l.Reconnects, s.Reconnects}} {
			if set.from != nil {
				*set.to = *set.from
			}
		}
		o.Steps = append(o.Steps, MixStep{Name: s.Name, Ramp: s.Ramp, For: s.For, Levels: l})
	}
	return o, o.check()
}

// MixResult is one step of Mix. Everything counts for the step in which it was to be sent or begun.
type MixResult struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	// Delivery is of messages whose receiver was there when they were to be sent, and which were not sent again after a
	// reconnect. Late are the others, and a latency of theirs is mostly the time for which somebody was away.
	Delivery Latency `json:"delivery"`
	Late     int64   `json:"late"`
	Accept   Latency `json:"accept"`
	History  Latency `json:"history"` // request → answer
	Login    Latency `json:"login"`   // connect → LOGIN answer
}

// Mix drives a day's shape: users come, go, lose their connections and resume, send to each other and to groups whether
// the others are there or not, type and read history. In the end all come back, and everybody must have got everything
// once and in order.
func Mix(ctx context.Context, o Options, mo MixOptions) (*Result, error) {
	if err := mo.check(); err != nil {
		return nil, err
	}
	if o.Admin == "" {
		return nil, errors.New("bench: groups need the admin port, to make them")
	}
	o.Duration = mo.length()
	r, err := newRunner(ctx, o, "mix", mo, mo.Users/mo.Members, mo.Members)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.close() }()
	r.result.Parameters = map[string]any{"users": mo.Users, "members": mo.Members, "size": mo.Size, "steps": mo.Steps}
	r.sum = func(s *stats) {
		r.result.Mix = mixResults(&mo, s)
		r.result.Parameters["typing_sent"], r.result.Parameters["typing_received"] = s.typed, s.typings
	}
	for g := range mo.Users / mo.Members {
		if err := r.makeGroup(ctx, g, mo.Members); err != nil {
			return nil, err
		}
	}
	for _, l := range r.loops {
		l.scene = newMixScene(l, &mo)
	}
	if err := r.arrive(ctx); err != nil {
		return nil, err
	}
	if r.failed == 0 {
		if err := r.drive(ctx); err != nil {
			return nil, err
		}
	}
	result, err := r.conclude(ctx)
	if result != nil {
		result.Logins.Count = int(result.Logins.Latency.Count)
	}
	return result, err
}

// arrive lets those come who are there when the day begins.
func (r *runner) arrive(ctx context.Context) error {
	if _, err := r.meet(ctx, meeting{Point: "arrive"}); err != nil {
		return err
	}
	begin := time.Now()
	err := r.each(ctx, func() string { return "connect" }, func(l *loop) error {
		return l.spin(0, func() bool { return l.scene.(*mixScene).settled(l) })
	})
	if err == nil {
		_, err = r.meet(ctx, meeting{Point: "arrived"})
	}
	r.result.Logins.Seconds = time.Since(begin).Seconds()
	r.result.Logins.Rate = float64(r.lives) / r.result.Logins.Seconds
	return err
}

// mixResults are the steps, from the histograms of all loops.
func mixResults(mo *MixOptions, s *stats) (all []MixResult) {
	for i, step := range mo.Steps {
		h := func(what string) Latency { return s.hist(mixHist(what, i)).summary() }
		all = append(all, MixResult{Name: step.Name, Seconds: (step.Ramp + step.For).Seconds(), Delivery: h(mixDelivery), Late: h(mixLate).Count,
			Accept: h(mixAccept), History: h(mixHistory), Login: h(mixLogin)})
	}
	return all
}
