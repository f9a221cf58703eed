package lint

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMetricsDocument: every metric that the server makes stands in docs/operations.md, and no other.
func TestMetricsDocument(t *testing.T) {
	name := regexp.MustCompile(`meshtalk_[a-z_]*[a-z]`)
	made := name.FindAllString(read(t, "server/metrics.go"), -1)
	told := name.FindAllString(read(t, "docs/operations.md"), -1)
	for _, n := range made {
		if !slices.Contains(told, n) {
			t.Errorf("docs/operations.md does not tell of %s", n)
		}
	}
	for _, n := range told {
		if !slices.Contains(made, n) {
			t.Errorf("docs/operations.md tells of %s, which the server does not make", n)
		}
	}
}

// TestLinks: what the documents link to in this repository is there, headings included.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, doc := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, doc), -1) {
			target, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := doc
			if target != "" {
				file = path.Join(path.Dir(doc), target)
			}
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(file))); err != nil {
				t.Errorf("%s links to %s: %v", doc, m[1], err)
				continue
			}
			if heading != "" && !slices.Contains(headings(read(t, file)), heading) {
				t.Errorf("%s links to %s, and there is no such heading", doc, m[1])
			}
		}
	}
}

// documents are all Markdown files of the repository, from the root.
func documents(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "*/*/README.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			f = filepath.ToSlash(strings.TrimPrefix(f, root+string(filepath.Separator)))
			if !strings.HasPrefix(f, "node_modules/") {
				list = append(list, f)
			}
		}
	}
	return list
}

// headings are the anchors of a document, as GitHub makes them.
func headings(text string) []string {
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		a := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		list = append(list, strings.ReplaceAll(a, " ", "-"))
	}
	return list
}

// Tests that the documents name exist.
func TestTestsNamed(t *testing.T) {
	written := map[string]bool{}
	for _, f := range tree(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test {
				written[fn.Name.Name] = true
			}
		}
	}
	for _, doc := range documents(t) {
		for _, m := range regexp.MustCompile("`((?:Test|Benchmark|Fuzz)[A-Z]\\w+)`").FindAllStringSubmatch(read(t, doc), -1) {
			if !written[m[1]] {
				t.Errorf("%s names %s, which does not exist", doc, m[1])
			}
		}
	}
}

// Paths of source files that the documents name exist.
func TestFilesNamed(t *testing.T) {
	named := regexp.MustCompile("`((?:[a-z0-9]+/)+[a-z0-9_]+\\.(?:go|yaml|json))`?")
	for _, doc := range documents(t) {
		for _, m := range named.FindAllStringSubmatch(read(t, doc), -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(m[1]))); err != nil {
				t.Errorf("%s names %s, which does not exist", doc, m[1])
			}
		}
	}
}
