// Package markdown takes the documents of this repository apart for the tests that check and run them: fenced blocks of
// code, links, headings. It knows what these documents use and no more.
package markdown

import (
	"fmt"
	"regexp"
	"strings"
)

// Part is a stretch of a document: prose, or a fenced block of code.
type Part struct {
	Line int    // of its first line, from 1; of a block, that of its fence
	Code bool   // a block
	Lang string // of a block: the first word behind the fence
	Info string // of a block: the rest behind the fence
	Text string // without the fences
}

var fence = regexp.MustCompile("^(```+)([^`]*)$")

// Parts splits a document.
func Parts(text string) ([]Part, error) {
	var parts []Part
	var lines []string
	begin := 1
	end := func(p Part) {
		p.Line, p.Text = begin, strings.Join(lines, "")
		if p.Code || p.Text != "" {
			parts = append(parts, p)
		}
		lines = nil
	}
	var open string // the fence that began a block
	var block Part
	number := 0
	for line := range strings.Lines(text) {
		number++
		bare := strings.TrimRight(line, "\r\n")
		m := fence.FindStringSubmatch(bare)
		switch {
		case open == "" && m != nil:
			end(Part{})
			open, begin = m[1], number
			block = Part{Code: true}
			block.Lang, block.Info, _ = strings.Cut(strings.TrimSpace(m[2]), " ")
		case open != "" && bare == open:
			end(block)
			open, begin = "", number+1
		default:
			lines = append(lines, line)
		}
	}
	if open != "" {
		return nil, fmt.Errorf("line %d: the block has no end", begin)
	}
	end(Part{})
	return parts, nil
}

// prose is a document without its blocks and without code within lines.
func prose(text string) string {
	parts, err := Parts(text)
	if err != nil {
		return text
	}
	var b strings.Builder
	for _, p := range parts {
		if !p.Code {
			b.WriteString(p.Text)
		}
	}
	return b.String()
}

var (
	inline = regexp.MustCompile("`[^`\n]+`")
	link   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	source = regexp.MustCompile(`<(?:img|source|a)\b[^>]*?\b(?:src|href|srcset)="([^"]+)"`)
	title  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	// marks are what an anchor loses of its heading.
	marks = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// Links are the targets of all links and pictures of a document, as they stand there.
func Links(text string) []string {
	text = prose(text)
	var list []string
	for _, m := range link.FindAllStringSubmatch(inline.ReplaceAllString(text, "code"), -1) {
		list = append(list, m[1])
	}
	for _, m := range source.FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	return list
}

// Headings are the texts of a document's headings, the title first.
func Headings(text string) []string {
	var list []string
	for _, m := range title.FindAllStringSubmatch(prose(text), -1) {
		list = append(list, m[1])
	}
	return list
}

// Anchors are what a link may have behind its #, as GitHub makes them of the headings: a heading that comes again gets a number.
func Anchors(text string) []string {
	var list []string
	seen := map[string]int{}
	for _, h := range Headings(text) {
		a := strings.ReplaceAll(marks.ReplaceAllString(strings.ToLower(h), ""), " ", "-")
		if n := seen[a]; n > 0 {
			list = append(list, fmt.Sprintf("%s-%d", a, n))
		} else {
			list = append(list, a)
		}
		seen[a]++
	}
	return list
}
