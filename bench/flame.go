package bench

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	html "html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// frame is a function in a flame graph, under one chain of callers.
type frame struct {
	name string
	time time.Duration // with all below it
	sub  map[string]*frame
}

func (f *frame) below(name string) *frame {
	if f.sub == nil {
		f.sub = map[string]*frame{}
	}
	if f.sub[name] == nil {
		f.sub[name] = &frame{name: name}
	}
	return f.sub[name]
}

// WriteFlame draws the stacks that "go tool pprof -traces" prints as one SVG: a box's width is the share of CPU time of a
// function and all that it calls, those it calls stand above it. The picture needs no script; a box's title has its numbers.
func WriteFlame(w io.Writer, title string, traces io.Reader) error {
	root, err := readTraces(traces)
	if err != nil {
		return err
	}
	d := &flameDrawing{total: root.time}
	d.depth = depthOf(root)
	d.height = flameTop + float64(d.depth)*flameRow + flameBottom
	_, _ = fmt.Fprintf(&d.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="system-ui, sans-serif" font-size="11">`+"\n"+
		`<rect width="100%%" height="100%%" fill="#fff"/><text x="8" y="18" font-size="14">%s, %s of CPU</text>`+"\n",
		flameWidth, d.height, html.HTMLEscapeString(title), root.time.Round(time.Millisecond))
	d.draw(root, 0, flameWidth, 0)
	d.b.WriteString("</svg>\n")
	_, err = io.WriteString(w, d.b.String())
	return err
}

// readTraces reads the stacks, each behind a line of dashes: a value with the innermost function, then its callers.
func readTraces(r io.Reader) (*frame, error) {
	root := &frame{name: "all"}
	var stack []string
	var value time.Duration
	finish := func() {
		if len(stack) == 0 {
			return
		}
		root.time += value
		at := root
		for _, name := range slices.Backward(stack) {
			at = at.below(name)
			at.time += value
		}
		stack = stack[:0]
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	inStacks := false
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case strings.HasPrefix(line, "-----------+"):
			finish()
			inStacks = true
		case !inStacks || line == "":
		case len(stack) == 0:
			text, name, ok := strings.Cut(line, " ")
			d, err := time.ParseDuration(text)
			if !ok || err != nil {
				continue // a label of the stack
			}
			value = d
			stack = append(stack, shortName(name))
		default:
			stack = append(stack, shortName(line))
		}
	}
	finish()
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("bench: flame: %w", err)
	}
	if root.time == 0 {
		return nil, errors.New("bench: flame: no stacks of CPU time; want what go tool pprof -traces prints")
	}
	return root, nil
}

// ownModule is cut off the names of this program's functions.
const ownModule = "github.com/meshtalk/meshtalk/"

// shortName is the package's last element and the function, without "(inline)" and what generics add; with a version for last
// element, the one before it. Our own packages keep their whole path.
func shortName(name string) string {
	name = strings.TrimSuffix(strings.TrimSpace(name), " (inline)")
	name = strings.ReplaceAll(name, "[...]", "")
	if own, ok := strings.CutPrefix(name, ownModule); ok {
		return own
	}
	slash := strings.LastIndexByte(name, '/')
	if slash < 0 {
		return name
	}
	last := name[slash+1:]
	pkg, function, ok := strings.Cut(last, ".")
	if version := strings.TrimPrefix(pkg, "v"); ok && version != pkg && strings.Trim(version, "0123456789") == "" {
		before := name[:slash]
		return before[strings.LastIndexByte(before, '/')+1:] + "." + function
	}
	return last
}

// The drawing, in its own units.
const (
	flameWidth, flameRow   = 1200.0, 17.0
	flameTop, flameBottom  = 28.0, 6.0
	flameLeast, flameGlyph = 1.0, 6.1 // boxes below that width are left out; of a letter
)

type flameDrawing struct {
	b      strings.Builder
	total  time.Duration
	depth  int
	height float64
}

func width(f *frame, total time.Duration) float64 {
	return flameWidth * float64(f.time) / float64(total)
}

// depthOf is how many rows f takes, of what is wide enough to be seen.
func depthOf(root *frame) int {
	var of func(f *frame) int
	of = func(f *frame) (most int) {
		for _, s := range f.sub {
			if width(s, root.time) >= flameLeast {
				most = max(most, of(s))
			}
		}
		return most + 1
	}
	return of(root)
}

// draw draws f and what it calls, widest first.
func (d *flameDrawing) draw(f *frame, x, w float64, row int) {
	y := d.height - flameBottom - float64(row+1)*flameRow
	label := ""
	if letters := int((w - 6) / flameGlyph); letters >= 3 {
		label = f.name
		if len(label) > letters {
			label = label[:letters-1] + "…"
		}
	}
	_, _ = fmt.Fprintf(&d.b, `<g><title>%s: %s, %.1f%%</title><rect x="%.1f" y="%.1f" width="%.1f" height="%g" rx="1.5" fill="%s" stroke="#fff" stroke-width=".5"/>`,
		html.HTMLEscapeString(f.name), f.time.Round(time.Millisecond), 100*float64(f.time)/float64(d.total), x, y, w, flameRow-1, flameColour(f.name))
	if label != "" {
		_, _ = fmt.Fprintf(&d.b, `<text x="%.1f" y="%.1f">%s</text>`, x+3, y+flameRow-5, html.HTMLEscapeString(label))
	}
	d.b.WriteString("</g>\n")
	subs := slices.SortedFunc(maps.Values(f.sub), func(a, b *frame) int {
		return cmp.Or(cmp.Compare(b.time, a.time), cmp.Compare(a.name, b.name))
	})
	for _, s := range subs {
		sw := width(s, d.total)
		if sw >= flameLeast {
			d.draw(s, x, sw, row+1)
		}
		x += sw
	}
}

// flameColour tells parts of the program apart: the kernel's calls, Go's runtime, the store's database, the poller, ours, and
// the rest.
func flameColour(name string) string {
	pkg, _, _ := strings.Cut(name, ".")
	pkg, _, _ = strings.Cut(pkg, "/")
	switch pkg {
	case "syscall", "unix", "linux", "poll":
		return "#f2a79b"
	case "runtime", "gogo", "sync", "atomic", "memeqbody", "cmpbody", "aeshashbody", "indexbytebody":
		return "#d9d9d9"
	case "pebble", "sstable", "arenaskl", "record", "vfs", "zstd", "snappy", "objstorage", "objstorageprovider", "rowblk", "block", "blockkind",
		"colblk", "crc", "compact", "cache", "compression", "manifest", "base", "keyspan":
		return "#b5d6a7"
	case "gnet", "netpoll", "errgroup":
		return "#d3bfe8"
	case "codec", "engine", "hub", "session", "store", "auth", "server", "mq", "cmd":
		return "#a8c8f0"
	}
	return "#f3dfa2"
}
