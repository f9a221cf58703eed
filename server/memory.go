package server

import "runtime/metrics"

// fewConnections is how many it takes for their memory to show in that of the rest.
const fewConnections = 1000

// goMemory is what the last collection left alive, and stacks, in bytes. What the store holds is a part of it.
func goMemory() int64 {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	var sum uint64
	for _, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			sum += s.Value.Uint64()
		}
	}
	return int64(sum)
}

// connectionMemory is about what one connection takes in this process, with its session and its user's entries, in bytes; 0 when
// there are too few to tell. The kernel's share is not in it. store is what the store has in the heap.
func (s *Server) connectionMemory(store int64) float64 {
	n := s.engine.Connections()
	if n < fewConnections {
		return 0
	}
	return max(0, float64(goMemory()-store-s.baseMemory)/float64(n))
}
