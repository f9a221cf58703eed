package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// Why a Client ended for good; test with errors.Is. The error itself is an *EndError with the server's words.
var (
	// ErrReplaced: a newer login of the same user and terminal took over.
	ErrReplaced = errors.New("replaced by a newer login")
	// ErrKicked: an administrator ended the session.
	ErrKicked = errors.New("kicked")
	// ErrUnauthorized: the server refused the token, and a fresh one too.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrRevoked: the token was revoked while in use.
	ErrRevoked = errors.New("token revoked")
	// ErrRefused: LOGIN was answered by an error that no retry mends.
	ErrRefused = errors.New("login refused")
	// ErrClosed: Close or Logout was called.
	ErrClosed = errors.New("client closed")
)

// ErrDisconnected is returned by calls that are not repeated by themselves when the connection breaks before the answer.
var ErrDisconnected = errors.New("client: disconnected before the answer")

// EndError is why a Client ended: one of the sentinels above, and what the server said.
type EndError struct {
	Reason error      // ErrReplaced, ErrKicked, ErrUnauthorized, ErrRevoked or ErrRefused
	Code   codec.Code // 0 when the server gave none
	Text   string     // the server's text for people; may be empty
}

func (e *EndError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("client: %v (%d)", e.Reason, e.Code)
	}
	return fmt.Sprintf("client: %v (%d): %s", e.Reason, e.Code, e.Text)
}

// Unwrap makes errors.Is(err, ErrReplaced) and its like true.
func (e *EndError) Unwrap() error { return e.Reason }

// ServerError is an ERROR packet.
type ServerError struct {
	ID         string // of the packet that it answers; empty when it answers none
	Code       codec.Code
	Name       string // such as "FORBIDDEN"
	Message    string
	Retryable  bool
	RetryAfter time.Duration // 0 = not given
}

func (e *ServerError) Error() string {
	return fmt.Sprintf("client: server says %s (%d): %s", e.Name, e.Code, e.Message)
}

// parseServerError reads the data of an ERROR packet.
func parseServerError(id string, data json.RawMessage) *ServerError {
	var d struct {
		Code         int    `json:"code"`
		Name         string `json:"name"`
		Message      string `json:"message"`
		Retryable    bool   `json:"retryable"`
		RetryAfterMs int64  `json:"retryAfterMs"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return &ServerError{ID: id, Code: codec.CodeInternal, Name: "INTERNAL", Message: "unreadable ERROR packet"}
	}
	return &ServerError{ID: id, Code: codec.Code(d.Code), Name: d.Name, Message: d.Message, Retryable: d.Retryable,
		RetryAfter: time.Duration(d.RetryAfterMs) * time.Millisecond}
}

// CloseError is the orderly end of a connection by the server.
type CloseError struct {
	// Code is that of the WebSocket close frame, 1005 when the frame had none, 1006 when there was no frame. On TCP,
	// which has no codes, it is 0.
	Code   uint16
	Reason string // text of the close frame
}

func (e *CloseError) Error() string {
	if e.Code == 0 {
		return "client: connection closed by the server"
	}
	return fmt.Sprintf("client: connection closed by the server: %d %s", e.Code, e.Reason)
}

// Unwrap makes errors.Is(err, io.EOF) true.
func (e *CloseError) Unwrap() error { return io.EOF }
