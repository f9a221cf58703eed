package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

func TestDebianPackage(t *testing.T) {
	name := filepath.Join(released(t), names()[3])
	field := func(f string) string {
		return strings.TrimSpace(output(t, exec.Command("dpkg-deb", "--field", name, f)))
	}
	for f, want := range map[string]string{"Package": "meshtalk", "Version": number, "Depends": "adduser", "Section": "net"} {
		if got := field(f); got != want {
			t.Errorf("%s: %q, want %q", f, got, want)
		}
	}
	list := output(t, exec.Command("dpkg-deb", "--contents", name))
	for _, want := range []string{
		`-rwxr-xr-x root/root +\d+ 2023-11-14 22:13 ./usr/bin/meshtalk`, `-rwxr-xr-x root/root .* ./usr/bin/meshbench`,
		`-rw-r--r-- root/root .* ./usr/lib/systemd/system/meshtalk.service`, `-rw-r--r-- root/root .* ./etc/meshtalk/meshtalk.yaml`,
		`-rw-r--r-- root/root .* ./usr/lib/sysctl.d/60-meshtalk.conf`, `-rwxr-xr-x root/root .* ./usr/share/meshtalk/tune-host.sh`,
		`-rw-r--r-- root/root .* ./usr/share/bash-completion/completions/meshtalk`, `-rw-r--r-- root/root .* ./usr/share/doc/meshtalk/copyright`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(list) {
			t.Errorf("no %s in\n%s", want, list)
		}
	}
	if got := output(t, exec.Command("dpkg-deb", "--info", name, "conffiles")); got != "/etc/meshtalk/meshtalk.yaml\n" {
		t.Error(got)
	}
}

// outside tells the test below that it runs in namespaces of its own: the namespace of mounts that it must not be in, and where to work.
const (
	outside = "PACKAGE_TEST_OUTSIDE"
	work    = "PACKAGE_TEST_FOLDER"
)

// TestInstalled installs the package on this host as it is, with its dpkg and its users, in a layer above it that is thrown away: a mount,
// network and process namespace of its own. Needs root, or sudo.
func TestInstalled(t *testing.T) {
	if os.Getenv(outside) != "" {
		installed(t)
		return
	}
	deb := filepath.Join(released(t), names()[3])
	mounts, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	output(t, exec.Command("cp", deb, filepath.Join(folder, "meshtalk.deb")))
	var args []string
	if os.Geteuid() != 0 {
		args = []string{"sudo", "-n"}
	}
	args = append(args, "env", outside+"="+mounts, work+"="+folder, "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child",
		os.Args[0], "-test.run=^TestInstalled$", "-test.v", "-test.timeout=2m")
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestInstalled") {
		t.Errorf("%v\n%s", err, out)
	}
}

// layer is a root file system: this host's, and above it what is written.
type layer struct{ root, upper string }

func newLayer(t *testing.T) layer {
	t.Helper()
	if own, err := os.Readlink("/proc/self/ns/mnt"); err != nil || own == os.Getenv(outside) {
		t.Fatal("not in a mount namespace of its own", err)
	}
	folder := os.Getenv(work)
	base := filepath.Join(folder, "layer")
	l := layer{filepath.Join(base, "root"), filepath.Join(base, "upper")}
	mkdir := func(names ...string) {
		for _, name := range names {
			if err := os.MkdirAll(name, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	mount := func(source, target, kind string, flags uintptr, data string) {
		if err := syscall.Mount(source, target, kind, flags, data); err != nil {
			t.Fatalf("mount %s: %v", target, err)
		}
	}
	mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	mkdir(base)
	mount("none", base, "tmpfs", 0, "")
	mkdir(l.root, l.upper, filepath.Join(base, "work"))
	mount("overlay", l.root, "overlay", 0, "lowerdir=/,upperdir="+l.upper+",workdir="+filepath.Join(base, "work"))
	mount("/dev", filepath.Join(l.root, "dev"), "", syscall.MS_BIND|syscall.MS_REC, "")
	mount("proc", filepath.Join(l.root, "proc"), "proc", 0, "")
	for _, name := range []string{"run", "tmp"} { // no systemd in /run: the scripts must do without
		mount("none", filepath.Join(l.root, name), "tmpfs", 0, "")
	}
	output(t, exec.Command("cp", filepath.Join(folder, "meshtalk.deb"), filepath.Join(l.root, "tmp/meshtalk.deb")))
	loopbackUp(t)
	return l
}

// loopbackUp gives the network namespace its 127.0.0.1.
func loopbackUp(t *testing.T) {
	t.Helper()
	s, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(s)
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP}
	copy(request.name[:], "lo")
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(s), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); e != 0 {
		t.Fatal(e)
	}
}

// command is one that runs in the layer.
func (l layer) command(name string, args ...string) *exec.Cmd {
	path := name
	for _, folder := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if _, err := os.Stat(filepath.Join(l.root, folder, name)); err == nil && !filepath.IsAbs(name) {
			path = filepath.Join(folder, name)
			break
		}
	}
	return &exec.Cmd{
		Path: path, Args: append([]string{name}, args...), Dir: "/",
		Env:         []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"},
		SysProcAttr: &syscall.SysProcAttr{Chroot: l.root},
	}
}

func (l layer) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	return output(t, l.command(name, args...))
}

func (l layer) there(name string) bool {
	_, err := os.Lstat(filepath.Join(l.root, name))
	return err == nil
}

const enabled = "/etc/systemd/system/multi-user.target.wants/meshtalk.service"

// installed runs in the namespaces.
func installed(t *testing.T) {
	l := newLayer(t)
	l.run(t, "dpkg", "--install", "/tmp/meshtalk.deb")
	if s := l.run(t, "dpkg-query", "--show", "--showformat", "${Status}", "meshtalk"); s != "install ok installed" {
		t.Fatal(s)
	}
	if !l.there(enabled) {
		t.Error("the service is not enabled")
	}
	if out := l.run(t, "meshtalk", "version"); !strings.HasPrefix(out, "meshtalk "+version+" (commit "+commit+",") {
		t.Error(out)
	}
	l.kernelSettings(t)
	l.serve(t)

	// An upgrade keeps what the administrator did.
	l.run(t, "sed", "-i", "s/level: info/level: debug/", "/etc/meshtalk/meshtalk.yaml")
	l.run(t, "rm", enabled) // as systemctl disable does
	l.run(t, "dpkg", "--install", "/tmp/meshtalk.deb")
	if text := l.run(t, "cat", "/etc/meshtalk/meshtalk.yaml"); !strings.Contains(text, "level: debug") || l.there(enabled) {
		t.Errorf("after an upgrade: enabled again: %v\n%s", l.there(enabled), text)
	}

	l.run(t, "dpkg", "--remove", "meshtalk")
	if l.there("/usr/bin/meshtalk") || !l.there("/etc/meshtalk/meshtalk.yaml") || !l.there("/var/lib/meshtalk/data/jwt.key") {
		t.Error("remove: the program stayed, or the configuration or the data did not")
	}
	l.run(t, "dpkg", "--purge", "meshtalk")
	if out, err := l.command("getent", "passwd", "meshtalk").Output(); err == nil {
		t.Errorf("purge: %s", out)
	}
	for _, name := range l.left(t) {
		t.Errorf("purge: %s stayed", name)
	}
}

// left are the files in the layer that are named for the package.
func (l layer) left(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.Walk(l.upper, func(name string, info os.FileInfo, err error) error {
		// A device 0:0 says that a file of the host below is gone.
		if err == nil && strings.Contains(info.Name(), "meshtalk") && info.Mode()&os.ModeCharDevice == 0 {
			found = append(found, strings.TrimPrefix(name, l.upper))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// kernelSettings: the kernel takes every setting of the file, and tune-host.sh then finds none of them short.
func (l layer) kernelSettings(t *testing.T) {
	t.Helper()
	const file = "/usr/lib/sysctl.d/60-meshtalk.conf"
	if out, err := l.command("sysctl", "-e", "-q", "-p", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
	settings := regexp.MustCompile(`(?m)^([a-z0-9_.]+) = `).FindAllStringSubmatch(l.run(t, "cat", file), -1)
	if len(settings) < 8 {
		t.Errorf("%d settings", len(settings))
	}
	out, err := l.command("/usr/share/meshtalk/tune-host.sh", "check", "--connections", "100000").Output()
	if err != nil && !strings.Contains(string(out), "Short for") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, s := range settings {
		if strings.Contains(string(out), s[1]) {
			t.Errorf("%s is short with the package's file:\n%s", s[1], out)
		}
	}
}

// serve runs the service as its unit does: as its user, in the folder that systemd would make.
func (l layer) serve(t *testing.T) {
	t.Helper()
	user := strings.Split(strings.TrimSpace(l.run(t, "getent", "passwd", "meshtalk")), ":")
	uid, err := strconv.Atoi(user[2])
	gid, e := strconv.Atoi(user[3])
	if err != nil || e != nil || uid == 0 || uid >= 1000 || user[5] != "/var/lib/meshtalk" || !strings.HasSuffix(user[6], "/nologin") {
		t.Fatalf("the user is %v", user)
	}
	if group := l.run(t, "getent", "group", "meshtalk"); !strings.Contains(group, ":"+user[3]+":") {
		t.Error(group) // systemd wants both names or none
	}
	l.run(t, "install", "-d", "-m", "700", "-o", "meshtalk", "-g", "meshtalk", "/var/lib/meshtalk")

	unit := l.run(t, "cat", "/usr/lib/systemd/system/meshtalk.service")
	start := strings.Fields(regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindStringSubmatch(unit)[1])
	as := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	cmd := l.command(start[0], start[1:]...)
	cmd.SysProcAttr.Credential = as
	server := startServer(t, cmd)
	backup := l.command("/usr/bin/meshtalk", "backup", "/var/lib/meshtalk/backups/one")
	backup.SysProcAttr.Credential = as
	output(t, backup)
	if token := l.run(t, "meshtalk", "token", "--user", "alice", "--data-dir", "/var/lib/meshtalk/data"); strings.Count(token, ".") != 2 {
		t.Error(token)
	}
	server.stop(t, 45*time.Second)
	if data := l.run(t, "ls", "/var/lib/meshtalk"); !slices.Equal(strings.Fields(data), []string{"backups", "data"}) {
		t.Error(data)
	}
}
