package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
)

// tokenParts are the parts of a token as it came.
type tokenParts struct {
	header, payload, signature string
	signed                     string // header.payload
}

// split takes a token apart: three parts, no more.
func split(token string) (p tokenParts, ok bool) {
	var rest string
	if p.header, rest, ok = strings.Cut(token, "."); !ok {
		return p, false
	}
	if p.payload, p.signature, ok = strings.Cut(rest, "."); !ok || strings.Contains(p.signature, ".") {
		return p, false
	}
	p.signed = token[:len(p.header)+1+len(p.payload)]
	return p, true
}

// encoding is that of RFC 7515: base64url without padding, and only one spelling of the last bits.
var encoding = base64.RawURLEncoding.Strict()

// decode decodes a part into dst's memory.
func decode(dst []byte, part string) ([]byte, bool) {
	if strings.ContainsAny(part, "\r\n") { // the decoder skips them
		return dst, false
	}
	dst, err := encoding.AppendDecode(dst[:0], []byte(part))
	return dst, err == nil
}

// header is what counts of a token's header. It is not trusted: alg must be one of the pinned algorithms, and kid is
// nothing but the key of a map.
type header struct {
	alg, kid string
	hasKid   bool
}

var errMalformed = errors.New("malformed token")

func (w *scratch) header(part string) (h header, err error) {
	var ok bool
	if w.plain, ok = decode(w.plain, part); !ok {
		return h, errMalformed
	}
	err = members(w.plain, func(name, value []byte) error {
		switch string(name) {
		case "alg":
			if h.alg != "" {
				return errMalformed
			}
			h.alg, ok = algorithmName(value)
		case "kid":
			if h.hasKid {
				return errMalformed
			}
			h.kid, ok = text(value)
			h.hasKid = true
		case "crit":
			return errors.New("token with a critical header that is not known") // RFC 7515 §4.1.11
		}
		if !ok {
			return errMalformed
		}
		return nil
	})
	if err == nil && h.alg == "" {
		err = errMalformed
	}
	return h, err
}

// algorithmName reads alg, without an allocation for the known ones.
func algorithmName(value []byte) (string, bool) {
	for _, a := range known {
		if len(value) == len(a)+2 && string(value[1:len(value)-1]) == a {
			return a, value[0] == '"'
		}
	}
	s, ok := text(value)
	return s, ok && s != ""
}

// members calls f for every member of the JSON object b, in order. name and value live as long as b; a value is one
// whole JSON value without space around it. Unlike encoding/json it tells names by every letter's case, and shows f
// a name that stands twice.
func members(b []byte, f func(name, value []byte) error) error {
	if !json.Valid(b) {
		return errMalformed
	}
	i := space(b, 0)
	if b[i] != '{' {
		return errMalformed
	}
	for i = space(b, i+1); b[i] != '}'; {
		end := skip(b, i)
		name := b[i+1 : end-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			plain, ok := text(b[i:end])
			if !ok {
				return errMalformed
			}
			name = []byte(plain)
		}
		i = space(b, space(b, end)+1) // after the colon
		end = skip(b, i)
		if err := f(name, b[i:end]); err != nil {
			return err
		}
		if i = space(b, end); b[i] == ',' {
			i = space(b, i+1)
		}
	}
	return nil
}

// space is the place of the next byte of b that is no white space. There is one: b is valid JSON and i is inside.
func space(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r' {
		i++
	}
	return i
}

// skip is the end of the value that begins at i of valid JSON.
func skip(b []byte, i int) int {
	depth := 0
	for {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			i++
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\n', '\r':
			i++
		default: // a number or a literal
			for i < len(b) && !strings.ContainsRune(",:]} \t\n\r", rune(b[i])) {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
}
