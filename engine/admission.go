package engine

import (
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
)

// acceptResult is what became of an accepted socket. Its string is the label of meshtalk_accepts_total.
type acceptResult int

const (
	accepted    acceptResult = iota
	overLimit                // MaxConnections
	overPerIP                // MaxPerIP
	overRate                 // HandshakesPerSecondPerIP
	outOfFiles               // no descriptor or no memory for a socket
	acceptError              // anything else
	acceptResults
)

func (r acceptResult) String() string {
	switch r {
	case accepted:
		return "accepted"
	case overLimit:
		return "limit"
	case overPerIP:
		return "per_ip"
	case overRate:
		return "rate"
	case outOfFiles:
		return "emfile"
	case acceptError:
		return "error"
	}
	return strconv.Itoa(int(r))
}

// admission decides who may come in, before any work is done for him. Safe for concurrent use.
type admission struct {
	// Static after init.
	most, perIP, rate int

	open atomic.Int64 // admitted and not released

	mu struct {
		sync.Mutex
		open   map[netip.Addr]int // nil without a limit per address
		recent map[netip.Addr]int // handshakes in this second; nil without a rate
	}
}

func (a *admission) init(o *Options) {
	a.most, a.perIP, a.rate = o.MaxConnections, o.MaxPerIP, o.HandshakesPerSecondPerIP
	if a.perIP > 0 {
		a.mu.open = make(map[netip.Addr]int)
	}
	if a.rate > 0 {
		a.mu.recent = make(map[netip.Addr]int)
	}
}

// holder is what the limits count: an IPv4 address, or the /64 that an IPv6 host usually has to itself (RFC 6177, RFC 8981), so
// that one host's many addresses are one.
func holder(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip
	}
	p, err := ip.Prefix(64)
	if err != nil {
		return ip // the zero Addr
	}
	return p.Addr()
}

// admit counts a connection from ip in, or says why not. What is admitted must be released.
func (a *admission) admit(ip netip.Addr) acceptResult {
	ip = holder(ip)
	if a.open.Add(1) > int64(a.most) {
		a.open.Add(-1)
		return overLimit
	}
	if a.perIP == 0 && a.rate == 0 {
		return accepted
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	result := accepted
	switch {
	case a.rate > 0 && a.mu.recent[ip] >= a.rate:
		result = overRate
	case a.perIP > 0 && a.mu.open[ip] >= a.perIP:
		result = overPerIP
	}
	if result != accepted {
		a.open.Add(-1)
		return result
	}
	if a.rate > 0 {
		a.mu.recent[ip]++
	}
	if a.perIP > 0 {
		a.mu.open[ip]++
	}
	return accepted
}

// release counts a connection from ip out.
func (a *admission) release(ip netip.Addr) {
	a.open.Add(-1)
	if a.perIP == 0 {
		return
	}
	ip = holder(ip)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.open[ip]--; a.mu.open[ip] <= 0 {
		delete(a.mu.open, ip)
	}
}

// nextSecond begins a new second of the rate. The counts of the last one go: memory is bounded by one second's accepts.
func (a *admission) nextSecond() {
	if a.rate == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.mu.recent) > 0 {
		a.mu.recent = make(map[netip.Addr]int)
	}
}
