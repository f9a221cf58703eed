package codec

import "bytes"

// This file is the trusting half of the JSON scan: it walks bytes that Parse has passed, so it only finds where things
// end. On other bytes it stays within bounds and comes to an end, but finds nonsense.

// fields walks the members of an object.
type fields struct {
	b   []byte
	i   int
	key [24]byte // a key that was written with escapes, decoded; no key that is known here is longer
}

// openFields begins at the data of a packet: an object, or nothing (absent and null are an empty object).
func openFields(data []byte) (f fields, ok bool) {
	if len(data) == 0 || string(data) == "null" {
		return f, true
	}
	f.b, f.i = data, 1
	return f, data[0] == '{'
}

// next gives the next member: its decoded key, valid until the next call, and its raw value.
func (f *fields) next() (key, value []byte, ok bool) {
	i := skipSpace(f.b, f.i)
	if i < len(f.b) && f.b[i] == ',' {
		i = skipSpace(f.b, i+1)
	}
	if i >= len(f.b) || f.b[i] != '"' {
		return nil, nil, false
	}
	end, escaped := stringEnd(f.b, i+1)
	if end < 0 {
		return nil, nil, false
	}
	key = f.b[i+1 : end]
	if escaped {
		key = f.decodeKey(key)
	}
	i = skipSpace(f.b, end+1)
	if i >= len(f.b) || f.b[i] != ':' {
		return nil, nil, false
	}
	i = skipSpace(f.b, i+1)
	f.i = passValue(f.b, i)
	return key, f.b[i:f.i], i < f.i
}

// decodeKey decodes a key that has escapes. What cannot be one of ours is left as it stands: with its backslash it
// equals no name of ours.
func (f *fields) decodeKey(raw []byte) []byte {
	if len(raw) > 6*len(f.key) { // the longest spelling of one byte is \u0061
		return raw
	}
	key, ok := unescape(f.key[:0], raw)
	if !ok || len(key) > len(f.key) {
		return raw
	}
	return key
}

// stringEnd gives the index of the quote that ends the string whose first byte is at i, -1 if there is none, and whether
// the string has escapes.
func stringEnd(b []byte, i int) (end int, escaped bool) {
	n := bytes.IndexByte(b[i:], '"')
	if n < 0 {
		return -1, false
	}
	end = i + n
	slash := bytes.IndexByte(b[i:end], '\\')
	if slash < 0 {
		return end, false
	}
	for i += slash; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i, true
		case '\\':
			i++
		}
	}
	return -1, true
}

// passValue gives the index after the value at i.
func passValue(b []byte, i int) int {
	if i >= len(b) {
		return i
	}
	switch b[i] {
	case '"':
		if end, _ := stringEnd(b, i+1); end >= 0 {
			return end + 1
		}
		return len(b)
	case '{', '[':
		return passNested(b, i)
	}
	for i < len(b) {
		switch b[i] {
		case ',', '}', ']', ' ', '\t', '\n', '\r':
			return i
		}
		i++
	}
	return i
}

// passNested gives the index after the object or array at i.
func passNested(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			end, _ := stringEnd(b, i+1)
			if end < 0 {
				return len(b)
			}
			i = end
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return i
}

// nestedDeeper reports whether the value b has more than limit levels.
func nestedDeeper(b []byte, limit int) bool {
	if len(b) <= 2*limit { // every level has an opening and a closing byte
		return false
	}
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			end, _ := stringEnd(b, i+1)
			if end < 0 {
				return false
			}
			i = end
		case '{', '[':
			if depth++; depth > limit {
				return true
			}
		case '}', ']':
			depth--
		}
	}
	return false
}

// elements walks the elements of an array.
type elements struct {
	b []byte
	i int
}

func openElements(value []byte) (e elements, ok bool) {
	return elements{value, 1}, len(value) > 0 && value[0] == '['
}

func (e *elements) next() (value []byte, ok bool) {
	i := skipSpace(e.b, e.i)
	if i < len(e.b) && e.b[i] == ',' {
		i = skipSpace(e.b, i+1)
	}
	if i >= len(e.b) || e.b[i] == ']' {
		return nil, false
	}
	e.i = passValue(e.b, i)
	return e.b[i:max(i, e.i)], i < e.i
}

// maxSeq is the first number that is no sequence number: above it a double, and so JavaScript, loses integers.
const maxSeq = 1 << 53

// readInt reads an integer of 64 bits. 3.0 and 3e0 are none.
func readInt(value []byte) (n int64, ok bool) {
	digits, negative := value, false
	if len(digits) > 0 && digits[0] == '-' {
		digits, negative = digits[1:], true
	}
	if len(digits) == 0 || len(digits) > 19 {
		return 0, false
	}
	var u uint64 // 19 digits fit
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		u = u*10 + uint64(c-'0')
	}
	if negative {
		return -int64(u), u <= 1<<63
	}
	return int64(u), u < 1<<63
}

// readSeq reads a sequence number, 0 ≤ n < 2^53.
func readSeq(value []byte) (n uint64, ok bool) {
	i, ok := readInt(value)
	return uint64(i), ok && i >= 0 && i < maxSeq
}

// readLimit reads a limit or window: above most it is clamped, below 1 it is refused.
func readLimit(value []byte, most int) (n int, ok bool) {
	i, ok := readInt(value)
	if !ok && len(value) > 18 && len(bytes.Trim(value, "0123456789")) == 0 { // beyond 64 bits is above most too
		return most, true
	}
	return int(min(i, int64(most))), ok && i >= 1
}

// readBool reads true or false.
func readBool(value []byte) (is, ok bool) {
	return string(value) == "true", string(value) == "true" || string(value) == "false"
}

// readText reads a string: it aliases value unless that has escapes. A lone surrogate is refused.
func readText(value []byte) (text []byte, ok bool) {
	if len(value) < 2 || value[0] != '"' {
		return nil, false
	}
	raw := value[1 : len(value)-1]
	if end, escaped := stringEnd(value, 1); end == len(value)-1 && !escaped {
		return raw, true
	}
	return unescape(make([]byte, 0, len(raw)), raw)
}

// readName reads a name of 1 to most bytes: a string, or an integer, which means its decimal digits.
func readName(value []byte, most int) (name []byte, ok bool) {
	if len(value) == 0 {
		return nil, false
	}
	if value[0] == '"' {
		if len(value) > 6*most+2 { // even if every byte were written as \u0061 it would be too long
			return nil, false
		}
		name, ok = readText(value)
		return name, ok && validName(name, most)
	}
	if string(value) == "-0" {
		return value[1:], true
	}
	for i, c := range value {
		if (c < '0' || c > '9') && (c != '-' || i > 0) {
			return nil, false
		}
	}
	return value, len(value) <= most
}
