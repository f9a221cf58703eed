package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/hub"
)

// writeTimeout is how long a caller may take to read an answer of at most a few hundred KiB.
const writeTimeout = 30 * time.Second

// errInternal is what a caller is told of what is not its fault; the log has the rest.
var errInternal = refuse(codec.CodeInternal, "internal error")

func refuse(code codec.Code, message string) *hub.Error {
	return &hub.Error{Code: code, Message: message}
}

// bad is a BAD_PACKET.
func bad(format string, args ...any) *hub.Error {
	return refuse(codec.CodeBadPacket, fmt.Sprintf(format, args...))
}

// problem is an error as the API shows it.
type problem struct {
	Code    int    `json:"code"`
	Name    string `json:"name"`
	Message string `json:"message"`
}

// refusal is err as a caller may see it: whatever is no refusal of the hub is INTERNAL.
func refusal(err error) *hub.Error {
	var e *hub.Error
	if errors.As(err, &e) {
		return e
	}
	return errInternal
}

func problemOf(e *hub.Error) *problem {
	return &problem{Code: e.Code.Number(), Name: e.Code.Name(), Message: e.Message}
}

// logInternal keeps what refusal hides.
func (s *server) logInternal(what string, err error) {
	var e *hub.Error
	if !errors.As(err, &e) {
		s.o.Logf("%s: %v", what, err)
	}
}

// httpStatus is the status that goes with a code.
func httpStatus(code codec.Code) int {
	switch code {
	case codec.CodeBadPacket:
		return http.StatusBadRequest
	case codec.CodeUnauthorized, codec.CodeTokenExpired, codec.CodeRevoked:
		return http.StatusUnauthorized
	case codec.CodeForbidden:
		return http.StatusForbidden
	case codec.CodeNotFound:
		return http.StatusNotFound
	case codec.CodeConflict:
		return http.StatusConflict
	case codec.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case codec.CodeRateLimited:
		return http.StatusTooManyRequests
	case codec.CodeUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// writeError answers with err.
func writeError(w http.ResponseWriter, err error) {
	e := refusal(err)
	if e.Code == codec.CodeUnavailable || e.Code == codec.CodeRateLimited {
		seconds := max(1, (e.RetryAfterMs+999)/1000)
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
	}
	writeProblem(w, httpStatus(e.Code), e.Code, e.Message)
}

func writeProblem(w http.ResponseWriter, status int, code codec.Code, message string) {
	body, err := encode(map[string]any{"error": problemOf(refuse(code, message))})
	if err != nil { // strings and a number always encode
		body = []byte(`{}`)
	}
	write(w, status, "application/json", body)
}

// write sends a whole answer.
func write(w http.ResponseWriter, status int, kind string, body []byte) {
	// A recorder in a test has no deadline to set.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller is gone: there is nobody to tell
}

// encode is v as JSON. It is not for content, which encoding/json would rewrite.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
