package services

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// process is what /proc tells of one.
type process struct {
	running bool // and no zombie
	parent  int
}

func stat(pid int) process {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}
	}
	// "pid (name) state parent …", and the name may hold anything.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 2 {
		return process{}
	}
	parent, err := strconv.Atoi(string(f[1]))
	if err != nil {
		return process{}
	}
	return process{running: f[0][0] != 'Z' && f[0][0] != 'X', parent: parent}
}

// family is the service's process and all below it, the oldest first; empty when it does not run. PostgreSQL's children
// have sessions of their own, so no signal to a group reaches them.
func (s *Service) family() []int {
	b, err := os.ReadFile(filepath.Join(s.dir, "pid"))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil || !s.owns(pid) {
		return nil
	}
	children := map[int][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []int{pid}
	}
	for _, e := range entries {
		if child, err := strconv.Atoi(e.Name()); err == nil {
			if p := stat(child); p.running {
				children[p.parent] = append(children[p.parent], child)
			}
		}
	}
	family := []int{pid}
	for i := 0; i < len(family); i++ {
		family = append(family, children[family[i]]...)
	}
	return family
}

// owns tells the service's process from one that got the number of a service that has ended: by its working directory.
func (s *Service) owns(pid int) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	dir, err := filepath.EvalSymlinks(s.dir)
	return err == nil && strings.HasPrefix(cwd+"/", dir+"/") && stat(pid).running
}

func signal(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig) // one that has ended meanwhile is fine
	}
}
