package server

import "github.com/meshtalk/meshtalk/session"

// Hooks extend the server. Every field may be nil.
type Hooks = session.Hooks
