package api

import (
	"log"
	"net/http"
	"time"
)

// Limits of the admin listener. The bodies have theirs where they are read and written (readInput, write), not here: a
// profile or a backup may take longer than any call.
const (
	headerTimeout  = 5 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 16 << 10
)

// NewServer is an http.Server for the admin port with time-outs that a stalled client cannot outlast. errors gets what
// net/http has to say; nil = the standard logger. The caller runs and shuts it down.
func NewServer(h http.Handler, errors *log.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          errors,
	}
}
