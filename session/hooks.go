// Package session is one connection's state machine and the table of commands: what a client's packets mean.
package session

import (
	"context"

	"github.com/meshtalk/meshtalk/auth"
	"github.com/meshtalk/meshtalk/codec"
)

// Hooks are the extension points of the server. Every field may be nil. Unless said otherwise they are called from a
// worker pool, may block for a short while, and must be safe for concurrent use.
type Hooks struct {
	// Authenticator replaces the JWT check.
	Authenticator auth.Authenticator
	// BeforeSend may refuse a message (an error: the client gets FORBIDDEN with the error's text, or with the Problem
	// of a *Refusal) or change its Type and Content. Setting it takes every send off the event loop into the pool.
	BeforeSend func(ctx context.Context, m *Outgoing) error
	// AfterCommit is told of every stored message, in order per conversation, from one goroutine: a slow one slows the
	// committer down.
	AfterCommit func(m *codec.ConvMessage)
	// SessionOnline and SessionOffline are told of every login and of every end of a logged-in session.
	SessionOnline  func(s Info)
	SessionOffline func(s Info, reason string)
	// Commands are handlers of client commands ≥ 1000.
	Commands map[codec.Cmd]Command
}

// Info describes a session.
type Info struct {
	User, Terminal, SessionID string
	Transport, IP             string
}

// Outgoing is a message on its way in.
type Outgoing struct {
	From      string
	Kind      codec.Cmd // PrivateMessage or GroupMessage
	To, Group string
	ID        string
	Type      int64
	Content   []byte // raw JSON; a replacement must be valid JSON
	Ephemeral bool
}

// Refusal is an error with a code of its own.
type Refusal struct {
	Code    codec.Code
	Message string
}

func (r *Refusal) Error() string { return r.Message }

// Command handles one packet of an extension command. data is the packet's raw JSON, nil when absent. The reply's data
// goes back under the same cmd and id; reply nil and err nil sends nothing; an error answers like BeforeSend's.
type Command func(ctx context.Context, s Info, data []byte) (reply []byte, err error)
