package api

import (
	"context"
	_ "embed" // openapi.yaml
	"maps"
	"time"

	"github.com/meshtalk/meshtalk/hub"
)

const documentPath = "/openapi.yaml"

//go:embed openapi.yaml
var document []byte

func (s *server) getDocument(_ context.Context, in *input) ([]byte, error) {
	return document, in.done()
}

// histogram is a hub.HistogramSnapshot for programs: counts[i] are the values up to bounds[i] and above the bound
// before, the last count those above all bounds.
type histogram struct {
	Bounds []float64 `json:"bounds"`
	Counts []uint64  `json:"counts"`
	Count  uint64    `json:"count"`
	Sum    float64   `json:"sum"`
}

func histogramOf(h hub.HistogramSnapshot) histogram {
	shown := histogram{Bounds: append([]float64{}, h.Bounds...), Counts: append([]uint64{}, h.Counts...), Sum: h.Sum}
	for _, n := range h.Counts {
		shown.Count += n
	}
	return shown
}

// getStats shows what the console shows. A section of Options.Extra may not take a name of this list.
func (s *server) getStats(_ context.Context, in *input) ([]byte, error) {
	if err := in.done(); err != nil {
		return nil, err
	}
	stats := map[string]any{}
	if s.o.Extra != nil {
		maps.Copy(stats, s.o.Extra())
	}
	h := s.hub.Stats()
	maps.Copy(stats, map[string]any{
		"version": s.o.Version,
		"node":    s.o.Node,
		"started": s.o.Started.UnixMilli(),
		"uptime":  int64(time.Since(s.o.Started).Seconds()),

		"usersOnline":       h.UsersOnline,
		"accepted":          h.Accepted,
		"pullDeliveries":    h.PullDeliveries,
		"queuedSubmissions": h.QueuedSubmissions,
		"poolWaiting":       h.PoolWaiting,
		"commitSeconds":     histogramOf(h.CommitSeconds),
		"commitBatch":       histogramOf(h.CommitBatch),
		"readOnly":          h.ReadOnly,
		"store": map[string]any{
			"messages":    h.Store.Messages,
			"entries":     h.Store.Entries,
			"duplicates":  h.Store.Duplicates,
			"sizeBytes":   h.Store.SizeBytes,
			"syncSeconds": h.Store.SyncSeconds,
			"filterHits":  h.Store.FilterHits,
		},
	})
	if h.Lag != nil {
		stats["lag"] = h.Lag
	}
	return encode(stats)
}

// node is one element of GET /v1/nodes.
type node struct {
	Node        string `json:"node"`
	Incarnation string `json:"incarnation"`
	Address     string `json:"address"`
	Since       int64  `json:"since"`
	Connections int64  `json:"connections"`
	Sessions    int64  `json:"sessions"`
	// Of a cluster: the partitions of the log that the node consumes, and how many batches each is behind.
	Queues []int         `json:"queues,omitempty"`
	Lag    map[int]int64 `json:"lag,omitempty"`
}

func (s *server) getNodes(ctx context.Context, in *input) ([]byte, error) {
	if err := in.done(); err != nil {
		return nil, err
	}
	list, err := s.hub.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	nodes := make([]node, len(list))
	for i, n := range list {
		nodes[i] = node(n)
	}
	return encode(map[string]any{"nodes": nodes})
}
