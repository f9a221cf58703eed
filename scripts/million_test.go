package scripts_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// What is wrong with the command line is told before anything is built.
func TestMillionUsage(t *testing.T) {
	for _, args := range []string{"--connections", "--connections 5", "--connections many", "--seconds 1h", "--nonsense 1",
		"--connections 1000 --kernel /nowhere/vmlinuz"} {
		out, err := exec.Command("./million.sh", strings.Fields(args)...).CombinedOutput()
		exit := new(exec.ExitError)
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.HasPrefix(string(out), "million.sh: ") || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
}
