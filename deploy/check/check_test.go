// Package check builds what is released, and looks at it: the Helm chart, the Debian package, the archives. `make packages` runs it. It is a
// module of its own, so that Kubernetes' types are none of the server's dependencies.
package check

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// root is the repository.
const root = "../.."

// tool is the program that an environment variable names; the Makefile sets it.
func tool(t *testing.T, variable string) string {
	t.Helper()
	name := os.Getenv(variable)
	if name == "" {
		t.Fatalf("%s is not set: run these tests by `make packages`", variable)
	}
	return name
}

// output runs a command that must succeed and returns its standard output.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		var problem []byte
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			problem = exit.Stderr
		}
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, problem)
	}
	return string(out)
}

// copyTree copies what is or will be committed to a folder. private = as a checkout by somebody whose files are his alone.
func copyTree(t *testing.T, to string, private bool) {
	t.Helper()
	list := exec.Command("git", "ls-files", "-co", "--exclude-standard")
	list.Dir = root
	for name := range strings.SplitSeq(strings.TrimSpace(output(t, list)), "\n") {
		from, target := filepath.Join(root, name), filepath.Join(to, name)
		info, err := os.Lstat(from)
		if os.IsNotExist(err) { // removed, and not committed yet
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		mode := info.Mode().Perm()
		if private {
			mode &= 0o700
		}
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(target), 0o755)
		}
		if err == nil {
			err = os.WriteFile(target, text, mode)
		}
		if err == nil {
			err = os.Chmod(target, mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
