package pebble

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// identityFile says what the directory is, before anything else in it is touched:
//
//	mesh-talk store, format 3
//	epoch 0123456789abcdef
//	copy of fedcba9876543210
//
// The last line is only in copies: logs that were copied with it carry the old epoch.
//
// A new store has it under the name STORE.new first, before anything else is there, and under its own when all is there: a first start
// that did not come to its end has promised nothing, and begins again.
const (
	identityFile = "STORE"
	identityNew  = identityFile + ".new"
	// formatVersion is raised when an older program could not read the files, or this one those of an older.
	formatVersion = 3
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
// found is false for a directory without a store; what an interrupted first start left there is removed.
func readIdentity(fs vfs.FS, dir string) (id identity, found bool, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return id, false, fmt.Errorf("store: %w", err)
	}
	var own, begun, manifest, log, data bool
	for _, n := range names {
		own = own || n == identityFile
		begun = begun || n == identityNew
		manifest = manifest || strings.HasPrefix(n, "marker.manifest.")
		log = log || strings.HasSuffix(n, ".log")
		data = data || strings.HasSuffix(n, ".sst") || strings.HasPrefix(n, "MANIFEST-")
	}
	corrupt := func(missing string) error {
		return fmt.Errorf("store: %s is corrupt: %s is missing", dir, missing)
	}
	switch {
	case begun && !own:
		return id, false, removeBegun(fs, dir, names)
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

// removeBegun removes what Pebble makes; STORE.new stays until a store is whole.
func removeBegun(fs vfs.FS, dir string, names []string) error {
	for _, n := range names {
		if isPebbles(n) {
			if err := fs.RemoveAll(filepath.Join(dir, n)); err != nil {
				return fmt.Errorf("store: %w", err)
			}
		}
	}
	return nil
}

func isPebbles(name string) bool {
	for _, prefix := range []string{"MANIFEST-", "OPTIONS-", "marker.", "temporary."} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return strings.HasSuffix(name, ".log") || strings.HasSuffix(name, ".sst")
}

// beginIdentity notes in a directory without a database that one begins. The way to the directory may be new as well: it is synced too.
func beginIdentity(fs vfs.FS, dir string, id identity) error {
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if slices.ContainsFunc(names, isPebbles) {
		return nil // it has to be found empty, see refuseForeign
	}
	if err := writeSynced(fs, filepath.Join(dir, identityNew), id.text()); err != nil {
		return err
	}
	for parent := dir; ; parent = filepath.Dir(parent) {
		if err := syncDir(fs, parent); err != nil && !errors.Is(err, os.ErrPermission) { // what we may not read, we did not make
			return err
		}
		if parent == filepath.Dir(parent) {
			return nil
		}
	}
}

// writeIdentity makes a directory with a whole database a store.
func writeIdentity(fs vfs.FS, dir string, id identity) error {
	if err := writeSynced(fs, filepath.Join(dir, identityNew), id.text()); err != nil {
		return err
	}
	if err := fs.Rename(filepath.Join(dir, identityNew), filepath.Join(dir, identityFile)); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return syncDir(fs, dir)
}

func writeSynced(fs vfs.FS, path, text string) error {
	file, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	_, err = io.WriteString(file, text)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("store: %s: %w", path, err)
	}
	return nil
}

func syncDir(fs vfs.FS, name string) error {
	d, err := fs.OpenDir(name)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("store: %s: %w", name, err)
	}
	return nil
}
