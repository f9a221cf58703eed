package codec

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// This file is the validating half of the JSON scan: it walks bytes that nobody has looked at yet and proves that they
// are one JSON value (RFC 8259) in valid UTF-8. What it has passed, fields.go may walk without checking.
//
// All functions take the bytes and an index, and give the index after what they passed, or -1 for what is not JSON.

// Nesting limits, in levels of objects and arrays. A value of one packet is wrapped by others (a message's content
// inside PULL's entries stands five levels deep), so what a client may send in content is less than what Parse takes:
// whatever was accepted can be read again by the same Parse.
const (
	maxNesting        = 1024 // of a whole packet
	maxContentNesting = 512  // of one content
)

// Masks for looking at eight bytes at once.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// skipSpace gives the index of the first byte at or after i that is no JSON white space; it may be len(b).
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// special marks, in the high bit of its byte, the first byte of w that is a quote, a backslash, a control character or
// not ASCII: each subtraction leaves an ASCII byte's high bit clear unless it is one of them. Marks above the first may be
// wrong (a borrow runs upwards), so only the lowest is to be used.
func special(w uint64) uint64 {
	return (w | // not ASCII
		((w ^ ones*'"') - ones) |
		((w ^ ones*'\\') - ones) |
		(w - ones*0x20)) & highs
}

// skipString passes a string whose opening quote is at i-1 and returns the index after its closing quote.
func skipString(b []byte, i int) int {
	for {
		i = skipPlain(b, i)
		if i >= len(b) {
			return -1
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			if i = skipEscape(b, i); i < 0 {
				return -1
			}
		case c < 0x20:
			return -1
		case c < utf8.RuneSelf:
			i++
		default:
			if i = skipRunes(b, i); i < 0 {
				return -1
			}
		}
	}
}

// skipPlain passes characters that mean themselves, eight at a time; in the last seven bytes of b it stops early.
func skipPlain(b []byte, i int) int {
	s := b[i:]
	for len(s) >= 8 {
		if m := special(binary.LittleEndian.Uint64(s)); m != 0 {
			return len(b) - len(s) + bits.TrailingZeros64(m)/8
		}
		s = s[8:]
	}
	return len(b) - len(s)
}

// skipRunes passes the run of non-ASCII characters that begins at i.
func skipRunes(b []byte, i int) int {
	for i < len(b) && b[i] >= utf8.RuneSelf {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			return -1
		}
		i += size
	}
	return i
}

// skipEscape passes the escape whose backslash is at i. A lone surrogate is syntactically fine.
func skipEscape(b []byte, i int) int {
	if i+1 >= len(b) {
		return -1
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		if hex4(b, i+2) >= 0 {
			return i + 6
		}
	}
	return -1
}

// hex4 reads the four hexadecimal digits at i, -1 if they are not there.
func hex4(b []byte, i int) rune {
	if i+4 > len(b) {
		return -1
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// skipDigits passes one or more digits.
func skipDigits(b []byte, i int) int {
	start := i
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

// skipNumber passes a number.
func skipNumber(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = skipDigits(b, i); i < 0 {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		if i = skipDigits(b, i+1); i < 0 {
			return -1
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return skipDigits(b, i)
	}
	return i
}

// skipLiteral passes the given word.
func skipLiteral(b []byte, i int, word string) int {
	if i+len(word) > len(b) || string(b[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

// skipScalar passes a string, a number or a literal.
func skipScalar(b []byte, i int) int {
	switch b[i] {
	case '"':
		return skipString(b, i+1)
	case 't':
		return skipLiteral(b, i, "true")
	case 'f':
		return skipLiteral(b, i, "false")
	case 'n':
		return skipLiteral(b, i, "null")
	}
	return skipNumber(b, i)
}

// skipKey passes white space, a key, its colon and the white space after it.
func skipKey(b []byte, i int) int {
	i = skipSpace(b, i)
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	if i = skipString(b, i+1); i < 0 {
		return -1
	}
	i = skipSpace(b, i)
	if i >= len(b) || b[i] != ':' {
		return -1
	}
	return skipSpace(b, i+1)
}

// nesting is the stack of open objects (bit 1) and arrays (bit 0). It has a fixed size, so that no input grows a stack.
type nesting struct {
	depth int
	kind  [maxNesting / 64]uint64
}

func (n *nesting) push(object bool, limit int) bool {
	if n.depth >= limit {
		return false
	}
	word, bit := n.depth/64, uint64(1)<<(n.depth%64)
	n.kind[word] &^= bit
	if object {
		n.kind[word] |= bit
	}
	n.depth++
	return true
}

func (n *nesting) object() bool {
	return n.kind[(n.depth-1)/64]>>((n.depth-1)%64)&1 == 1
}

// skipValue passes one value at i (no white space before it) with at most limit levels, limit ≤ maxNesting.
func skipValue(b []byte, i, limit int) int {
	if i >= len(b) {
		return -1
	}
	if b[i] != '{' && b[i] != '[' {
		return skipScalar(b, i)
	}
	var open nesting
	for {
		if i >= len(b) {
			return -1
		}
		if c := b[i]; c == '{' || c == '[' {
			if !open.push(c == '{', limit) {
				return -1
			}
			i = skipSpace(b, i+1)
			if i < len(b) && b[i] == c+2 { // '}' is '{'+2, ']' is '['+2
				open.depth--
				i++
			} else if c == '[' {
				continue
			} else if i = skipKey(b, i); i < 0 {
				return -1
			} else {
				continue
			}
		} else if i = skipScalar(b, i); i < 0 {
			return -1
		}
		if i = open.afterValue(b, i); i < 0 || open.depth == 0 {
			return i
		}
	}
}

// afterValue passes what follows a value up to the beginning of the next one, or to the end of the outermost.
func (n *nesting) afterValue(b []byte, i int) int {
	for n.depth > 0 {
		i = skipSpace(b, i)
		if i >= len(b) {
			return -1
		}
		object := n.object()
		switch {
		case b[i] == ',' && object:
			return skipKey(b, i+1)
		case b[i] == ',':
			return skipSpace(b, i+1)
		case b[i] == '}' && object, b[i] == ']' && !object:
			n.depth--
			i++
		default:
			return -1
		}
	}
	return i
}

// ValidContent reports whether b is exactly one JSON value in valid UTF-8, at most 512 levels deep: what may be relayed
// as a message's content. Parse and DecodeSend prove the same of what a client sends; this is for other ways in.
func ValidContent(b []byte) bool {
	i := skipValue(b, skipSpace(b, 0), maxContentNesting)
	return i >= 0 && skipSpace(b, i) == len(b)
}
