package pebble

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// identityFile says what the directory is, before anything else in it is touched:
//
//	mesh-talk store, format 2
//	epoch 0123456789abcdef
//	copy of fedcba9876543210
//
// The last line is only in copies: logs that were copied with it carry the old epoch.
const (
	identityFile = "STORE"
	// formatVersion is raised when an older program could not read the files, or this one those of an older.
	formatVersion = 2
	epochLen      = 16 // hexadecimal digits
)

type identity struct {
	epoch  string
	copyOf string
}

func newEpoch() string {
	var random [epochLen / 2]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

func (id identity) text() string {
	text := fmt.Sprintf("mesh-talk store, format %d\nepoch %s\n", formatVersion, id.epoch)
	if id.copyOf != "" {
		text += "copy of " + id.copyOf + "\n"
	}
	return text
}

func parseIdentity(path, text string) (id identity, err error) {
	version := 0
	if _, err := fmt.Sscanf(text, "mesh-talk store, format %d\n", &version); err != nil {
		return id, fmt.Errorf("store: %s is corrupt: it does not begin with the format", path)
	}
	switch {
	case version > formatVersion:
		return id, fmt.Errorf("store: %s: format %d is newer than this program, which reads up to %d: use a newer one", path, version, formatVersion)
	case version < formatVersion:
		return id, fmt.Errorf("store: %s: format %d is from before the first release: begin with an empty directory", path, version)
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if epoch, ok := strings.CutPrefix(line, "epoch "); ok {
			id.epoch = epoch
		}
		if epoch, ok := strings.CutPrefix(line, "copy of "); ok {
			id.copyOf = epoch
		}
	}
	if len(id.epoch) != epochLen {
		return id, fmt.Errorf("store: %s is corrupt: no epoch of %d digits", path, epochLen)
	}
	return id, nil
}

// readIdentity refuses a directory whose files cannot be a whole store, before Pebble would begin a new one beside them.
// found is false for a directory without a store.
func readIdentity(fs vfs.FS, dir string) (id identity, found bool, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return id, false, fmt.Errorf("store: %w", err)
	}
	var own, manifest, log, data bool
	for _, n := range names {
		own = own || n == identityFile
		manifest = manifest || strings.HasPrefix(n, "marker.manifest.")
		log = log || strings.HasSuffix(n, ".log")
		data = data || strings.HasSuffix(n, ".sst") || strings.HasPrefix(n, "MANIFEST-")
	}
	corrupt := func(missing string) error {
		return fmt.Errorf("store: %s is corrupt: %s is missing", dir, missing)
	}
	switch {
	case own && !manifest:
		return id, false, corrupt("marker.manifest.*, the name of the manifest,")
	case manifest && !log:
		return id, false, corrupt("the log (*.log)")
	case !manifest && (log || data):
		return id, false, corrupt("marker.manifest.*, the name of the manifest,")
	case !own:
		return id, false, nil
	}
	path := filepath.Join(dir, identityFile)
	file, err := fs.Open(path)
	if err != nil {
		return id, false, fmt.Errorf("store: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 4<<10))
	if err != nil {
		return id, false, fmt.Errorf("store: %s: %w", path, err)
	}
	id, err = parseIdentity(path, string(text))
	return id, err == nil, err
}

// writeIdentity makes a new directory a store.
func writeIdentity(fs vfs.FS, dir string, id identity) error {
	path := filepath.Join(dir, identityFile)
	file, err := fs.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	_, err = io.WriteString(file, id.text())
	if err := errors.Join(err, file.Sync(), file.Close(), fs.Rename(path+".new", path)); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	parent, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := errors.Join(parent.Sync(), parent.Close()); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
