package pebble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/store"
)

// filledDir is the directory of a closed store with tables, a log and some messages in it, and what it promised.
func filledDir(t *testing.T) (dir string, promised map[int]uint64) {
	t.Helper()
	dir = t.TempDir()
	s := openTest(t, testOptions(t, dir))
	c := &sender{t: t, s: s, promised: map[int]uint64{}}
	for range 40 {
		c.must(c.send(50))
	}
	c.must(s.flushTail(1))
	for range 40 {
		c.must(c.send(50))
	}
	c.must(s.Close())
	return dir, c.promised
}

func files(t *testing.T, dir, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatalf("no %s in %s", pattern, dir)
	}
	return list
}

// largest is the biggest of some files.
func largest(t *testing.T, list []string) string {
	t.Helper()
	return slices.MaxFunc(list, func(a, b string) int { return int(size(t, a) - size(t, b)) })
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// flip changes one byte, at a part of the length.
func flip(t *testing.T, path string, part float64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[int(float64(len(b)-1)*part)] ^= 0x10
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// refused opens and reads everything; the error must name what. A store that says nothing must have kept everything.
func refused(t *testing.T, dir string, promised map[int]uint64, names string) {
	t.Helper()
	o := testOptions(t, dir)
	o.Logf = func(string, ...any) {}
	s, err := open(o)
	if err == nil {
		defer func() { _ = s.Close() }()
		err = readAll(s, promised)
	}
	if err == nil {
		t.Fatal("no error")
	}
	if !strings.Contains(err.Error(), names) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%q does not name %q in one line", err, names)
	}
}

var errLost = errors.New("a message is lost without an error")

func readAll(s *Store, promised map[int]uint64) error {
	for n, seq := range promised {
		after := seq - 1
		list, _, err := s.History(context.Background(), crashDraft(n).Conv, nil, &after, 1)
		if err != nil {
			return err
		}
		if len(list) != 1 || list[0].ID != crashID(n) {
			return fmt.Errorf("%w: %d", errLost, n)
		}
	}
	for u := range crashUsers {
		for after, more := uint64(0), true; more; {
			list, _, m, err := s.ReadInbox(context.Background(), fmt.Sprint("u", u), after, 500)
			if err != nil {
				return err
			}
			for _, e := range list {
				if after++; e.Inbox != after {
					return fmt.Errorf("%w: inbox %d", errLost, after)
				}
			}
			more = m
		}
	}
	return nil
}

func TestCorruptFiles(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string) (names string){
		"a byte of a table": func(t *testing.T, dir string) string {
			path := largest(t, files(t, dir, "*.sst"))
			flip(t, path, 0.3)
			return filepath.Base(path)
		},
		"a table cut off": func(t *testing.T, dir string) string {
			path := largest(t, files(t, dir, "*.sst"))
			if err := os.Truncate(path, size(t, path)/2); err != nil {
				t.Fatal(err)
			}
			return strings.TrimSuffix(filepath.Base(path), ".sst")
		},
		"a table removed": func(t *testing.T, dir string) string {
			path := largest(t, files(t, dir, "*.sst"))
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			return strings.TrimSuffix(filepath.Base(path), ".sst")
		},
		"the log's beginning": func(t *testing.T, dir string) string {
			path := largest(t, files(t, dir, "*.log"))
			flip(t, path, 0.01)
			return dir
		},
		"the log's middle": func(t *testing.T, dir string) string {
			path := largest(t, files(t, dir, "*.log"))
			flip(t, path, 0.5)
			return dir
		},
		"the log's end": func(t *testing.T, dir string) string {
			path := largest(t, files(t, dir, "*.log"))
			flip(t, path, 0.97)
			return dir
		},
		"the log removed": func(t *testing.T, dir string) string {
			for _, path := range files(t, dir, "*.log") {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			return dir
		},
		"the manifest": func(t *testing.T, dir string) string {
			flip(t, largest(t, files(t, dir, "MANIFEST-*")), 0.2)
			return dir
		},
		"the manifest's name": func(t *testing.T, dir string) string {
			for _, path := range files(t, dir, "marker.manifest.*") {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			return "marker.manifest"
		},
		"STORE removed": func(t *testing.T, dir string) string {
			if err := os.Remove(filepath.Join(dir, identityFile)); err != nil {
				t.Fatal(err)
			}
			return identityFile
		},
		"STORE garbled": func(t *testing.T, dir string) string {
			flip(t, filepath.Join(dir, identityFile), 0)
			return identityFile
		},
		"a newer format": func(t *testing.T, dir string) string {
			text := "mesh-talk store, format 99\nepoch 0123456789abcdef\n"
			if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			return "format 99 is newer"
		},
		"another store's log": func(t *testing.T, dir string) string {
			other, _ := filledDir(t)
			path := largest(t, files(t, dir, "*.log"))
			from, err := os.Open(largest(t, files(t, other, "*.log")))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = from.Close() }()
			to, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(to, from); err != nil {
				t.Fatal(err)
			}
			if err := to.Close(); err != nil {
				t.Fatal(err)
			}
			return "another store"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, promised := filledDir(t)
			refused(t, dir, promised, damage(t, dir))
		})
	}
}

// Wherever the log is damaged, nothing is lost without a word.
func TestCorruptLogAnywhere(t *testing.T) {
	t.Parallel()
	dir, promised := filledDir(t)
	name := filepath.Base(largest(t, files(t, dir, "*.log")))
	for i := range 25 {
		c := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(c, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		flip(t, filepath.Join(c, name), (float64(i)+0.5)/25)
		o := testOptions(t, c)
		o.Logf = func(string, ...any) {}
		s, err := open(o)
		if err != nil {
			continue
		}
		err = readAll(s, promised)
		if e := s.Close(); err != nil || e != nil {
			t.Fatalf("byte at %d/25: %v, %v", i, err, e)
		}
	}
}

// A log that a crash has cut off is no damage: what was promised by then was synced before the cut.
func TestTornLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openTest(t, testOptions(t, dir))
	c := &sender{t: t, s: s, promised: map[int]uint64{}}
	for range 20 {
		c.must(c.send(50))
	}
	torn := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(torn, os.DirFS(dir)); err != nil { // as after a crash: the store is still open
		t.Fatal(err)
	}
	c.must(s.Close())
	path := largest(t, files(t, torn, "*.log"))
	b, err := os.ReadFile(path)
	c.must(err)
	end := len(b)
	for end > 0 && b[end-1] == 0 { // preallocated
		end--
	}
	c.must(os.WriteFile(path, b[:end-1], 0o644))
	o := openTest(t, testOptions(t, torn))
	box, err := o.Head(context.Background(), "u1")
	c.must(err)
	if box.Head == 0 {
		t.Fatal("nothing is left")
	}
	c.must(o.Close())
}

func TestForeignDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := openTest(t, testOptions(t, dir)) // other files do no harm
	if _, err := open(testOptions(t, dir)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("second open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); !errors.Is(err, store.ErrClosed) {
		t.Fatalf("second close: %v", err)
	}
	file := filepath.Join(dir, "notes.txt")
	if _, err := open(testOptions(t, file)); err == nil {
		t.Fatal("a file was opened")
	}
}
