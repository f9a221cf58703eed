package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Position is how far a terminal has taken its messages: where it resumes, and what it drops as a repeat.
type Position struct {
	Epoch  string                   `json:"epoch,omitempty"` // of the server's store; empty = nothing taken yet
	Inbox  uint64                   `json:"inbox,omitempty"` // newest inbox number taken
	Groups map[string]GroupPosition `json:"groups,omitempty"`
}

// GroupPosition is the position in a large group's conversation, whose messages have no inbox number.
type GroupPosition struct {
	Base uint64 `json:"base"` // counting began behind it
	Seq  uint64 `json:"seq"`  // newest sequence number taken
}

// PositionStore keeps the Position of one user and terminal between two runs of a program. Save is called after
// messages were handled and before they are acknowledged, so what is kept is never behind the server's knowledge by
// more than one batch. A program that wants a message and its position in one transaction implements it on its own
// database. Calls are serialised.
type PositionStore interface {
	Load() (Position, error) // the zero Position when there is none
	Save(Position) error
}

// MemoryPositions keeps the position for the life of the process. The zero value is ready; safe for concurrent use.
type MemoryPositions struct {
	mu sync.Mutex
	p  Position
}

// Load implements PositionStore.
func (m *MemoryPositions) Load() (Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.p, nil
}

// Save implements PositionStore.
func (m *MemoryPositions) Save(p Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p = p
	return nil
}

// FilePositions keeps the position in a file, replaced as a whole by a rename. It survives the process; after a crash
// of the host the file may be some batches old, and those messages are seen again.
type FilePositions string

// Load implements PositionStore.
func (f FilePositions) Load() (p Position, err error) {
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return Position{}, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		return Position{}, fmt.Errorf("client: position file: %w", err)
	}
	return p, nil
}

// Save implements PositionStore.
func (f FilePositions) Save(p Position) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("client: position file: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(string(f)), filepath.Base(string(f))+".*")
	if err != nil {
		return fmt.Errorf("client: position file: %w", err)
	}
	_, err = tmp.Write(b)
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), string(f))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("client: position file: %w", err)
	}
	return nil
}
