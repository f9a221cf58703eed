package bench

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// Result is what a run found; its JSON form is the tool's --json.
type Result struct {
	Scenario   string         `json:"scenario"`
	Started    time.Time      `json:"started"`
	Machine    Machine        `json:"machine"`
	Parameters map[string]any `json:"parameters"`
	// Configuration is what the load was told beside the scenario's own parameters.
	Configuration map[string]any `json:"configuration,omitempty"`
	Connections   int            `json:"connections"`
	// Processes of the load, if there are several. ClockError is how far apart their clocks may be, which may be in latencies
	// between users of different processes.
	Processes  int            `json:"processes,omitempty"`
	ClockError float64        `json:"clock_error_ms,omitempty"`
	Transport  map[string]int `json:"targets"` // addresses by transport
	Seconds    float64        `json:"measured_seconds"`

	Logins   Logins    `json:"logins"`
	Messages *Messages `json:"messages,omitempty"`
	// Delivery is intended send → arrival, Accept is intended send → SEND_ACK.
	Delivery *Latency `json:"delivery,omitempty"`
	Accept   *Latency `json:"accept,omitempty"`
	// SendLag is how long after its intended time an open loop sent: the load's own part of Delivery and Accept.
	SendLag *Latency `json:"send_lag,omitempty"`
	// Distribution is Delivery's whole distribution.
	Distribution []Quantile `json:"delivery_distribution,omitempty"`
	Memory       []Memory   `json:"memory,omitempty"`
	// BytesPerConnection is the slope of the server's RssAnon over the first and the last step of Memory.
	BytesPerConnection float64 `json:"bytes_per_connection,omitempty"`
	// LoadBytesPerConnection is the same of the load itself.
	LoadBytesPerConnection float64 `json:"load_bytes_per_connection,omitempty"`

	Floor *Floor       `json:"floor,omitempty"`
	Storm *StormResult `json:"storm,omitempty"`
	Slow  *SlowResult  `json:"slow,omitempty"`
	Mix   []MixResult  `json:"mix,omitempty"`

	Load   Usage  `json:"load"`
	Server *Usage `json:"server,omitempty"`
	// Others is the CPU of all other processes of this machine, in cores: what is above 0.1 or so disturbs the numbers.
	Others float64 `json:"others_cpu_share"`
	// Metrics are what the server's /metrics say: how much its counters grew in the measured time, and its gauges at the end.
	// Series of one name are summed, zeros are left out. With Admin only.
	Metrics map[string]float64 `json:"server_metrics,omitempty"`
	Commits *Commits           `json:"server_commits,omitempty"`
	// Limit says what the run was limited by, as far as the generator can tell; empty = nothing suspicious.
	Limit string `json:"limit,omitempty"`

	Lags     int64          `json:"lag_packets"`
	Gaps     int64          `json:"gaps_pulled"`
	Failures map[string]int `json:"failures"`
	Evidence []string       `json:"evidence,omitempty"`
	// Series is the run second by second.
	Series []Sample `json:"series,omitempty"`
	OK     bool     `json:"ok"`
}

// Logins are the connections' beginnings.
type Logins struct {
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"per_second"`
	Latency Latency `json:"latency"` // connect → LOGIN answer
}

// Messages are the traffic. Rates are of the measured time.
type Messages struct {
	Sent          int64   `json:"sent"`
	Acked         int64   `json:"acked"`
	Delivered     int64   `json:"delivered"`
	DeliveredRate float64 `json:"delivered_per_second"`
	AckedRate     float64 `json:"acked_per_second"`
	// PerRead is how many packets one read(2) of the load brought, over the whole run: what the server coalesced, and what
	// gathered while the load was busy.
	PerRead float64 `json:"packets_per_read"`
}

// Usage is what a process used in the measured time.
type Usage struct {
	CPUSeconds float64 `json:"cpu_seconds"`
	CPUShare   float64 `json:"cpu_share"` // of one core
	// MicrosPerMessage is CPU per delivered message.
	MicrosPerMessage float64 `json:"cpu_us_per_message,omitempty"`
	RSSAnon          int64   `json:"rss_anon_bytes,omitempty"`
	Resident         int64   `json:"resident_bytes,omitempty"` // with its files; of the server, from /metrics
	// BusyLoop is the busiest event loop's share of time awake; MaxStall is the longest time in ms that a loop did not look at
	// its sockets, an error that may be in every latency. Of the load only.
	BusyLoop float64 `json:"busy_loop,omitempty"`
	MaxStall float64 `json:"max_stall_ms,omitempty"`
}

// Memory is one step of Idle.
type Memory struct {
	Connections int   `json:"connections"`
	RSSAnon     int64 `json:"rss_anon_bytes,omitempty"`
	LoadRSSAnon int64 `json:"load_rss_anon_bytes,omitempty"`
}

func newResult(p *plan, conns int) *Result {
	r := &Result{Started: p.epoch, Connections: conns, Failures: map[string]int{}, Transport: map[string]int{},
		Machine: ThisMachine(), Configuration: p.configuration()}
	for _, t := range p.targets {
		r.Transport[t.transport.String()]++
	}
	return r
}

// usageSample is a look at both processes.
type usageSample struct {
	at     time.Time
	own    int64   // CPU, ns
	waited []int64 // by loop
	all    int64   // CPU of the machine, ns
	server procSample
	known  bool // server is set

	metrics map[string]float64
}

func (r *runner) sample(ctx context.Context) usageSample {
	s := usageSample{at: time.Now(), own: ownCPU(), all: machineCPU()}
	for _, l := range r.loops {
		s.waited = append(s.waited, l.progress.waited.Load())
	}
	if r.server != nil {
		var err error
		s.server, err = r.server.sample()
		s.known = err == nil
	}
	if r.o.Admin != "" && r.team.leads() {
		s.metrics, _ = admin{r.o.Admin, r.o.AdminAuth}.metrics(ctx) // a run is worth something without them
	}
	return s
}

// usage notes what was used between two samples.
func (r *runner) usage(a, b usageSample) {
	wall := b.at.Sub(a.at)
	r.result.Seconds = wall.Seconds()
	r.machineCPU = b.all - a.all
	r.used = used{Boot: bootID(), CPU: b.own - a.own}
	if own, err := (&process{os.Getpid()}).sample(); err == nil {
		r.used.RSSAnon = own.rssAnon
	}
	for i := range b.waited {
		r.used.Busy = max(r.used.Busy, 1-float64(b.waited[i]-a.waited[i])/float64(wall))
	}
	r.result.Server = serverUsage(a, b)
	r.result.Metrics, r.result.Commits = growth(a.metrics, b.metrics), commits(a.metrics, b.metrics, wall)
}

// serverUsage is what the server used between two samples, from /proc or, without its process, from its /metrics; nil when
// neither is known.
func serverUsage(a, b usageSample) *Usage {
	u := &Usage{Resident: int64(b.metrics[metricResident])}
	switch {
	case a.known && b.known:
		u.CPUSeconds, u.RSSAnon = seconds(b.server.cpu-a.server.cpu), b.server.rssAnon
	case len(a.metrics) > 0 && len(b.metrics) > 0:
		u.CPUSeconds = b.metrics[metricCPU] - a.metrics[metricCPU]
	default:
		return nil
	}
	u.CPUShare = u.CPUSeconds / b.at.Sub(a.at).Seconds()
	return u
}

// ServerHere reports whether the server's process is known and on this machine.
func (r *Result) ServerHere() bool {
	here, _ := r.Configuration["server_on_this_machine"].(bool)
	return here && r.Server != nil
}

// load sums up what the processes of the load used.
func (r *Result) load(parts []*partial, machineCPU int64) {
	local, boot := int64(0), bootID()
	for _, p := range parts {
		r.Load.CPUSeconds += seconds(p.Used.CPU)
		r.Load.RSSAnon += p.Used.RSSAnon
		r.Load.BusyLoop = max(r.Load.BusyLoop, p.Used.Busy)
		if p.Used.Boot == boot {
			local += p.Used.CPU
		}
	}
	if r.Seconds == 0 {
		return
	}
	r.Load.CPUShare = r.Load.CPUSeconds / r.Seconds
	if r.ServerHere() {
		r.Others = max(0, seconds(machineCPU-local)/r.Seconds-r.Server.CPUShare)
	}
}

// check takes a process's failures.
func (r *Result) check(p *partial) {
	for kind, n := range p.Failures {
		r.Failures[kind] += n
	}
	r.Evidence = append(r.Evidence, p.Evidence[:min(len(p.Evidence), maxEvidence-len(r.Evidence))]...)
}

// sum fills in the totals.
func (r *Result) sum(s *stats, p *plan) {
	r.Logins.Latency = s.login.summary()
	r.Lags, r.Gaps = s.lags, s.gaps
	r.Load.MaxStall = float64(s.stall) / 1e6
	if s.sent > 0 {
		r.Messages = &Messages{Sent: s.sent, Acked: s.acked, Delivered: s.delivered}
		r.Messages.PerRead = float64(s.packetsIn) / float64(max(s.reads, 1))
		delivery, accept := s.delivery.summary(), s.accept.summary()
		r.Delivery, r.Accept = &delivery, &accept
		if lag := s.late.summary(); lag.Count > 0 {
			r.SendLag = &lag
		}
		r.Distribution = s.delivery.distribution()
		if r.Seconds > 0 {
			r.Messages.DeliveredRate = float64(s.measured) / p.Duration.Seconds()
			r.Messages.AckedRate = float64(s.measuredAcks) / p.Duration.Seconds()
		}
		if s.measured > 0 {
			r.Load.MicrosPerMessage = r.Load.CPUSeconds * 1e6 / float64(s.measured)
			if r.Server != nil {
				r.Server.MicrosPerMessage = r.Server.CPUSeconds * 1e6 / float64(s.measured)
			}
		}
	}
	r.Limit = r.limit()
	r.OK = len(r.Failures) == 0
}

// limit judges what, if not the server, was the bottleneck.
func (r *Result) limit() string {
	const busy = 0.9
	cores := float64(r.Machine.CPUs)
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if r.Seconds == 0 {
		return ""
	}
	if r.Load.BusyLoop > busy {
		add("the load: its event loop was busy %.0f%% of the time", 100*r.Load.BusyLoop)
	}
	switch {
	case r.Others > 0.25:
		add("other processes of this machine: they used %.2f of %d cores", r.Others, r.Machine.CPUs)
	case r.ServerHere() && r.Load.CPUShare+r.Server.CPUShare > busy*cores:
		add("the machine: server %.2f and load %.2f of %d cores", r.Server.CPUShare, r.Load.CPUShare, r.Machine.CPUs)
	}
	if r.sentLate() {
		add("the load: it sent up to %.1f ms (p99) after the intended time", r.SendLag.P99)
	}
	return strings.Join(all, "; ")
}

// sentLate reports whether the load's lateness decides the latencies of an open loop.
func (r *Result) sentLate() bool {
	const felt, share = 1, 0.25 // ms; of the delivery's
	return r.SendLag != nil && r.SendLag.P99 > felt && r.Delivery != nil && r.SendLag.P99 > share*r.Delivery.P99
}
