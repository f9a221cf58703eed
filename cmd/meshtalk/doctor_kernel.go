package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// What the kernel's settings should be. scripts/tune-host.sh judges by the same numbers; its table and docs/tuning.md say why,
// and a test compares the two.

// rule is what a setting of one or several numbers is judged by.
type rule struct {
	name  string
	least []int64 // that the numbers should be; nil = see most
	most  []int64
	aim   []int64 // what a short number is moved to; nil = least or most
	// limits is what suffers.
	limits string
}

// judge compares a setting with its rule. One that this kernel has not is left out.
func (h *host) judge(r rule) []finding {
	list := h.numbers("proc/sys/" + strings.ReplaceAll(r.name, ".", "/"))
	want, word, off := r.least, "below", func(is, want int64) bool { return is < want }
	if r.most != nil {
		want, word, off = r.most, "above", func(is, want int64) bool { return is > want }
	}
	if len(list) != len(want) {
		return nil
	}
	f := finding{Check: r.name, OK: true, Value: words(list)}
	for i := range list {
		f.OK = f.OK && !off(list[i], want[i])
	}
	if f.OK {
		return []finding{f}
	}
	aim := r.aim
	if aim == nil {
		aim = want
	}
	moved := slices.Clone(list)
	for i := range moved {
		if off(moved[i], aim[i]) {
			moved[i] = aim[i]
		}
	}
	f.Problem, f.Limits, f.Mend = word+" "+words(want), r.limits, h.mend(r.name, moved)
	return []finding{f}
}

// words writes numbers as the kernel does, with single blanks.
func words(list []int64) string {
	text := make([]string, len(list))
	for i, n := range list {
		text[i] = strconv.FormatInt(n, 10)
	}
	return strings.Join(text, " ")
}

// mend is the command that sets a kernel setting, and the one that sets all of them for good.
func (h *host) mend(name string, to []int64) string {
	value := words(to)
	if len(to) > 1 {
		value = "'" + value + "'"
	}
	return fmt.Sprintf("sudo sysctl -w %s=%s (until the next start; for good: sudo scripts/tune-host.sh apply --connections %d)", name, value, h.connections)
}

// descriptors are one for each connection, and some hundreds for the store and the rest.
func (h *host) descriptors() []finding {
	need := uint64(h.connections) + 512
	var limit syscall.Rlimit
	f := finding{Check: "RLIMIT_NOFILE", OK: true, Value: "unknown"}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		f.Value = fmt.Sprintf("%d open files (the server raises its limit to the hard one)", limit.Max)
		f.OK = limit.Max >= need
	}
	if !f.OK {
		f.Problem = fmt.Sprintf("below %d", need)
		f.Limits = "connections: further ones are refused"
		f.Mend = fmt.Sprintf("sudo scripts/tune-host.sh apply --connections %d (then log in again); for a service LimitNOFILE=%d in its unit",
			h.connections, roundUp(need))
	}
	up := []int64{int64(roundUp(need))}
	list := []finding{f}
	list = append(list, h.judge(rule{name: "fs.nr_open", least: []int64{int64(need)}, aim: up, limits: "what RLIMIT_NOFILE may be set to"})...)
	return append(list, h.judge(rule{name: "fs.file-max", least: []int64{int64(2 * need)}, limits: "open files of the whole host"})...)
}

// roundUp is the power of two from n on, for limits that one sets once.
func roundUp(n uint64) uint64 {
	p := uint64(1 << 16)
	for p < n {
		p *= 2
	}
	return p
}

// From so many connections on some settings matter.
const (
	someConnections = 10_000
	manyConnections = 100_000
)

// network are the kernel's settings for many connections.
func (h *host) network() (list []finding) {
	n := int64(h.connections)
	add := func(f []finding) { list = append(list, f...) }
	least := func(name, limits string, numbers ...int64) {
		add(h.judge(rule{name: name, least: numbers, limits: limits}))
	}
	most := func(name, limits string, numbers ...int64) {
		if n >= someConnections {
			add(minor(h.judge(rule{name: name, most: numbers, limits: limits})))
		}
	}
	least("net.core.somaxconn", "connections that wait to be accepted when many clients come back at once", min(max(n/10, 128), 4096))
	least("net.ipv4.tcp_max_syn_backlog", "handshakes in progress when many clients come back at once", min(max(n/10, 128), 8192))
	least("net.core.netdev_max_backlog", "packets of loopback and bridges that wait for a CPU: what is too many is dropped", min(max(n/10, 1000), 16384))
	add(minor(h.ports()))
	// A socket with anything queued is charged a page at least; half of them at once is a bad day.
	add(h.judge(rule{name: "net.ipv4.tcp_mem", least: []int64{0, n / 2, n * 3 / 4}, aim: []int64{n * 3 / 8, n / 2, n * 3 / 4},
		limits: "memory of TCP in pages: above the second number the kernel shrinks buffers, above the third it drops"}))
	add(minor(h.buffers("net.ipv4.tcp_rmem", 4096, 131072, 1048576)))
	add(minor(h.buffers("net.ipv4.tcp_wmem", 4096, 65536, 1048576)))
	most("net.ipv4.tcp_notsent_lowat", "memory: what the kernel takes for a slow client and has not sent", 131072)
	const keepalive = "connections through a proxy on this host: how long a dead one is kept"
	most("net.ipv4.tcp_keepalive_time", keepalive, 300)
	most("net.ipv4.tcp_keepalive_intvl", keepalive, 30)
	most("net.ipv4.tcp_keepalive_probes", keepalive, 5)
	return append(list, h.conntrack()...)
}

// minor marks findings as such.
func minor(list []finding) []finding {
	for i := range list {
		list[i].minor = true
	}
	return list
}

// ports are those of connections that are made from this host.
func (h *host) ports() []finding {
	const name = "net.ipv4.ip_local_port_range"
	list := h.numbers("proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if len(list) != 2 {
		return nil
	}
	f := finding{Check: name, OK: true, Value: words(list)}
	if need := min(max(int64(h.connections), 10_000), 50_000); list[1]-list[0]+1 < need {
		f.OK, f.Problem = false, fmt.Sprintf("fewer than %d ports", need)
		f.Limits = "connections from this host to one address: meshbench, a proxy in front of the server (not those of clients elsewhere)"
		f.Mend = h.mend(name, []int64{min(list[0], 10240), max(list[1], 65535)})
	}
	return []finding{f}
}

// leastAtMost is the least that a socket's buffer must be able to hold: one full packet of a client, or the pushes that may wait
// for a slow one.
const leastAtMost = 64 << 10

// buffers judges the numbers of a socket's buffer: least, first, most. usual is what is enough, and from many connections on
// the most that should be.
func (h *host) buffers(name string, usual ...int64) []finding {
	list := h.numbers("proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if len(list) != 3 {
		return nil
	}
	if list[2] < leastAtMost {
		return []finding{{Check: name, Value: words(list), Problem: fmt.Sprintf("the last number is below %d", leastAtMost),
			Limits: "large messages and catching up: they take a round trip for each such piece", Mend: h.mend(name, usual)}}
	}
	if h.connections < manyConnections {
		return []finding{{Check: name, OK: true, Value: words(list)}}
	}
	return h.judge(rule{name: name, most: usual, limits: "memory: what clients that stall or are not read may take, each"})
}

// conntrack has an entry for each connection when it is on.
func (h *host) conntrack() []finding {
	const name = "net.netfilter.nf_conntrack_max"
	most := h.numbers("proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if len(most) != 1 || most[0] == 0 {
		return []finding{{Check: "conntrack", OK: true, Value: "off"}}
	}
	return h.judge(rule{name: name, least: []int64{int64(h.connections) * 5 / 4},
		limits: "connections of the whole host: packets of further ones are dropped; or take the server's ports out of tracking"})
}
