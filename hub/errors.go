package hub

import (
	"context"
	"errors"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/mq"
	"github.com/meshtalk/meshtalk/store"
)

// Error is a refusal with a code of the protocol. The HTTP API and the sessions answer with it.
type Error struct {
	Code         codec.Code
	Message      string
	RetryAfterMs int
}

func (e *Error) Error() string { return e.Code.Name() + ": " + e.Message }

// retryUnavailable is what a client is told to wait when messages cannot be kept: long enough not to hammer a full disk,
// short enough to notice its recovery.
const retryUnavailable = 1000

func refuse(code codec.Code, message string) *Error { return &Error{Code: code, Message: message} }

func unavailable(message string) *Error {
	return &Error{Code: codec.CodeUnavailable, Message: message, RetryAfterMs: retryUnavailable}
}

// storeError is the answer to a store's or log's error: what the caller can mend gets its own code.
func storeError(err error) error {
	switch {
	case errors.Is(err, store.ErrReadOnly), errors.Is(err, store.ErrClosed):
		return unavailable("messages cannot be kept now")
	case errors.Is(err, mq.ErrFull), errors.Is(err, mq.ErrClosed):
		return unavailable("too much is waiting")
	case errors.Is(err, store.ErrNotFound):
		return refuse(codec.CodeNotFound, "not found")
	case errors.Is(err, store.ErrForbidden):
		return refuse(codec.CodeForbidden, "not a member of this conversation")
	case errors.Is(err, store.ErrPosition):
		return refuse(codec.CodeBadPacket, "position above the head")
	case errors.Is(err, store.ErrTooMany):
		return refuse(codec.CodeBadPacket, "too many members")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unavailable("timed out")
	}
	return err
}

// outcomeError is the answer to a draft that was not stored; nil for one that was, now or before.
func outcomeError(kind store.Kind, o store.Outcome) *Error {
	switch o {
	case store.Stored, store.Duplicate:
		return nil
	case store.Conflict:
		return refuse(codec.CodeConflict, "this id was used for other content")
	case store.NotFound:
		if kind == store.Recall {
			return refuse(codec.CodeNotFound, "no such message")
		}
		return refuse(codec.CodeNotFound, "no such group")
	}
	if kind == store.Recall {
		return refuse(codec.CodeForbidden, "only the sender may recall, and only for a while")
	}
	return refuse(codec.CodeForbidden, "not a member of this group")
}
