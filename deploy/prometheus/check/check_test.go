// Package check sees to it that Prometheus takes the alerts and that Grafana's dashboards and the alerts name nothing that the
// server does not have. It is a module of its own, so that Prometheus' packages are none of the server's dependencies.
package check

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// root is the repository.
const root = "../../.."

// The names that are not the server's but Prometheus' own, and the labels that it adds to every series.
var (
	own       = map[string][]string{"up": nil}
	addedToIt = []string{"instance", "job"}
)

// clusterOnly are metrics that only a cluster has, with their labels; the server's source has to name them.
var clusterOnly = map[string][]string{"meshtalk_log_lag_messages": {"queue"}}

func TestAlerts(t *testing.T) {
	groups, errs := rulefmt.ParseFile(filepath.Join(root, "deploy/prometheus/alerts.yml"), false, model.UTF8Validation)
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil {
		t.FailNow()
	}
	series := scrape(t)
	runbooks := headings(t)
	seen := map[string]bool{}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if seen[r.Alert] || r.Alert == "" {
				t.Errorf("%q: an alert without a name or twice", r.Alert)
			}
			seen[r.Alert] = true
			for _, problem := range problems(r.Expr, series) {
				t.Errorf("%s: %s", r.Alert, problem)
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s: severity %q", r.Alert, s)
			}
			for _, a := range []string{"summary", "description", "runbook_url"} {
				if r.Annotations[a] == "" {
					t.Errorf("%s has no %s", r.Alert, a)
				}
			}
			page, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
			if !strings.HasSuffix(page, "/docs/operations.md") || anchor != strings.ToLower(r.Alert) || !runbooks[anchor] {
				t.Errorf("%s: its runbook %s is not there", r.Alert, r.Annotations["runbook_url"])
			}
			delete(runbooks, anchor)
		}
	}
	for anchor := range runbooks {
		t.Errorf("docs/operations.md has a runbook %s and there is no such alert", anchor)
	}
}

// headings are the runbooks of docs/operations.md.
func headings(t *testing.T) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "docs/operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^### (Meshtalk\w+)$`).FindAllStringSubmatch(string(b), -1) {
		found[strings.ToLower(m[1])] = true
	}
	return found
}

// panel is a part of a dashboard, as far as it matters here.
type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct{ X, Y, W, H int }
	Targets []struct{ Expr, RefID string }
}

type dashboard struct {
	Title, UID string
	Panels     []panel
	Templating struct {
		List []struct{ Name, Definition, Type string }
	}
}

func TestDashboards(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "deploy/grafana/*.json"))
	if err != nil || len(files) < 2 {
		t.Fatalf("dashboards: %v %v", files, err)
	}
	series := scrape(t)
	uids := map[string]bool{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if d.Title == "" || d.UID == "" || uids[d.UID] {
			t.Errorf("%s: title %q, uid %q", f, d.Title, d.UID)
		}
		uids[d.UID] = true
		checkPanels(t, filepath.Base(f), &d, series)
	}
}

func checkPanels(t *testing.T, file string, d *dashboard, series map[string][]string) {
	ids := map[int]bool{}
	for i, p := range d.Panels {
		where := fmt.Sprintf("%s, %q", file, p.Title)
		if ids[p.ID] || p.Title == "" {
			t.Errorf("%s: panel %d has no title or its id twice", where, p.ID)
		}
		ids[p.ID] = true
		if (len(p.Targets) == 0) != (p.Type == "row") {
			t.Errorf("%s asks for %d things", where, len(p.Targets))
		}
		for _, target := range p.Targets {
			for _, problem := range problems(concrete(target.Expr), series) {
				t.Errorf("%s: %s", where, problem)
			}
		}
		for _, q := range d.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H || a.X+a.W > 24 {
				t.Errorf("%s overlaps %q", where, q.Title)
			}
		}
	}
	for _, v := range d.Templating.List {
		m := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`).FindStringSubmatch(v.Definition)
		if m == nil {
			if v.Type == "query" {
				t.Errorf("%s: variable %s is %q", file, v.Name, v.Definition)
			}
			continue
		}
		for _, problem := range problems(concrete(m[1]), series) {
			t.Errorf("%s: variable %s: %s", file, v.Name, problem)
		}
	}
}

// concrete puts values where Grafana does.
func concrete(expr string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$job", "meshtalk", "$instance", "n:1").Replace(expr)
}

// problems are what is wrong with an expression: it does not parse, or names a metric or label that series does not have.
func problems(expr string, series map[string][]string) (list []string) {
	parsed, err := parser.ParseExpr(expr)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", expr, err)}
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			known, ok := series[n.Name]
			if !ok {
				list = append(list, fmt.Sprintf("%s: the server has no metric %s", expr, n.Name))
				return nil
			}
			for _, m := range n.LabelMatchers {
				if m.Name != labels.MetricName && !slices.Contains(known, m.Name) && !slices.Contains(addedToIt, m.Name) {
					list = append(list, fmt.Sprintf("%s: %s has no label %s", expr, n.Name, m.Name))
				}
			}
		case *parser.AggregateExpr:
			for _, label := range n.Grouping {
				if !slices.Contains(addedToIt, label) && !anyHas(n.Expr, label, series) {
					list = append(list, fmt.Sprintf("%s: nothing in it has a label %s", expr, label))
				}
			}
		}
		return nil
	})
	return list
}

// anyHas reports whether a metric below e has a label.
func anyHas(e parser.Expr, label string, series map[string][]string) (has bool) {
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		if n, ok := node.(*parser.VectorSelector); ok && slices.Contains(series[n.Name], label) {
			has = true
		}
		return nil
	})
	return has
}

// The check itself finds what it is there for.
func TestProblems(t *testing.T) {
	series := map[string][]string{"meshtalk_connections": {"transport"}, "x_bucket": {"le"}}
	for expr, want := range map[string]string{
		`sum by (transport, instance) (meshtalk_connections{job="a"})`: "",
		`histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m])))`:    "",
		`meshtalk_connection`:                   "no metric meshtalk_connection",
		`meshtalk_connections{transprot="tcp"}`: "no label transprot",
		`sum by (le) (meshtalk_connections)`:    "label le",
		`rate(meshtalk_connections)`:            "expected type",
		`meshtalk_connections > `:               "parse error",
	} {
		got := strings.Join(problems(expr, series), "; ")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}
