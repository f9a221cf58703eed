package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/meshtalk/meshtalk/bench"
)

// liveLine is one line of a terminal that tells how far a run is, written over once a second.
type liveLine struct {
	terminal *os.File // nil = there is none, and nothing is written
	last     bench.Progress
	shown    bool
}

// newLiveLine writes to f if that is a terminal which can go back to the begin of a line.
func newLiveLine(w io.Writer) *liveLine {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return &liveLine{}
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return &liveLine{}
	}
	return &liveLine{terminal: f}
}

// show is the function for bench.Options; nil without a terminal.
func (l *liveLine) show() func(bench.Progress) {
	if l.terminal == nil {
		return nil
	}
	return func(now bench.Progress) {
		width := 80
		if size, err := unix.IoctlGetWinsize(int(l.terminal.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			width = int(size.Col)
		}
		_, _ = fmt.Fprint(l.terminal, "\r\033[K"+liveText(now, l.last, width-1)) // a run goes on without its live line
		l.last, l.shown = now, true
	}
}

// clear takes the line away.
func (l *liveLine) clear() {
	if l.shown {
		_, _ = fmt.Fprint(l.terminal, "\r\033[K")
		l.shown = false
	}
}

// liveText is at most width characters: a line that wraps could not be written over.
func liveText(now, last bench.Progress, width int) string {
	const bar = 12
	text := fmt.Sprintf("%6.1f s  %-8s ", now.Elapsed.Seconds(), now.Stage)
	if now.Done >= 0 {
		full := int(min(now.Done, 1) * bar)
		text += "[" + strings.Repeat("=", full) + strings.Repeat(" ", bar-full) + "]  "
	}
	text += fmt.Sprintf("%d logged in", now.Connections)
	if since := (now.Elapsed - last.Elapsed).Seconds(); now.Sent > 0 && since > 0 {
		text += fmt.Sprintf("  %.0f/s", float64(now.Delivered-last.Delivered)/since)
	}
	if now.P99 > 0 {
		text += fmt.Sprintf("  p99 %.3g ms", now.P99)
	}
	if now.Failures > 0 {
		text = fmt.Sprintf("%d FAILURES  %s", now.Failures, text)
	}
	return text[:min(len(text), max(width, 0))]
}
