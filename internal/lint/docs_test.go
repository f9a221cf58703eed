package lint

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/config"
)

// TestConfigurationDocument compares the tables of docs/configuration.md with the program's: every key, its default, and
// whether SIGHUP takes it.
func TestConfigurationDocument(t *testing.T) {
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9.-]+)`( ↻)? \\| (.*?) ?\\| ").FindAllStringSubmatch(read(t, "docs/configuration.md"), -1) {
		rows[m[1]] = strings.Trim(m[3], "`")
	}
	for _, k := range config.Keys() {
		shown, there := rows[k.Name]
		if !there {
			t.Errorf("docs/configuration.md has no row for %s (%s)", k.Name, k.Help)
		} else if shown != k.Default {
			t.Errorf("docs/configuration.md: %s has default %q, the program has %q", k.Name, shown, k.Default)
		}
		delete(rows, k.Name)
	}
	for name := range rows {
		t.Errorf("docs/configuration.md has a row for %s, which is no key", name)
	}
}

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
			list = append(list, filepath.ToSlash(strings.TrimPrefix(f, root+string(filepath.Separator))))
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
