package server

import (
	"strconv"

	"github.com/meshtalk/meshtalk/cluster/redis"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/console"
	"github.com/meshtalk/meshtalk/hub"
	"github.com/meshtalk/meshtalk/session"
	"github.com/meshtalk/meshtalk/store"
)

// metrics makes the names of docs/INTERFACES.md §4 of what the parts count.
type metricSource struct{ s *Server }

// emitter is where one scrape goes.
type emitter func(console.Metric)

// Metrics implements console.Source.
func (m metricSource) Metrics(emit func(console.Metric)) {
	e := emitter(emit)
	m.engine(e)
	m.sessions(e)
	m.hub(e)
	m.cluster(e)
}

func (e emitter) counter(name, help string, v int64, labels ...console.Label) {
	e(console.Metric{Name: name, Help: help, Kind: console.Counter, Value: float64(v), Labels: labels})
}

func (e emitter) gauge(name, help string, v float64, labels ...console.Label) {
	e(console.Metric{Name: name, Help: help, Kind: console.Gauge, Value: v, Labels: labels})
}

func (e emitter) histogram(name, help string, h hub.HistogramSnapshot) {
	e(console.Metric{Name: name, Help: help, Kind: console.Histogram, Bounds: h.Bounds, Counts: h.Counts, Sum: h.Sum})
}

// counters emits one series per key.
func (e emitter) counters(name, help, label string, values map[string]int64) {
	for k, v := range values {
		e.counter(name, help, v, console.Label{Name: label, Value: k})
	}
}

func (m metricSource) engine(e emitter) {
	s := m.s.engine.Stats()
	for i, n := range s.Connections {
		e.gauge("meshtalk_connections", "Open connections.", float64(n),
			console.Label{Name: "transport", Value: codec.Transport(i).String()})
	}
	e.counters("meshtalk_accepts_total", "Connections that came, by what became of them.", "result", s.Accepts)
	closes := make(map[string]int64, len(s.Closes))
	for r, n := range s.Closes {
		closes[session.ReasonName(r)] += n
	}
	e.counters("meshtalk_closes_total", "Connections that ended, by reason.", "reason", closes)
	e.counter("meshtalk_received_bytes_total", "Bytes read from clients.", s.BytesIn)
	e.counter("meshtalk_sent_bytes_total", "Bytes written to clients.", s.BytesOut)
	e.gauge("meshtalk_outbound_bytes", "Bytes sent and not yet taken by the kernel.", float64(s.OutboundBytes))
	e.counter("meshtalk_panics_total", "Panics that were caught.", s.Panics+m.s.hub.Pool().Panics())
	for i := range s.LoopQueue {
		loop := console.Label{Name: "loop", Value: strconv.Itoa(i)}
		e.gauge("meshtalk_loop_queue_operations", "Operations that wait for the event loop.", float64(s.LoopQueue[i]), loop)
		e.gauge("meshtalk_loop_lag_seconds", "How long the oldest operation of the last drain had waited, or has waited since.", s.LoopLag[i], loop)
		e.gauge("meshtalk_loop_queue_peak_operations", "The most operations that a drain of this second or the last found.",
			float64(s.LoopQueuePeak[i]), loop)
		e.gauge("meshtalk_loop_lag_peak_seconds", "The longest lag of this second or the last.", s.LoopLagPeak[i], loop)
		e(console.Metric{
			Name: "meshtalk_loop_busy_seconds_total", Help: "Time that the event loop was at work.", Kind: console.Counter,
			Value: s.LoopBusy[i], Labels: []console.Label{loop},
		})
	}
}

func (m metricSource) sessions(e emitter) {
	s := m.s.sessions.Stats()
	e.gauge("meshtalk_sessions", "Logged-in sessions.", float64(s.Sessions))
	e.gauge("meshtalk_lagging_sessions", "Sessions whose pushes are paused.", float64(s.Lagging))
	e.counters("meshtalk_logins_total", "LOGIN packets, by result.", "result", s.Logins)
	e.counters("meshtalk_packets_in_total", "Packets from clients, by command.", "cmd", s.Packets)
	e.counters("meshtalk_errors_total", "ERROR packets, by name.", "name", s.Errors)
	e.counter("meshtalk_deliveries_total", "Entries handed to clients.", s.Pushed, console.Label{Name: "path", Value: "push"})
	e.histogram("meshtalk_delivery_seconds", "From acceptance to the write to the socket.", s.Delivery)
}

func (m metricSource) hub(e emitter) {
	s := m.s.hub.Stats()
	e.gauge("meshtalk_users_online", "Users with at least one session.", float64(s.UsersOnline))
	e.counters("meshtalk_messages_accepted_total", "Messages accepted, by kind.", "kind", s.Accepted)
	e.counter("meshtalk_deliveries_total", "Entries handed to clients.", s.PullDeliveries, console.Label{Name: "path", Value: "pull"})
	e.gauge("meshtalk_submissions_waiting", "Accepted messages that wait for the commit.", float64(s.QueuedSubmissions))
	e.gauge("meshtalk_queues_owned", "Queues of the log that this node consumes.", float64(len(s.Lag)))
	for q, n := range s.Lag {
		e.gauge("meshtalk_log_lag_messages", "Batches of a queue that are accepted and not committed.", float64(n),
			console.Label{Name: "queue", Value: strconv.Itoa(q)})
	}
	e.gauge("meshtalk_pool_waiting", "Requests that wait for a worker.", float64(s.PoolWaiting))
	e.histogram("meshtalk_commit_seconds", "From the begin of a commit to its durability.", s.CommitSeconds)
	e.histogram("meshtalk_commit_batch_messages", "Messages in one commit.", s.CommitBatch)
	if m.s.o.logged() {
		e.histogram("meshtalk_handover_seconds", "From a message's submission until the log keeps it, which is its SEND_ACK.", s.HandoverSeconds)
	}
	readonly := 0.0
	if s.ReadOnly {
		readonly = 1
	}
	e.gauge("meshtalk_store_readonly", "1 while messages cannot be kept.", readonly)
	e.gauge("meshtalk_store_bytes", "Size of the store on disk.", float64(s.Store.SizeBytes))
	if s.Store.FreeBytes > 0 {
		e.gauge("meshtalk_store_free_bytes", "What the disk of the store has left.", float64(s.Store.FreeBytes))
	}
	e.gauge("meshtalk_store_memory_bytes", "Memory of the process that the store holds: caches, and what waits to become tables.", float64(s.Store.MemoryBytes))
	e.gauge("meshtalk_connection_memory_bytes",
		"Live memory of the process, without the store's and what it took at the start, per connection; 0 below 1,000 of them.",
		m.s.connectionMemory(s.Store.HeapBytes))
	e.gauge("meshtalk_store_sync_seconds", "The last sync of the store.", s.Store.SyncSeconds)
	e.histogram("meshtalk_store_fsync_seconds", "Syncs of the store, each of a commit.", hub.HistogramSnapshot{
		Bounds: store.SyncBounds, Counts: s.Store.Syncs.Counts[:], Sum: s.Store.Syncs.Sum,
	})
	e.counter("meshtalk_store_messages_total", "Messages kept.", s.Store.Messages)
	e.counter("meshtalk_store_entries_total", "Inbox entries kept.", s.Store.Entries)
	e.counter("meshtalk_store_duplicates_total", "Repeats recognised.", s.Store.Duplicates)
	e.counter("meshtalk_store_filter_hits_total", "Look-ups that the repeat filter could not spare.", s.Store.FilterHits)
}

func (m metricSource) cluster(e emitter) {
	for _, x := range m.s.services() {
		up := 0.0
		if x.err == nil {
			up = 1
		}
		e.gauge("meshtalk_service_up", "1 while a service outside of this process answers.", up, console.Label{Name: "service", Value: x.name})
	}
	var s redis.Stats // of a node that is alone
	if m.s.redis != nil {
		s = m.s.redis.Stats()
	}
	e.gauge("meshtalk_routes", "Terminals of this node that the other nodes can see.", float64(s.Routes))
	for name, n := range map[string]uint64{"in": s.WakesIn, "out": s.WakesOut} {
		e.counter("meshtalk_wakeups_total", "Users that nodes told each other of.", int64(n), console.Label{Name: "direction", Value: name})
	}
}
