package scripts_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// million is what a host as it is installed gets for 1,000,000 connections.
func million() map[string]string {
	return map[string]string{
		"net.ipv4.tcp_max_syn_backlog": "8192", "net.core.netdev_max_backlog": "16384",
		"net.ipv4.ip_local_port_range": "10240 65535", "net.ipv4.tcp_mem": "375000 500000 750000",
		"net.ipv4.tcp_rmem": "4096 131072 1048576", "net.ipv4.tcp_wmem": "4096 16384 1048576",
		"net.ipv4.tcp_notsent_lowat": "131072", "net.ipv4.tcp_keepalive_time": "300",
		"net.ipv4.tcp_keepalive_intvl": "30", "net.ipv4.tcp_keepalive_probes": "5",
		"net.netfilter.nf_conntrack_max": "1250000",
	}
}

func TestCheck(t *testing.T) {
	h := newHost(t, distribution())
	h.write(limitsFile, "# Written by tune-host.sh of Mesh-Talk.\n* hard nofile 1048576\n")
	before := h.files()
	out, _ := h.tune(1, "check", "--connections", "1000000")
	got := map[string]string{}
	for key, r := range rows(t, out) {
		if r.is != h.get(key) || !strings.HasPrefix(r.why, "from ") {
			t.Errorf("%s: %+v", key, r)
		}
		got[key] = r.wants
	}
	if want := million(); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if out, _ := h.tune(0, "check", "--connections=5000"); !strings.Contains(out, "5000") {
		t.Error(out)
	}
	wantSame(t, "check", before, h.files())
}

// Each setting alone: short by one is told, just enough is not.
func TestEverySettingIsJudged(t *testing.T) {
	enough := map[string]string{
		"fs.nr_open": "1000512", "fs.file-max": "2001024", "net.core.somaxconn": "4096", "net.ipv4.tcp_max_syn_backlog": "8192",
		"net.core.netdev_max_backlog": "16384", "net.ipv4.ip_local_port_range": "10001 60000", "net.ipv4.tcp_mem": "1 500000 750000",
		"net.ipv4.tcp_rmem": "4096 131072 1048576", "net.ipv4.tcp_wmem": "4096 65536 1048576",
		"net.ipv4.tcp_notsent_lowat": "131072", "net.ipv4.tcp_keepalive_time": "300", "net.ipv4.tcp_keepalive_intvl": "30",
		"net.ipv4.tcp_keepalive_probes": "5", "net.netfilter.nf_conntrack_max": "1250000",
	}
	h := newHost(t, enough)
	h.write(limitsFile, "# Written by tune-host.sh of Mesh-Talk.\n* hard nofile 1000512\n")
	h.tune(0, "check", "--connections", "1000000")
	for key, bad := range map[string]string{
		"fs.nr_open": "1000511", "fs.file-max": "2001023", "net.core.somaxconn": "4095", "net.ipv4.tcp_max_syn_backlog": "8191",
		"net.core.netdev_max_backlog": "16383", "net.ipv4.ip_local_port_range": "10002 60000", "net.ipv4.tcp_mem": "1 499999 750000",
		"net.ipv4.tcp_rmem": "4096 131073 1048576", "net.ipv4.tcp_wmem": "4096 65536 1048577",
		"net.ipv4.tcp_notsent_lowat": "131073", "net.ipv4.tcp_keepalive_time": "301", "net.ipv4.tcp_keepalive_intvl": "31",
		"net.ipv4.tcp_keepalive_probes": "6", "net.netfilter.nf_conntrack_max": "1249999",
	} {
		h.set(key, bad)
		out, _ := h.tune(1, "check", "--connections", "1000000")
		if got := slices.Collect(maps.Keys(rows(t, out))); !slices.Equal(got, []string{key}) {
			t.Errorf("%s = %s: %v", key, bad, got)
		}
		h.set(key, enough[key])
	}
	h.set("net.netfilter.nf_conntrack_max", "0") // no bound
	h.set("net.core.somaxconn", "many")          // not the setting that the script knows
	h.tune(0, "check", "--connections", "1000000")
}

func TestApplyAndUndo(t *testing.T) {
	h := newHost(t, distribution())
	before := h.files()
	out, _ := h.tune(0, "apply", "--connections", "1000000")
	applied := h.files()
	if got, want := changes(before, applied), million(); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	conf := h.read(sysctlFile)
	for key, value := range million() {
		if !strings.Contains(conf, "\n"+key+" = "+value+"\n") {
			t.Errorf("%s has no line of %s = %s", sysctlFile, key, value)
		}
		if want := key + ": " + strings.Join(strings.Fields(distribution()[key]), " ") + " -> " + value; !strings.Contains(out, want) {
			t.Errorf("%q is not told in\n%s", want, out)
		}
	}
	for key := range distribution() { // those that were fine stay out of it, but for a word
		_, changed := million()[key]
		if !changed && !strings.Contains(conf, "\n# "+key+": ") {
			t.Errorf("%s says nothing of %s", sysctlFile, key)
		}
	}
	if limits := h.read(limitsFile); !strings.Contains(limits, "\n* hard nofile 1048576\n") || !strings.Contains(limits, "\nroot hard nofile 1048576\n") {
		t.Error(limits)
	}
	h.tune(0, "check", "--connections", "1000000")

	h.tune(0, "apply", "--connections", "1000000")
	wantSame(t, "a second apply", applied, h.files())

	h.tune(0, "undo")
	wantSame(t, "undo", before, h.files())
	if _, err := os.Stat(filepath.Join(h.root, filepath.Dir(savedFile))); err == nil {
		t.Error("the folder of the old values is left")
	}
	if out, _ := h.tune(0, "undo"); !strings.Contains(out, "Nothing to undo") {
		t.Error(out)
	}
	wantSame(t, "a second undo", before, h.files())
}

// The values from before the first apply are what undo puts back, whatever was applied in between.
func TestOriginalsAreKept(t *testing.T) {
	h := newHost(t, distribution())
	before := h.files()
	for _, n := range []string{"20000", "1000000", "500", "200000"} {
		h.tune(0, "apply", "--connections", n)
	}
	if got := h.get("net.netfilter.nf_conntrack_max"); got != "1250000" {
		t.Error("an apply for fewer took back what one for more had raised:", got)
	}
	if conf := h.read(sysctlFile); !strings.Contains(conf, "\nnet.netfilter.nf_conntrack_max = 1250000\n") || !strings.Contains(conf, "\nnet.ipv4.tcp_notsent_lowat = 131072\n") {
		t.Error("the file does not hold what is in force:", conf)
	}
	h.tune(0, "undo")
	wantSame(t, "undo", before, h.files())
}

// A container has some of the settings only.
func TestMissingSettings(t *testing.T) {
	h := newHost(t, map[string]string{"net.core.somaxconn": "128"})
	before := h.files()
	out, problems := h.tune(0, "apply")
	if problems != "" || h.get("net.core.somaxconn") != "1000" {
		t.Error(out, problems)
	}
	if conf := h.read(sysctlFile); strings.Count(conf, ": not there.\n") != len(distribution())-1 || strings.Count(conf, " = ") != 1 {
		t.Error(conf)
	}
	h.tune(0, "undo")
	wantSame(t, "undo", before, h.files())
}

// A limit above fs.nr_open would keep everybody from logging in.
func TestLimitStaysBelowTheKernels(t *testing.T) {
	h := newHost(t, map[string]string{"fs.nr_open": "70000"})
	h.tune(0, "apply", "--connections", "69000") // 131,072 if it were rounded up
	if limits := h.read(limitsFile); !strings.Contains(limits, "* hard nofile 70000\n") {
		t.Error(limits)
	}
	h.tune(0, "apply", "--connections", "70000")
	if limits := h.read(limitsFile); !strings.Contains(limits, "* hard nofile 131072\n") || h.get("fs.nr_open") != "131072" {
		t.Error(limits, h.get("fs.nr_open"))
	}
}

// The unit of an installed service is looked at, never written.
func TestUnitOfTheService(t *testing.T) {
	h := newHost(t, nil)
	h.tune(0, "apply", "--connections", "600000")
	const name = "LimitNOFILE, meshtalk.service"
	for _, step := range []struct {
		file, text string
		is         string // in the table; "" = it is enough
	}{
		{"usr/lib/systemd/system/meshtalk.service", "[Service]\n", "524288"},
		{"etc/systemd/system/meshtalk.service", "[Service]\n#LimitNOFILE=1\nLimitNOFILE=65536\n", "65536"},
		{"etc/systemd/system/meshtalk.service.d/override.conf", "[Service]\nLimitNOFILE=1024:600512\n", ""},
		{"etc/systemd/system/meshtalk.service.d/z.conf", "[Service]\nLimitNOFILE=600511\n", "600511"},
		{"etc/systemd/system/meshtalk.service.d/zz.conf", "[Service]\nLimitNOFILE=infinity\n", ""},
	} {
		h.write(step.file, step.text)
		code := 1
		if step.is == "" {
			code = 0
		}
		out, _ := h.tune(code, "check", "--connections", "600000")
		if got := rows(t, out)[name]; got.is != step.is || step.is != "" && got.wants != "1048576" {
			t.Errorf("%s: %+v", step.file, got)
		}
	}
	if out, _ := h.tune(1, "check", "--connections", "2000000"); rows(t, out)[name].wants != "2097152" {
		t.Error(out)
	}
}

// What another program or person wrote stays.
func TestForeignFiles(t *testing.T) {
	for _, name := range []string{sysctlFile, limitsFile, savedFile} {
		h := newHost(t, distribution())
		h.write(name, "net.core.somaxconn = 1\n")
		before := h.files()
		for _, command := range []string{"apply", "undo"} {
			out, problems := h.tune(1, command)
			if out != "" || strings.Count(problems, "\n") != 1 || !strings.Contains(problems, name) {
				t.Errorf("%s: %q %q", command, out, problems)
			}
		}
		wantSame(t, name, before, h.files())
	}
}

// Old values that somebody wrote into the file are no way to set something else.
func TestOnlyOwnSettingsArePutBack(t *testing.T) {
	h := newHost(t, distribution())
	h.tune(0, "apply")
	h.set("kernel.core_pattern", "core")
	h.write(savedFile, h.read(savedFile)+"kernel.core_pattern = |/tmp/x\nnet.core.somaxconn = $(touch /tmp/x)\n")
	h.tune(0, "undo")
	if got := h.get("kernel.core_pattern"); got != "core" {
		t.Error(got)
	}
	if got := h.get("net.core.somaxconn"); got != "4096" {
		t.Error(got)
	}
}

// Without the old values a new apply would take its own for them.
func TestOldValuesLost(t *testing.T) {
	h := newHost(t, distribution())
	h.tune(0, "apply")
	if err := os.Remove(filepath.Join(h.root, savedFile)); err != nil {
		t.Fatal(err)
	}
	before := h.files()
	if _, problems := h.tune(1, "apply"); !strings.Contains(problems, "undo first") {
		t.Error(problems)
	}
	wantSame(t, "apply", before, h.files())
	if out, _ := h.tune(0, "undo"); !strings.Contains(out, "next start of the host") {
		t.Error(out)
	}
	for _, name := range []string{sysctlFile, limitsFile} {
		if _, err := os.Stat(filepath.Join(h.root, name)); err == nil {
			t.Error(name, "is left")
		}
	}
	h.tune(0, "apply")
}

func TestUsage(t *testing.T) {
	for _, arguments := range [][]string{
		{}, {"tune"}, {"check", "undo"}, {"check", "--connections"}, {"check", "--connections", "0"}, {"check", "--connections=-5"},
		{"check", "--connections", "1e6"}, {"check", "--connections", "010"}, {"apply", "--root", "/nowhere/at/all"}, {"--connections", "5"},
		{"check", "--verbose"}, {"check", ""},
	} {
		out, problems := run(t, 2, arguments...)
		if out != "" || strings.Count(problems, "\n") != 1 || !strings.Contains(problems, "usage: ") {
			t.Errorf("%q: %q %q", arguments, out, problems)
		}
	}
	if out, _ := run(t, 0, "--help"); !strings.HasPrefix(out, "usage: ") {
		t.Error(out)
	}
}
