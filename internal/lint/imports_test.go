package lint

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// mayImport is the layout of docs/architecture.md: every package of the program and which others of it the package may
// import. Imports point down; what has to go up goes through an interface that the lower package declares. Test files
// may import more. A package that is not here fails the test: give it a row and a reason.
var mayImport = map[string][]string{
	"codec": {},
	"auth":  {},

	"store":           {},
	"store/pebble":    {"store"},
	"store/postgres":  {"store"},
	"store/storetest": {"store"},

	"mq":          {},
	"mq/local":    {"mq"},
	"mq/mqtest":   {"mq"},
	"mq/rocketmq": {"mq"},

	"cluster":             {"codec"},
	"cluster/local":       {"cluster", "codec"},
	"cluster/redis":       {"cluster", "codec"},
	"cluster/clustertest": {"cluster", "codec"},

	"engine":  {"codec"},
	"hub":     {"codec", "store", "mq", "cluster"},
	"session": {"auth", "codec", "engine", "hub", "store"}, // of store its words only, see docs/architecture.md
	"api":     {"auth", "codec", "hub", "store"},
	"demo":    {}, // what it needs comes through an interface that it declares
	"console": {}, // what it shows comes through interfaces that it declares

	"server": {
		"api", "auth", "cluster", "cluster/local", "cluster/redis", "codec", "console", "demo", "engine", "hub", "mq", "mq/local",
		"mq/rocketmq", "session", "store", "store/pebble", "store/postgres",
	},
	"config": {"server"},
	"client": {"codec"},
	"bench":  {"client", "codec"},

	"bench/baseline": {}, // what it is compared with shares nothing with it

	"cmd/meshtalk":  {"bench", "client", "codec", "config", "server"},
	"cmd/meshbench": {"bench", "bench/baseline", "client", "codec", "config", "server"},

	"internal/services": {}, // for tests
	"internal/markdown": {}, // likewise

	"examples/echo": {"codec", "engine"}, // it shows that these two stand alone
}

// onlyIn says which packages may import a dependency, so that it can be replaced in one place. The prefix stands for
// everything below it.
var onlyIn = map[string][]string{
	"github.com/panjf2000/gnet":     {"engine"}, // no type of gnet leaves it
	"github.com/cockroachdb/pebble": {"store/pebble"},
	"github.com/golang-jwt/jwt":     {"auth"},
	"github.com/MicahParks":         {"auth"},
	"github.com/prometheus":         {"console"},
	"github.com/knadh/koanf":        {"config"},
	"github.com/spf13/cobra":        {"cmd/meshtalk", "cmd/meshbench"},
	"github.com/coder/websocket":    {"bench/baseline"}, // and tests
	"github.com/jackc/pgx":          {"store/postgres"},
	"github.com/pressly/goose":      {"store/postgres"},
	"github.com/redis/rueidis":      {"cluster/redis"},
	"github.com/apache/rocketmq":    {"examples/events"}, // as business services use it; mq/rocketmq speaks the protocol itself
}

// example reports whether a folder is a program for readers: it uses what is public, as anybody's program would.
func example(folder string) bool { return strings.HasPrefix(folder, "examples/") }

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		seen[f.folder] = true
		allowed, listed := mayImport[f.folder]
		if !listed && !example(f.folder) {
			t.Errorf("%s: package %s has no row in mayImport", f.path, f.folder)
			continue
		}
		for _, i := range f.imports {
			if own, ours := strings.CutPrefix(i, module+"/"); ours && listed && !slices.Contains(allowed, own) {
				t.Errorf("%s imports %s; %s may import %v", f.path, own, f.folder, allowed)
			}
			for prefix, folders := range onlyIn {
				if strings.HasPrefix(i, prefix) && !slices.Contains(folders, f.folder) {
					t.Errorf("%s imports %s; only %v may", f.path, i, folders)
				}
			}
		}
	}
	for p := range mayImport {
		if !seen[p] {
			t.Errorf("mayImport has a row for %s, which does not exist", p)
		}
	}
}

// Nothing happens at import time, and every package is named for what it is.
func TestHouseRules(t *testing.T) {
	for _, f := range tree(t) {
		if name := f.ast.Name.Name; slices.Contains([]string{"util", "utils", "common", "helpers", "misc"}, name) {
			t.Errorf("%s: package %s says nothing of what is in it", f.path, name)
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function: wire it explicitly", f.path)
			}
		}
		for _, i := range f.ast.Imports {
			if i.Name != nil && i.Name.Name == "_" && i.Path.Value != `"embed"` {
				t.Errorf("%s imports %s for its side effects", f.path, i.Path.Value)
			}
		}
	}
}

// Every example is a program with a test that runs it.
func TestExamplesAreRun(t *testing.T) {
	tested := map[string]bool{}
	for _, f := range tree(t) {
		if example(f.folder) {
			tested[f.folder] = tested[f.folder] || f.test
		}
	}
	if len(tested) == 0 {
		t.Error("no examples found")
	}
	for folder, ok := range tested {
		if !ok {
			t.Errorf("%s has no test that runs it", folder)
		}
	}
}
