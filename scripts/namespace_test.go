package scripts_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// inside marks the process that runs in namespaces of its own; its value is a program meshtalk. It is no name that meshtalk
// would take for a key.
const inside = "TUNE_HOST_TEST_NAMESPACES"

// TestNamespaces runs TestRealHost in a network and a mount namespace of its own, as root of a user namespace for who is
// not root, and looks whether this host's settings are the same afterwards.
func TestNamespaces(t *testing.T) {
	program := filepath.Join(t.TempDir(), "meshtalk")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "../cmd/meshtalk")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h := &host{t, "/"}
	before := h.settings()

	cmd := exec.Command(os.Args[0], "-test.run=^TestRealHost$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestRealHost") {
		t.Errorf("%v\n%s", err, out)
	}
	wantSame(t, "this host", before, h.settings())
}

// settings are those that this kernel has, by name.
func (h *host) settings() map[string]string {
	h.t.Helper()
	found := map[string]string{}
	for key := range distribution() {
		if _, err := os.Stat(filepath.Join(h.root, h.path(key))); err == nil {
			found[key] = h.get(key)
		}
	}
	return found
}

// TestRealHost is the script without --root: the kernel's own settings, written by sysctl. Outside of its namespaces it has
// nothing to do; TestNamespaces runs it.
func TestRealHost(t *testing.T) {
	program := os.Getenv(inside)
	if program == "" {
		return
	}
	h := isolate(t)
	h.set("fs.nr_open", "20000")
	h.set("net.core.somaxconn", "64")
	h.set("net.ipv4.tcp_max_syn_backlog", "64")
	h.set("net.ipv4.ip_local_port_range", "60000 61000")
	h.set("net.ipv4.tcp_notsent_lowat", "4294967295")
	h.set("net.ipv4.tcp_keepalive_time", "7200")
	before := h.settings()

	// The hard limit is one of this process, not of the namespace: above it the limits file counts, and what is not
	// short because of it does not change the rest.
	out, _ := run(t, 1, "check", "--connections", "20000")
	short := rows(t, out)
	for key, want := range map[string]row{
		"fs.nr_open": {is: "20000", wants: "65536"}, "net.core.somaxconn": {is: "64", wants: "2000"},
		"net.ipv4.tcp_max_syn_backlog": {is: "64", wants: "2000"}, "net.ipv4.ip_local_port_range": {is: "60000 61000", wants: "10240 65535"},
		"net.ipv4.tcp_notsent_lowat": {is: "4294967295", wants: "131072"}, "net.ipv4.tcp_keepalive_time": {is: "7200", wants: "300"},
	} {
		if got := short[key]; got.is != want.is || got.wants != want.wants {
			t.Errorf("%s: got %+v, want %+v", key, got, want)
		}
	}
	sameAsDoctor(t, program, "20000", short)
	for _, connections := range []string{"500", "5000", "100000", "1000000"} {
		out, _ := run(t, 1, "check", "--connections", connections)
		sameAsDoctor(t, program, connections, rows(t, out))
	}
	wantSame(t, "check", before, h.settings())

	_, problems := run(t, 0, "apply", "--connections", "20000")
	if problems != "" {
		t.Error(problems)
	}
	for key, r := range short {
		if !strings.Contains(key, ",") && h.get(key) != r.wants {
			t.Errorf("%s is %s, want %s", key, h.get(key), r.wants)
		}
	}
	run(t, 0, "check", "--connections", "20000")
	sameAsDoctor(t, program, "20000", nil)

	applied := h.read(sysctlFile) + h.read(savedFile)
	run(t, 0, "apply", "--connections", "20000")
	if h.read(sysctlFile)+h.read(savedFile) != applied {
		t.Error("a second apply wrote something else")
	}
	run(t, 0, "undo")
	wantSame(t, "undo", before, h.settings())
	for _, name := range []string{sysctlFile, limitsFile, savedFile} {
		if _, err := os.Stat("/" + name); err == nil {
			t.Error(name, "is left")
		}
	}
	refused(t, h)
}

// isolate gives the process an /etc and a /var of its own and those of the kernel's settings that have no namespace.
func isolate(t *testing.T) *host {
	t.Helper()
	if self, parent := namespace(t, "self"), namespace(t, "1"); self == parent {
		t.Fatal("not in a network namespace of its own")
	}
	own := newHost(t, map[string]string{"fs.nr_open": "1048576", "fs.file-max": "9223372036854775807"})
	mount := func(source, target, kind string, flags uintptr) {
		if err := syscall.Mount(source, target, kind, flags, ""); err != nil {
			t.Fatalf("mount %s: %v", target, err)
		}
	}
	mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE)
	mount("none", "/etc", "tmpfs", 0)
	mount("none", "/var", "tmpfs", 0)
	mount(filepath.Join(own.root, "proc/sys/fs"), "/proc/sys/fs", "", syscall.MS_BIND)
	return &host{t, "/"}
}

// namespace is the network namespace of a process; that of process 1 may be hidden, which says that it is another one.
func namespace(t *testing.T, process string) string {
	t.Helper()
	name, err := os.Readlink("/proc/" + process + "/ns/net")
	if err != nil && (process == "self" || !errors.Is(err, os.ErrPermission)) {
		t.Fatal(err)
	}
	return name
}

// sameAsDoctor runs `meshtalk doctor`: of the kernel's settings it finds wrong what the script finds short, no more and no
// less, and moves each to the same value. The descriptors of this very process and the hardware are not the script's business.
func sameAsDoctor(t *testing.T, program, connections string, short map[string]row) {
	t.Helper()
	cmd := exec.Command(program, "doctor", "--json", "--connections", connections, "--data-dir", t.TempDir())
	out, err := cmd.Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var d struct {
		Findings []struct {
			Check, Value, Problem, Mend string
			OK                          bool
		}
	}
	if err := json.Unmarshal(out, &d); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	judged := map[string]bool{}
	for _, f := range d.Findings {
		if !strings.HasPrefix(f.Check, "net.") && !strings.HasPrefix(f.Check, "fs.") {
			continue
		}
		judged[f.Check] = true
		told, isShort := short[f.Check]
		if f.OK == isShort {
			t.Errorf("%s connections, %s = %s: doctor finds it right: %v, the script: %v", connections, f.Check, f.Value, f.OK, !isShort)
		}
		if isShort && f.Check != "fs.nr_open" && !strings.Contains(f.Mend, f.Check+"="+told.wants+" ") && !strings.Contains(f.Mend, f.Check+"='"+told.wants+"' ") {
			t.Errorf("%s connections, %s: doctor mends it by %q, the script wants %s", connections, f.Check, f.Mend, told.wants)
		}
	}
	for name := range short {
		if strings.HasPrefix(name, "net.") && !judged[name] {
			t.Errorf("%s connections: the script finds %s short, doctor does not look at it", connections, name)
		}
	}
}

// refused has the kernel refuse a setting: the rest is put in force, and the exit code says that something is short.
func refused(t *testing.T, h *host) {
	t.Helper()
	file := filepath.Join("/", h.path("net.core.somaxconn"))
	for _, flags := range []uintptr{0, syscall.MS_REMOUNT | syscall.MS_RDONLY | syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC} {
		if err := syscall.Mount(file, file, "", syscall.MS_BIND|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	before := h.settings()
	out, problems := run(t, 1, "apply", "--connections", "20000")
	if got := slices.Collect(maps.Keys(rows(t, out[strings.Index(out, "Short for"):]))); !slices.Equal(got, []string{"net.core.somaxconn"}) {
		t.Errorf("%s\n%s", out, problems)
	}
	if problems == "" || h.get("net.ipv4.tcp_max_syn_backlog") != "2000" {
		t.Errorf("%s\n%s", out, problems)
	}
	run(t, 0, "undo")
	wantSame(t, "undo", before, h.settings())
}
