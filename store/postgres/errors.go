package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/meshtalk/meshtalk/store"
)

// cause is what a failed statement tells about its transaction.
type cause int

const (
	causeOther   cause = iota // a mistake, ours or the operator's: tried again it fails again
	causeRetry                // the transaction lost against another: it is tried again
	causeNoDay                // the partition of a day is missing
	causeRefused              // the server answers and cannot: full, shutting down, a standby
	causeLost                 // the connection is gone: what was sent last may have been done
)

func causeOf(err error) cause {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return causeLost // of the network, of the pool, a time-out
	}
	if e.Severity == "FATAL" || e.Severity == "PANIC" {
		return causeLost
	}
	switch e.Code {
	case "40001", "40P01", // serialization failure, deadlock
		"23505", // unique: two partitions wrote the same id at once
		"55P03", // lock not available
		"0A000": // a cached plan that does not fit the tables any more
		return causeRetry
	case "23514", "42P01", "55000": // no partition for the row; table gone; it is being detached
		return causeNoDay
	case "25006": // read-only: the server has become a standby
		return causeRefused
	}
	switch e.Code[:2] {
	case "08", "53", "57", "58", "XX": // connection, resources, operator intervention, system, internal
		return causeRefused
	}
	return causeOther
}

// isRepeat tells a key of table repeats that was there from other keys.
func isRepeat(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "23505" && strings.HasPrefix(e.TableName, "repeats")
}

// isAnswer tells what is no failure of the database.
func isAnswer(err error) bool {
	for _, answer := range []error{store.ErrNotFound, store.ErrTooMany, store.ErrForbidden, store.ErrReadOnly, store.ErrClosed} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}

// failed wraps what the database answered to an operation. That it does not answer, or cannot, is store.ErrReadOnly; a ctx that ended is not.
func (s *Store) failed(op string, err error) error {
	switch {
	case err == nil || isAnswer(err):
		return err
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("store: %s: %w", op, err)
	case causeOf(err) == causeOther:
		return fmt.Errorf("store: %s: %w", op, oneLine(err))
	}
	err = fmt.Errorf("%w: %s: %w", store.ErrReadOnly, op, oneLine(err))
	if s.alive.Err() == nil {
		s.health.failed(err)
	}
	return err
}
