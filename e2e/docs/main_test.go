// Package docs_test runs the documents: every block of commands of README.md and docs/getting-started.md as a reader would, in a
// fresh clone and in terminals, and compiles the code that the book shows.
package docs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// root is the repository.
const root = "../.."

// inside marks the process that has a network of its own: there the default ports are free, whatever else runs on this
// machine, and nothing of the documents reaches it or the outside. It is no name that meshtalk would take for a key.
const inside = "DOCS_TEST_INSIDE"

func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(m.Run())
	}
	if err := loopbackUp(); err != nil {
		fmt.Fprintln(os.Stderr, "the network of its own:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestDocuments runs TestBook in a network and a process namespace of its own, as root of a user namespace for who is not
// root. When it ends, whatever it has left ends too.
func TestDocuments(t *testing.T) {
	if os.Getenv(inside) != "" {
		t.Skip("this is the inner process")
	}
	runtime.LockOSThread() // Pdeathsig is about the thread
	defer runtime.UnlockOSThread()
	args := []string{"-test.run=^TestBook$", "-test.v"}
	if deadline, ok := t.Deadline(); ok {
		args = append(args, fmt.Sprint("-test.timeout=", untilNearly(deadline)))
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil || !strings.Contains(string(out), "--- PASS: TestBook"):
		t.Errorf("%v\n%s", err, out)
	case testing.Verbose():
		t.Logf("%s", out)
	}
}

// loopbackUp switches 127.0.0.1 on; a new network namespace has it down.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// TestBook is a reader who goes through the pages.
func TestBook(t *testing.T) {
	if os.Getenv(inside) == "" {
		t.Skip("TestDocuments runs it")
	}
	desk := newDesk(t)
	for _, doc := range []string{"README.md", "docs/getting-started.md"} {
		t.Run(doc, func(t *testing.T) { desk.read(t, doc) })
	}
	if t.Failed() {
		return
	}
	t.Run("Go", desk.compileGo)
	t.Run("TypeScript", desk.compileTypeScript)
	t.Run("YAML", desk.checkYAML)
}

// desk is where the reader sits: a folder to clone into, and what stands in for the Internet.
type desk struct {
	dir   string   // where README's first command is typed
	clone string   // what it makes
	env   []string // of every command
}

// newDesk copies the work tree, as it is, into a repository to clone from.
func newDesk(t *testing.T) *desk {
	t.Helper()
	base := t.TempDir()
	d := &desk{dir: filepath.Join(base, "home"), clone: filepath.Join(base, "home", "meshtalk")}
	origin := filepath.Join(base, "origin")
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	copyTree(t, origin)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MESHTALK_") { // a reader has set nothing
			d.env = append(d.env, e)
		}
	}
	d.env = append(d.env,
		"CGO_ENABLED=0", "GOPROXY=off", "GOFLAGS=", "npm_config_offline=true", "npm_config_update_notifier=false", "TERM=dumb",
		"GIT_AUTHOR_NAME=a reader", "GIT_AUTHOR_EMAIL=reader@example.org", "GIT_COMMITTER_NAME=a reader", "GIT_COMMITTER_EMAIL=reader@example.org",
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_CONFIG_KEY_1=url."+origin+".insteadOf", "GIT_CONFIG_VALUE_1=https://github.com/meshtalk/meshtalk")
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"commit", "-q", "-m", "as it is"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = origin, d.env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return d
}

// copyTree copies what git knows of the work tree or would take.
func copyTree(t *testing.T, to string) {
	t.Helper()
	cmd := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		from, target := filepath.Join(root, name), filepath.Join(to, name)
		info, err := os.Lstat(from)
		if err != nil || !info.Mode().IsRegular() {
			continue // deleted and not staged
		}
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(target), 0o700)
		}
		if err == nil {
			err = os.WriteFile(target, b, info.Mode().Perm())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// packages gives the clone what npm ci would install, by links to what it has installed here; links to the workspaces' own packages
// stay within the clone.
func (d *desk) packages(t *testing.T) {
	t.Helper()
	from, err := filepath.Abs(filepath.Join(root, "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatalf("%v (npm ci at the root installs it; make docs does)", err)
	}
	to := filepath.Join(d.clone, "node_modules")
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target := filepath.Join(from, e.Name())
		if e.Type()&os.ModeSymlink != 0 {
			if target, err = os.Readlink(target); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(target, filepath.Join(to, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// openTerminal makes a pseudo-terminal: its two ends.
func openTerminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	var lock int32
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&lock))); errno != 0 {
		return nil, nil, errno
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}
