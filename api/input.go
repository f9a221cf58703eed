package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/meshtalk/meshtalk/codec"
)

const (
	maxBody     = 1 << 20          // bytes of a request's body
	maxDrain    = 8 << 20          // bytes of a refused body that are read, so that the refusal is
	readTimeout = 30 * time.Second // for the whole body
	maxSeq      = 1 << 53          // first number that is no sequence number
)

// input is what a request says. A handler takes the parameters that it knows, each by its accessor, and then asks done:
// what was not taken is unknown. The first problem sticks, and an accessor with a problem gives a zero value.
// It belongs to one handler.
type input struct {
	r       *http.Request
	query   url.Values
	fields  map[string]json.RawMessage
	order   []string // the keys of fields, as they came
	problem error
}

// readInput reads the query and, if the call takes one, the body.
func readInput(w http.ResponseWriter, r *http.Request, body bool) (*input, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, bad("malformed query")
	}
	in := &input{r: r, query: query}
	if !body {
		return in, nil
	}
	b, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	return in, in.parse(b)
}

// readBody reads a body of at most maxBody bytes.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := refuse(codec.CodeTooLarge, "the body is larger than 1 MiB")
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(readTimeout)) // a recorder in a test has none
	if r.ContentLength > maxBody {
		// Who is still writing when the connection is closed may see a reset instead of the answer.
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
		return nil, tooLarge
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge
	case err != nil:
		return nil, bad("the body ended early")
	}
	_ = c.SetReadDeadline(time.Time{}) // else it would end a long call
	return b, nil
}

// parse takes the members of the object b apart. No bytes at all are an empty object.
func (in *input) parse(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if !utf8.Valid(b) || !json.Valid(b) {
		return bad("the body is not one JSON object in UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return bad("the body is not one JSON object in UTF-8")
	}
	in.fields = make(map[string]json.RawMessage)
	for d.More() {
		t, err := d.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			return bad("the body is not one JSON object in UTF-8")
		}
		if _, twice := in.fields[key]; twice {
			return bad("field %.64q stands twice", key)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return bad("the body is not one JSON object in UTF-8")
		}
		in.fields[key] = value
		in.order = append(in.order, key)
	}
	return nil
}

// done is nil when everything was taken and right. What is unknown is told first: a misspelt name is missed as well.
func (in *input) done() error {
	for _, key := range in.order {
		if _, left := in.fields[key]; left {
			return bad("unknown field %.64q", key)
		}
	}
	for key := range in.query {
		return bad("unknown parameter %.64q", key)
	}
	return in.problem
}

// wrong keeps the first problem.
func (in *input) wrong(err error) {
	if in.problem == nil {
		in.problem = err
	}
}

// take removes a field of the body; nil = absent.
func (in *input) take(key string) json.RawMessage {
	value := in.fields[key]
	delete(in.fields, key)
	return value
}

// has reports whether a field stands in the body and was not taken yet.
func (in *input) has(key string) bool {
	_, ok := in.fields[key]
	return ok
}

// missing is the problem of a required field that is not there.
func (in *input) missing(key string) { in.wrong(bad("no %q", key)) }

// pathName is a user or group name in the path.
func (in *input) pathName(key string) string {
	name := in.r.PathValue(key)
	if !codec.ValidName(name, codec.MaxName) {
		in.wrong(bad("the %s in the path is not a name", key))
		return ""
	}
	return name
}

// name is an optional name of the body, "" when absent.
func (in *input) name(key string, most int) string {
	value := in.take(key)
	if value == nil {
		return ""
	}
	name, ok := readName(value, most)
	if !ok {
		in.wrong(bad("%q is not a name of 1 to %d bytes", key, most))
		return ""
	}
	return name
}

// names is an optional list of names, nil when absent and not nil when empty.
func (in *input) names(key string) []string {
	value := in.take(key)
	if value == nil {
		return nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(value, &list); err != nil || list == nil {
		in.wrong(bad("%q is not a list of names", key))
		return nil
	}
	names := make([]string, len(list))
	for i := range list {
		var ok bool
		if names[i], ok = readName(list[i], codec.MaxName); !ok {
			in.wrong(bad("%q holds what is not a name of 1 to %d bytes", key, codec.MaxName))
			return nil
		}
	}
	return names
}

// text is an optional string of 1 to most bytes, "" when absent.
func (in *input) text(key string, most int) string {
	value := in.take(key)
	if value == nil {
		return ""
	}
	text, ok := readText(value)
	if !ok || text == "" || len(text) > most {
		in.wrong(bad("%q is not a string of 1 to %d bytes", key, most))
		return ""
	}
	return text
}

// integer is an optional integer of 64 bits.
func (in *input) integer(key string) (n int64, given bool) {
	value := in.take(key)
	if value == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		in.wrong(bad("%q is not an integer", key))
	}
	return n, true
}

// boolean is an optional boolean.
func (in *input) boolean(key string) bool {
	value := in.take(key)
	switch string(value) {
	case "", "false":
		return false
	case "true":
		return true
	}
	in.wrong(bad("%q is not a boolean", key))
	return false
}

// content is the required "content", byte for byte, of at most most bytes.
func (in *input) content(most int) []byte {
	value := in.take("content")
	switch {
	case value == nil:
		in.missing("content")
	case len(value) > most:
		in.wrong(refuse(codec.CodeTooLarge, "content is larger than "+strconv.Itoa(most)+" bytes"))
	case !codec.ValidContent(value):
		in.wrong(bad("content is nested too deep"))
	}
	return value
}

// param is an optional parameter of the query.
func (in *input) param(key string) (value string, given bool) {
	values := in.query[key]
	delete(in.query, key)
	if len(values) > 1 {
		in.wrong(bad("parameter %q stands twice", key))
	}
	if len(values) == 0 {
		return "", false
	}
	return values[0], true
}

// seqParam is an optional sequence number of the query.
func (in *input) seqParam(key string) *uint64 {
	value, given := in.param(key)
	if !given {
		return nil
	}
	n, ok := readSeq(value)
	if !ok {
		in.wrong(bad("parameter %q is not a sequence number", key))
		return nil
	}
	return &n
}

// limit is the parameter "limit": above most it is clamped, below 1 it is refused.
func (in *input) limit(standard, most int) int {
	value, given := in.param("limit")
	if !given {
		return standard
	}
	n, err := strconv.ParseInt(value, 10, 64) // out of range it is the nearest number
	if (err != nil && !errors.Is(err, strconv.ErrRange)) || n < 1 || value[0] == '+' {
		in.wrong(bad("limit is not an integer from 1"))
		return standard
	}
	return int(min(n, int64(most)))
}
