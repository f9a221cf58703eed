package bench

import (
	"encoding/json"
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// partial is the share of one process in a result. The result of a run is made of all of them in the same way, whether
// there is one or many.
type partial struct {
	Stats    *stats         `json:"stats"`
	Failures map[string]int `json:"failures"`
	Evidence []string       `json:"evidence,omitempty"`
	Used     used           `json:"used"`
}

// used is what one process of the load used in the measured time.
type used struct {
	Boot    string  `json:"boot"` // of its machine
	CPU     int64   `json:"cpu_ns"`
	Busy    float64 `json:"busy"` // the busiest event loop's share of time awake
	RSSAnon int64   `json:"rss_anon_bytes"`
}

// statsWire is stats on a link.
type statsWire struct {
	Sums  []int64              `json:"sums"` // those of stats.sums, in their order
	Stall int64                `json:"stall_ns"`
	Hists map[string]histogram `json:"histograms"`
}

// Names of the histograms that all scenarios have.
const (
	histLogin    = "login"
	histDelivery = "delivery"
	histAccept   = "accept"
	histLate     = "late"
)

// MarshalJSON makes statsWire of s.
func (s *stats) MarshalJSON() ([]byte, error) {
	w := statsWire{Stall: s.stall, Hists: map[string]histogram{histLogin: s.login, histDelivery: s.delivery, histAccept: s.accept, histLate: s.late}}
	for _, n := range s.sums() {
		w.Sums = append(w.Sums, *n)
	}
	for name, h := range s.named {
		w.Hists[name] = h
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *stats) UnmarshalJSON(b []byte) error {
	var w statsWire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*s = newStats()
	sums := s.sums()
	if len(w.Sums) != len(sums) {
		return fmt.Errorf("bench: %d counters instead of %d: a worker of another version", len(w.Sums), len(sums))
	}
	for i, n := range w.Sums {
		*sums[i] = n
	}
	s.stall = w.Stall
	for name, h := range w.Hists {
		switch name {
		case histLogin:
			s.login = h
		case histDelivery:
			s.delivery = h
		case histAccept:
			s.accept = h
		case histLate:
			s.late = h
		default:
			s.named[name] = h
		}
	}
	return nil
}

// MarshalJSON is HdrHistogram's own compressed text.
func (h histogram) MarshalJSON() ([]byte, error) {
	b, err := h.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, fmt.Errorf("bench: histogram: %w", err)
	}
	return json.Marshal(string(b))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *histogram) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	read, err := hdrhistogram.Decode([]byte(text))
	if err != nil {
		return fmt.Errorf("bench: histogram: %w", err)
	}
	*h = newHistogram()
	h.h.Merge(read)
	return nil
}

// secondPart is a slice of the series on a link.
type secondPart struct {
	Index    int        `json:"index"`
	Delivery coarsePart `json:"delivery"`
	Accept   coarsePart `json:"accept"`
	Lives    int        `json:"lives"`
}

// coarsePart is a coarse histogram on a link: pairs of an index and a count.
type coarsePart struct {
	Counts []uint32 `json:"counts,omitempty"`
	Count  int64    `json:"count"`
	Sum    int64    `json:"sum_us"`
	Max    int64    `json:"max_us"`
}

func (c *coarse) part() coarsePart {
	p := coarsePart{Count: c.count, Sum: c.sum, Max: c.max}
	if c.count == 0 {
		return p
	}
	for i, n := range c.counts {
		if n > 0 {
			p.Counts = append(p.Counts, uint32(i), n)
		}
	}
	return p
}

func (p *coarsePart) coarse() (c coarse) {
	c.count, c.sum, c.max = p.Count, p.Sum, p.Max
	for i := 0; i+1 < len(p.Counts); i += 2 {
		if p.Counts[i] < coarseLen {
			c.counts[p.Counts[i]] += p.Counts[i+1]
		}
	}
	return c
}

func (s *slice) part(index int) *secondPart {
	return &secondPart{Index: index, Delivery: s.delivery.part(), Accept: s.accept.part(), Lives: s.lives}
}

func (p *secondPart) slice() *slice {
	return &slice{delivery: p.Delivery.coarse(), accept: p.Accept.coarse(), lives: p.Lives}
}
