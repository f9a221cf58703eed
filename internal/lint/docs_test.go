package lint

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
