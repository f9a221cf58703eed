package check

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// What the tests release: a commit after a tag, at a fixed time.
const (
	version = "v0.1.0-5-g0123456"
	number  = "0.1.0+5.g0123456"
	commit  = "0123456789ab"
	epoch   = 1_700_000_000
)

// dist runs `make dist` on a copy of the sources in a folder, and returns where the results are. It is for this architecture, with
// the cache of the Go tool; all: for all architectures, with an empty one.
func dist(t *testing.T, folder string, private, all bool) string {
	t.Helper()
	tool(t, "NFPM")
	copyTree(t, folder, private)
	umask := "022"
	if private {
		umask = "077"
	}
	cmd := exec.Command("sh", "-c", "umask "+umask+" && exec make dist NFPM=\"$NFPM\" VERSION="+version+" COMMIT="+commit)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", fmt.Sprint("SOURCE_DATE_EPOCH=", epoch))
	if private {
		cmd.Env = append(cmd.Env, "TZ=Pacific/Auckland", "USER=somebody", "GOFLAGS=-buildvcs=auto")
	}
	if all {
		cmd.Env = append(cmd.Env, "GOCACHE="+filepath.Join(folder, "cache"))
	} else {
		cmd.Env = append(cmd.Env, "DIST_ARCHS="+runtime.GOARCH)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make dist: %v\n%s", err, out)
	}
	return filepath.Join(folder, "dist")
}

// shared is a release that all tests of a run look at, once one has made it.
var shared struct{ base, folder string }

// released is the folder of a release that the tests share.
func released(t *testing.T) string {
	t.Helper()
	if shared.folder == "" {
		var err error
		if shared.base, err = os.MkdirTemp("", "meshtalk-dist-"); err != nil {
			t.Fatal(err)
		}
		shared.folder = dist(t, filepath.Join(shared.base, "a"), false, false)
	}
	return shared.folder
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.base != "" {
		_ = os.RemoveAll(shared.base) // what stays is in a temporary folder
	}
	os.Exit(code)
}

// files are the names and contents of a folder.
func files(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]byte{}
	for _, e := range entries {
		if found[e.Name()], err = os.ReadFile(filepath.Join(folder, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func names() []string {
	return []string{
		"SHA256SUMS", "meshtalk-" + number + "-linux-" + runtime.GOARCH + ".tar.gz", "meshtalk-" + number + ".tgz",
		"meshtalk_" + number + "_" + runtime.GOARCH + ".deb",
	}
}

// Two people build the same commit, in folders of their own, with other rights, in another time zone: the same bytes. With
// MESHTALK_DIST=all for all architectures and with nothing that is shared.
func TestReproducible(t *testing.T) {
	all := os.Getenv("MESHTALK_DIST") == "all"
	var a string
	if all {
		a = dist(t, filepath.Join(t.TempDir(), "a"), false, true)
	} else {
		a = released(t)
	}
	b := dist(t, filepath.Join(t.TempDir(), "another", "folder"), true, all)
	one, two := files(t, a), files(t, b)
	if len(one) != len(two) || len(one) < len(names()) {
		t.Errorf("%d and %d files", len(one), len(two))
	}
	for name, content := range one {
		if !bytes.Equal(content, two[name]) {
			t.Errorf("%s differs: %d and %d bytes", name, len(content), len(two[name]))
		}
	}
	if all {
		t.Logf("%s", one["SHA256SUMS"])
	}
}

func TestChecksums(t *testing.T) {
	folder := released(t)
	found := files(t, folder)
	var sums strings.Builder
	for _, name := range names() {
		content, is := found[name]
		if !is {
			t.Errorf("no %s", name)
		}
		if name != "SHA256SUMS" {
			sum := sha256.Sum256(content)
			sums.WriteString(hex.EncodeToString(sum[:]) + "  " + name + "\n")
		}
	}
	if len(found) != len(names()) || string(found["SHA256SUMS"]) != sums.String() {
		t.Errorf("%d files; got\n%swant\n%s", len(found), found["SHA256SUMS"], &sums)
	}
	cmd := exec.Command("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS") // as docs/packaging.md has it
	cmd.Dir = folder
	output(t, cmd)
}

// extract unpacks an archive into a folder and returns the headers. All must be as if nobody had made them.
func extract(t *testing.T, name, to string) []*tar.Header {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if zip.Name != "" || !zip.ModTime.IsZero() {
		t.Errorf("%s: gzip says %q, %s", name, zip.Name, zip.ModTime)
	}
	var all []*tar.Header
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
		mode := os.FileMode(h.Mode)
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || !h.ModTime.Equal(time.Unix(epoch, 0)) || mode&0o022 != 0 || mode&0o044 != 0o044 {
			t.Errorf("%s: %+v", name, h)
		}
		path := filepath.Join(to, filepath.Clean("/"+h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o755)
		} else {
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, content, mode)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestArchive(t *testing.T) {
	to := t.TempDir()
	headers := extract(t, filepath.Join(released(t), names()[1]), to)
	top := strings.TrimSuffix(names()[1], ".tar.gz")
	var got []string
	for _, h := range headers {
		got = append(got, strings.TrimPrefix(h.Name, top+"/"))
	}
	if !slices.IsSorted(got) {
		t.Error("not in order:", got)
	}
	for _, want := range []string{
		"LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "bin/meshtalk", "bin/meshbench", "deploy/meshtalk.service", "deploy/meshtalk.yaml",
		"scripts/tune-host.sh", "completions/meshtalk.bash", "completions/meshtalk.zsh", "completions/meshtalk.fish",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %s", want, top)
		}
	}
	at := func(name string) string { return filepath.Join(to, top, name) }
	// What the unit says about its installation speaks of files that are there.
	unit, err := os.ReadFile(at("deploy/meshtalk.service"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`(?m)^#   .*?((?:bin|deploy|scripts)/[a-z.-]+)`).FindAllStringSubmatch(string(unit), -1) {
		if _, err := os.Stat(at(name[1])); err != nil {
			t.Error(err)
		}
	}
	if out := output(t, exec.Command(at("bin/meshtalk"), "version")); !strings.HasPrefix(out, "meshtalk "+version+" (commit "+commit+", go") {
		t.Error(out)
	}
	output(t, exec.Command(at("bin/meshbench"), "--help"))
	output(t, exec.Command("bash", "-n", at("completions/meshtalk.bash")))
	if out := output(t, exec.Command(at("bin/meshtalk"), "config", "check", "--config", at("deploy/meshtalk.yaml"), "--data-dir", to)); out != "ok\n" {
		t.Error(out)
	}
	text, err := os.ReadFile(at("bin/meshtalk"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte(shared.base)) {
		t.Errorf("the program names %s, where it was built", shared.base)
	}
}

func TestChartArchive(t *testing.T) {
	name := filepath.Join(released(t), names()[2])
	to := t.TempDir()
	extract(t, name, to)
	text, err := os.ReadFile(filepath.Join(to, "meshtalk/Chart.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct{ Version, AppVersion string }
	if err := yaml.Unmarshal(text, &c); err != nil || c.Version != number || c.AppVersion != version {
		t.Errorf("%v\n%s", err, text)
	}
	output(t, exec.Command(tool(t, "HELM"), "lint", "--strict", "--quiet", name))
	if out, err := helm(t, name); err != nil || !strings.Contains(out, `image: "meshtalk:`+version+`"`) {
		t.Errorf("%v\n%s", err, out)
	}
}

// The number of a release, as Helm and Debian compare it: pre-releases before, commits after a tag behind.
func TestNumbers(t *testing.T) {
	const number = `eval "$(sed -n '/^number()/,/^}/p' ../../scripts/dist.sh)"; number "$1"`
	last := "0"
	for _, test := range [][2]string{
		{"abc1234-dirty", "0.0.0+abc1234.dirty"}, {"v0.9.0", "0.9.0"}, {"v1.0.0-rc.1", "1.0.0-rc.1"}, {"v1.0.0-rc.1-3-gabcdef0", "1.0.0-rc.1+3.gabcdef0"},
		{"v1.0.0", "1.0.0"}, {"v1.0.0-12-g0123456", "1.0.0+12.g0123456"}, {"v1.0.1-dirty", "1.0.1+dirty"}, {"v1.1.0-1-gabcdef0-dirty", "1.1.0+1.gabcdef0.dirty"},
	} {
		got := strings.TrimSpace(output(t, exec.Command("bash", "-ec", number, "bash", test[0])))
		if got != test[1] {
			t.Errorf("%s: %s, want %s", test[0], got, test[1])
		}
		debian := strings.Replace(got, "-", "~", 1)
		output(t, exec.Command("dpkg", "--compare-versions", debian, "gt", last))
		last = debian
	}
}
