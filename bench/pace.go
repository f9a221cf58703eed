package bench

import "math"

// pace says when a scene sends: a closed loop fills every unit (a pair, a group) once, and the scene sends the next
// message when one has arrived; an open loop has a time for every message, over all units in turn.
type pace struct {
	units    int
	inFlight int
	step     float64 // ns between two messages; 0 = closed loop
	started  bool
	next     float64 // intended time of the next message, ns
	turn     int
	end      int64 // when it ends, ns of the run's clock; 0 = with the measured time
}

// setRate makes an open loop of messages per second; 0 leaves it closed.
func (p *pace) setRate(rate float64) {
	if rate > 0 {
		p.step = 1e9 / rate
	}
}

func (p *pace) closed() bool { return p.step == 0 }

// due calls send for what is due and returns when there is more.
func (p *pace) due(l *loop, now int64, send func(unit int, intended int64)) (next int64) {
	if l.o.from == 0 || p.units == 0 { // not begun
		return math.MaxInt64
	}
	begin := l.o.from - int64(l.o.WarmUp)
	if now < begin {
		return begin
	}
	end := l.o.until
	if p.end != 0 {
		end = p.end
	}
	if p.closed() {
		if now >= end {
			return math.MaxInt64
		}
		for i := 0; !p.started && i < p.units; i++ {
			for range p.inFlight {
				send(i, now)
			}
		}
		p.started = true
		return end
	}
	if !p.started {
		p.started, p.next = true, float64(begin)
	}
	for p.next <= float64(now) && int64(p.next) < end {
		l.sentOf(int64(p.next))
		send(p.turn, int64(p.next))
		p.turn = (p.turn + 1) % p.units
		p.next += p.step
	}
	if int64(p.next) >= end {
		return math.MaxInt64
	}
	return int64(p.next)
}

// flow checks numbers that should come as 1, 2, 3 …, in any order.
type flow struct {
	done  uint32 // all up to here have come
	ahead map[uint32]struct{}
}

// add reports whether n came for the first time.
func (f *flow) add(n uint32) bool {
	if n == f.done+1 {
		f.done++
		for len(f.ahead) > 0 {
			if _, ok := f.ahead[f.done+1]; !ok {
				break
			}
			delete(f.ahead, f.done+1)
			f.done++
		}
		return true
	}
	if _, ok := f.ahead[n]; ok || n <= f.done {
		return false
	}
	if f.ahead == nil {
		f.ahead = map[uint32]struct{}{}
	}
	f.ahead[n] = struct{}{}
	return true
}
