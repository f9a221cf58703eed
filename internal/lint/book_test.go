package lint

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/internal/markdown"
)

// rewrite: go test ./internal/lint -run Book -rewrite
var rewrite = flag.Bool("rewrite", false, "write the lines at the end of each chapter anew, in the order of docs/README.md")

// contents is the book's first page: its links in their order are the chapters.
const contents = "docs/README.md"

// outside are documents below docs/ that are no chapters: records have a list of their own.
func outside(doc string) bool {
	return doc == contents || strings.HasPrefix(doc, "docs/adr/") && doc != "docs/adr/README.md"
}

// chapter is one page of the book.
type chapter struct{ path, title string }

// chapters are the pages in reading order.
func chapters(t *testing.T) []chapter {
	t.Helper()
	var list []chapter
	for _, l := range markdown.Links(read(t, contents)) {
		doc := path.Join("docs", l)
		if !strings.HasPrefix(doc, "docs/") || path.Ext(doc) != ".md" {
			continue
		}
		h := markdown.Headings(read(t, doc))
		if len(h) == 0 {
			t.Fatalf("%s has no title", doc)
		}
		list = append(list, chapter{doc, h[0]})
	}
	if len(list) < 10 {
		t.Fatalf("%s names %d chapters", contents, len(list))
	}
	return list
}

// TestBook: every document below docs/ is a chapter, once, and ends in a line with the chapter before, the contents and the
// chapter behind.
func TestBook(t *testing.T) {
	list := chapters(t)
	seen := map[string]bool{}
	for i, c := range list {
		if seen[c.path] {
			t.Errorf("%s names %s twice", contents, c.path)
		}
		seen[c.path] = true
		line := "\n---\n\n"
		if i > 0 {
			line += step(c, list[i-1], "← %s") + " · "
		}
		line += fmt.Sprintf("[Contents](%s)", relative(c.path, contents))
		if i+1 < len(list) {
			line += " · " + step(c, list[i+1], "%s →")
		}
		line += "\n"
		text := read(t, c.path)
		if strings.HasSuffix(text, line) {
			continue
		}
		if !*rewrite {
			t.Errorf("%s does not end in%s(go test ./internal/lint -run Book -rewrite)", c.path, line)
			continue
		}
		body := stepLine.ReplaceAllString(text, "")
		if err := os.WriteFile(filepath.Join(root, c.path), []byte(strings.TrimRight(body, "\n")+"\n"+line), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, doc := range documents(t) {
		if strings.HasPrefix(doc, "docs/") && !outside(doc) && !seen[doc] {
			t.Errorf("%s is no chapter of %s", doc, contents)
		}
	}
	records := markdown.Links(read(t, "docs/adr/README.md"))
	for _, doc := range documents(t) {
		if name, ok := strings.CutPrefix(doc, "docs/adr/"); ok && name != "README.md" && !slices.Contains(records, name) {
			t.Errorf("docs/adr/README.md does not name %s", name)
		}
	}
}

// stepLine is the end of a chapter.
var stepLine = regexp.MustCompile(`\n---\n\n[^\n]*\[Contents\]\([^\n]*\n*$`)

func step(from, to chapter, form string) string {
	return fmt.Sprintf("["+form+"](%s)", to.title, relative(from.path, to.path))
}

// relative is the link from one document to another.
func relative(from, to string) string {
	r, err := filepath.Rel(path.Dir(from), to)
	if err != nil {
		panic(err) // both are below the root
	}
	return filepath.ToSlash(r)
}

// TestLinks: what the documents link to in this repository is there, headings included, and is under version control.
func TestLinks(t *testing.T) {
	for _, doc := range documents(t) {
		for _, l := range markdown.Links(read(t, doc)) {
			target, anchor, _ := strings.Cut(l, "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			file := doc
			if target != "" {
				file = path.Join(path.Dir(doc), target)
			}
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(file))); err != nil {
				t.Errorf("%s links to %s: %v", doc, l, err)
				continue
			}
			if anchor != "" && (path.Ext(file) != ".md" || !slices.Contains(markdown.Anchors(read(t, file)), anchor)) {
				t.Errorf("%s links to %s, and there is no such heading", doc, l)
			}
		}
	}
}

// documents are all Markdown files of the repository, from the root.
func documents(t *testing.T) []string { return listed(t, "*.md") }

// listed are the files of the repository that match a pattern: those that git knows or would take.
func listed(t *testing.T, pattern string) []string {
	t.Helper()
	cmd := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", pattern)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	var list []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil && !slices.Contains(list, name) { // it may be deleted and not staged
			list = append(list, name)
		}
	}
	if len(list) == 0 {
		t.Fatalf("git knows no %s", pattern)
	}
	return list
}

// TestPictures: drawings are well-formed, say what they show, and every picture is shown somewhere.
func TestPictures(t *testing.T) {
	var shown []string
	for _, doc := range documents(t) {
		for _, l := range markdown.Links(read(t, doc)) {
			shown = append(shown, path.Join(path.Dir(doc), l))
		}
	}
	for _, name := range append(listed(t, "docs/images/*.svg"), listed(t, "docs/images/*.png")...) {
		if !slices.Contains(shown, name) {
			t.Errorf("no document shows %s", name)
		}
	}
	for _, name := range listed(t, "docs/images/*.svg") {
		text := read(t, name)
		d := xml.NewDecoder(strings.NewReader(text))
		var err error
		for err == nil {
			_, err = d.Token()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(text, "<title>") || !strings.Contains(text, "viewBox=") {
			t.Errorf("%s has no title or no viewBox", name)
		}
		if strings.Contains(text, "<script") || strings.Contains(text, "<foreignObject") {
			t.Errorf("%s is more than a drawing", name)
		}
	}
}

// maxNotRun is how many blocks of commands may be shown and not run.
const maxNotRun = 2

// TestBlocks: blocks of code are closed, say their language, and JSON is JSON. Few blocks of README.md and the getting-started page are
// excepted from being run (e2e/docs runs the others), each with its reason.
func TestBlocks(t *testing.T) {
	notRun := 0
	for _, doc := range documents(t) {
		parts, err := markdown.Parts(read(t, doc))
		if err != nil {
			t.Errorf("%s: %v", doc, err)
		}
		for _, p := range parts {
			if p.Lang == "json" && !json.Valid([]byte(strings.ReplaceAll(p.Text, "{…}", "{}"))) {
				t.Errorf("%s:%d is no JSON", doc, p.Line)
			}
			if reason, ok := strings.CutPrefix(p.Info, "no-run"); ok {
				notRun++
				if len(strings.Fields(reason)) < 3 {
					t.Errorf("%s:%d is not run and does not say why", doc, p.Line)
				}
			}
		}
	}
	if notRun > maxNotRun {
		t.Errorf("%d blocks are not run, want at most %d", notRun, maxNotRun)
	}
}
