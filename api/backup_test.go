package api

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/codec"
)

func TestBackupDirectory(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	parent := filepath.Join(root, "srv")
	data := filepath.Join(parent, "data")
	outside := filepath.Join(root, "elsewhere")
	must(os.MkdirAll(data, 0o700))
	must(os.MkdirAll(filepath.Join(parent, "there"), 0o700))
	must(os.Mkdir(outside, 0o700))
	must(os.WriteFile(filepath.Join(parent, "file"), nil, 0o600))
	must(os.Symlink(outside, filepath.Join(parent, "out")))
	must(os.Symlink(filepath.Join(parent, "there"), filepath.Join(parent, "in")))
	must(os.Symlink(filepath.Join(parent, "nothing"), filepath.Join(parent, "dangling")))
	must(os.Symlink(data, filepath.Join(parent, "alias")))

	f := &fake{}
	c := &caller{t, New(f, Options{DataDir: data}), loadContract(t)}
	for _, x := range []struct {
		dir    string // below parent when relative
		status int
		target string // what the hub is given, below parent
	}{
		{parent + "/backup", 200, "backup"},
		{"backup", 200, "backup"},
		{"./a/../backup/", 200, "backup"},
		{parent + "/new/er/backup", 200, "new/er/backup"},
		{parent + "/there/backup", 200, "there/backup"},
		{parent + "/in/backup", 200, "there/backup"},
		{parent + "/data2", 200, "data2"},
		{parent + "/..backup", 200, "..backup"},

		{parent, 403, ""},
		{".", 403, ""},
		{root, 403, ""},
		{"/", 403, ""},
		{outside + "/backup", 403, ""},
		{"../elsewhere/backup", 403, ""},
		{parent + "/../elsewhere/backup", 403, ""},
		{parent + "2/backup", 403, ""},
		{parent + "/out/backup", 403, ""},
		{parent + "/out", 403, ""},
		{data, 403, ""},
		{data + "/backup", 403, ""},
		{parent + "/alias/backup", 403, ""},
		{parent + "/alias", 403, ""},
		{"data/../data/x", 403, ""},

		{parent + "/there", 409, ""},
		{parent + "/file", 409, ""},
		{parent + "/in", 409, ""},
		{parent + "/dangling", 409, ""},

		{parent + "/file/backup", 400, ""},
		{parent + "/a\x00b", 400, ""},
		{parent + "/" + strings.Repeat("x", 300), 400, ""},
	} {
		body, err := json.Marshal(map[string]string{"dir": x.dir})
		must(err)
		a := c.ask("POST", "/v1/backup", string(body))
		want := ""
		if x.status == 200 {
			want = "backup " + filepath.Join(parent, x.target)
		}
		if got := f.took(); a.status != x.status || got != want {
			t.Errorf("%q: %d %s, call %q, want %d, %q", x.dir, a.status, a.body, got, x.status, want)
		}
	}
	c.h = New(f, Options{})
	c.wants(f, "POST", "/v1/backup", `{"dir":"x"}`, 403, "FORBIDDEN", "no embedded store")
	c.h = New(f, Options{DataDir: data})
	f.fail(refuse(codec.CodeUnavailable, "disk full"))
	if a := c.ask("POST", "/v1/backup", `{"dir":"x"}`); a.status != 503 {
		t.Errorf("%d %s", a.status, a.body)
	}
}
