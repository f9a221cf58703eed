package api

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/meshtalk/meshtalk/codec"
)

// maxPath is the longest path that Linux takes, in bytes.
const maxPath = 4096

func (s *server) postBackup(ctx context.Context, in *input) ([]byte, error) {
	if !in.has("dir") {
		in.missing("dir")
	}
	dir := in.text("dir", maxPath)
	if err := in.done(); err != nil {
		return nil, err
	}
	dir, target, err := s.backupDir(dir)
	if err != nil {
		return nil, err
	}
	if err := s.hub.Backup(ctx, target); err != nil {
		return nil, err
	}
	return encode(map[string]string{"dir": dir})
}

// backupDir is where a backup goes: dir, taken from the data directory's parent when it is relative, and the same
// without symbolic links. It must not exist, and lie below that parent but not in the data directory itself.
func (s *server) backupDir(dir string) (clean, target string, err error) {
	if s.o.DataDir == "" {
		return "", "", refuse(codec.CodeForbidden, "this node has no embedded store")
	}
	data, err := filepath.Abs(s.o.DataDir)
	if err != nil {
		return "", "", err
	}
	parent := filepath.Dir(data)
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(parent, dir)
	}
	if parent, err = resolve(parent); err != nil {
		return "", "", err
	}
	if data, err = resolve(data); err != nil {
		return "", "", err
	}
	clean = filepath.Clean(dir)
	if target, err = resolve(clean); err != nil {
		return "", "", bad("dir is not a usable path")
	}
	if !below(parent, target) || target == data || below(data, target) {
		return "", "", refuse(codec.CodeForbidden, "dir must lie below the data directory's parent and outside the data directory")
	}
	if _, err := os.Lstat(target); err == nil {
		return "", "", refuse(codec.CodeConflict, "dir exists already")
	}
	return clean, target, nil
}

// resolve follows the symbolic links of the part of an absolute path that exists.
func resolve(path string) (string, error) {
	missing := ""
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Join(real, missing), nil
		}
		up := filepath.Dir(path)
		if !errors.Is(err, fs.ErrNotExist) || up == path {
			return "", err
		}
		path, missing = up, filepath.Join(filepath.Base(path), missing)
	}
}

// below reports whether the absolute path lies below dir.
func below(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != "." && filepath.IsLocal(rel)
}
