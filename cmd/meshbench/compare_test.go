package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/bench"
)

func TestCompare(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(rate string) string {
		return `{"scenario":"private","ok":true,"messages":{"delivered_per_second":` + rate + `}}`
	}
	a := file("a.json", run("1000")+run("1100"))
	b1, b2, bad := file("b1.json", run("2000")), file("b2.json", run("2200")), file("bad.json", "{}")
	f := func(args ...string) (string, error) {
		cmd := newCommand()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs(append([]string{"compare"}, args...))
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	out, err := f(a, b1+","+b2)
	if err != nil || !strings.Contains(out, "1050 (1000–1100) /s") || !strings.Contains(out, "2.000  better") || !strings.Contains(out, "chance of 0.33") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = f("--json", a, b1)
	var c bench.Comparison
	if err != nil || json.Unmarshal([]byte(out), &c) != nil || c.Figures[0].Verdict != bench.NoNoise {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := f(a, bad); err == nil || !strings.Contains(err.Error(), "bad.json") {
		t.Errorf("a file without a result: %v", err)
	}
	if _, err := f(a); !errors.Is(err, errUsage) {
		t.Errorf("one side: %v", err)
	}
}
