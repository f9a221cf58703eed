package bench

import (
	"fmt"
	html "html/template"
	"math"
	"strings"
)

// plot is lines over one axis.
type plot struct {
	title, note string
	unit, xUnit string
	x           []float64
	lines       []line
	bands       [][2]float64 // shaded, in x
	logY        bool
	percentiles bool // x counts nines
}

// line is one value for each x; NaN = none.
type line struct {
	name string
	y    []float64
}

// The drawing in its own units: small enough that 11 of them are readable text on a phone, where the page is 360 pixels wide.
const (
	plotWidth, plotHeight                    = 400.0, 220.0
	plotLeft, plotRight, plotTop, plotBottom = 44.0, 20.0, 20.0, 24.0
	plotInnerWidth, plotInnerHeight          = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
	plotTicks                                = 5
	plotLastNine                             = 8.0
)

// scale maps values to units of the drawing.
type scale struct {
	low, high float64
	log       bool
}

// share is where v lies between low and high.
func (s scale) share(v float64) float64 {
	if s.log {
		return math.Log(max(v, s.low)/s.low) / math.Log(s.high/s.low)
	}
	return (v - s.low) / (s.high - s.low)
}

func (s scale) x(v float64) float64 { return plotLeft + s.share(v)*plotInnerWidth }
func (s scale) y(v float64) float64 { return plotTop + (1-s.share(v))*plotInnerHeight }

// draw is the plot as SVG; ok is false when there is nothing to draw.
func (p *plot) draw() (svg html.HTML, ok bool) {
	ys := make([][]float64, len(p.lines))
	for i, l := range p.lines {
		ys[i] = l.y
	}
	low, high, ok := bounds(ys...)
	if !ok || len(p.x) < 2 {
		return "", false
	}
	y, yTicks := p.yScale(low, high)
	x, xTicks := p.xScale()
	var b strings.Builder
	f := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format, args...) }
	f(`<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, plotWidth, plotHeight, html.HTMLEscapeString(p.title))
	for _, band := range p.bands {
		from, to := x.x(max(band[0], x.low)), x.x(min(band[1], x.high))
		f(`<rect class="band" x="%.1f" y="%g" width="%.1f" height="%g"/>`, from, plotTop, max(to-from, 0), plotInnerHeight)
	}
	for _, t := range yTicks {
		f(`<path class="grid" d="M%g %.1fH%g"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`, plotLeft, y.y(t), plotWidth-plotRight,
			plotLeft-4, y.y(t)+3.5, axis(t))
	}
	for _, t := range xTicks {
		if p.percentiles && x.x(t) > plotWidth-plotRight-plotLastNine && t > x.low {
			continue // its long text would not fit
		}
		text := axis(t) + html.HTMLEscapeString(p.xUnit)
		if p.percentiles {
			text = nines(t)
		}
		f(`<path class="tick" d="M%.1f %gv4"/><text x="%.1f" y="%g" text-anchor="middle">%s</text>`, x.x(t), plotHeight-plotBottom, x.x(t),
			plotHeight-6, text)
	}
	f(`<text x="%g" y="10">%s</text>`, 2.0, html.HTMLEscapeString(p.unit))
	for i, l := range p.lines {
		f(`<path class="line c%d" d="%s"><title>%s</title></path>`, i, l.path(p.x, x, y), html.HTMLEscapeString(l.name))
	}
	f(`</svg>`)
	return html.HTML(b.String()), true
}

// path is the line's; it is interrupted where there is no value.
func (l line) path(xs []float64, x, y scale) string {
	var b strings.Builder
	pen := byte('M')
	for i, v := range l.y {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			pen = 'M'
			continue
		}
		_, _ = fmt.Fprintf(&b, "%c%.1f %.1f", pen, x.x(xs[i]), y.y(v))
		if pen == 'M' {
			b.WriteString("h.1") // a lonely value is a dot
		}
		pen = 'L'
	}
	return b.String()
}

// yScale begins at zero, or at a power of ten when it is logarithmic.
func (p *plot) yScale(low, high float64) (s scale, ticks []float64) {
	if !p.logY {
		step := niceStep(max(high, 0) / (plotTicks - 1))
		s = scale{high: step * max(math.Ceil(high/step-1e-9), 1)}
		for t := 0.0; t <= s.high*1.0001; t += step {
			ticks = append(ticks, t)
		}
		return s, ticks
	}
	first, last := math.Floor(math.Log10(max(low, 1e-3))), math.Ceil(math.Log10(max(high, 1e-3)))
	last = max(last, first+1)
	s = scale{low: math.Pow(10, first), high: math.Pow(10, last), log: true}
	for e := first; e <= last; e++ {
		ticks = append(ticks, math.Pow(10, e))
	}
	return s, ticks
}

func (p *plot) xScale() (s scale, ticks []float64) {
	low, high, _ := bounds(p.x)
	if !p.percentiles {
		low = 0
	}
	s = scale{low: low, high: max(high, low+1e-9)}
	step := niceStep((s.high - s.low) / plotTicks)
	if p.percentiles {
		step = 1
	}
	for t := s.low; t <= s.high*1.0001; t += step {
		ticks = append(ticks, t)
	}
	return s, ticks
}

// niceStep is v rounded up to 1, 2 or 5 times a power of ten.
func niceStep(v float64) float64 {
	if v <= 0 {
		return 1
	}
	base := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*base*1.0001 {
			return m * base
		}
	}
	return 10 * base
}

// nines is the percentage that n nines are: 0 %, 90 %, 99 %, 99.9 % …
func nines(n float64) string {
	switch k := int(math.Round(n)); {
	case k <= 0:
		return "0%"
	case k <= 2:
		return strings.Repeat("9", k) + strings.Repeat("0", 2-k) + "%"
	default:
		return "99." + strings.Repeat("9", k-2) + "%"
	}
}
