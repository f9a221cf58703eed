package bench

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// When a client acknowledges what it has handled, unless told otherwise: as this project's clients do (package client and
// clients/typescript).
const (
	ClientAckEvery = 64 // messages
	ClientAckDelay = 200 * time.Millisecond
)

// Options are common to all scenarios.
type Options struct {
	// Addrs are the server's addresses, ws://host:port/im and tcp://host:port; connections take them in turn. Transport
	// ("ws", "tcp" or "mix") leaves out those of the other kind.
	Addrs     []string
	Transport string
	// Sources are the addresses that connections come from, in turn; empty = the system's choice. One source reaches one
	// target address at most some 28,000 times.
	Sources []netip.Addr

	// Where tokens come from: Secret, the server's HS256 key; else TokenCommand, see CommandToken. Token goes before both, but
	// cannot be handed to the workers of a run.
	Token        TokenFunc `json:"-"`
	Secret       []byte
	TokenCommand string

	UserPrefix string // "" = one of this run's own, so that every run begins with empty inboxes
	Terminal   string // "bench"
	Ack        string // "client" or "auto"
	Window     int    // 0 = the server's 256
	// A client acknowledges after AckEvery messages (at most a quarter of the window) or AckDelay, whichever is sooner.
	// 0 = after every read.
	AckEvery int
	AckDelay time.Duration

	Loops int // event loops, each of one core; 1
	// Handshakes is how many connections a loop has on their way between connect and the LOGIN answer; 256.
	Handshakes int
	LoginRate  int           // new connections per second; 0 = as fast as the server takes them
	HeartBeat  time.Duration // 30 s
	WarmUp     time.Duration // driven but not counted
	Duration   time.Duration // counted
	Drain      time.Duration // how long nothing may arrive at the end before what is open counts as lost; 10 s

	ServerPID int    // 0 = unknown; its CPU and memory are read from /proc
	Admin     string // URL of the admin port, "" = none
	AdminAuth string // its token

	// ServerProfile is a file for a CPU profile of the server in the measured time, if set. Needs Admin.
	ServerProfile string

	Progress func(Progress) `json:"-"` // called once a second, if set

	// Procs, if more than 1, spreads the run over so many worker processes of this machine, for one has a limit of open files
	// and few cores. Workers are more of them on other machines, host:port, which let us in with WorkerToken. WorkerCommand
	// starts one of this machine; empty = this program with "worker".
	Procs         int
	Workers       []string
	WorkerToken   string
	WorkerCommand []string `json:"-"`

	seat *member // set in a worker
}

// TokenFunc makes the token of a user.
type TokenFunc func(user, terminal string) (string, error)

// SecretToken mints HS256 tokens with the server's key, which is used as it is. They are valid for a day.
func SecretToken(secret []byte) TokenFunc {
	enc := base64.RawURLEncoding
	head := enc.AppendEncode(nil, []byte(`{"alg":"HS256","typ":"JWT"}`))
	return func(user, terminal string) (string, error) {
		now := time.Now()
		claims := codec.AppendString([]byte(`{"sub":`), user)
		claims = codec.AppendString(append(claims, `,"terminal":`...), terminal)
		claims = fmt.Appendf(claims, `,"iat":%.3f,"exp":%d}`, float64(now.UnixMilli())/1000, now.Add(24*time.Hour).Unix())
		token := enc.AppendEncode(append(bytes.Clone(head), '.'), claims)
		mac := hmac.New(sha256.New, secret)
		_, _ = mac.Write(token)
		return string(enc.AppendEncode(append(token, '.'), mac.Sum(nil))), nil
	}
}

// ReadSecret reads the server's key from a file, without the white space around it.
func ReadSecret(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("bench: key: %w", err)
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return nil, fmt.Errorf("bench: key: %s is empty", path)
	}
	return b, nil
}

// CommandToken runs a shell command for every token, with $USER_NAME and $TERMINAL set, and takes what it prints.
func CommandToken(ctx context.Context, command string) TokenFunc {
	return func(user, terminal string) (string, error) {
		cmd := exec.CommandContext(ctx, "sh", "-c", command)
		cmd.Env = append(os.Environ(), "USER_NAME="+user, "TERMINAL="+terminal)
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("bench: token command: %w", err)
		}
		return strings.TrimSpace(string(out)), nil
	}
}

// ParseSources reads a list of addresses and ranges, such as "127.0.1.1-127.0.1.20,10.0.0.5".
func ParseSources(list string) (all []netip.Addr, err error) {
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		first, err := netip.ParseAddr(from)
		if err != nil {
			return nil, fmt.Errorf("bench: sources: %w", err)
		}
		last := first
		if isRange {
			if last, err = netip.ParseAddr(to); err != nil {
				return nil, fmt.Errorf("bench: sources: %w", err)
			}
		}
		for a := first; a.Compare(last) <= 0; a = a.Next() {
			all = append(all, a)
			if len(all) > 1<<16 {
				return nil, fmt.Errorf("bench: sources: %q is more than 65,536 addresses", list)
			}
		}
	}
	return all, nil
}

// target is a resolved address.
type target struct {
	transport codec.Transport
	addr      netip.AddrPort
	host      string // of the upgrade
	path      string
}

func parseTarget(addr string) (t target, err error) {
	u, err := url.Parse(addr)
	if err != nil {
		return t, fmt.Errorf("bench: address: %w", err)
	}
	port := "8081"
	switch u.Scheme {
	case "tcp":
	case "ws":
		t.transport, port = codec.WebSocket, "8080"
	default:
		return t, fmt.Errorf("bench: address %q: want ws:// or tcp://", addr)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	resolved, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return t, fmt.Errorf("bench: address: %w", err)
	}
	a := resolved.AddrPort()
	t.addr, t.host, t.path = netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), u.Host, u.RequestURI()
	if u.Path == "" {
		t.path = "/im"
	}
	return t, nil
}

// plan is a run: its options in the form that loops use. Static once the loops run, but for stopped.
type plan struct {
	Options
	epoch   time.Time // zero of the run's clock
	run     uint32    // marks the run's messages
	targets []target
	stopped atomic.Bool

	series *series // nil = none

	// of traffic, ns of the run's clock
	from, until int64 // the measured time
}

func newPlan(ctx context.Context, o Options) (*plan, error) {
	p := &plan{Options: o, epoch: time.Now(), run: rand.Uint32()}
	if o.seat != nil {
		p.epoch, p.run = o.seat.epoch, o.seat.job.Run
	}
	spread := o.Procs > 1 || len(o.Workers) > 0
	switch {
	case p.Token != nil && spread:
		return nil, errors.New("bench: several processes need the key or a token command")
	case p.Token != nil:
	case len(o.Secret) > 0:
		p.Token = SecretToken(o.Secret)
	case o.TokenCommand != "":
		p.Token = CommandToken(ctx, o.TokenCommand)
	}
	for _, addr := range o.Addrs {
		t, err := parseTarget(addr)
		if err != nil {
			return nil, err
		}
		if o.Transport == "ws" && t.transport != codec.WebSocket || o.Transport == "tcp" && t.transport != codec.TCP {
			continue
		}
		p.targets = append(p.targets, t)
	}
	switch {
	case len(p.targets) == 0:
		return nil, fmt.Errorf("bench: no address for transport %q", o.Transport)
	case p.Token == nil:
		return nil, errors.New("bench: no way to get tokens")
	case o.Ack != "" && o.Ack != "client" && o.Ack != "auto":
		return nil, fmt.Errorf("bench: ack %q is neither client nor auto", o.Ack)
	case o.ServerProfile != "" && o.Admin == "":
		return nil, errors.New("bench: a profile of the server needs the admin port")
	case o.Window < 0 || o.Window > 1024:
		return nil, errors.New("bench: window is not within 1 and 1024")
	}
	if p.UserPrefix == "" {
		p.UserPrefix = fmt.Sprintf("b%08x", p.run)
	}
	if p.Terminal == "" {
		p.Terminal = "bench"
	}
	if p.Ack == "" {
		p.Ack = "client"
	}
	window := p.Window
	if window == 0 {
		window = 256
	}
	p.AckEvery = min(max(p.AckEvery, 1), max(window/4, 1))
	p.Loops = max(p.Loops, 1)
	if p.Handshakes <= 0 {
		p.Handshakes = defaultHandshakes
	}
	if p.HeartBeat <= 0 {
		p.HeartBeat = 30 * time.Second
	}
	if p.Drain <= 0 {
		p.Drain = 10 * time.Second
	}
	return p, nil
}

// user is the name of connection number.
func (p *plan) user(number int) string { return fmt.Sprintf("%s-%d", p.UserPrefix, number) }

func (p *plan) source(number int) netip.Addr {
	if len(p.Sources) == 0 {
		return netip.Addr{}
	}
	return p.Sources[number%len(p.Sources)]
}

// dialTime is when connection number may begin, in ns of the run's clock.
func (p *plan) dialTime(number int) int64 {
	if p.LoginRate <= 0 {
		return 0
	}
	return int64(number) * int64(time.Second) / int64(p.LoginRate)
}

// measures reports whether something of time t counts.
func (p *plan) measures(t int64) bool { return t >= p.from && t < p.until }
